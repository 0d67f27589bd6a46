"""Reads parts in batches, and says what is selected so far."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cprs_core.context import ScoredContext, read_context
from cprs_core.reading import read_windows
from cprs_core.scorer import OUTSIDE, OnProgress, Prefix, Scorer, Staged
from cprs_core.selection import Granularity, drop_until_fits, explain
from cprs_core.streaming.parts import Part, blanks_before, digest
from cprs_core.streaming.pool import Kept, Selection
from cprs_core.types import Compression, Document, Usage
from cprs_core.windows import merge_windows, plan_windows

_MAX_PARTS = 65_536  # of one batch, where documents are tiny or empty
_MOST_PER_TOKEN = 16.0  # characters, lest a batch of blanks makes the next one endless
_FIRST_GUESS = 2.0  # characters of a token, before anything was read: low, so that the first batch is no larger


class StreamReader:
    """Reads parts in batches of about ``memory_tokens`` tokens and keeps the best candidates.

    `take` collects parts until `full`; `read` scores what was collected but for the last window, which what comes next
    may still fill; `finish` scores that too.
    """

    def __init__(
        self,
        scorer: Scorer,
        prefix: Prefix,
        make_candidates: Granularity,
        selection: Selection,
        *,
        memory_tokens: int,
        count_tokens: Callable[[str], int] | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        self.selection = selection
        self.documents_read = 0  # whole documents that lie behind
        self.tokens = 0  # in the critic's tokenizer
        self.input_tokens = 0  # in the caller's, where there is one
        self.windows = 0
        self.windows_read = 0
        self._scorer = scorer.in_pieces() if isinstance(scorer, Staged) else scorer
        self._prefix = prefix
        self._capacity = scorer.window_tokens - len(prefix)
        self._make_candidates = make_candidates
        self._count_tokens = count_tokens
        self._on_progress = on_progress
        self._memory_tokens = memory_tokens
        self._characters_per_token = _FIRST_GUESS
        self._parts: list[Part] = []
        self._fresh_characters = 0
        self._fresh_from = 0  # parts from here on were never tokenised
        # What is known of the first of the parts: a window may end inside it.
        self._scored = np.empty((0, len(scorer.labels) * len(prefix.tags)), dtype=np.float32)
        self._scored_windows = np.empty((0, 2), dtype=np.int64)
        self._unfinished_tokens = 0
        self._unfinished_input_tokens = 0
        self._last: Document | None = None  # the last document that lies behind

    @property
    def full(self) -> bool:
        """Whether it is time to `read`."""
        return (
            self._fresh_characters >= self._memory_tokens * self._characters_per_token
            or len(self._parts) - self._fresh_from >= _MAX_PARTS
        )

    def take(self, part: Part) -> None:
        """Collect a part; nothing is read yet."""
        self._parts.append(part)
        self._fresh_characters += part.end - part.start

    def read(self) -> None:
        """Score all full windows of what was taken."""
        self._read(last=False)

    def finish(self) -> None:
        """Score everything that was taken."""
        self._read(last=True)

    def pass_by(self, document: Document) -> None:
        """Note the last document that lies behind a checkpoint."""
        self._last = document

    def _read(self, *, last: bool) -> None:
        if not self._parts:
            return
        context = read_context([part.text for part in self._parts], self._scorer.tokenizer)
        tokens = len(context.ids)
        bounds = context.first_tokens(context.document_bounds)  # the first token of every part, and the end
        fresh = tokens - int(bounds[self._fresh_from])
        self.tokens += fresh
        self.input_tokens += self._count(range(self._fresh_from, len(self._parts)), bounds)
        if fresh:
            self._characters_per_token = min(max(0.25, self._fresh_characters / fresh), _MOST_PER_TOKEN)
        done = len(self._scored)
        starts = context.first_tokens(context.sentences[:, 0])
        windows = plan_windows(starts - done, tokens - done, self._capacity, overlap=self._capacity // 4) + done
        if not last and len(windows) and windows[-1, 0] in (done, *starts[starts >= windows[-1, 0]][:1]):
            windows = windows[:-1]  # it holds whole segments, and what comes next may still fit into it
        ids = [context.ids[a:b] for a, b in windows.tolist()]
        reading = read_windows(self._scorer, self._prefix, ids, self._progress(tokens))
        reach = int(windows[-1, 1]) if len(windows) else done
        merged = np.zeros((tokens, self._scored.shape[1]), dtype=np.float32)
        merged[:, OUTSIDE :: len(self._scorer.labels)] = 1.0
        merged[:done] = self._scored
        if len(windows):
            merged[done:reach] = merge_windows(
                windows - done, reading.rows, reach - done, OUTSIDE, len(self._scorer.labels)
            )
        self.windows += len(windows)
        self.windows_read += reading.windows_read
        # Parts that were read to their end are finished; the first that was not comes again with what is known of it.
        finished = len(self._parts) if last else int(np.searchsorted(bounds[1:], reach, side="right"))
        all_windows = np.concatenate([self._scored_windows, windows])
        if finished:
            rest = [[reach, tokens]] if reach < tokens else np.empty((0, 2))
            covered = np.concatenate([all_windows, np.array(rest, dtype=np.int64).reshape(-1, 2)])
            self._select(ScoredContext(context, merged, covered, piece_tokens=self._capacity // 2), finished)
        base = int(bounds[finished])
        self._unfinished_tokens = tokens - base
        self._unfinished_input_tokens = self._count(range(finished, len(self._parts)), bounds)
        self._scored = merged[base:reach].copy()
        self._scored_windows = np.maximum(all_windows[all_windows[:, 1] > base] - base, 0)
        self._forget(finished)

    def _count(self, parts: range, bounds: NDArray[np.int64]) -> int:
        """Tokens of consecutive parts in the caller's tokenizer, or in the critic's, where ``bounds`` tell them."""
        if self._count_tokens is None:
            return int(bounds[parts.stop] - bounds[parts.start])
        return sum(self._count_tokens(self._parts[index].text) for index in parts)

    def _progress(self, tokens: int) -> OnProgress | None:
        """The caller's callback in tokens of the whole stream: scored so far, and read ahead so far."""
        if self._on_progress is None:
            return None
        report, ahead = self._on_progress, self.tokens
        return lambda done, total: report(ahead - total + done, ahead)

    def _forget(self, finished: int) -> None:
        for part in self._parts[:finished]:
            if part.end == len(part.document.text):
                self.documents_read = part.document_index + 1
                self._last = part.document
        del self._parts[:finished]
        self._fresh_from = len(self._parts)
        self._fresh_characters = 0

    def _select(self, scored: ScoredContext, finished: int) -> None:
        """Offer the candidates of the first ``finished`` parts to the selection."""
        context = scored.context
        candidates = self._make_candidates(scored)
        own = candidates.starts < context.document_bounds[finished]
        starts, ends = candidates.starts[own], candidates.ends[own]
        scores, tags = candidates.scores[own], candidates.tags[own]
        if not len(starts):
            return
        selection = self.selection
        selection.best = max(selection.best, float(scores.max()))
        selection.candidates += len(starts)
        token_costs = context.first_tokens(ends) - context.first_tokens(starts)

        @cache
        def cost(index: int) -> int:
            if self._count_tokens is None:
                return int(token_costs[index])
            return self._count_tokens(context.text(int(starts[index]), int(ends[index])))

        def kept(index: int) -> Kept:
            part_index = int(context.document_of(starts[index : index + 1])[0])
            part = self._parts[part_index]
            shift = part.start - int(context.document_bounds[part_index])
            start, end = int(starts[index]) + shift, int(ends[index]) + shift
            documents[part.document_index] = part.document.model_copy(update={"text": ""})
            fits = selection.max_tokens is None or cost(index) <= selection.max_tokens
            return Kept(
                document_index=part.document_index,
                start=start,
                end=end,
                score=float(scores[index]),
                tag=self._prefix.tags[int(tags[index])],
                cost=cost(index),
                text=part.document.text[start:end] if fits else "",
                before=blanks_before(part.document.text, start),
            )

        documents: dict[int, Document] = {}
        fresh = [kept(index) for index in selection.wanted(scores).tolist()]
        closest = selection.closest(scores, cost)
        selection.add(fresh, None if closest is None else kept(closest), documents)
        if not selection.reached:  # only then somebody asks for the shortest
            reaching = np.flatnonzero(scores >= (selection.threshold or 0.0)).tolist()
            known = [selection.shortest] if selection.shortest is not None else []
            selection.shortest = min([*known, *map(cost, reaching)], default=None)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds: positions and scores, no text of any document."""
        selection = self.selection

        def rows(items: Sequence[Kept]) -> list[list[Any]]:
            return [[i.document_index, i.start, i.end, i.score, i.tag, i.cost] for i in items]

        return {
            "documents_read": self.documents_read,
            "last_document": digest(self._last) if self._last is not None else None,
            "part_start": self._parts[0].start if self._parts else 0,
            "scored": base64.b64encode(self._scored.tobytes()).decode("ascii"),
            "scored_windows": self._scored_windows.tolist(),
            "tokens": self.tokens - self._unfinished_tokens,
            "input_tokens": self.input_tokens - self._unfinished_input_tokens,
            "windows": self.windows,
            "windows_read": self.windows_read,
            "characters_per_token": self._characters_per_token,
            "items": rows(selection.pool),
            "nearest": rows([selection.nearest] if selection.nearest is not None else []),
            "best": selection.best,
            "shortest": selection.shortest,
            "candidates": selection.candidates,
            "floor": selection.floor,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken. What is in the selection comes back by `recall`."""
        columns = self._scored.shape[1]
        self.documents_read = int(state["documents_read"])
        self._scored = np.frombuffer(base64.b64decode(state["scored"]), dtype=np.float32).reshape(-1, columns).copy()
        self._scored_windows = np.array(state["scored_windows"], dtype=np.int64).reshape(-1, 2)
        self.tokens, self.input_tokens = int(state["tokens"]), int(state["input_tokens"])
        self.windows, self.windows_read = int(state["windows"]), int(state["windows_read"])
        self._characters_per_token = float(state["characters_per_token"])
        selection = self.selection
        selection.best, selection.floor = float(state["best"]), float(state["floor"])
        selection.candidates, selection.shortest = int(state["candidates"]), state["shortest"]

    def recall(self, document: Document, index: int, rows: Iterable[Sequence[Any]], *, nearest: bool) -> None:
        """Take (start, end, score, tag, cost) of a document that was read before into the selection again."""
        for start, end, score, tag, cost in rows:
            fits = self.selection.max_tokens is None or cost <= self.selection.max_tokens
            text = document.text[start:end] if fits else ""
            item = Kept(index, start, end, score, tag, cost, text, blanks_before(document.text, start))
            if nearest:
                self.selection.nearest = item
            else:
                self.selection.pool.append(item)
            self.selection.documents[index] = document.model_copy(update={"text": ""})


def describe(
    reader: StreamReader,
    count_tokens: Callable[[str], int],
    default_threshold: float,
    query: str,
    instruction: str,
    seconds: float,
) -> Compression:
    """The reader's selection as a result."""
    selection = reader.selection
    kept, (text, documents), tokens = drop_until_fits(
        selection.choose(), selection.max_tokens, count_tokens, selection.assemble
    )
    return Compression(
        text=text,
        documents=documents,
        spans=[selection.span(item) for item in kept],
        usage=Usage(
            input_tokens=reader.input_tokens,
            output_tokens=tokens,
            ratio=tokens / reader.input_tokens if reader.input_tokens else 0.0,
            windows=reader.windows,
            windows_read=reader.windows_read,
            seconds=seconds,
        ),
        query=query,
        instruction=instruction,
        low_confidence=selection.best < default_threshold or not kept,
        notice=explain(
            tokens=reader.tokens,
            candidates=selection.candidates,
            best=selection.best,
            default=default_threshold,
            threshold=selection.threshold,
            budget=selection.max_tokens,
            kept=bool(kept),
            shortest=lambda: selection.shortest or 0,
        ),
        best=None if kept or selection.nearest is None else selection.span(selection.nearest),
    )
