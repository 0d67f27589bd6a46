"""Which windows are read: equal ones once, the likeliest first, and none after the deadline."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cprs_core import Compressor, Deadline, DeadlineError, InputError, KeywordScorer
from tests.core.slow import Clock, SlowScorer

HAY = "It rained all day and nobody came to the harbour at Northolt. "
NEEDLE = "Ada signed the lease on Monday. "


def haystack(position: int, sentences: int = 400) -> str:
    """Numbered hay, so that no two windows are equal, with a needle."""
    hay = [f"{index} {HAY}" for index in range(sentences)]
    return "".join([*hay[:position], NEEDLE, *hay[position:]])


def slow(clock: Clock, rate: float = 1_000.0, words: tuple[str, ...] = ("lease",)) -> Compressor:
    return Compressor(SlowScorer(*words, clock=clock, tokens_per_second=rate), clock=clock)


def test_equal_windows_are_read_once() -> None:
    scorer = KeywordScorer("lease", window_tokens=128)
    documents = [haystack(3, 10)] * 500
    result = Compressor(scorer).compress(documents, "lease", granularity="document", max_tokens=10**6)
    assert scorer.windows_scored == result.usage.windows_read < result.usage.windows
    assert len(result.spans) == 500


def test_progress_counts_equal_windows_as_read() -> None:
    seen: list[tuple[int, int]] = []
    text = "Nobody came. " * 2_000
    Compressor(KeywordScorer("lease", window_tokens=128)).compress(
        text, "lease", on_progress=lambda done, total: seen.append((done, total))
    )
    assert seen == sorted(seen)
    assert seen[-1] == (6_000, 6_000)


def test_with_time_enough_a_deadline_changes_nothing() -> None:
    text, clock = haystack(250), Clock()
    in_time = slow(clock).compress(text, "Who signed the lease?", deadline=3_600)
    assert in_time.usage.complete
    assert in_time.usage.windows_read == in_time.usage.windows
    assert in_time.spans == slow(clock).compress(text, "Who signed the lease?").spans


def test_what_shares_most_with_the_query_is_read_first() -> None:
    result = slow(Clock()).compress(haystack(391), "Who signed the lease?", deadline=1.0, max_tokens=20)
    assert not result.usage.complete
    assert 0 < result.usage.windows_read < result.usage.windows
    assert NEEDLE.strip() in result.text
    assert result.spans[-1].score > 0.0


@given(seconds=st.floats(0.0, 8.0), rate=st.floats(500.0, 5_000.0))
@settings(max_examples=60, deadline=None)
def test_an_answer_is_never_late_by_more_than_one_batch(seconds: float, rate: float) -> None:
    clock = Clock()
    compressor = slow(clock, rate)
    began = clock.now
    compressor.compress(haystack(7, 120), "Who signed the lease?", deadline=seconds)
    assert clock.now - began <= seconds + 1_000 / rate


def test_batches_that_take_equal_time_are_never_late() -> None:
    clock = Clock()
    compressor = slow(clock)
    compressor.compress(haystack(7), "Who signed the lease?", deadline=2.6)
    assert clock.now - 100.0 <= 2.6
    assert compressor.scorer.batches[0] <= 250  # type: ignore[attr-defined]


def test_a_deadline_of_zero_reads_nothing_and_fills_the_budget_by_words() -> None:
    clock = Clock()
    compressor = slow(clock)
    result = compressor.compress(haystack(200), "Who signed the lease?", deadline=0, max_tokens=20)
    assert result.usage.windows_read == 0
    assert not result.usage.complete
    assert result.low_confidence
    assert NEEDLE.strip() in result.text
    assert "unread" in (result.notice or "")
    assert [span.score for span in result.spans] == [0.0] * len(result.spans)


def test_a_deadline_of_zero_without_a_budget_keeps_nothing_and_names_the_likeliest() -> None:
    result = slow(Clock()).compress(haystack(200), "Who signed the lease?", deadline=0)
    assert result.text == ""
    assert result.best is not None
    assert result.best.text == NEEDLE.strip()


def test_raise_is_for_those_who_want_everything_read() -> None:
    compressor = slow(Clock())
    with pytest.raises(DeadlineError, match=r"the deadline of 0.5 s left \d+ of \d+ windows unread; allow more time"):
        compressor.compress(haystack(5), "lease", deadline=0.5, on_deadline="raise")
    assert compressor.compress(haystack(5), "lease", deadline=3_600, on_deadline="raise").usage.complete


@pytest.mark.parametrize("deadline", [-1, -0.001, math.nan, "soon", True])
def test_a_deadline_that_is_no_time_is_refused(deadline: object) -> None:
    with pytest.raises(InputError, match="it is in seconds, 0 or more"):
        Compressor(KeywordScorer("lease")).compress("The lease.", "lease", deadline=deadline)  # type: ignore[arg-type]


def test_on_deadline_is_return_or_raise() -> None:
    with pytest.raises(InputError, match="it must be 'return' or 'raise'"):
        Compressor(KeywordScorer("a")).compress("a", "a", deadline=1, on_deadline="explode")  # type: ignore[arg-type]


def test_an_endless_deadline_is_fine() -> None:
    assert slow(Clock()).compress(haystack(5), "lease", deadline=math.inf).usage.complete


def test_empty_input_meets_every_deadline() -> None:
    result = slow(Clock()).compress("", "lease", deadline=0, on_deadline="raise")
    assert result.usage.complete


def test_calls_may_share_a_deadline() -> None:
    clock = Clock()
    compressor = slow(clock)
    deadline = Deadline(2.0, clock)
    first = compressor.compress(haystack(5, 50), "Who signed the lease?", deadline=deadline)
    second = compressor.compress(haystack(5, 400), "Who signed the lease?", deadline=deadline)
    assert first.usage.complete
    assert not second.usage.complete
    assert clock.now - 100.0 <= 2.0 + 1.0


async def test_waiting_for_a_thread_counts() -> None:
    clock = Clock()
    compressor = slow(clock)
    call = asyncio.ensure_future(compressor.acompress(haystack(5), "lease", deadline=1.0))
    result = await call
    assert not result.usage.complete
    with pytest.raises(DeadlineError):
        await compressor.acompress(haystack(5), "lease", deadline=0.5, on_deadline="raise")
