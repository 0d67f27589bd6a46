"""Numbers with intervals, and the decisions behind them: what a budget keeps and what counts as found."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cprs_core.evaluation.corpus import Corpus
from cprs_core.selection import MAX_MISFITS

RESAMPLES = 1_000
# Share of a fact's characters that must be kept. Below 1, because sentence splitters differ by a closing bracket.
FACT_SHARE = 0.9


@dataclass(frozen=True)
class Measure:
    """One number of one system on one task, with its 95 % bootstrap interval over ``n`` cases.

    Shares are in percent. ``value`` is NaN where a system cannot take part; ``note`` then says why. A ``detail`` is
    drawn (a point of a curve, a cell of a heat map) but stands in no table.
    """

    task: str
    metric: str
    system: str
    value: float
    low: float = float("nan")
    high: float = float("nan")
    n: int = 0
    note: str = ""
    detail: bool = False


def mean_measure(
    task: str, metric: str, system: str, values: ArrayLike, *, scale: float = 100.0, share: bool = True
) -> Measure:
    """The mean over cases; ``values`` (n,), one per case; see `ratio_measure` for the rest."""
    column = np.asarray(values, dtype=np.float64)
    return ratio_measure(task, metric, system, column, np.ones_like(column), scale=scale, share=share)


def ratio_measure(
    task: str,
    metric: str,
    system: str,
    numerators: ArrayLike,
    denominators: ArrayLike,
    *,
    scale: float = 100.0,
    share: bool = True,
) -> Measure:
    """Sum over sum (micro averages); cases are resampled together. Both (n,).

    Args:
        scale: 100 for a share in percent; 1 for numbers in a unit of their own.
        share: whether a case lies in 0..1, at a ``scale`` of 100. Then, where all cases are alike at either end, the
            exact binomial interval stands in for the bootstrap's, which would have no width: 8 of 8 is no proof.
    """
    pairs = np.stack([np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)], axis=1)
    if not len(pairs):
        return Measure(task, metric, system, float("nan"), note="no cases")
    top, bottom = pairs.sum(axis=0)
    value = top / bottom if bottom else 0.0
    low, high = np.percentile(_resampled_ratios(pairs), [2.5, 97.5])
    if share and scale == 100.0:
        least = 0.025 ** (1 / len(pairs))  # Clopper and Pearson, 1934: a success rate that still gives n of n
        if (pairs[:, 0] == pairs[:, 1]).all():
            low = min(low, least)
        elif not pairs[:, 0].any():
            high = max(high, 1 - least)
    return Measure(task, metric, system, scale * float(value), scale * float(low), scale * float(high), len(pairs))


def _resampled_ratios(pairs: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64, (RESAMPLES,): the ratio of sums in resamples of the cases, by a fixed seed."""
    rng = np.random.default_rng(0)
    n = len(pairs)
    chunk = max(1, 4_000_000 // n)
    sums = []
    for begin in range(0, RESAMPLES, chunk):
        weights = rng.multinomial(n, np.full(n, 1.0 / n), size=min(chunk, RESAMPLES - begin))  # (chunk, n)
        sums.append(weights @ pairs)
    tops, bottoms = np.concatenate(sums).T
    return np.divide(tops, bottoms, out=np.zeros_like(tops), where=bottoms > 0)


def fill_budget(scores: NDArray[np.float32], costs: NDArray[np.int64], budget: int) -> NDArray[np.bool_]:
    """bool, (s,): the best segments that fit, chosen as by `cprs_core.selection.choose` but without a loop over all."""
    order = np.argsort(-scores, kind="stable")
    spent = np.cumsum(costs[order])
    fits = int(np.searchsorted(spent, budget, side="right"))
    kept = np.zeros(len(scores), dtype=bool)
    kept[order[:fits]] = True
    left = budget - (int(spent[fits - 1]) if fits else 0)
    misfits = 0
    for index in order[fits:].tolist():
        if left <= 0 or misfits > MAX_MISFITS:
            break
        if costs[index] <= left:
            kept[index] = True
            left -= int(costs[index])
        else:
            misfits += 1
    if not kept.any():  # the best were all too long; one that fits is better than nothing
        kept[order[costs[order] <= budget][:1]] = True
    return kept


@dataclass(frozen=True)
class Fact:
    """A range that must be kept, in terms of a corpus' segments.

    ``segments`` and ``characters`` (int64, (k,)): the segments that it touches and by how much; ``answers``: for each
    answer inside it the segments that hold it.
    """

    segments: NDArray[np.int64]
    characters: NDArray[np.int64]
    answers: tuple[NDArray[np.int64], ...] = ()

    @classmethod
    def locate(cls, corpus: Corpus, start: int, end: int, answers: Sequence[tuple[int, int]] = ()) -> Fact:
        """``answers`` are ranges too; those outside of the fact are left out. Positions in the context."""
        inside = [(a, b) for a, b in answers if start <= a and b <= end]
        segments, characters = corpus.overlaps(start, end)
        return cls(segments, characters, tuple(corpus.overlaps(a, b)[0] for a, b in inside))

    def share(self, kept: NDArray[np.bool_]) -> float:
        """Share of its characters that is kept; blanks between segments do not count."""
        return float(self.characters[kept[self.segments]].sum() / max(1, self.characters.sum()))

    def found(self, kept: NDArray[np.bool_], share: float = FACT_SHARE) -> bool:
        """Whether enough of it is kept, and at least one of its answers whole."""
        if self.share(kept) < share:
            return False
        return not self.answers or any(bool(kept[answer].all()) for answer in self.answers)


def set_f1(predicted: set[int], gold: set[int]) -> float:
    """F1 of two sets; two empty sets agree."""
    if not predicted and not gold:
        return 1.0
    return 2.0 * len(predicted & gold) / (len(predicted) + len(gold))


_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Lower case, without punctuation, English articles and extra blanks (SQuAD, arXiv 1606.05250)."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def answer_f1(prediction: str, answers: Sequence[str]) -> float:
    """Best token F1 against any of the answers, after `normalize_answer`."""
    words = Counter(normalize_answer(prediction).split())
    best = 0.0
    for answer in answers:
        gold = Counter(normalize_answer(answer).split())
        shared = sum((words & gold).values())
        best = max(best, 2.0 * shared / max(1, sum(words.values()) + sum(gold.values())))
    return best


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1.0 where the prediction equals any of the answers, after `normalize_answer`."""
    return float(normalize_answer(prediction) in {normalize_answer(answer) for answer in answers})


@dataclass(frozen=True)
class Reliability:
    """How often a score is right: per bin of scores their mean, the share of positives and the count; all (bins,)."""

    scores: NDArray[np.float64]
    positives: NDArray[np.float64]
    counts: NDArray[np.int64]

    @property
    def error(self) -> float:
        """Expected calibration error: mean gap between score and share, weighted by count (arXiv 1706.04599)."""
        return float((np.abs(self.scores - self.positives) * self.counts).sum() / max(1, self.counts.sum()))


def reliability(scores: NDArray[np.float32], positive: NDArray[np.bool_], bins: int = 15) -> Reliability:
    """Bins of equal width over 0..1; both inputs (n,)."""
    index = np.minimum((scores * bins).astype(np.int64), bins - 1)
    counts = np.bincount(index, minlength=bins)
    totals = np.bincount(index, weights=scores, minlength=bins), np.bincount(index, weights=positive, minlength=bins)
    mean, share = (total / np.maximum(counts, 1) for total in totals)
    return Reliability(mean, share, counts)
