"""Right sentence first: in the document that a question was asked about, is the best-scored sentence the one that
answers it?

A sentence is right when it shares at least half of the shorter of the two with a marked fact
(`Corpus.gold_segments`). Thai has no sentence marks; there, runs of phrases of at least 80 characters are ranked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from cprs_core.evaluation.corpus import Corpus, Request, sentences_or_phrases
from cprs_core.evaluation.data import Dataset, read_dataset
from cprs_core.evaluation.evidence import Outcome, evidence_measures
from cprs_core.evaluation.metrics import Fact, Measure, mean_measure
from cprs_core.evaluation.options import Options
from cprs_core.evaluation.systems import CriticSystem, System
from cprs_core.instructions import PRESETS
from cprs_core.scorer import Tokenizer

XQUAD_LANGUAGES = ("ar", "de", "el", "en", "es", "hi", "ro", "ru", "th", "tr", "vi", "zh")
METRIC = "right sentence first"
CHANCE = "chance"


def document_requests(
    dataset: Dataset, tokenizer: Tokenizer, limit: int | None, seed: int
) -> tuple[list[Request], list[set[int]]]:
    """Each answerable question over its own document, and the indices of its right sentences."""
    corpora: dict[str, Corpus] = {}
    requests, gold = [], []
    records = [record for record in dataset.records if record.answerable and record.tagged("fact")]
    if limit is not None and limit < len(records):
        chosen = np.random.default_rng(seed).permutation(len(records))[:limit]
        records = [records[i] for i in sorted(chosen.tolist())]
    for record in records:
        name = record.document_ids[0]
        if name not in corpora:
            corpora[name] = Corpus([dataset.documents[name].text], tokenizer, segment=sentences_or_phrases)
        corpus = corpora[name]
        facts = [fact for fact in record.tagged("fact") if fact.document_id == name]
        requests.append(Request(corpus, record.query, PRESETS["supporting_facts"]))
        gold.append({int(i) for fact in facts for i in corpus.gold_segments(fact.start, fact.end)})
    return requests, gold


def measure_first(task: str, dataset: Dataset, systems: Sequence[System], options: Options) -> list[Measure]:
    """Right sentence first on one set, with the score of a blind guess as a row of its own; for critics also what the
    default threshold keeps (`evidence_measures`)."""
    requests, gold = document_requests(dataset, options.tokenizer, options.questions, options.seed)
    guess = [len(right) / max(1, len(request.corpus.segments)) for request, right in zip(requests, gold, strict=True)]
    measures = [mean_measure(task, METRIC, CHANCE, guess)]
    for system in systems:
        ranked = list(zip(system.rank(requests), gold, strict=True))
        hits = [len(scores) > 0 and int(scores.argmax()) in right for scores, right in ranked]
        measures.append(mean_measure(task, METRIC, system.name, hits))
        if isinstance(system, CriticSystem):
            least = system.threshold("sentence")
            kept = [Outcome.of(np.flatnonzero(scores >= least).tolist(), right) for scores, right in ranked]
            for request, (scores, right), hit in zip(requests, ranked, hits, strict=True):
                first = np.arange(len(scores)) == (int(scores.argmax()) if len(scores) else -1)
                facts = [Fact(np.array([index]), np.ones(1, dtype=np.int64)) for index in sorted(right)]
                options.failures.add(task, METRIC, system.name, request, facts, scores, first, missed=not hit)
            measures += evidence_measures(task, system.name, kept)
    return measures


def first_task(task: str, dataset: str, split: str) -> Callable[[Sequence[System], Options], list[Measure]]:
    """The measurement of one set of the data folder."""

    def measure(systems: Sequence[System], options: Options) -> list[Measure]:
        return measure_first(task, read_dataset(options.folder, dataset, split), systems, options)

    return measure


def measure_xquad(systems: Sequence[System], options: Options) -> list[Measure]:
    """Every language, and the mean over the ten that are neither English nor Chinese."""
    measures: list[Measure] = []
    for language in XQUAD_LANGUAGES:
        measures += first_task(f"xquad-{language}", "xquad", language)(systems, options)
    others = [f"xquad-{language}" for language in XQUAD_LANGUAGES if language not in ("en", "zh")]
    for name in dict.fromkeys(measure.system for measure in measures):
        rows = [m for m in measures if (m.system, m.metric) == (name, METRIC) and m.task in others]
        half_widths = np.array([(row.high - row.low) / 2 for row in rows])
        value = float(np.mean([row.value for row in rows]))
        # Languages translate the same questions, so their errors are not independent: average the widths as they are.
        width = float(half_widths.mean())
        n = sum(row.n for row in rows)
        measures.append(Measure("xquad-others", METRIC, name, value, value - width, value + width, n))
    return measures
