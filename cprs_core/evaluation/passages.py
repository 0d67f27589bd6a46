"""Long documents at a fixed share of their tokens: meeting turns and contract clauses.

QMSum (arXiv 2104.05938): the turns that a query is about, mean over queries of the F1 between kept and marked turns at
15 % of the meeting's tokens. CUAD (arXiv 2103.06268): clauses found at 10 % of the contract's tokens, mean over
clause types; a clause is found when at least half of its characters are kept, the overlap that CUAD's own scoring asks
for, and in a second column when 90 % are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cprs_core.evaluation.corpus import Corpus, Request
from cprs_core.evaluation.data import Dataset, Record, read_dataset
from cprs_core.evaluation.metrics import FACT_SHARE, Fact, Measure, fill_budget, mean_measure, set_f1
from cprs_core.evaluation.options import Options
from cprs_core.evaluation.systems import System
from cprs_core.instructions import PRESETS

TURN_RATIO = 0.15
CLAUSE_RATIO = 0.10


def measure_turns(systems: Sequence[System], options: Options) -> list[Measure]:
    """Turn F1 on QMSum val at 15 % kept."""
    dataset = read_dataset(options.folder, "qmsum", "val")
    records, requests = _requests(dataset, options, "line", "turns")
    gold = [
        {int(i) for e in record.evidence for i in request.corpus.gold_segments(e.start, e.end)}
        for record, request in zip(records, requests, strict=True)
    ]
    measures = []
    for system in systems:
        masks = _kept(system, requests, TURN_RATIO)
        f1 = [set_f1(set(np.flatnonzero(kept).tolist()), right) for kept, right in zip(masks, gold, strict=True)]
        measures.append(mean_measure("qmsum", "turn F1 at 15 %", system.name, f1))
    return measures


def measure_clauses(systems: Sequence[System], options: Options) -> list[Measure]:
    """Clause recall on CUAD dev at 10 % kept."""
    dataset = read_dataset(options.folder, "cuad", "dev")
    records, requests = _requests(dataset, options, "sentence", "clauses")
    facts = [
        [Fact.locate(request.corpus, e.start, e.end) for e in record.evidence]
        for record, request in zip(records, requests, strict=True)
    ]
    measures = []
    for system in systems:
        masks = _kept(system, requests, CLAUSE_RATIO)
        for metric, share in (("clause recall at 10 %", 0.5), ("whole clauses", FACT_SHARE)):
            found = [
                float(np.mean([clause.found(kept, share) for clause in clauses]))
                for kept, clauses in zip(masks, facts, strict=True)
            ]
            measures.append(mean_measure("cuad", metric, system.name, found))
    return measures


def _requests(dataset: Dataset, options: Options, unit: str, preset: str) -> tuple[list[Record], list[Request]]:
    """Answerable records over their own documents; documents stay together, so that each is read once."""
    records = [record for record in dataset.records if record.answerable and record.evidence]
    limit = options.sample(len(records))
    if limit < len(records):
        chosen = np.random.default_rng(options.seed).permutation(len(records))[:limit]
        records = [records[i] for i in sorted(chosen.tolist())]
    corpora: dict[str, Corpus] = {}
    for record in records:
        name = record.document_ids[0]
        if name not in corpora:
            corpora[name] = Corpus([dataset.documents[name].text], options.tokenizer, unit)
    return records, [Request(corpora[r.document_ids[0]], r.query, PRESETS[preset]) for r in records]


def _kept(system: System, requests: Sequence[Request], ratio: float) -> list[NDArray[np.bool_]]:
    return [
        fill_budget(scores, request.corpus.costs, int(ratio * request.corpus.tokens))
        for scores, request in zip(system.rank(requests), requests, strict=True)
    ]
