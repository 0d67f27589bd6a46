"""Texts read part by part while a device scores: everything comes out as if they had been read whole."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cprs_core import CascadeScorer, Compressor, KeywordScorer, LexicalRanker, Prefix
from cprs_core.context import Context, read_context
from cprs_core.critics.chat_tokenizer import ChatTokenizer
from cprs_core.critics.wordpiece import WordPieceTokenizer
from cprs_core.errors import NonFiniteScoresError
from cprs_core.overlap import PART_CHARACTERS, cut, overlaps, read_overlapped
from cprs_core.reading import Reading, read_windows
from cprs_core.scale.spread import SpreadScorer
from cprs_core.scorer import OnProgress, Tokenizer, Tokens, WordTokenizer
from cprs_core.stopwatch import Stopwatch
from cprs_core.windows import WindowPlanner, Windows, plan_windows
from tests.core.test_windows import plans
from tests.core.texts import any_text
from tests.core.tiny import tiny_tokenizer
from tests.core.tiny_hybrid import tiny_chat_tokenizer

TOKENIZERS: dict[str, Tokenizer] = {
    "words": WordTokenizer(),
    "WordPiece": WordPieceTokenizer(tiny_tokenizer()),
    "byte-level BPE": ChatTokenizer(tiny_chat_tokenizer()),
}

breaks = st.sampled_from(
    [
        "\n\n",
        "\n\n\n",
        "\r\n\r\n",
        "\r\r",
        "\n \n",
        "\n\t\r\n",
        "\n\n  ",
        "\n\x0b\n",
        "\n\u2028\n",
        "\n\u3000\n",
        "\n",
        " ",
    ]
)
blocks = st.one_of(
    any_text,
    st.sampled_from(["Ada signed the lease. It rained.", "- item", "  indented", "7 lines", "租约", "\u0301x", ""]),
)
broken_text = st.lists(st.tuples(blocks, breaks), max_size=10).map(lambda pairs: "".join(map("".join, pairs)))
documents = st.lists(broken_text, max_size=4)

HAY = "It rained all day and nobody came to the harbour at Northolt."


class ApartScorer(KeywordScorer):
    """A `KeywordScorer` that says its windows run on a device of their own; knows how many windows came together."""

    overlaps = True

    def __init__(self, *words: str, tokenizer: Tokenizer | None = None, batch_tokens: int = 64) -> None:
        super().__init__(*words, window_tokens=128)
        self.batch_tokens = batch_tokens
        self.lots: list[int] = []
        self._tokenizer = tokenizer

    @property
    def tokenizer(self) -> Tokenizer:  # type: ignore[override]
        return self._tokenizer or self.words

    @tokenizer.setter
    def tokenizer(self, words: WordTokenizer) -> None:
        self.words = words

    def score(
        self, prefix: Prefix, windows: Sequence[NDArray[np.int32]], on_progress: OnProgress | None = None
    ) -> list[NDArray[np.float32]]:
        self.lots.append(len(windows))
        wanted = prefix.ids[:3]
        hits = [np.isin(window, wanted) for window in windows]
        done, total = 0, sum(map(len, windows))
        for window in windows if on_progress is not None else []:
            done += len(window)
            on_progress(done, total)  # type: ignore[misc]
        return [np.stack([hit, 0 * hit, ~hit, 0 * hit], axis=1).astype(np.float32) for hit in hits]


class NotANumber(ApartScorer):
    """Fails at windows that hold the token of "poison"."""

    def score(
        self, prefix: Prefix, windows: Sequence[NDArray[np.int32]], on_progress: OnProgress | None = None
    ) -> list[NDArray[np.float32]]:
        bad = self.tokenizer.encode("poison").ids[0]
        for index, window in enumerate(windows):
            if bad in window:
                raise NonFiniteScoresError("double", "float32", index, window)
        return super().score(prefix, windows, on_progress)


class BrokenTokenizer(WordTokenizer):
    """Fails at texts that hold "poison"."""

    def encode(self, text: str) -> Tokens:
        if "poison" in text:
            raise ValueError("cannot tokenise this")
        return super().encode(text)


def prefix_of(tokenizer: Tokenizer) -> Prefix:
    return tokenizer.encode_prefix("Extract.", "Who signed the lease?", ("fact",))


def read_whole(texts: list[str], scorer: KeywordScorer, capacity: int) -> tuple[Context, Windows, Reading]:
    context = read_context(texts, scorer.tokenizer)
    starts = context.first_tokens(context.sentences[:, 0])
    windows = plan_windows(starts, len(context.ids), capacity, overlap=capacity // 4)
    slices = [context.ids[a:b] for a, b in windows.tolist()]
    return context, windows, read_windows(scorer, prefix_of(scorer.tokenizer), slices)


def long_texts(parts: int = 6, needle: int = 4) -> list[str]:
    """Two documents of numbered blocks, more than ``parts`` parts together."""
    count = parts * PART_CHARACTERS // len(HAY)
    blocks = [f"{index} {HAY}\n\n" for index in range(count)]
    blocks[needle * count // parts] = "Ada signed the lease on Monday.\n\n"
    return ["".join(blocks[: count // 3]), "".join(blocks[count // 3 :])]


def reading_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("cprs-read")]


@pytest.mark.parametrize("name", TOKENIZERS)
@given(texts=documents, characters=st.integers(1, 80), capacity=st.integers(4, 40))
@settings(max_examples=120, deadline=None)
def test_reading_in_parts_finds_what_reading_whole_finds(
    name: str, texts: list[str], characters: int, capacity: int
) -> None:
    tokenizer = TOKENIZERS[name]
    scorer = ApartScorer(tokenizer=tokenizer, batch_tokens=8)
    context, windows, reading = read_overlapped(
        texts, scorer, prefix_of(tokenizer), capacity, Stopwatch(), part_characters=characters
    )
    whole, whole_windows, whole_reading = read_whole(texts, scorer, capacity)
    for field in ("document_bounds", "ids", "starts", "ends", "sentences"):
        ours, theirs = getattr(context, field), getattr(whole, field)
        assert np.array_equal(ours, theirs), field
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
    assert np.array_equal(windows, whole_windows)
    assert windows.dtype == whole_windows.dtype
    assert reading.windows_read == whole_reading.windows_read
    assert len(reading.rows) == len(whole_reading.rows)
    assert all(np.array_equal(*pair) for pair in zip(reading.rows, whole_reading.rows, strict=True))


@given(texts=documents, characters=st.integers(1, 80))
@settings(max_examples=150, deadline=None)
def test_parts_are_the_texts_and_no_part_but_the_first_and_the_last_is_short(texts: list[str], characters: int) -> None:
    parts = list(cut(texts, characters))
    assert "".join("".join(part) for part in parts) == "".join(texts)
    assert all(sum(map(len, part)) >= characters for part in parts[1:-1])
    assert sum(len(part) for part in parts) >= len(texts)


def test_small_documents_make_one_part_and_a_text_without_blank_lines_too() -> None:
    assert list(cut(["a"] * 10, 100)) == [["a"] * 10]
    assert list(cut(["lease\n" * 100], 100)) == [["lease\n" * 100]]


@given(plans(), st.lists(st.integers(0, 200), max_size=5))
@settings(max_examples=300, deadline=None)
def test_windows_planned_bit_by_bit_are_those_planned_at_once(
    plan: tuple[NDArray[np.int64], int, int, int], cuts: list[int]
) -> None:
    starts, tokens, capacity, overlap = plan
    starts = starts[starts <= tokens]
    planner = WindowPlanner(capacity, overlap)
    planned, before = [], -1
    for known in [*sorted(position for position in cuts if position < tokens), tokens]:
        is_new = (starts >= before) & ((starts < known) | (known == tokens))
        planned.append(planner.add(starts[is_new], known))
        assert planner.start <= known
        before = known
    planned.append(planner.finish())
    assert np.concatenate(planned).tolist() == plan_windows(starts, tokens, capacity, overlap).tolist()


def test_a_long_text_is_scored_in_several_lots_and_comes_out_as_on_a_cpu() -> None:
    texts = long_texts()
    apart, plain = ApartScorer(), ApartScorer()
    plain.overlaps = False
    ours, theirs = (Compressor(s).compress(texts, "lease signed", max_tokens=40) for s in (apart, plain))
    assert len(apart.lots) > 1
    assert len(plain.lots) == 1
    assert sum(apart.lots) == plain.lots[0]
    assert ours.spans == theirs.spans
    assert "Ada signed the lease" in ours.text
    assert ours.usage.windows == theirs.usage.windows
    assert set(ours.usage.stage_seconds) == {"tokenize", "segment", "score", "select"}
    assert not reading_threads()


def test_lots_hold_at_least_two_batches() -> None:
    scorer = ApartScorer(batch_tokens=100_000)
    Compressor(scorer).compress(long_texts(), "lease", max_tokens=40)
    capacity = 128 - len(scorer.tokenizer.encode_prefix("Extract", "lease", ("fact",)))
    assert len(scorer.lots) > 1
    assert all(lot * (capacity + 20) > 150_000 for lot in scorer.lots[:-1])


def test_no_device_waits_for_another_until_the_last_lot() -> None:
    devices = [ApartScorer() for _ in range(3)]
    texts = ["\n\n".join(f"{HAY} {number}" for number in range(4 * PART_CHARACTERS // len(HAY)))]
    Compressor(SpreadScorer(devices)).compress(texts, "lease", max_tokens=40)
    assert len(devices[0].lots) > 2
    for lots in zip(*(device.lots[:-1] for device in devices), strict=True):
        assert len(set(lots)) == 1


def test_equal_windows_of_different_parts_are_scored_once() -> None:
    block = f"{HAY}\n\n"
    texts = [block * (4 * PART_CHARACTERS // len(block))] * 2
    scorer = ApartScorer()
    usage = Compressor(scorer).compress(texts, "lease", max_tokens=40).usage
    assert usage.windows_read == sum(scorer.lots) < 10
    assert usage.windows > 1_000


def test_progress_grows_and_ends_with_every_token() -> None:
    seen: list[tuple[int, int]] = []
    scorer = ApartScorer()
    texts = long_texts()
    Compressor(scorer).compress(texts, "lease", max_tokens=40, on_progress=lambda *call: seen.append(call))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert all(done <= total for done, total in seen)
    assert seen[-1][0] == seen[-1][1]
    assert seen[0][1] == pytest.approx(seen[-1][1], rel=0.05)  # estimated from the first part
    assert all(done < total for done, total in seen[:-1])


def test_scores_that_are_no_numbers_name_the_window_of_the_call_and_its_document() -> None:
    texts = long_texts()
    texts[1] = texts[1].replace("Ada signed", "poison Ada signed")
    apart, plain = NotANumber(), NotANumber()
    plain.overlaps = False
    messages = []
    for scorer in (apart, plain):
        with pytest.raises(NonFiniteScoresError, match=r"documents\[1\]") as caught:
            Compressor(scorer).compress(texts, "lease", max_tokens=40)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert len(apart.lots) > 0
    assert not reading_threads()


def test_an_error_of_the_tokenizer_reaches_the_caller() -> None:
    texts = long_texts()
    texts[1] += "poison"
    with pytest.raises(ValueError, match="cannot tokenise this"):
        Compressor(ApartScorer(tokenizer=BrokenTokenizer())).compress(texts, "lease", max_tokens=40)
    assert not reading_threads()


def test_a_caller_who_raises_in_the_progress_callback_stops_everything() -> None:
    class Enough(Exception):
        pass

    def stop(done: int, total: int) -> None:
        raise Enough

    scorer = ApartScorer()
    with pytest.raises(Enough):
        Compressor(scorer).compress(long_texts(), "lease", max_tokens=40, on_progress=stop)
    assert len(scorer.lots) == 1
    assert not reading_threads()


def test_several_threads_read_at_once() -> None:
    compressor, texts = Compressor(ApartScorer()), long_texts(3, 2)
    wanted = compressor.compress(texts, "lease signed", max_tokens=40).spans
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: compressor.compress(texts, "lease signed", max_tokens=40).spans, range(3)))
    assert found == [wanted] * 3


def test_only_long_texts_of_scorers_on_a_device_of_their_own_are_read_in_parts() -> None:
    long, short = ["x" * (PART_CHARACTERS + 1)], ["x"]
    assert overlaps(ApartScorer(), long)
    assert not overlaps(ApartScorer(), short)
    assert not overlaps(KeywordScorer("a"), long)
    assert not overlaps(CascadeScorer(LexicalRanker(), ApartScorer()), long)
    assert overlaps(SpreadScorer([ApartScorer(), ApartScorer()]), long)
    assert not overlaps(SpreadScorer([ApartScorer(), KeywordScorer("a", window_tokens=128)]), long)


def test_a_deadline_reads_whole_texts() -> None:
    scorer = ApartScorer(batch_tokens=10_000_000)
    result = Compressor(scorer).compress(long_texts(2, 1), "lease signed", max_tokens=40, deadline=3_600)
    assert "Ada signed the lease" in result.text
    assert sum(scorer.lots) == result.usage.windows_read


def test_a_text_of_blanks_has_nothing_to_score() -> None:
    scorer = ApartScorer()
    assert Compressor(scorer).compress(["\n" * (2 * PART_CHARACTERS)], "lease", max_tokens=4).text == ""
    assert scorer.lots == []
