"""Claims to verify: which sentences of a web page support or refute a claim (WiCE, arXiv 2303.01432).

A claim has several alternative evidence sets. A prediction is judged by its F1 against the set that fits it best, over
the answerable claims, mean over claims. Two predictions: the first two sentences of the ranking, which every system
has, and for critics whatever reaches the default threshold. Segments are lines: the source has one sentence per line.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cprs_core.evaluation.corpus import Corpus, Request
from cprs_core.evaluation.data import read_dataset
from cprs_core.evaluation.metrics import Measure, mean_measure, set_f1
from cprs_core.evaluation.options import Options
from cprs_core.evaluation.systems import CriticSystem, System
from cprs_core.instructions import PRESETS

TASK = "wice"
TOP = 2


def measure_claims(systems: Sequence[System], options: Options) -> list[Measure]:
    """Best-set sentence F1 on WiCE dev."""
    dataset = read_dataset(options.folder, "wice", "dev")
    records = [record for record in dataset.records if record.answerable and record.evidence]
    records = records[: options.sample(len(records))]
    corpora: dict[str, Corpus] = {}
    requests, gold = [], []
    for record in records:
        name = record.document_ids[0]
        if name not in corpora:
            corpora[name] = Corpus([dataset.documents[name].text], options.tokenizer, "line")
        corpus = corpora[name]
        lines = [set(corpus.gold_segments(e.start, e.end).tolist()) for e in record.evidence]
        sets = record.evidence_sets or (tuple(range(len(lines))),)
        requests.append(Request(corpus, record.query, PRESETS["claims"]))
        gold.append([set().union(*(lines[i] for i in indices)) for indices in sets])
    measures = []
    for system in systems:
        rankings = system.rank(requests)
        first = [set(np.argsort(-scores, kind="stable")[:TOP].tolist()) for scores in rankings]
        measures.append(mean_measure(TASK, f"best-set F1, first {TOP}", system.name, _best(first, gold)))
        if isinstance(system, CriticSystem):
            least = system.threshold(PRESETS["claims"].granularity)
            chosen = [set(np.flatnonzero(scores >= least).tolist()) for scores in rankings]
            measures.append(mean_measure(TASK, "best-set F1, default threshold", system.name, _best(chosen, gold)))
    return measures


def _best(predicted: Sequence[set[int]], gold: Sequence[Sequence[set[int]]]) -> list[float]:
    return [max(set_f1(chosen, right) for right in sets) for chosen, sets in zip(predicted, gold, strict=True)]
