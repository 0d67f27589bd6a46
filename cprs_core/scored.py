"""What the straight path knows before anything is chosen: texts, token scores, candidates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from cprs_core.cache import Arrays
from cprs_core.context import Context
from cprs_core.hops import Chain, place_links
from cprs_core.inputs import CountTokens
from cprs_core.instructions import Preset
from cprs_core.lexical import asked_ids, bm25
from cprs_core.scorer import Prefix
from cprs_core.selection import Candidates, best_first
from cprs_core.stopwatch import Stopwatch
from cprs_core.types import Document, ScoredSegment, Span


@dataclass(frozen=True)
class Reading:
    """What the straight path knows of texts under one prefix; all of it can be cached.

    ``read`` (bool, (w,)) says of each window whether it was read.
    """

    context: Context
    windows: NDArray[np.int64]
    token_scores: NDArray[np.float32]
    read: NDArray[np.bool_]
    windows_read: int
    complete: bool
    cached: bool = False

    def to_arrays(self) -> Arrays:
        context = self.context
        return {
            "bounds": context.document_bounds,
            "ids": context.ids,
            "starts": context.starts,
            "ends": context.ends,
            "sentences": context.sentences,
            "windows": self.windows,
            "scores": self.token_scores,
            "read": self.read,
        }

    @classmethod
    def from_arrays(cls, texts: list[str], arrays: Arrays) -> Reading:
        context = Context(texts, arrays["bounds"], arrays["ids"], arrays["starts"], arrays["ends"])
        context.__dict__["sentences"] = arrays["sentences"]  # as if they had been asked for before
        return cls(context, arrays["windows"], arrays["scores"], arrays["read"], 0, complete=True, cached=True)


@dataclass(frozen=True)
class Scored:
    """What the straight path has before anything is chosen."""

    documents: list[Document]
    reading: Reading
    candidates: Candidates
    preset: Preset
    prefix: Prefix
    watch: Stopwatch
    chain: Chain | None = None

    @property
    def hops(self) -> int:
        return self.chain.hops if self.chain is not None else 1

    def linked(self, spans: Sequence[Span]) -> list[Span]:
        """Spans with the hop they were found in and the span they follow."""
        if self.chain is None:
            return list(spans)
        base = self.context.document_bounds.tolist()
        ranges = [(base[span.document_index] + span.start, base[span.document_index] + span.end) for span in spans]
        placed = place_links(self.chain.links, ranges)
        return [
            span.model_copy(update={"hop": hop, "follows": before})
            for span, (hop, before) in zip(spans, placed, strict=True)
        ]

    @property
    def context(self) -> Context:
        return self.reading.context

    @property
    def later_windows(self) -> int:
        """Windows that hops read again."""
        return self.chain.windows if self.chain is not None else 0

    @property
    def windows(self) -> int:
        return len(self.reading.windows) + self.later_windows

    @property
    def windows_read(self) -> int:
        return self.reading.windows_read + self.later_windows

    @property
    def windows_left(self) -> int:
        return int((~self.reading.read).sum())

    @property
    def complete(self) -> bool:
        return self.reading.complete and (self.chain is None or self.chain.complete)

    @property
    def cached(self) -> bool:
        return self.reading.cached

    def late(self) -> str | None:
        """One sentence on what a deadline left out, where it did."""
        if self.complete:
            return None
        if self.reading.complete:
            return f"the deadline ended the chain in hop {self.hops}; what would have followed is not found"
        return (
            f"the deadline left {self.windows_left:,} of {len(self.reading.windows):,} windows unread; "
            "text from those is kept for its words alone"
        )

    def prior(self) -> NDArray[np.float32] | None:
        """float32, (n,): where windows are unread, how much each candidate shares with the query; None where all are
        read. It decides among candidates of which the critic says nothing."""
        if self.reading.read.all():
            return None
        ranges = np.stack([self.candidates.starts, self.candidates.ends], axis=1)
        return bm25(asked_ids(self.prefix), self.context.ids, self.context.first_tokens(ranges), self.prefix.forms)

    def document_tokens(self, count_tokens: CountTokens | None) -> list[int]:
        """Tokens of every document, in the caller's tokenizer or in the critic's."""
        if count_tokens is not None:
            return [count_tokens(document.text) for document in self.documents]
        return np.diff(self.context.first_tokens(self.context.document_bounds)).tolist()

    def kept_tokens(self, spans: list[Span], shortened: list[Document], count_tokens: CountTokens | None) -> list[int]:
        """Tokens of every document's kept text, in the caller's tokenizer or in the critic's."""
        if count_tokens is not None:
            return [count_tokens(document.text) if document.text else 0 for document in shortened]
        of_document = np.array([span.document_index for span in spans], dtype=np.int64)
        base = self.context.document_bounds[of_document]
        first = self.context.first_tokens(base + np.array([span.start for span in spans], dtype=np.int64))
        last = self.context.first_tokens(base + np.array([span.end for span in spans], dtype=np.int64))
        return np.bincount(of_document, last - first, minlength=len(self.documents)).astype(np.int64).tolist()

    def best_span(
        self, max_tokens: int | None, cost: Callable[[int], int], prior: NDArray[np.float32] | None
    ) -> Span | None:
        """The candidate that scores best among those that fit; None where none does."""
        order = best_first(self.candidates, prior)
        fits = (index for index in order.tolist() if max_tokens is None or cost(index) <= max_tokens)
        index = next(fits, None)
        return None if index is None else self.spans(np.array([index]))[0]

    def reaching(self, threshold: float | None) -> list[int]:
        """Candidates that score at least ``threshold``; all where it is None."""
        return np.flatnonzero(self.candidates.scores >= (threshold or 0.0)).tolist()

    def cost(self, index: int) -> int:
        """Tokens of a candidate in the critic's tokenizer."""
        return self.context.count_tokens(int(self.candidates.starts[index]), int(self.candidates.ends[index]))

    def cost_in(self, count_tokens: CountTokens) -> Callable[[int], int]:
        """Tokens of a candidate in the caller's tokenizer, which may be slow: each is counted once."""
        return cache(
            lambda index: count_tokens(
                self.context.text(int(self.candidates.starts[index]), int(self.candidates.ends[index]))
            )
        )

    def segments(self) -> list[ScoredSegment]:
        rows = self._rows(np.arange(len(self.candidates)))
        return [
            ScoredSegment(document_index=document, start=start, end=end, score=score, tag=tag)
            for document, start, end, score, tag in rows
        ]

    def spans(self, kept: NDArray[np.int64]) -> list[Span]:
        return [
            Span(
                document_id=self.documents[document].id,
                document_index=document,
                start=start,
                end=end,
                text=self.documents[document].text[start:end],
                score=score,
                tag=tag,
            )
            for document, start, end, score, tag in self._rows(kept)
        ]

    def _rows(self, indices: NDArray[np.int64]) -> list[tuple[int, int, int, float, str]]:
        """(document, start, end, score, tag) of candidates, positions in their document."""
        starts, ends = self.candidates.starts[indices], self.candidates.ends[indices]
        documents = self.context.document_of(starts)
        base = self.context.document_bounds[documents]
        tags = [self.preset.tags[tag] for tag in self.candidates.tags[indices].tolist()]
        scores = self.candidates.scores[indices].tolist()
        return list(
            zip(documents.tolist(), (starts - base).tolist(), (ends - base).tolist(), scores, tags, strict=True)
        )
