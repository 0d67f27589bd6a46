"""Recall on generated samples, and at what price: needles, key-values, pass keys, and the whole long-context suite.

Two views of one ranking: what the default threshold keeps (critics only), and what fits in the tokens of the right
lines and 64 more, or in a given budget (everyone). BM25 solves plain needles, so those gate: a critic must not be
worse.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from cprs_core.evaluation.corpus import Request
from cprs_core.evaluation.data import read_dataset
from cprs_core.evaluation.evidence import Outcome, evidence_measures
from cprs_core.evaluation.metrics import Fact, Measure, fill_budget, mean_measure
from cprs_core.evaluation.options import Options
from cprs_core.evaluation.systems import CriticSystem, System
from cprs_core.evaluation.tasks.infinitebench import make_key_values, make_number, make_pass_key
from cprs_core.evaluation.tasks.ruler import NEEDLE_TASKS, make_needles
from cprs_core.evaluation.tasks.sample import MakeHay, Sample, essay_from, own_essay, recall_of
from cprs_core.segmentation import segment_sentences

TOKENS = 32_768
SAMPLES = 10
SPARE_TOKENS = 64
ROOMY = f"recall at right lines + {SPARE_TOKENS}"
BY_THRESHOLD = "recall at default threshold"
WHOLE = "all right lines kept"
KEPT = "tokens kept"
READ = "tokens in"
CURVE = (32, 64, 128, 256, 512, 1_024, 2_048, 4_096, 8_192, 16_384)  # budgets of the recall curves


def measure_needles(systems: Sequence[System], options: Options) -> list[Measure]:
    """RULER's eight needle tasks and InfiniteBench's three look-ups: mean recall, and each task's."""
    return measure_samples("needles", needle_samples(options, options.tokens or TOKENS), systems, options)


def needle_samples(options: Options, tokens: int) -> Iterable[Sample]:
    """Samples of the eleven look-up tasks, one task after the other."""
    tokenizer, essay = options.tokenizer, book_essay(options)
    for name in NEEDLE_TASKS:
        for seed in sample_seeds(options):
            yield make_needles(name, tokenizer, tokens, seed, essay)
    for make in (make_pass_key, make_number, make_key_values):
        for seed in sample_seeds(options):
            yield make(tokenizer, tokens, seed)


