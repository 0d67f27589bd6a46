"""Which parts of a context share rare words with the query: BM25 over the critic's own tokens, forms of a word as one.

One query against one context needs only the query's terms looked up, not an index of every term, so this is twenty
lines of numpy instead of a library (docs/decisions.md); the tests hold it against ``bm25s``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cprs_core.forms import WordForms
from cprs_core.scorer import Prefix

# Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009): the usual values.
K1 = 1.2
B = 0.75

# A pair of neighbouring tokens of the query counts too, with this weight: it stands for words that are spelled in
# pieces, and for the words of scripts whose characters are tokens. Measured on training data by
# `benchmarks/long_contexts.py curve`.
PAIR_WEIGHT = 0.5


def asked_ids(prefix: Prefix) -> NDArray[np.int32]:
    """int32, (q,): the tokens of a prefix that say what is looked for."""
    start, end = prefix.asked
    return prefix.ids[start:end] if end > start else prefix.ids


def bm25(
    asked: NDArray[np.int32],
    ids: NDArray[np.int32],
    ranges: NDArray[np.int64],
    forms: WordForms | None = None,
    *,
    pair_weight: float = PAIR_WEIGHT,
) -> NDArray[np.float32]:
    """How much each range of tokens has to do with a query: BM25 of its tokens, and of pairs of neighbours.

    Args:
        asked (int32, (q,)): token ids of the query, in order.
        ids (int32, (n,)): token ids of the context.
        ranges (int64, (r, 2)): the token ranges to compare; they may overlap.
        forms: which tokens are forms of one word; without it each is a word of its own.

    Returns:
        float32, (r,): 0 where a range holds none of the query's tokens.
    """
    return GrowingBM25(asked, forms, pair_weight=pair_weight).add(ids, ranges)


class GrowingBM25:
    """`bm25` of one query over ranges that come in batches; how rare a token is says what has come so far.

    Attributes:
        best: the best of all scores so far, as it would be now.
    """

    _REMEMBERED = 16  # ranges of earlier batches that may be the best: the order changes with what comes

    def __init__(
        self, asked: NDArray[np.int32], forms: WordForms | None = None, *, pair_weight: float = PAIR_WEIGHT
    ) -> None:
        self.best = 0.0
        self._forms = forms
        asked = self._words(asked)
        self._terms = np.unique(asked)
        neighbours = np.stack([asked[:-1], asked[1:]], axis=1)
        self._pairs = np.unique(neighbours, axis=0).tolist() if len(asked) else []
        count = len(self._terms) + len(self._pairs)
        self._weights = np.ones(count)
        if forms is not None:
            self._weights[: len(self._terms)] = forms.weights[self._terms]
        self._weights[len(self._terms) :] = pair_weight
        self._ranges = self._tokens = 0
        self._holding = np.zeros(count, dtype=np.int64)  # ranges that hold each term or pair
        self._best_counts, self._best_lengths = np.zeros((count, 0), dtype=np.int64), np.zeros(0)

    def add(self, ids: NDArray[np.int32], ranges: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32, (r,): scores of more ranges (int64, (r, 2)) of ``ids``."""
        if not len(ranges) or not len(self._terms):
            return np.zeros(len(ranges), dtype=np.float32)
        counts = self._count(self._words(ids), ranges)
        lengths = (ranges[:, 1] - ranges[:, 0]).astype(np.float64)
        self._ranges += len(ranges)
        self._tokens += int(lengths.sum())
        self._holding += (counts > 0).sum(axis=1)
        scores = self._score(counts, lengths)
        top = np.argsort(-scores, kind="stable")[: self._REMEMBERED]
        counts = np.concatenate([self._best_counts, counts[:, top]], axis=1)
        lengths = np.concatenate([self._best_lengths, lengths[top]])
        known = self._score(counts, lengths)
        top = np.argsort(-known, kind="stable")[: self._REMEMBERED]
        self._best_counts, self._best_lengths, self.best = counts[:, top], lengths[top], float(known.max())
        return scores

    @property
    def of_all_words(self) -> float:
        """What a range of usual length scores that holds every word of the query once, by what has come so far."""
        return float(self._rarity()[: len(self._terms)].sum()) / (1.0 + K1)

    def _words(self, ids: NDArray[np.int32]) -> NDArray[np.int32]:
        return ids if self._forms is None else self._forms.words[ids]

    def _count(self, ids: NDArray[np.int32], ranges: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64, (terms and pairs, r): how often each range holds each."""
        hits = np.flatnonzero(np.isin(ids, self._terms))
        found, following = ids[hits], np.append(ids[1:], -1)[hits]
        places = [hits[found == term] for term in self._terms]
        places += [hits[(found == first) & (following == second)] for first, second in self._pairs]
        return np.stack([np.searchsorted(at, ranges[:, 1]) - np.searchsorted(at, ranges[:, 0]) for at in places])

    def _score(self, counts: NDArray[np.int64], lengths: NDArray[np.float64]) -> NDArray[np.float32]:
        norm = K1 * (1.0 - B + B * lengths / max(self._tokens / self._ranges, 1.0))
        return (self._rarity() @ (counts / (counts + norm))).astype(np.float32)

    def _rarity(self) -> NDArray[np.float64]:
        """float64, (terms and pairs,): how much one that is found says."""
        return np.log1p((self._ranges - self._holding + 0.5) / (self._holding + 0.5)) * self._weights
