"""A changed budget or granularity costs no forward pass, and a cache never breaks a call."""

from __future__ import annotations

import logging
import multiprocessing
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cprs_core import CascadeScorer, Compressor, InputError, KeywordScorer, LexicalRanker, ScoreCache
from cprs_core.cache import cache_key
from tests.core.slow import Clock, SlowScorer
from tests.core.test_reading import NEEDLE, haystack

QUERY = "Who signed the lease?"


@pytest.fixture(params=["memory", "file"])
def make_cache(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., ScoreCache]:
    """Makes caches of one kind; those in a file share it."""
    path = tmp_path / "scores.sqlite" if request.param == "file" else None
    return lambda **options: ScoreCache(path=path, **options)


def keywords() -> KeywordScorer:
    return KeywordScorer("lease", window_tokens=128)


def arrays(size: int, value: int = 1) -> dict[str, np.ndarray]:
    return {"scores": np.full(size, value, dtype=np.uint8)}


@pytest.mark.parametrize(
    "options", [{"max_tokens": 20}, {"ratio": 0.5}, {"threshold": 0.01}, {"granularity": "paragraph"}, {}]
)
def test_another_budget_or_granularity_reads_nothing(make_cache: Callable[..., ScoreCache], options: dict) -> None:
    scorer, text = keywords(), haystack(40, 80)
    instruction = "supporting_facts"  # a preset brings its tags along, whatever the granularity
    cached = Compressor(scorer, cache=make_cache())
    cached.compress([text, NEEDLE], QUERY, instruction=instruction, max_tokens=100)
    read = scorer.windows_scored
    result = cached.compress([text, NEEDLE], QUERY, instruction=instruction, **options)
    fresh = Compressor(keywords()).compress([text, NEEDLE], QUERY, instruction=instruction, **options)
    assert scorer.windows_scored == read
    assert (result.usage.cached, result.usage.windows_read) == (True, 0)
    assert result.spans == fresh.spans
    assert result.text == fresh.text
    assert result.usage.documents == fresh.usage.documents


@pytest.mark.parametrize(
    ("documents", "query", "instruction"),
    [
        (["The lease. "], QUERY, "Extract facts."),
        (["The lease.", ""], QUERY, "Extract facts."),
        (["The lease."], "Who signed the lease", "Extract facts."),
        (["The lease."], QUERY, "Extract fact."),
    ],
)
def test_anything_else_that_differs_is_read(
    make_cache: Callable[..., ScoreCache], documents: list[str], query: str, instruction: str
) -> None:
    compressor = Compressor(keywords(), cache=make_cache())
    compressor.compress(["The lease."], QUERY, instruction="Extract facts.")
    assert not compressor.compress(documents, query, instruction=instruction).usage.cached


def test_texts_and_words_cannot_run_into_each_other() -> None:
    keys = {
        cache_key("a", ["b", "c"], "d"),
        cache_key("a", ["bc"], "d"),
        cache_key("a", ["c"], "d", "b"),
        cache_key("a", ["b", "c", "d"]),
        cache_key("ab", ["c"], "d"),
        cache_key("a", ["\ud800"], "d"),
    }
    assert len(keys) == 6


def test_another_critic_is_another_entry(make_cache: Callable[..., ScoreCache]) -> None:
    for scorer in (
        keywords(),
        KeywordScorer("signed", window_tokens=128),
        CascadeScorer(LexicalRanker(), keywords()),
        CascadeScorer(LexicalRanker(), keywords(), recall_risk=0.02),
    ):
        result = Compressor(scorer, cache=make_cache()).compress("The lease was signed.", QUERY)
        assert not result.usage.cached


def test_the_embedded_critic_is_known_by_its_content(embedded: Compressor, tmp_path: Path) -> None:
    again = Compressor.from_pretrained(device="cpu")
    assert again.scorer.fingerprint == embedded.scorer.fingerprint  # type: ignore[attr-defined]
    path = tmp_path / "scores.sqlite"
    first = Compressor(embedded.scorer, cache=ScoreCache(path=path)).compress(NEEDLE, QUERY, max_tokens=30)
    second = Compressor(again.scorer, cache=ScoreCache(path=path)).compress(NEEDLE, QUERY, max_tokens=50)
    assert second.usage.cached
    assert second.spans == first.spans


