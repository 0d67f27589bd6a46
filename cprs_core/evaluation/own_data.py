"""A user's own records: does the critic keep what they marked?

The file holds one self-contained record per line, the schema that ``cprs train`` reads. Per record its documents are
the context; recall is the share of its marked ranges that is kept (`Fact.found`) at 5, 10 and 20 % of the tokens, full
support the share of records of which everything is kept at 10 %. Records without evidence must leave an empty output.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cprs_core.evaluation.corpus import Corpus, Request
from cprs_core.evaluation.metrics import Fact, Measure, fill_budget, mean_measure
from cprs_core.evaluation.options import Options
from cprs_core.evaluation.systems import CriticSystem, System
from cprs_core.instructions import resolve_instruction

RATIOS = (0.05, 0.10, 0.20)


def measure_own(path: Path, systems: Sequence[System], options: Options) -> list[Measure]:
    """Recall, full support and empty outputs on a file of evidence records."""
    from cprs_core.training.records import read_inline

    source = read_inline(path)
    records = source.records[: options.sample(len(source.records))]
    requests, facts = [], []
    for record in records:
        corpus = Corpus([source.texts[index] for index in record.documents], options.tokenizer)
        preset = resolve_instruction(record.instruction, None)
        requests.append(Request(corpus, record.query, preset))
        bases = dict(zip(record.documents, corpus.context.document_bounds.tolist(), strict=False))
        ranges = [(bases[e.document] + e.start, bases[e.document] + e.end) for e in record.evidence]
        facts.append([Fact.locate(corpus, start, end) for start, end in ranges])
    measures = []
    marked = [i for i, where in enumerate(facts) if where]
    for system in systems:
        rankings = system.rank(requests)
        for ratio in RATIOS:
            shares = []
            for i in marked:
                costs = requests[i].corpus.costs
                kept = fill_budget(rankings[i], costs, int(ratio * requests[i].corpus.tokens))
                shares.append(float(np.mean([fact.found(kept) for fact in facts[i]])))
            measures.append(mean_measure(path.name, f"recall at {ratio:.0%}", system.name, shares))
            if ratio == 0.10:
                whole = [share == 1.0 for share in shares]
                measures.append(mean_measure(path.name, "full support at 10%", system.name, whole))
        if isinstance(system, CriticSystem):
            least = system.threshold("sentence")
            found = [float(np.mean([fact.found(rankings[i] >= least) for fact in facts[i]])) for i in marked]
            measures.append(mean_measure(path.name, "recall at default threshold", system.name, found))
            empty = [not (rankings[i] >= least).any() for i, where in enumerate(facts) if not where]
            if empty:
                measures.append(mean_measure(path.name, "empty without evidence", system.name, empty))
    return measures
