"""Documents that arrive one after the other, in bounded memory: the best selection so far.

Windows are planned as if everything lay end to end, so a stream ends with the selection that `Compressor.compress`
makes of the same documents. What a later document can still push out of the budget is kept, the rest is dropped.
"""

from __future__ import annotations

import base64
import hashlib
import heapq
import json
import logging
import os
import re
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cprs_core.assembly import DOCUMENT_GAP, GAP
from cprs_core.context import ScoredContext, read_context
from cprs_core.errors import CheckpointError, InputError, StreamError
from cprs_core.reading import read_windows
from cprs_core.scorer import OUTSIDE, OnProgress, Prefix, Scorer
from cprs_core.selection import MAX_MISFITS, Candidates, Granularity, choose, explain, without_weakest
from cprs_core.types import Compression, Document, Span, Usage
from cprs_core.windows import merge_windows, plan_windows
from cprs_core.workers import in_worker

_log = logging.getLogger(__name__)

# Documents longer than this are read in parts that end at blank lines, where no sentence goes on.
PART_CHARACTERS = 65_536
# A part ends after them. They begin where blanks begin and give nothing back, so a megabyte of blanks takes no longer
# than a megabyte of text.
_BLANK_LINES = re.compile(r"(?<!\s)[^\S\n]*+\n[^\S\n]*+\n\s*+(?=\S)")
_LINE_BREAK = re.compile(r"(?<!\s)[^\S\n]*+\n\s*+(?=\S)")
_BLANKS = re.compile(r"(?<!\s)\s++(?=\S)")

_CHECKPOINT_VERSION = 1
_MAX_PARTS = 65_536  # of one batch, where documents are tiny or empty
_BLANK_STEP = 64  # characters
_MOST_PER_TOKEN = 16.0  # characters, lest a batch of blanks makes the next one endless
_FIRST_GUESS = 2.0  # characters of a token, before anything was read: low, so that the first batch is no larger


@dataclass(frozen=True)
class Part:
    """A range of one document's characters that is tokenised as one text."""

    document: Document
    document_index: int
    start: int
    end: int

    @property
    def text(self) -> str:
        """Its characters; a whole document's text is not copied."""
        return self.document.text[self.start : self.end]


def cut(document: Document, index: int, *, whole: bool = False) -> Iterator[Part]:
    """The parts that a document is read in; ``whole`` for granularities that need all of it at once."""
    text, start = document.text, 0
    while not whole and len(text) - start > 2 * PART_CHARACTERS:
        low, high = start + PART_CHARACTERS, start + 2 * PART_CHARACTERS
        breaks = (pattern.search(text, low, high) for pattern in (_BLANK_LINES, _LINE_BREAK, _BLANKS))
        found = next((match for match in breaks if match), None)
        end = found.end() if found else low
        yield Part(document, index, start, end)
        start = end
    yield Part(document, index, start, len(text))


@dataclass(frozen=True)
class Kept:
    """A candidate that may still be in the last selection; positions in its document.

    ``before`` is the blank text right before it: what stands between it and a neighbour that is kept too.
    """

    document_index: int
    start: int
    end: int
    score: float
    tag: str
    cost: int
    text: str
    before: str

    @property
    def order(self) -> tuple[float, int, int]:
        """Best score first, then source order: the order in which `choose` looks at candidates."""
        return (-self.score, self.document_index, self.start)


