"""Which parts of a context share rare words with the query: BM25 over the critic's own token ids.

One query against one context needs only the query's terms looked up, not an index of every term, so this is twenty
lines of numpy instead of a library (docs/decisions.md); the tests hold it against ``bm25s``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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
    asked: NDArray[np.int32], ids: NDArray[np.int32], ranges: NDArray[np.int64], *, pair_weight: float = PAIR_WEIGHT
) -> NDArray[np.float32]:
    """How much each range of tokens has to do with a query: BM25 of its tokens, and of pairs of neighbours.

    Args:
        asked (int32, (q,)): token ids of the query, in order.
        ids (int32, (n,)): token ids of the context.
        ranges (int64, (r, 2)): the token ranges to compare; they may overlap.

    Returns:
        float32, (r,): 0 where a range holds none of the query's tokens.
    """
    if not len(ranges) or not len(asked):
        return np.zeros(len(ranges), dtype=np.float32)
    hits = np.flatnonzero(np.isin(ids, asked))
    found, following = ids[hits], np.append(ids[1:], -1)[hits]
    terms = [hits[found == term] for term in np.unique(asked)]
    pairs = np.unique(np.stack([asked[:-1], asked[1:]], axis=1), axis=0).tolist()
    terms += [hits[(found == first) & (following == second)] for first, second in pairs]
    weights = np.ones(len(terms))
    weights[len(terms) - len(pairs) :] = pair_weight
    counts = np.stack(  # (terms and pairs, r)
        [np.searchsorted(places, ranges[:, 1]) - np.searchsorted(places, ranges[:, 0]) for places in terms]
    )
    lengths = (ranges[:, 1] - ranges[:, 0]).astype(np.float64)
    norm = K1 * (1.0 - B + B * lengths / max(lengths.mean(), 1.0))
    holding = (counts > 0).sum(axis=1)
    rarity = np.log1p((len(ranges) - holding + 0.5) / (holding + 0.5)) * weights
    scores: NDArray[np.float32] = (rarity @ (counts / (counts + norm))).astype(np.float32)
    return scores
