"""Tokenising and segmenting on threads, part by part, while the scorer's device runs what was read before.

Texts are cut where neither a token nor a sentence goes on, and windows are planned as parts come, so tokens, sentences,
windows and scores are those of texts read whole.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from cprs_core.context import Context, find_segments, read_context
from cprs_core.errors import NonFiniteScoresError
from cprs_core.reading import BATCH_TOKENS, GrowingReading, Reading, Window
from cprs_core.scorer import OnProgress, Prefix, Scorer, Staged
from cprs_core.segmentation import Segments, segment_sentences
from cprs_core.stopwatch import Stopwatch
from cprs_core.windows import WindowPlanner, Windows

# A part is about this long, enough for tokenisers that read pieces in parallel. The first one is shorter, so that a
# GPU gets its first windows soon.
PART_CHARACTERS = 262_144
_FIRST_PART = 0.25

# Windows that fill so many batches of the device are scored together, so that few batches are small; if more were read
# while it ran, all of them.
_LEAST_BATCHES = 2

# Blank lines end sentences. They end tokens too: WordPiece joins nothing over a blank, and between a line break and a
# letter or digit Qwen's pre-tokenizer always cuts.
_PART_END = re.compile(r"\n[^\S\n]*\n(?=[^\W_])")


def overlaps(scorer: Scorer, texts: Sequence[str]) -> bool:
    """Whether reading in parts pays: the scorer runs on a device of its own, and there is more than one part."""
    is_apart = bool(getattr(scorer, "overlaps", False)) and not isinstance(scorer, Staged)
    return is_apart and sum(len(text) for text in texts) > PART_CHARACTERS


def read_overlapped(
    texts: Sequence[str],
    scorer: Scorer,
    prefix: Prefix,
    capacity: int,
    watch: Stopwatch,
    on_progress: OnProgress | None = None,
    *,
    part_characters: int = PART_CHARACTERS,
) -> tuple[Context, Windows, Reading]:
    """Texts read and scored at once.

    Args:
        capacity: context tokens of one window.
        watch: gets the seconds that were waited for tokens and for sentences, and those of the scorer.
        on_progress: called with tokens scored and tokens in all; until all is tokenised these are estimated.

    Returns:
        The context, its windows and what was found in them.

    Raises:
        NonFiniteScoresError: with the number of the window in the whole call and its documents.
    """
    so_far = _SoFar(texts)
    planner = WindowPlanner(capacity, overlap=capacity // 4)
    planned: list[Windows] = []
    fresh: list[Window] = []  # not scored yet
    reading = GrowingReading(scorer, prefix, on_progress)
    least = _LEAST_BATCHES * int(getattr(scorer, "batch_tokens", BATCH_TOKENS))
    devices = max(1, int(getattr(scorer, "devices", 1)))

    def plan(windows: Windows) -> None:
        planned.append(windows)
        fresh.extend(so_far.ids(windows))
        so_far.forget(planner.start)

    def score(windows: list[Window]) -> None:
        with watch("score"):
            try:
                reading.read(windows, so_far.estimate(sum(map(len, fresh)) + reading.tokens))
            except NonFiniteScoresError as error:
                raise so_far.context().named(error, np.concatenate(planned)) from error
        del fresh[: len(windows)]

    # Two threads: where one waits for the tokenizer, which runs outside the interpreter, the other finds sentences.
    pool = ThreadPoolExecutor(2, thread_name_prefix="cprs-read")
    try:
        coming = deque(
            (pool.submit(read_context, part, scorer.tokenizer), pool.submit(_sentences, part))
            for part in cut(texts, part_characters)
        )
        ahead = 0  # parts that were there already when the device was done; waiting for more could starve it
        while coming:
            tokens, sentences = coming.popleft()
            with watch("tokenize"):
                part = tokens.result()
            with watch("segment"):
                segment_starts = so_far.add(part, sentences.result())
                plan(planner.add(segment_starts, so_far.tokens))
            ahead -= 1
            if coming and ahead <= 0 and _tokens(fresh, prefix) >= least:
                score(fresh[: len(fresh) // devices * devices])  # with one more, all devices but one would wait for it
                ahead = sum(1 for _ in takewhile(_is_there, coming))
        with watch("segment"):
            plan(planner.finish())
        score(fresh[:])
    finally:
        pool.shutdown(cancel_futures=True)
    return so_far.context(), np.concatenate(planned), reading.result()


def cut(texts: Sequence[str], characters: int) -> Iterator[list[str]]:
    """Texts end to end in parts of at least ``characters`` characters, cut where tokens and sentences end.

    A part holds pieces of texts, an empty one for an empty text; the first and the last part may be shorter.
    """
    part: list[str] = []
    room = int(_FIRST_PART * characters)
    for text in texts:
        start = 0
        while len(text) - start > room:
            end = _PART_END.search(text, start + room)
            if end is None:
                break
            yield [*part, text[start : end.end()]]
            part, room, start = [], characters, end.end()
        part.append(text[start:])
        room -= len(text) - start
        if room <= 0:
            yield part
            part, room = [], characters
    if part:
        yield part


class _SoFar:
    """What is known of a context while its parts come.

    Attributes:
        tokens: how many there are so far.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.tokens = 0
        self._texts = texts
        self._bounds = np.cumsum([0, *(len(text) for text in texts)], dtype=np.int64)
        self._characters = 0
        self._parts: list[tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64], Segments]] = []
        self._ids = np.empty(0, dtype=np.int32)  # of the tokens from `_first` on
        self._first = 0

    def add(self, part: Context, sentences: Segments) -> NDArray[np.int64]:
        """Take the next part: the first token of each of its sentences."""
        base, first = self._characters, part.first_tokens(sentences[:, 0]) + self.tokens
        self._parts.append((part.ids, part.starts + base, part.ends + base, sentences + base))
        self._ids = np.concatenate([self._ids, part.ids])
        self.tokens += len(part.ids)
        self._characters += int(part.document_bounds[-1])
        return first

    def ids(self, windows: Windows) -> list[Window]:
        """The tokens of windows that begin where nothing was forgotten."""
        return [self._ids[start:end] for start, end in (windows - self._first).tolist()]

    def forget(self, start: int) -> None:
        """No window begins before token ``start`` any more."""
        self._ids = self._ids[start - self._first :]
        self._first = start

    def estimate(self, window_tokens: int) -> int:
        """Tokens of all windows, from those of the parts so far."""
        whole = int(self._bounds[-1])
        return max(window_tokens, self.tokens * whole // max(self._characters, 1) if self._characters < whole else 0)

    def context(self) -> Context:
        """Everything so far; of all texts, when all parts have come."""
        empty = np.empty(0, dtype=np.int64)
        ids, starts, ends, sentences = zip(
            (empty.astype(np.int32), empty, empty, empty.reshape(0, 2)), *self._parts, strict=True
        )
        context = Context(self._texts, self._bounds, np.concatenate(ids), np.concatenate(starts), np.concatenate(ends))
        context.__dict__["sentences"] = np.concatenate(sentences)  # as if they had been asked for
        return context


def _sentences(texts: list[str]) -> Segments:
    return find_segments(texts, np.cumsum([0, *map(len, texts)], dtype=np.int64), segment_sentences)


def _tokens(windows: Sequence[Window], prefix: Prefix) -> int:
    return sum(len(window) + len(prefix) for window in windows)


def _is_there(part: tuple[Future[Context], Future[Segments]]) -> bool:
    return all(future.done() for future in part)
