"""Which tokens are run together in one forward pass."""

from __future__ import annotations

import math
from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

Windows = NDArray[np.int64]  # (w, 2): first and last + 1 token of each window


class WindowPlanner:
    """Plans windows over tokens that come bit by bit, the same that `plan_windows` plans over all of them.

    Attributes:
        start: first token of the next window.

    Args:
        capacity, overlap: see `plan_windows`.
    """

    def __init__(self, capacity: int, overlap: int = 0) -> None:
        self.start = 0
        self._capacity = capacity
        self._overlap = overlap
        self._inside = False  # whether the next window begins inside a segment that is longer than a window
        self._tokens = 0
        self._borders = np.empty(0, dtype=np.int64)

    def add(self, segment_starts: NDArray[np.int64], tokens: int) -> Windows:
        """The next windows, as far as no later token can change them.

        Args:
            segment_starts (int64, (s,)): first token of each new segment, ascending; later ones are ``tokens`` or more.
            tokens: tokens so far.
        """
        self._tokens = tokens
        borders = np.concatenate([self._borders, segment_starts])
        self._borders = np.unique(borders[borders > self.start])
        return self._plan(self._borders[self._borders <= tokens].tolist(), tokens)

    def finish(self) -> Windows:
        """The last windows."""
        if self.start >= self._tokens:
            return np.empty((0, 2), dtype=np.int64)
        return self._plan([*self._borders[self._borders < self._tokens].tolist(), self._tokens], math.inf)

    def _plan(self, borders: list[int], known: float) -> Windows:
        """Windows from `start` on; ``borders`` are all there are before the token ``known``."""
        windows: list[tuple[int, int]] = []
        while self.start < self._tokens:
            reach = self.start + self._capacity
            after = bisect_right(borders, reach)
            if self._inside:  # it ends with the segment, not with the last segment that fits
                after = min(after, bisect_right(borders, self.start) + 1)
            fits = after > 0 and borders[after - 1] > self.start
            if reach >= known and not (self._inside and fits):
                break
            self._inside = not fits
            end = borders[after - 1] if fits else reach
            windows.append((self.start, end))
            self.start = end if fits else end - self._overlap
        return np.array(windows, dtype=np.int64).reshape(-1, 2)


def plan_windows(segment_starts: NDArray[np.int64], tokens: int, capacity: int, overlap: int = 0) -> Windows:
    """Tile ``tokens`` tokens with windows that end on segment borders.

    Each window takes as many whole segments as fit. A segment longer than a window is read in several windows, which
    overlap by ``overlap`` tokens, so that nothing in it is seen only at a border.

    Args:
        segment_starts (int64, (s,)): first token of each segment, ascending.
        tokens: tokens in all.
        capacity: context tokens of one window, at least 1 and more than ``overlap``.

    Returns:
        int64, (w, 2): windows in order; they cover every token.
    """
    planner = WindowPlanner(capacity, overlap)
    return np.concatenate([planner.add(segment_starts, tokens), planner.finish()])


def merge_windows(
    windows: Windows, scores: list[NDArray[np.float32]], tokens: int, outside: int, labels: int
) -> NDArray[np.float32]:
    """Token scores of the whole context; where windows overlap, the reading that keeps more wins.

    Args:
        windows: (w, 2) as planned.
        scores: one float32 (n_i, columns) array per window; columns are a multiple of ``labels``.
        outside: the column of "outside" inside each group of ``labels`` columns.

    Returns:
        float32, (tokens, columns).
    """
    if not len(windows):
        return np.empty((0, labels), dtype=np.float32)
    merged = np.zeros((tokens, scores[0].shape[1]), dtype=np.float32)
    covered = 0
    for (start, end), rows in zip(windows.tolist(), scores, strict=True):
        fresh = max(start, covered)
        merged[fresh:end] = rows[fresh - start :]
        if fresh > start:
            before, again = merged[start:fresh], rows[: fresh - start]
            better = again[:, outside::labels].min(axis=1) < before[:, outside::labels].min(axis=1)
            before[better] = again[better]
        covered = end
    return merged
