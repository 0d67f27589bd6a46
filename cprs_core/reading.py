"""Which windows are read, in which order, and until when.

Windows that are equal are read once, a staged scorer says which windows may matter, and under a deadline the likeliest
are read first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cprs_core.deadline import Deadline
from cprs_core.lexical import GrowingBM25, asked_ids
from cprs_core.scorer import OUTSIDE, OnProgress, Prefix, Scorer, Staged

Window = NDArray[np.int32]

# Tokens of a batch for scorers that do not say (`Scorer.batch_tokens`): the clock is looked at between batches.
BATCH_TOKENS = 4_096

# Share of a batch that is read first under a deadline, to learn how long one takes.
_FIRST_BATCH = 0.25


@dataclass(frozen=True)
class Reading:
    """What was read, and what was found.

    Attributes:
        rows: one float32 (n_i, tags * labels) array per window; "outside" all over where a window was not read.
        read (bool, (w,)): whether each window was read, or an equal one.
        windows_read: how many were run; of equal ones one is.
        complete: whether no window was left out for lack of time.
    """

    rows: list[NDArray[np.float32]]
    read: NDArray[np.bool_]
    windows_read: int
    complete: bool = True


def read_windows(
    scorer: Scorer,
    prefix: Prefix,
    windows: Sequence[Window],
    on_progress: OnProgress | None = None,
    deadline: Deadline | None = None,
) -> Reading:
    """Token scores of the windows that matter and that there is time for.

    Without a deadline a scorer reads all that it would read by itself. With one, windows are read in batches, those
    first that share most with the query, until the next batch would not be done in time; how long one takes is learned
    from those before it. So an answer is late by one batch at most.
    """
    kinds = _Kinds()
    distinct = kinds.add(windows)
    if len(distinct) == len(windows):
        return _read(scorer, prefix, windows, on_progress, deadline)
    reading = _read(scorer, prefix, distinct, _of_all(windows, distinct, on_progress), deadline)
    rows = [reading.rows[index] for index in kinds.of]
    return Reading(rows, reading.read[kinds.of], reading.windows_read, reading.complete)


class GrowingReading:
    """`read_windows` of one call whose windows come in several lots; all are read.

    Attributes:
        tokens: of the windows so far.
    """

    def __init__(self, scorer: Scorer, prefix: Prefix, on_progress: OnProgress | None = None) -> None:
        self.tokens = 0
        self._scorer = scorer
        self._prefix = prefix
        self._on_progress = on_progress
        self._kinds = _Kinds()
        self._rows: list[NDArray[np.float32]] = []  # of each kind

    def read(self, windows: Sequence[Window], total: int) -> None:
        """Score the next windows; ``total`` is what the callback is told of the tokens of all."""
        distinct = self._kinds.add(windows)
        report, done_before = self._on_progress, self.tokens
        on_progress = None if report is None else lambda done, _: report(done_before + done, total)
        on_progress = _of_all(windows, distinct, on_progress) if windows else None
        if distinct:
            self._rows += self._scorer.score(self._prefix, distinct, on_progress)
        self.tokens += sum(len(window) for window in windows)

    def result(self) -> Reading:
        """What was found in all windows."""
        of = self._kinds.of
        return Reading([self._rows[kind] for kind in of], np.ones(len(of), dtype=np.bool_), len(self._rows))


def read_until(
    scorer: Scorer,
    prefix: Prefix,
    windows: Sequence[Window],
    order: Sequence[int],
    deadline: Deadline,
    on_progress: OnProgress | None = None,
) -> Reading:
    """Windows in the order given, in batches, for as long as there is time."""
    all_rows, read = _unread(scorer, prefix, windows)
    total = sum(len(window) for window in windows)
    size = getattr(scorer, "batch_tokens", BATCH_TOKENS)
    room = int(_FIRST_BATCH * size)
    done, at, per_token = 0, 0, 0.0
    while at < len(order):
        batch = _next_batch((len(windows[order[i]]) + len(prefix) for i in range(at, len(order))), room)
        indices = list(order[at : at + batch])
        tokens = sum(len(windows[index]) + len(prefix) for index in indices)
        before = deadline.left
        if before <= 0.0 or per_token * tokens > before:
            break
        for index, found in zip(indices, scorer.score(prefix, [windows[i] for i in indices]), strict=True):
            all_rows[index], read[index] = found, True
        per_token = (before - deadline.left) / tokens
        at += batch
        room = size
        done += sum(len(windows[index]) for index in indices)
        if on_progress is not None:
            on_progress(done, total)
    return Reading(all_rows, read, at, complete=at >= len(order))


def likelihoods(prefix: Prefix, windows: Sequence[Window], before: GrowingBM25 | None = None) -> NDArray[np.float32]:
    """float32, (w,): how much each window shares with the query (`cprs_core.lexical.bm25`).

    ``before`` knows the windows that came before these, and learns these.
    """
    ends = np.cumsum([len(window) for window in windows], dtype=np.int64)
    ranges = np.stack([np.append(0, ends)[: len(ends)], ends], axis=1)
    words = before or GrowingBM25(asked_ids(prefix), prefix.forms)
    return words.add(np.concatenate([np.empty(0, dtype=np.int32), *windows]), ranges)


def _read(
    scorer: Scorer,
    prefix: Prefix,
    windows: Sequence[Window],
    on_progress: OnProgress | None,
    deadline: Deadline | None,
) -> Reading:
    if isinstance(scorer, Staged):
        chosen = scorer.plan(prefix, windows, deadline).tolist()
        part = [windows[index] for index in chosen]
        strong = _read(scorer.strong, prefix, part, _of_all(windows, part, on_progress), deadline)
        all_rows, read = _unread(scorer, prefix, windows)
        for index, found in zip(chosen, strong.rows, strict=True):
            all_rows[index] = found
        read[chosen] = strong.read
        return Reading(all_rows, read, strong.windows_read, strong.complete)
    if deadline is None:
        rows = scorer.score(prefix, windows, on_progress)
        return Reading(rows, np.ones(len(windows), dtype=np.bool_), len(windows))
    order = np.argsort(-likelihoods(prefix, windows), kind="stable").tolist()
    return read_until(scorer, prefix, windows, order, deadline, on_progress)


def _unread(
    scorer: Scorer, prefix: Prefix, windows: Sequence[Window]
) -> tuple[list[NDArray[np.float32]], NDArray[np.bool_]]:
    """Rows and marks of windows that nobody read."""
    labels = len(scorer.labels)
    rows = np.zeros((max((len(window) for window in windows), default=0), labels * len(prefix.tags)), dtype=np.float32)
    rows[:, OUTSIDE::labels] = 1.0
    return [rows[: len(window)] for window in windows], np.zeros(len(windows), dtype=np.bool_)


def _next_batch(lengths: Iterable[int], room: int) -> int:
    """How many of the first windows fit into ``room`` tokens, at least one."""
    count, used = 0, 0
    for length in lengths:
        used += length
        if count and used > room:
            break
        count += 1
    return count


class _Kinds:
    """Equal windows are of one kind; ``of`` says of every window so far which."""

    def __init__(self) -> None:
        self.of: list[int] = []
        self._kinds: dict[bytes, int] = {}

    def add(self, windows: Sequence[Window]) -> list[Window]:
        """Take the next windows: the first of each new kind."""
        new = []
        for window in windows:
            known = len(self._kinds)
            kind = self._kinds.setdefault(window.tobytes(), known)
            if kind == known:
                new.append(window)
            self.of.append(kind)
        return new


def _of_all(windows: Sequence[Window], part: Sequence[Window], on_progress: OnProgress | None) -> OnProgress | None:
    """Progress of ``part`` as progress of all windows: those that need not be read count as done."""
    if on_progress is None:
        return None
    total = sum(len(window) for window in windows)
    if not part:
        on_progress(total, total)
    return lambda done, of: on_progress(total - of + done, total)