def sample_seeds(options: Options) -> range:
    """A seed per sample of each task: few, since every sample is a whole long context."""
    count = SAMPLES if options.questions is None else max(1, min(SAMPLES, options.questions // 12))
    return range(options.seed, options.seed + count)


def measure_samples(
    task: str,
    samples: Iterable[Sample],
    systems: Sequence[System],
    options: Options,
    *,
    budgets: Sequence[float] = (),
) -> list[Measure]:
    """Recall, precision and tokens over all samples, and recall per kind; one kind's samples are in memory at a time.

    With ``budgets`` there are a curve over `CURVE` and, where samples have a depth, the cells of a heat map. What
    critics miss at the first of them goes to `Options.failures`.

    Args:
        samples: those of one kind next to each other.
        budgets: further budgets: tokens, or below 1 shares of the context's tokens.
    """
    rows: dict[str, dict[str, list[float]]] = {system.name: {} for system in systems}
    outcomes: dict[str, list[Outcome]] = {}
    pools: dict[str, list[_Ranked]] = {system.name: [] for system in systems}
    details: set[str] = set()
    for kind, group in groupby(samples, key=lambda sample: sample.task):
        batch = list(group)
        requests = [sample.request(options.tokenizer) for sample in batch]
        facts = [sample.facts(request.corpus) for sample, request in zip(batch, requests, strict=True)]
        for system in systems:
            row = rows[system.name]
            for sample, request, where, scores in zip(batch, requests, facts, system.rank(requests), strict=True):
                judged = _Judged(sample, request, where, scores)
                for metric, value in judged.outcomes(budgets).items():
                    row.setdefault(metric, []).append(value)
                row.setdefault(kind, []).append(row[ROOMY][-1])
                pools[system.name].append(_Ranked(where, sample.any_of, scores, request.corpus.costs))
                if budgets:
                    points = {f"recall@{room:,}": judged.recall(room) for room in CURVE}
                    if sample.depth is not None:
                        points[f"depth {sample.depth:.2f} at {kind}"] = judged.recall(judged.room(budgets[0]))
                    points = {metric: value for metric, value in points.items() if metric not in judged.named(budgets)}
                    details.update(points)
                    for metric, value in points.items():
                        row.setdefault(metric, []).append(value)
                if isinstance(system, CriticSystem):
                    kept = scores >= system.threshold("sentence")
                    row.setdefault(BY_THRESHOLD, []).append(sample.recall(where, kept))
                    row.setdefault(KEPT, []).append(float(request.corpus.costs[kept].sum()))
                    row.setdefault(READ, []).append(float(request.corpus.tokens))
                    right = np.concatenate([fact.segments for fact in where]).tolist()
                    chosen = Outcome.of(np.flatnonzero(kept).tolist(), right, any_of=sample.any_of)
                    outcomes.setdefault(system.name, []).append(chosen)
                    kept = judged.kept(judged.room(budgets[0]) if budgets else judged.roomy)
                    missed = sample.recall(where, kept) < 1.0
                    options.failures.add(task, kind, system.name, request, where, scores, kept, missed=missed)
    for budget in (int(budget) for budget in budgets if budget >= 1):
        for name, pool in pools.items():
            rows[name][on_average(budget)] = recall_on_average(pool, budget)
    first = (ROOMY, WHOLE, BY_THRESHOLD, KEPT, READ)
    measures = [
        replace(
            mean_measure(task, metric, name, values, scale=1.0 if metric in (KEPT, READ) else 100.0),
            detail=metric in details,
        )
        for name, row in rows.items()
        for metric, values in sorted(row.items(), key=lambda item: item[0] not in first)
    ]
    for name, cases in outcomes.items():
        measures += evidence_measures(task, name, cases, recall=False)
    return measures


def on_average(budget: int) -> str:
    """The metric of a budget that holds for the mean of all samples instead of each."""
    return f"recall at {budget:,} on average"


@dataclass(frozen=True)
class _Ranked:
    """What is kept of a ranked sample, so that its context need not be."""

    facts: Sequence[Fact]
    any_of: bool
    scores: NDArray[np.float32]
    costs: NDArray[np.int64]


def recall_on_average(pool: Sequence[_Ranked], budget: int) -> list[float]:
    """Recall per sample where one score threshold holds for all of them: the lowest at which they keep ``budget``
    tokens or fewer on average. Samples with more right lines may then take more.
    """
    scores, costs = (np.concatenate([getattr(row, name) for row in pool]) for name in ("scores", "costs"))
    order = np.argsort(-scores, kind="stable")
    fits = np.searchsorted(np.cumsum(costs[order]), budget * len(pool), side="right")
    kept = np.zeros(len(scores), dtype=bool)
    kept[order[:fits]] = True
    masks = np.split(kept, np.cumsum([len(row.scores) for row in pool])[:-1])
    return [recall_of(row.facts, mask, row.any_of) for row, mask in zip(pool, masks, strict=True)]


@dataclass(frozen=True)
class _Judged:
    """One system's ranking of one sample."""

    sample: Sample
    request: Request
    facts: Sequence[Fact]
    scores: NDArray[np.float32]

    @property
    def roomy(self) -> int:
        """Tokens of the right lines and a few more."""
        segments = np.unique(np.concatenate([fact.segments for fact in self.facts]))
        return int(self.request.corpus.costs[segments].sum()) + SPARE_TOKENS

    def room(self, budget: float) -> int:
        """A budget in tokens."""
        return int(budget * self.request.corpus.tokens) if budget < 1 else int(budget)

    def kept(self, room: int) -> NDArray[np.bool_]:
        return fill_budget(self.scores, self.request.corpus.costs, room)

    def recall(self, room: int) -> float:
        return self.sample.recall(self.facts, self.kept(room))

    @staticmethod
    def named(budgets: Sequence[float]) -> list[str]:
        """The metrics of budgets, in their order."""
        return [f"recall at {budget:.0%} kept" if budget < 1 else f"recall@{int(budget):,}" for budget in budgets]

    def outcomes(self, budgets: Sequence[float]) -> dict[str, float]:
        recall = self.recall(self.roomy)
        found = {ROOMY: recall, WHOLE: float(recall == 1.0)}
        for metric, budget in zip(self.named(budgets), budgets, strict=True):
            found[metric] = self.recall(self.room(budget))
        if budgets:
            name = self.named(budgets)[0]
            found[f"all kept{name.removeprefix('recall')}"] = float(found[name] == 1.0)
        return found


def book_essay(options: Options) -> MakeHay:
    """Hay of book sentences where the data folder is at hand, else of our own plain sentences."""
    if options.data is None or not (options.data / "haystack").is_dir():
        return own_essay
    books = list(read_dataset(options.data, "haystack", "books").documents.values())
    texts = [document.text[20_000:400_000] for document in books if len(document.text) > 30_000][:8]
    sentences = [" ".join(text[start:end].split()) for text in texts for start, end in segment_sentences(text).tolist()]
    return essay_from(sentences) if sentences else own_essay