def test_a_scorer_without_a_fingerprint_is_never_cached() -> None:
    class Nameless(KeywordScorer):
        fingerprint = ""

    compressor = Compressor(Nameless("lease"), cache=ScoreCache())
    assert [compressor.compress("The lease.", QUERY).usage.cached for _ in range(2)] == [False, False]


def test_what_a_deadline_cut_short_is_not_kept() -> None:
    clock = Clock()
    scorer = SlowScorer("lease", clock=clock, tokens_per_second=1_000)
    compressor = Compressor(scorer, cache=ScoreCache(), clock=clock)
    assert not compressor.compress(haystack(5), QUERY, deadline=0.5).usage.complete
    assert compressor.compress(haystack(5), QUERY).usage.complete
    known = compressor.compress(haystack(5), QUERY, deadline=0)
    assert (known.usage.cached, known.usage.complete) == (True, True)


def test_what_was_not_used_for_longest_goes_first(make_cache: Callable[..., ScoreCache]) -> None:
    cache = make_cache(max_bytes=10_000)
    for name in (b"a", b"b", b"c"):
        cache.put(name, arrays(3_000))
    assert cache.get(b"a") is not None
    cache.put(b"d", arrays(3_000))
    assert [cache.get(name) is not None for name in (b"a", b"b", b"c", b"d")] == [True, False, True, True]


def test_what_is_too_large_is_not_kept_and_costs_nothing_else(make_cache: Callable[..., ScoreCache]) -> None:
    cache = make_cache(max_bytes=10_000)
    cache.put(b"a", arrays(3_000))
    cache.put(b"b", arrays(30_000))
    assert cache.get(b"a") is not None
    assert cache.get(b"b") is None


def test_clear_forgets_everything(make_cache: Callable[..., ScoreCache]) -> None:
    cache = make_cache()
    cache.put(b"a", arrays(10))
    cache.clear()
    assert cache.get(b"a") is None


def test_what_comes_back_cannot_be_changed(make_cache: Callable[..., ScoreCache]) -> None:
    cache = make_cache()
    cache.put(b"a", arrays(10))
    found = cache.get(b"a")
    assert found is not None
    with pytest.raises(ValueError, match="read-only"):
        found["scores"][0] = 7


def test_threads_share_a_cache(make_cache: Callable[..., ScoreCache]) -> None:
    cache = make_cache(max_bytes=40_000)

    def use(number: int) -> bool:
        cache.put(bytes([number]), arrays(3_000, number))
        found = cache.get(bytes([number]))
        return found is None or bool((found["scores"] == number).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(use, range(64)))


def _write(path: Path, number: int) -> None:
    cache = ScoreCache(path=path, max_bytes=100_000)
    for step in range(10):
        cache.put(bytes([number, step]), arrays(1_000, number))


