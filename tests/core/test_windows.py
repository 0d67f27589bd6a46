"""Windows tile the context and end on segment borders."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cprs_core.windows import merge_windows, plan_windows


@st.composite
def plans(draw: st.DrawFn) -> tuple[NDArray[np.int64], int, int, int]:
    tokens = draw(st.integers(0, 200))
    starts = draw(st.lists(st.integers(0, max(tokens, 1)), max_size=40).map(sorted))
    capacity = draw(st.integers(1, 60))
    overlap = draw(st.integers(0, capacity - 1))
    return np.array(starts, dtype=np.int64), tokens, capacity, overlap


@given(plans())
@settings(max_examples=300, deadline=None)
def test_windows_cover_every_token_in_order_and_fit(plan: tuple[NDArray[np.int64], int, int, int]) -> None:
    starts, tokens, capacity, overlap = plan
    windows = plan_windows(starts, tokens, capacity, overlap).tolist()
    covered = 0
    for start, end in windows:
        assert start <= covered < end
        assert end - start <= capacity
        covered = end
    assert covered == tokens


@given(plans())
@settings(max_examples=300, deadline=None)
def test_windows_end_on_segment_borders_where_segments_fit(plan: tuple[NDArray[np.int64], int, int, int]) -> None:
    starts, tokens, capacity, overlap = plan
    borders = sorted({0, tokens, *(s for s in starts.tolist() if s < tokens)})
    for start, end in plan_windows(starts, tokens, capacity, overlap).tolist():
        if end not in borders:  # only inside a segment that is longer than a window
            before = max(border for border in borders if border < end)
            after = min(border for border in borders if border > end)
            assert after - before > capacity
            assert start >= before


def test_windows_take_as_many_whole_segments_as_fit() -> None:
    starts = np.array([0, 4, 8, 11, 19])
    assert plan_windows(starts, 20, capacity=10).tolist() == [[0, 8], [8, 11], [11, 20]]


def test_segment_longer_than_a_window_is_read_with_overlap() -> None:
    windows = plan_windows(np.array([0, 5, 30]), 33, capacity=10, overlap=4)
    assert windows.tolist() == [[0, 5], [5, 15], [11, 21], [17, 27], [23, 30], [30, 33]]


def test_no_tokens_no_windows() -> None:
    assert plan_windows(np.array([], dtype=np.int64), 0, capacity=8).shape == (0, 2)


def test_where_windows_overlap_the_reading_that_keeps_more_wins() -> None:
    windows = np.array([[0, 3], [1, 4]])
    keep_late = np.array([[0, 0, 1, 0], [0, 0, 1, 0], [1, 0, 0, 0]], dtype=np.float32)
    keep_early = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0]], dtype=np.float32)
    merged = merge_windows(windows, [keep_late, keep_early], 4, outside=2, labels=4)
    assert (1.0 - merged[:, 2]).tolist() == [0.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("tags", [1, 2, 3])
def test_merging_windows_that_do_not_overlap_is_concatenation(tags: int) -> None:
    rows = np.random.default_rng(0).random((10, 4 * tags), dtype=np.float32)
    windows = np.array([[0, 4], [4, 5], [5, 10]])
    merged = merge_windows(windows, [rows[a:b] for a, b in windows], 10, outside=2, labels=4)
    assert np.array_equal(merged, rows)


def test_no_windows_merge_to_no_rows() -> None:
    assert merge_windows(np.empty((0, 2), dtype=np.int64), [], 0, outside=2, labels=4).shape == (0, 4)
