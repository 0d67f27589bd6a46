"""What may still be in the last selection of a stream."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cprs_core.assembly import DOCUMENT_GAP, GAP
from cprs_core.selection import MAX_MISFITS, Candidates, choose
from cprs_core.types import Document, Span


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
