"""Streams: the selection of `compress`, from documents that arrive one after the other."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cprs_core import (
    CascadeScorer,
    CheckpointError,
    Compression,
    Compressor,
    Document,
    InputError,
    KeywordScorer,
    LexicalRanker,
    StreamError,
)
from cprs_core.evaluation.words import plain_sentence
from cprs_core.inputs import CountTokens, as_document
from cprs_core.scorer import LABELS, OUTSIDE, OnProgress, Prefix, WordTokenizer
from cprs_core.selection import GRANULARITIES
from cprs_core.streaming.parts import PART_CHARACTERS, cut
from tests.core.texts import any_text


class HashScorer:
    """A score of its own for every token of a window, so that what stands in one window matters."""

    labels = LABELS
    thresholds = dict.fromkeys(GRANULARITIES, 0.5)

    def __init__(self, window_tokens: int = 96) -> None:
        self.tokenizer = WordTokenizer()
        self.window_tokens = window_tokens

    def score(
        self, prefix: Prefix, windows: Iterable[np.ndarray], on_progress: OnProgress | None = None
    ) -> list[np.ndarray]:
        scores = []
        for window in windows:
            place = np.arange(len(window))
            keep = ((window * 7_919 + place * 104_729 + len(window)) % 1_009 / 1_009).astype(np.float32)
            rows = np.zeros((len(window), len(LABELS)), dtype=np.float32)
            rows[:, 0], rows[:, OUTSIDE] = keep, 1 - keep
            scores.append(np.tile(rows, (1, len(prefix.tags))))
        return scores


def last(results: Iterable[Compression]) -> Compression:
    return list(results)[-1]


def assert_same(streamed: Compression, whole: Compression) -> None:
    assert streamed.text == whole.text
    assert streamed.spans == whole.spans
    assert [d for d in whole.documents if d.text] == [d for d in streamed.documents if d.text]
    assert (streamed.low_confidence, streamed.best) == (whole.low_confidence, whole.best)
    assert streamed.notice == whole.notice
    assert streamed.usage.input_tokens == whole.usage.input_tokens
    assert streamed.usage.output_tokens == whole.usage.output_tokens
    assert streamed.usage.windows == whole.usage.windows
    assert whole.usage.windows_read <= streamed.usage.windows_read <= streamed.usage.windows


def prose(documents: int, sentences: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(plain_sentence(rng) for _ in range(sentences)) for _ in range(documents)]


@given(
    st.lists(any_text, max_size=8),
    st.sampled_from([*GRANULARITIES, "auto"]),
    st.none() | st.integers(1, 60),
    st.none() | st.sampled_from([0.3, 0.6]),
)
@settings(max_examples=80, deadline=None)
def test_a_stream_ends_with_the_selection_of_compress(
    texts: list[str], granularity: str, max_tokens: int | None, threshold: float | None
) -> None:
    compressor = Compressor(HashScorer())
    options = {"granularity": granularity, "max_tokens": max_tokens, "threshold": threshold}
    whole = compressor.compress(texts, "q", **options)
    assert_same(last(compressor.compress_stream(texts, "q", memory_tokens=96, **options)), whole)


@pytest.mark.parametrize("count_tokens", [None, lambda text: len(text.split())])
def test_what_comes_nearest_fits_the_budget_although_better_text_does_not(count_tokens: CountTokens | None) -> None:
    compressor = Compressor(KeywordScorer("lease"))
    texts = ["Rain.", "The lease was signed."]
    options = {"max_tokens": 3, "threshold": 0.1, "count_tokens": count_tokens}
    whole = compressor.compress(texts, "q", **options)
    streamed = last(compressor.compress_stream(texts, "q", memory_tokens=512, **options))
    assert_same(streamed, whole)
    assert streamed.best is not None
    assert streamed.best.text == "Rain."
    cheapest = 5 if count_tokens is None else 4
    assert streamed.notice == f"the budget of 3 tokens is below the shortest segment that matches ({cheapest} tokens)"


@pytest.mark.parametrize("max_tokens", [5, 10, 400])
@pytest.mark.parametrize("count_tokens", [None, len, lambda text: len(text) // 4, lambda text: 2 * len(text) + 3])
def test_budgets_that_the_best_do_not_fit_end_with_the_selection_of_compress(
    max_tokens: int, count_tokens: CountTokens | None
) -> None:
    lease = Compressor(KeywordScorer("lease", window_tokens=96))
    for short in ("The lease.", "It is."):
        documents = ["A lease " + "of the house by the river " * (9 - n % 7) + "." for n in range(400)] + [short] * 9
        whole = lease.compress(documents, "q", max_tokens=max_tokens, count_tokens=count_tokens)
        streamed = last(
            lease.compress_stream(documents, "q", max_tokens=max_tokens, count_tokens=count_tokens, memory_tokens=96)
        )
        assert_same(streamed, whole)
        assert whole.usage.output_tokens <= max_tokens
        assert whole.spans or whole.best is None, "something fits, so it is kept"


@pytest.mark.parametrize("granularity", [*GRANULARITIES])
@pytest.mark.parametrize("max_tokens", [None, 1, 500])
def test_thousands_of_tiny_documents_end_with_the_selection_of_compress(
    granularity: str, max_tokens: int | None
) -> None:
    texts = prose(500, 1) + [""] * 99 + prose(2, 200, seed=1)
    compressor = Compressor(HashScorer())
    whole = compressor.compress(texts, "q", granularity=granularity, max_tokens=max_tokens)
    results = compressor.compress_stream(
        texts, "q", granularity=granularity, max_tokens=max_tokens, memory_tokens=2_000
    )
    assert_same(last(results), whole)


@pytest.mark.parametrize("granularity", ["sentence", "line", "paragraph", "document"])
def test_a_document_longer_than_the_memory_ends_with_the_selection_of_compress(granularity: str) -> None:
    text = "\n\n".join(prose(34, 120))
    assert len(list(cut(Document(text), 0))) > 2
    compressor = Compressor(HashScorer())
    whole = compressor.compress([text, "The end."], "q", granularity=granularity, max_tokens=300)
    results = list(
        compressor.compress_stream(
            [text, "The end."], "q", granularity=granularity, max_tokens=300, memory_tokens=9_000
        )
    )
    assert granularity == "document" or len(results) > 2
    assert_same(results[-1], whole)


def test_the_embedded_critic_ends_with_the_selection_of_compress(embedded: Compressor) -> None:
    texts = ["Ada signed the lease in 1912.", *prose(5, 12), "Bob signed the bill."]
    whole = embedded.compress(texts, "Who signed the lease?", max_tokens=100)
    streamed = last(embedded.compress_stream(texts, "Who signed the lease?", max_tokens=100, memory_tokens=600))
    assert streamed.text == whole.text
    assert [s.score for s in streamed.spans] == pytest.approx([s.score for s in whole.spans], abs=1e-4)


@given(any_text.map(lambda text: text * 40))
@settings(max_examples=30, deadline=None)
def test_parts_lie_end_to_end(text: str) -> None:
    parts = list(cut(Document(text * (1 + 3 * PART_CHARACTERS // max(1, len(text)))), 3))
    assert "".join(part.text for part in parts) == parts[0].document.text
    assert all(part.end - part.start <= 2 * PART_CHARACTERS for part in parts)


@pytest.mark.parametrize("blanks", ["\n", " ", "\n ", "\r\n", "\u3000"])
def test_a_megabyte_of_blanks_is_cut_like_any_text(blanks: str) -> None:
    text = "a" + blanks * (1_000_000 // len(blanks)) + "b"  # hours, if every blank were a place to begin from
    parts = list(cut(Document(text), 0))
    assert "".join(part.text for part in parts) == text
    assert all(part.end - part.start <= 2 * PART_CHARACTERS for part in parts)


def test_a_stream_reads_equal_windows_of_a_batch_once_and_in_a_cascade_only_those_that_may_matter() -> None:
    copies = ["The heron stood in the reeds. " * 60] * 30
    result = last(Compressor(KeywordScorer("lease")).compress_stream(copies, "Who signed the lease?", max_tokens=50))
    assert result.usage.windows_read < result.usage.windows
    texts = [*prose(20, 60), "Ada signed the lease.", *prose(20, 60, seed=1)]
    cascade = Compressor(CascadeScorer(LexicalRanker(), KeywordScorer("lease"), recall_risk=0.01))
    result = last(cascade.compress_stream(texts, "Who signed the lease?", max_tokens=50))
    assert "Ada signed the lease." in result.text
    assert 0 < result.usage.windows_read < result.usage.windows / 2


def test_every_result_is_the_best_so_far(lease: Compressor) -> None:
    texts = [*prose(6, 60), "Ada signed the lease.", *prose(6, 60, seed=1), "Bob broke the lease."]
    results = list(lease.compress_stream(texts, "q", memory_tokens=600))
    assert len(results) > 3
    assert [len(result.spans) for result in results] == sorted(len(result.spans) for result in results)
    assert results[0].text == ""
    assert results[-1].text == "Ada signed the lease.\n\nBob broke the lease."
    assert [span.document_index for span in results[-1].spans] == [6, 13]
    assert len(results[-1].documents) == 2


def test_documents_are_read_when_their_turn_comes_and_not_held() -> None:
    alive: list[int] = []
    taken = 0

    def documents() -> Iterator[str]:
        nonlocal taken
        for text in prose(400, 20):
            taken += 1
            yield text

    compressor = Compressor(KeywordScorer("heron"))
    stream = compressor._stream("q", None, "sentence", 50, None, None, 1_000, None, None)
    for _ in stream.run(documents()):
        alive.append(sum(part.end - part.start for part in stream._reader._parts))
        assert taken < 400 or alive
        assert len(stream._reader.selection.pool) <= 50 + 201
    assert len(alive) > 20
    assert max(alive) < 10_000


def test_a_document_of_blanks_makes_no_later_batch_longer(lease: Compressor) -> None:
    documents = [" " * 1_000_000 + "The end.", *["Ada signed the lease. " * 2_000] * 30]
    results = list(lease.compress_stream(documents, "Who signed?", max_tokens=20, memory_tokens=1_000))
    assert len(results) > 15


def test_closing_the_iterator_stops_the_stream(lease: Compressor) -> None:
    results = lease.compress_stream(("The lease. " * 50 for _ in itertools.count()), "q", max_tokens=9)
    assert next(results).text == "The lease. The lease. The lease."
    results.close()  # type: ignore[attr-defined]
    assert list(results) == []


def test_progress_counts_tokens_scored_and_read(lease: Compressor) -> None:
    seen: list[tuple[int, int]] = []
    lease_result = last(
        lease.compress_stream(
            prose(9, 40), "q", memory_tokens=600, on_progress=lambda done, all: seen.append((done, all))
        )
    )
    assert seen == sorted(seen)
    assert seen[-1] == (lease_result.usage.input_tokens, lease_result.usage.input_tokens)


def test_an_error_of_the_iterable_keeps_what_was_read(lease: Compressor) -> None:
    def documents() -> Iterator[str]:
        yield "The lease."
        yield from prose(5, 80)
        raise OSError("the disk went away")

    with pytest.raises(StreamError, match=r"document 6 of the stream .*OSError: the disk went away") as caught:
        list(lease.compress_stream(documents(), "q", memory_tokens=512))
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.document_index == 6
    assert caught.value.partial is not None
    assert caught.value.partial.text == "The lease."


def test_a_thing_that_is_no_document_keeps_what_was_read(lease: Compressor) -> None:
    with pytest.raises(StreamError, match=r"documents\[1\] is of type int") as caught:
        list(lease.compress_stream(["The lease.", 7], "q"))  # type: ignore[list-item]
    assert caught.value.partial is not None
    assert caught.value.partial.text == "The lease."


@pytest.mark.parametrize(
    ("documents", "options", "message"),
    [
        (b"x", {}, "documents is of type bytes"),
        (7, {}, "documents is of type int"),
        (["x"], {"max_tokens": 0}, "max_tokens is 0"),
        (["x"], {"memory_tokens": 10}, "memory_tokens is 10; it must be at least one window"),
        (["x"], {"checkpoint": "/no/such/folder/run.ckpt"}, "folder /no/such/folder does not exist"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_read(
    lease: Compressor, documents: object, options: dict, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        lease.compress_stream(documents, "q", **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        lease.acompress_stream(documents, "q", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("documents", [[], "", ["", " "], iter(())])
def test_an_empty_stream_has_one_empty_result(lease: Compressor, documents: Iterable[str]) -> None:
    (result,) = lease.compress_stream(documents, "q", max_tokens=5)
    assert (result.text, result.notice) == ("", "the documents hold no text")


def test_a_callers_own_counter_holds_the_budget() -> None:
    texts = prose(30, 10)
    compressor = Compressor(HashScorer())

    def words(text: str) -> int:
        return len(text.split())

    whole = compressor.compress(texts, "q", max_tokens=40, count_tokens=words)
    streamed = last(compressor.compress_stream(texts, "q", max_tokens=40, count_tokens=words, memory_tokens=200))
    assert streamed.spans == whole.spans
    assert words(streamed.text) <= 40


# ---- checkpoints


def stopped_after(documents: list[str], count: int) -> Iterator[str]:
    """The documents, and then the machine goes down."""
    yield from documents[:count]
    raise KeyboardInterrupt


@pytest.mark.parametrize("stop", [0, 5, 11, 12, 19])
@pytest.mark.parametrize("threshold", [None, 0.5])
def test_a_killed_run_goes_on_from_its_checkpoint(tmp_path: Path, stop: int, threshold: float | None) -> None:
    texts = [*prose(11, 30), "\n\n".join(prose(30, 120, seed=1)), *prose(8, 30, seed=2)]
    compressor = Compressor(HashScorer())
    path = tmp_path / "run.ckpt"

    def stream(documents: Iterable[str]) -> Iterator[Compression]:
        return compressor.compress_stream(
            documents, "q", max_tokens=200, threshold=threshold, memory_tokens=2_000, checkpoint=path
        )

    with pytest.raises(KeyboardInterrupt):
        list(stream(stopped_after(texts, stop)))
    resumed = list(stream(texts))
    uninterrupted = list(
        compressor.compress_stream(texts, "q", max_tokens=200, threshold=threshold, memory_tokens=2_000)
    )
    assert_same(resumed[-1], uninterrupted[-1])
    assert stop < 11 or len(resumed) < len(uninterrupted)


def test_a_run_stopped_inside_a_long_document_goes_on_inside_it(tmp_path: Path) -> None:
    text = "\n\n".join(prose(34, 120))
    compressor = Compressor(HashScorer())
    results = compressor.compress_stream(
        [text], "q", max_tokens=200, memory_tokens=8_000, checkpoint=tmp_path / "run.ckpt"
    )
    next(results), next(results)
    state = json.loads((tmp_path / "run.ckpt").read_text())
    assert (state["documents_read"], state["part_start"] > 0) == (0, True)
    resumed = compressor.compress_stream(
        [text], "q", max_tokens=200, memory_tokens=8_000, checkpoint=tmp_path / "run.ckpt"
    )
    assert_same(last(resumed), compressor.compress([text], "q", max_tokens=200))


def test_a_finished_run_goes_on_with_documents_of_another_day(tmp_path: Path) -> None:
    texts = prose(20, 30)
    compressor = Compressor(HashScorer())
    options = {"max_tokens": 100, "memory_tokens": 2_000, "checkpoint": tmp_path / "run.ckpt"}
    list(compressor.compress_stream(texts[:12], "q", **options))
    assert_same(
        last(compressor.compress_stream(texts, "q", **options)), compressor.compress(texts, "q", max_tokens=100)
    )


def test_a_checkpoint_holds_no_text_of_documents(tmp_path: Path, lease: Compressor) -> None:
    list(lease.compress_stream(["Ada signed the lease.", *prose(9, 99)], "q", checkpoint=tmp_path / "run.ckpt"))
    written = (tmp_path / "run.ckpt").read_text()
    assert "signed" not in written
    assert list(tmp_path.iterdir()) == [tmp_path / "run.ckpt"]


def test_a_checkpoint_of_another_call_is_refused(tmp_path: Path, lease: Compressor) -> None:
    path = tmp_path / "run.ckpt"
    list(lease.compress_stream(["The lease."], "q", checkpoint=path))
    for query, options in (("another", {}), ("q", {"max_tokens": 5}), ("q", {"granularity": "line"})):
        with pytest.raises(CheckpointError, match="belongs to another call"):
            lease.compress_stream(["The lease."], query, checkpoint=path, **options)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 1}', b"\xff\x00"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, lease: Compressor, content: bytes) -> None:
    (tmp_path / "run.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match="delete it to begin anew"):
        lease.compress_stream(["The lease."], "q", checkpoint=tmp_path / "run.ckpt")


@pytest.mark.parametrize("change", ["last", "kept", "fewer"])
def test_a_checkpoint_of_other_documents_is_refused(tmp_path: Path, lease: Compressor, change: str) -> None:
    texts = ["Some text. The lease.", *prose(9, 99), "The end."]
    options = {"memory_tokens": 600, "checkpoint": tmp_path / "run.ckpt"}
    list(lease.compress_stream(texts, "q", **options))
    behind = json.loads((tmp_path / "run.ckpt").read_text())["documents_read"]
    assert 1 < behind < len(texts)
    texts = {
        "last": [*texts[: behind - 1], "Another.", *texts[behind:]],
        "kept": ["Short.", *texts[1:]],
        "fewer": texts[: behind - 1],
    }[change]
    with pytest.raises(CheckpointError, match="pass the same documents"):
        list(lease.compress_stream(texts, "q", **options))


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_run(
    tmp_path: Path, lease: Compressor, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    results = lease.compress_stream(["The lease."], "q", checkpoint=folder / "run.ckpt")
    folder.rmdir()
    with caplog.at_level(logging.WARNING, logger="cprs_core.streaming.stream"):
        assert last(results).text == "The lease."
    assert "could not be written" in caplog.text


# ---- async


async def test_an_asynchronous_stream_ends_with_the_same_selection() -> None:
    texts = prose(40, 20)
    compressor = Compressor(HashScorer())

    async def arriving() -> AsyncIterator[str]:
        for text in texts:
            yield text

    whole = compressor.compress(texts, "q", max_tokens=100)
    for documents in (arriving(), texts, iter(texts)):
        results = [r async for r in compressor.acompress_stream(documents, "q", max_tokens=100, memory_tokens=500)]
        assert len(results) > 3
        assert_same(results[-1], whole)


async def test_an_error_of_an_asynchronous_iterable_keeps_what_was_read(lease: Compressor) -> None:
    async def arriving() -> AsyncIterator[str]:
        yield "The lease."
        raise OSError("gone")

    with pytest.raises(StreamError, match="document 1 of the stream") as caught:
        async for _ in lease.acompress_stream(arriving(), "q"):
            pass
    assert caught.value.partial is not None
    assert caught.value.partial.text == "The lease."


def test_documents_convert_one_by_one() -> None:
    assert as_document("x", 0) == Document("x")