@dataclass
class Selection:
    """The best candidates so far, and as many more as later ones can bring back.

    Args:
        max_tokens: budget; None to keep all that reach the threshold.
        threshold: least score that is kept; None for none.
    """

    max_tokens: int | None
    threshold: float | None
    pool: list[Kept] = field(default_factory=list)
    documents: dict[int, Document] = field(default_factory=dict)  # those of the pool, without their text
    nearest: Kept | None = None  # the best that fits the budget, whatever the threshold
    best: float = 0.0
    shortest: int | None = None  # tokens of the cheapest candidate that reached the threshold
    candidates: int = 0
    floor: float = -1.0  # candidates of this score or less cannot matter any more

    def wanted(self, scores: NDArray[np.float32]) -> NDArray[np.int64]:
        """int64, (k,): which of new candidates may be selected, by their scores (n,)."""
        reached = scores > self.floor
        if self.threshold is not None:
            reached &= scores >= self.threshold
        return np.flatnonzero(reached)

    def closest(self, scores: NDArray[np.float32], cost: Callable[[int], int]) -> int | None:
        """Index of the best of new candidates that fits the budget, if it is better than `nearest`."""
        for index in np.argsort(-scores, kind="stable").tolist():
            if self.nearest is not None and scores[index] <= self.nearest.score:
                return None
            if self.max_tokens is None or cost(index) <= self.max_tokens:
                return int(index)
        return None

    def add(self, fresh: Sequence[Kept], nearest: Kept | None, documents: dict[int, Document]) -> None:
        """Take candidates in, then drop those that no later one can bring back.

        Args:
            fresh: those that are `wanted`.
            nearest: the one that is `closest`.
            documents: of all of these, without their text.
        """
        self.nearest = nearest or self.nearest
        self.pool = sorted([*self.pool, *fresh], key=lambda item: item.order)
        if self.max_tokens is not None:
            reach = _reach([item.cost for item in self.pool], self.max_tokens)
            if reach < len(self.pool):
                self.floor = self.pool[reach].score
                del self.pool[reach:]
        self.documents.update(documents)
        needed = {item.document_index for item in self.pool}
        if self.nearest is not None:
            needed.add(self.nearest.document_index)
        self.documents = {index: document for index, document in self.documents.items() if index in needed}

    def choose(self) -> list[Kept]:
        """What is kept now, in source order; see `cprs_core.selection.choose`."""
        items = sorted(self.pool, key=lambda item: (item.document_index, item.start))
        # One axis for all documents, as long as what is in the pool: `choose` compares positions.
        base: dict[int, int] = {}
        reach = 0
        for item in items:
            base.setdefault(item.document_index, reach)
            reach = max(reach, base[item.document_index] + item.end)
        starts = np.array([base[item.document_index] + item.start for item in items], dtype=np.int64)
        ends = np.array([base[item.document_index] + item.end for item in items], dtype=np.int64)
        scores = np.array([item.score for item in items], dtype=np.float32)
        kept = choose(
            Candidates(starts, ends, scores, np.zeros(len(items), dtype=np.int64)),
            threshold=self.threshold,
            max_tokens=self.max_tokens,
            cost=lambda index: items[index].cost,
        )
        if not len(kept) and self.max_tokens is not None and self.nearest is not None and self.reached:
            return [self.nearest]  # as `choose` does, where the best are all too long; the pool has only some of them
        return [items[index] for index in kept.tolist()]

    @property
    def reached(self) -> bool:
        """Whether something fits that scores enough."""
        return self.nearest is not None and (self.threshold is None or self.nearest.score >= self.threshold)

    def span(self, item: Kept) -> Span:
        """The item as a span of the result."""
        return Span(
            document_id=self.documents[item.document_index].id,
            document_index=item.document_index,
            start=item.start,
            end=item.end,
            text=item.text,
            score=item.score,
            tag=item.tag,
        )

    def assemble(self, kept: Sequence[Kept]) -> tuple[str, list[Document]]:
        """The kept text, and shortened copies of the documents that something was kept of."""
        texts: dict[int, str] = {}
        end = 0
        for item in kept:
            if item.document_index not in texts:
                texts[item.document_index] = item.text
            else:
                gap = item.start - end
                between = item.before[len(item.before) - gap :] if gap <= len(item.before) else GAP
                texts[item.document_index] += between + item.text
            end = item.end
        shortened = [
            self.documents[index].model_copy(update={"text": text, "metadata": dict(self.documents[index].metadata)})
            for index, text in texts.items()
        ]
        return DOCUMENT_GAP.join(text for text in texts.values() if text), shortened


