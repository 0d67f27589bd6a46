"""Which tokens are run together in one forward pass."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Windows = NDArray[np.int64]  # (w, 2): first and last + 1 token of each window


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
    if tokens == 0:
        return np.empty((0, 2), dtype=np.int64)
    borders = np.unique(np.concatenate([segment_starts[(segment_starts > 0) & (segment_starts < tokens)], [tokens]]))
    windows: list[tuple[int, int]] = []
    start = 0
    while start < tokens:
        reach = start + capacity
        index = int(np.searchsorted(borders, reach, side="right")) - 1
        if index >= 0 and borders[index] > start:
            end = int(borders[index])
            windows.append((start, end))
            start = end
        else:  # one segment is longer than a window
            segment_end = int(borders[index + 1])
            while start + capacity < segment_end:
                windows.append((start, start + capacity))
                start += capacity - overlap
            windows.append((start, segment_end))
            start = segment_end
    return np.array(windows, dtype=np.int64)


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