def test_processes_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    spawn = multiprocessing.get_context("fork")
    workers = [spawn.Process(target=_write, args=(path, number)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    cache = ScoreCache(path=path, max_bytes=100_000)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    for number in range(3):
        for step in range(10):
            found = cache.get(bytes([number, step]))
            assert found is not None
            assert (found["scores"] == number).all()


def test_many_may_open_a_new_file_at_the_same_moment(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    together = threading.Barrier(4)

    def put(number: int) -> None:
        for n in range(25):
            cache = ScoreCache(path=tmp_path / f"{n}.sqlite")
            together.wait(60)
            cache.put(bytes([number]), arrays(10, number))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put, range(4)))
    assert caplog.text == ""
    assert all(ScoreCache(path=tmp_path / f"{n}.sqlite").get(bytes([number])) for n in range(25) for number in range(4))


def test_a_file_that_is_no_cache_is_put_aside_and_begun_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "scores.sqlite"
    path.write_bytes(b"this is no database" * 400)
    compressor = Compressor(keywords(), cache=ScoreCache(path=path))
    with caplog.at_level(logging.WARNING):
        assert NEEDLE.strip() in compressor.compress(NEEDLE, QUERY).text
    assert "is damaged" in caplog.text
    assert (tmp_path / "scores.sqlite.damaged").read_bytes().startswith(b"this is no database")
    compressor.compress(NEEDLE, QUERY)
    assert compressor.compress(NEEDLE, QUERY).usage.cached


def test_a_cut_file_does_not_break_a_call(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    cache = ScoreCache(path=path)
    for number in range(20):
        cache.put(bytes([number]), arrays(5_000, number))
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    compressor = Compressor(keywords(), cache=cache)
    results = [compressor.compress(NEEDLE, QUERY) for _ in range(3)]
    assert results[-1].usage.cached
    assert all(result.spans == results[0].spans for result in results)


def test_a_damaged_entry_is_computed_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "scores.sqlite"
    compressor = Compressor(keywords(), cache=ScoreCache(path=path))
    expected = compressor.compress(NEEDLE, QUERY)
    with sqlite3.connect(path) as database:
        (data,) = database.execute("SELECT arrays FROM entries").fetchone()
        broken = bytearray(data)
        broken[len(broken) // 3] ^= 0xFF
        database.execute("UPDATE entries SET arrays = ?", (bytes(broken),))
    database.close()
    with caplog.at_level(logging.WARNING):
        result = compressor.compress(NEEDLE, QUERY)
    assert not result.usage.cached
    assert result.spans == expected.spans
    assert "computed again" in caplog.text
    assert compressor.compress(NEEDLE, QUERY).usage.cached


@pytest.mark.parametrize("place", ["missing/folder/scores.sqlite", "."])
def test_where_nothing_can_be_written_calls_go_on(tmp_path: Path, place: str, caplog: pytest.LogCaptureFixture) -> None:
    compressor = Compressor(keywords(), cache=ScoreCache(path=tmp_path / place))
    with caplog.at_level(logging.WARNING):
        results = [compressor.compress(NEEDLE, QUERY) for _ in range(2)]
    assert all(NEEDLE.strip() in result.text for result in results)
    assert caplog.text.count("going on without") == 1


def test_a_full_disk_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "scores.sqlite"
    cache = ScoreCache(path=path)
    cache.put(b"a", arrays(100))
    with sqlite3.connect(path) as database:
        pages = database.execute("PRAGMA page_count").fetchone()[0]
    database.close()
    full = _FullDisk(path, pages)
    with caplog.at_level(logging.WARNING):
        full.put(b"b", arrays(1_000_000))
    assert "full" in caplog.text
    assert full.get(b"a") is not None
    assert full.get(b"b") is None


class _FullDisk(ScoreCache):
    """A cache whose file may not grow beyond so many pages: SQLite then fails as it does on a full disk."""

    def __init__(self, path: Path, pages: int) -> None:
        from cprs_core.cache import _File

        super().__init__(path=path)

        class Full(_File):
            _PRAGMAS = (*_File._PRAGMAS, f"PRAGMA max_page_count = {pages + 2}")

        self._store = Full(path, self.max_bytes)


def test_a_file_that_can_only_be_read_is_read(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    Compressor(keywords(), cache=ScoreCache(path=path)).compress(NEEDLE, QUERY)
    path.chmod(0o444)
    compressor = Compressor(keywords(), cache=ScoreCache(path=path))
    assert compressor.compress(NEEDLE, QUERY).text == NEEDLE.strip()
    assert compressor.compress("A new lease.", QUERY).text == "A new lease."


@pytest.mark.parametrize("size", [0, -1])
def test_a_cache_of_no_bytes_is_refused(size: int) -> None:
    with pytest.raises(InputError, match="leave the cache out for none"):
        ScoreCache(max_bytes=size)


def test_hops_start_from_cached_scores_and_leave_them_as_they_were() -> None:
    text = haystack(20, 40) + "The lease of Ada moved to shelf_42. " + haystack(0, 30)[len(NEEDLE) :] + "See shelf_42."
    cached, fresh = Compressor(keywords(), cache=ScoreCache()), Compressor(keywords())
    for hops in (2, 1, 2):
        result = cached.compress(text, QUERY, max_tokens=60, hops=hops)
        assert result.spans == fresh.compress(text, QUERY, max_tokens=60, hops=hops).spans
    assert result.usage.cached
