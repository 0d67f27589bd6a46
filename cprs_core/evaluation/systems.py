"""What is measured: anything that ranks the segments of a context for a query."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cprs_core.compressor import DEFAULT_THRESHOLD, MIN_CONTEXT_TOKENS, Compressor
from cprs_core.context import ScoredContext
from cprs_core.errors import PrefixTooLongError
from cprs_core.evaluation.corpus import Corpus, Request
from cprs_core.evaluation.progress import watched
from cprs_core.scorer import OUTSIDE, Scorer
from cprs_core.selection import Candidates, by_keyword
from cprs_core.windows import merge_windows, plan_windows

RRF_CONSTANT = 60  # Cormack et al., SIGIR 2009


class System(Protocol):
    """Ranks segments.

    Attributes:
        name: the row's name in reports.
    """

    @property
    def name(self) -> str: ...

    def rank(self, requests: Sequence[Request]) -> list[NDArray[np.float32]]:
        """One score per segment of each request's corpus, higher is better: float32, (segments,), in request order."""


class CriticSystem:
    """Ours: a `Scorer` and the selection code of `cprs_core`, on contexts that were tokenised once."""

    def __init__(self, name: str, scorer: Scorer) -> None:
        self.name = name
        self.scorer = scorer

    def threshold(self, granularity: str) -> float:
        """The critic's default threshold."""
        return self.scorer.thresholds.get(granularity, DEFAULT_THRESHOLD)

    def rank(self, requests: Sequence[Request]) -> list[NDArray[np.float32]]:
        """See `System.rank`; sentences and lines by the mean of their tokens, larger units by their best sentence."""
        return [_segment_scores(scored, request.corpus) for scored, request in self._scored(requests)]

    def spans(self, requests: Sequence[Request]) -> list[Candidates]:
        """Spans with borders of their own, in characters of each request's context."""
        return [by_keyword(scored) for scored, _ in self._scored(requests)]

    def _scored(self, requests: Sequence[Request]) -> Iterable[tuple[ScoredContext, Request]]:
        tokenizer = self.scorer.tokenizer
        plans: dict[tuple[int, int], NDArray[np.int64]] = {}
        for request in watched(requests, self.name):
            context = request.corpus.read_by(tokenizer)
            prefix = tokenizer.encode_prefix(request.preset.text, request.query, request.preset.tags)
            capacity = self.scorer.window_tokens - len(prefix)
            if capacity < MIN_CONTEXT_TOKENS:
                raise PrefixTooLongError(
                    f"instruction and query take {len(prefix):,} tokens; a window holds {self.scorer.window_tokens:,}"
                )
            plan = (id(request.corpus), capacity)
            if plan not in plans:
                borders = context.first_tokens(context.sentences[:, 0])
                plans[plan] = plan_windows(borders, len(context.ids), capacity, overlap=capacity // 4)
            windows = plans[plan]
            rows = self.scorer.score(prefix, [context.ids[a:b] for a, b in windows.tolist()])
            merged = merge_windows(windows, rows, len(context.ids), OUTSIDE, len(self.scorer.labels))
            yield ScoredContext(context, merged, windows, piece_tokens=capacity // 2), request


class HopSystem(CriticSystem):
    """Ours with ``hops="auto"``: a segment takes the score that `Compressor.compress` gives it after all hops."""

    SUFFIX = ", hops"

    def __init__(self, name: str, scorer: Scorer) -> None:
        super().__init__(self.named(name), scorer)
        self._compressor = Compressor(scorer)

    @classmethod
    def named(cls, critic: str) -> str:
        """The row of a critic with hops."""
        return critic + cls.SUFFIX

    def rank(self, requests: Sequence[Request]) -> list[NDArray[np.float32]]:
        """See `System.rank`."""
        return [self._rank_one(request) for request in watched(requests, self.name)]

    def _rank_one(self, request: Request) -> NDArray[np.float32]:
        corpus = request.corpus
        result = self._compressor.compress(
            list(corpus.texts),
            request.query,
            instruction=request.preset,
            granularity=corpus.unit,
            threshold=0.0,  # keeps all, each with its score
            hops="auto",
        )
        bases = corpus.context.document_bounds
        starts = np.array([bases[span.document_index] + span.start for span in result.spans], dtype=np.int64)
        scores = np.array([span.score for span in result.spans], dtype=np.float32)
        if not len(starts):
            return np.zeros(len(corpus.segments), dtype=np.float32)
        # Long segments may be cut elsewhere: each takes the score of the span that its first character is in.
        return scores[np.maximum(0, np.searchsorted(starts, corpus.segments[:, 0], side="right") - 1)]


def _segment_scores(scored: ScoredContext, corpus: Corpus) -> NDArray[np.float32]:
    if corpus.unit in ("sentence", "line"):
        return scored.mean_scores(corpus.segments).max(axis=1)
    return scored.best_part_scores(corpus.segments, scored.sentences).max(axis=1)


class FusedSystem:
    """Reciprocal rank fusion of other systems: the sum of 1 / (60 + rank)."""

    def __init__(self, name: str, systems: Sequence[System]) -> None:
        self.name = name
        self._systems = systems

    def rank(self, requests: Sequence[Request]) -> list[NDArray[np.float32]]:
        """See `System.rank`."""
        parts = [system.rank(requests) for system in self._systems]
        return [sum_of_reciprocal_ranks(scores) for scores in zip(*parts, strict=True)]


def sum_of_reciprocal_ranks(rankings: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """float32, (s,): fused scores of several score arrays (s,) over the same segments."""
    fused = np.zeros(len(rankings[0]), dtype=np.float32)
    for scores in rankings:
        ranks = np.empty(len(scores), dtype=np.float32)
        ranks[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
        fused += np.float32(1.0) / (RRF_CONSTANT + ranks)
    return fused


class ChunkSystem:
    """Retrieval of chunks, the usual RAG: segments take the score of their chunk of up to 600 tokens."""

    TOKENS = 600  # as in the RAG rows of arXiv 2505.18092

    def __init__(self, name: str, system: System) -> None:
        self.name = name
        self._system = system

    def rank(self, requests: Sequence[Request]) -> list[NDArray[np.float32]]:
        """See `System.rank`."""
        chunks = {id(corpus): corpus.chunks(self.TOKENS) for corpus, _ in by_corpus(requests)}
        parts = [chunks[id(request.corpus)] for request in requests]
        ranked = self._system.rank(
            [replace(request, corpus=corpus) for request, (corpus, _) in zip(requests, parts, strict=True)]
        )
        return [scores[chunk_of] for scores, (_, chunk_of) in zip(ranked, parts, strict=True)]


class HeadSystem:
    """Truncation: the earlier the better."""

    name = "first tokens"

    def rank(self, requests: Sequence[Request]) -> list[NDArray[np.float32]]:
        """See `System.rank`."""
        return [-np.arange(len(request.corpus.segments), dtype=np.float32) for request in requests]


class TailSystem:
    """Truncation from the front: the later the better."""

    name = "last tokens"

    def rank(self, requests: Sequence[Request]) -> list[NDArray[np.float32]]:
        """See `System.rank`."""
        return [np.arange(len(request.corpus.segments), dtype=np.float32) for request in requests]


def by_corpus(requests: Sequence[Request]) -> list[tuple[Corpus, list[int]]]:
    """Requests of one corpus together: each corpus with the indices of its requests, in order of appearance."""
    groups: dict[int, tuple[Corpus, list[int]]] = {}
    for index, request in enumerate(requests):
        groups.setdefault(id(request.corpus), (request.corpus, []))[1].append(index)
    return list(groups.values())