def _reach(costs: Sequence[int], max_tokens: int) -> int:
    """How many of the best candidates `choose` may look at, now or after better ones came.

    It stops once the budget is full or after `MAX_MISFITS` candidates that did not fit. So whatever comes, the
    candidates it looks at are, without their `MAX_MISFITS` + 1 most expensive ones, no larger than the budget.
    """
    largest: list[int] = []
    for index, cost in enumerate(costs):
        heapq.heappush(largest, cost)
        if len(largest) > MAX_MISFITS + 1:
            max_tokens -= heapq.heappop(largest)
            if max_tokens < 0:
                return index + 1
    return len(costs)


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
        self._scorer = scorer
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
                before=_blanks_before(part.document.text, start),
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
            "last_document": _digest(self._last) if self._last is not None else None,
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
            item = Kept(index, start, end, score, tag, cost, text, _blanks_before(document.text, start))
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
    kept = selection.choose()
    text, documents = selection.assemble(kept)
    tokens = count_tokens(text) if kept else 0
    while selection.max_tokens is not None and tokens > selection.max_tokens:
        # Joining costs tokens too, and a tokenizer may count a whole differently from its parts.
        kept = without_weakest(kept, tokens - selection.max_tokens, count_tokens)
        text, documents = selection.assemble(kept)
        tokens = count_tokens(text) if kept else 0
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


class Stream:
    """One call: documents into a reader, results out, a checkpoint behind.

    Args:
        reader: reads and selects.
        describe: makes a result of the reader's selection.
        as_document: checks and converts the n-th thing that the caller's iterable gives.
        whole: documents are not cut into parts.
        checkpoint: file to go on from, and to write after every batch.
        call: what a checkpoint must agree with (query, budget, critic ...), in any stable text.

    Raises:
        CheckpointError: the checkpoint is damaged, or of another call.
    """

    def __init__(
        self,
        reader: StreamReader,
        describe: Callable[[], Compression],
        as_document: Callable[[object, int], Document],
        *,
        whole: bool = False,
        checkpoint: Path | None = None,
        call: str = "",
    ) -> None:
        self._reader = reader
        self._describe = describe
        self._as_document = as_document
        self._whole = whole
        self._checkpoint = checkpoint
        self._call = hashlib.sha256(call.encode("utf-8", "surrogatepass")).hexdigest()
        self._index = 0
        self._skip = 0  # documents that were read in an earlier run
        self._skip_characters = 0  # of the one after them
        self._digest: str | None = None
        self._rows: dict[int, list[tuple[bool, list[Any]]]] = {}
        if checkpoint is not None:
            self._open(checkpoint)

    def run(self, documents: Iterable[object]) -> Iterator[Compression]:
        """The best selection after every batch; the last one is the answer."""
        iterator = iter(documents)
        while True:
            try:
                given = next(iterator)
            except StopIteration:
                break
            except Exception as error:
                raise self._failed(error) from error
            for part in self._parts(given):
                self._reader.take(part)
                if self._reader.full:
                    yield self.read()
        yield self.finish()

    async def run_async(self, documents: Iterable[object] | AsyncIterable[object]) -> AsyncIterator[Compression]:
        """`run` with everything slow on a worker thread, for iterables of both kinds."""
        if not isinstance(documents, AsyncIterable):
            results = self.run(documents)
            while (result := await in_worker(next, results, None)) is not None:
                yield result
            return
        iterator = aiter(documents)
        while True:
            try:
                given = await anext(iterator)
            except StopAsyncIteration:
                break
            except Exception as error:
                raise await in_worker(self._failed, error) from error
            for part in self._parts(given):
                self._reader.take(part)
                if self._reader.full:
                    yield await in_worker(self.read)
        yield await in_worker(self.finish)

    def read(self) -> Compression:
        """Read what was taken."""
        self._reader.read()
        self._save()
        return self._describe()

    def finish(self) -> Compression:
        """Read the rest."""
        if self._index < self._skip:
            raise CheckpointError(
                f"the checkpoint {self._checkpoint} has {self._skip:,} documents behind it, the stream only "
                f"{self._index:,}; pass the same documents, or delete the file to begin anew"
            )
        if self._checkpoint is not None:
            self._reader.read()
            self._save()  # before the last window is closed: documents that come another day go on in it
        self._reader.finish()
        return self._describe()

    def _parts(self, given: object) -> Iterator[Part]:
        index = self._index
        try:
            document = self._as_document(given, index)
        except InputError as error:
            raise self._failed(error) from error
        self._index += 1
        for nearest, row in self._rows.pop(index, []):
            if row[1] > len(document.text):
                raise self._other_documents(index)
            self._reader.recall(document, index, [row], nearest=nearest)
        if index < self._skip:
            if index == self._skip - 1:
                if _digest(document) != self._digest:
                    raise self._other_documents(index)
                self._reader.pass_by(document)
            return
        for part in cut(document, index, whole=self._whole):
            if index > self._skip or part.start >= self._skip_characters:
                yield part

    def _failed(self, error: Exception) -> StreamError:
        """What is raised where the caller's iterable fails: with everything that was read until then."""
        where = f"document {self._index} of the stream could not be had ({type(error).__name__}: {error})"
        if self._index < self._skip:
            return StreamError(f"{where}; it was read in an earlier run", None, self._index)
        return StreamError(
            f"{where}; the selection of those before it is in this error's .partial", self.finish(), self._index
        )

    def _other_documents(self, index: int) -> CheckpointError:
        return CheckpointError(
            f"document {index} of the stream is not the one that the checkpoint {self._checkpoint} has behind it; "
            "pass the same documents in the same order, or delete the file to begin anew"
        )

    def _open(self, path: Path) -> None:
        if not path.parent.is_dir():
            raise InputError(f"the checkpoint's folder {path.parent} does not exist; make it first")
        try:
            state = json.loads(path.read_bytes())
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise CheckpointError(f"the checkpoint {path} cannot be read ({error}); delete it to begin anew") from error
        try:
            version, call = state["version"], state["call"]
            if version == _CHECKPOINT_VERSION and call == self._call:
                self._reader.restore(state)
                self._skip, self._skip_characters = int(state["documents_read"]), int(state["part_start"])
                self._digest = state["last_document"]
                items = [(False, row) for row in state["items"]] + [(True, row) for row in state["nearest"]]
                for nearest, (index, *row) in items:
                    self._rows.setdefault(int(index), []).append((nearest, row))
                return
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"the checkpoint {path} is damaged ({error!r}); delete it to begin anew") from error
        raise CheckpointError(
            f"the checkpoint {path} belongs to another call (query, instruction, budget, critic or version differ); "
            "pass another file, or delete it to begin anew"
        )

    def _save(self) -> None:
        """Write the checkpoint, whole or not at all; a full disk does not end the run."""
        if self._checkpoint is None:
            return
        state = {"version": _CHECKPOINT_VERSION, "call": self._call, **self._reader.state()}
        new = self._checkpoint.with_name(f"{self._checkpoint.name}.{os.getpid()}.new")
        try:
            with open(new, "w", encoding="ascii") as file:
                json.dump(state, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, self._checkpoint)
        except OSError as error:
            _log.warning(
                "the checkpoint %s could not be written (%s); the run goes on without", self._checkpoint, error
            )
            new.unlink(missing_ok=True)


def _digest(document: Document) -> str:
    text = f"{len(document.id or '')} {document.id} {document.text}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _blanks_before(text: str, position: int) -> str:
    """The blank characters that end at a position."""
    begin = position
    while begin > 0 and not text[max(0, begin - _BLANK_STEP) : begin].strip():
        begin = max(0, begin - _BLANK_STEP)
    stretch = text[max(0, begin - _BLANK_STEP) : position]
    return stretch[len(stretch.rstrip()) :]
