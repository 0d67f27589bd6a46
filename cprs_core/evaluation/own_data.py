"""A user's own records: does the critic keep what they marked?

The file holds one self-contained record per line, the schema that ``cprs train`` reads. Per record its documents are
the context; recall is the share of its marked ranges that is kept (`Fact.found`) at 5, 10 and 20 % of the tokens, full
support the share of records of which everything is kept at 10 %; with ``answers`` in the records, whether one of them
stands in what is kept at 10 %. At a critic's default threshold: tokens, recall, and precision, F1 and F2 of sentences.
Records without evidence must leave an empty output.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cprs_core.evaluation.corpus import Corpus, Request
from cprs_core.evaluation.evidence import Outcome, evidence_measures
from cprs_core.evaluation.metrics import Fact, Measure, fill_budget, mean_measure
from cprs_core.evaluation.needles import KEPT, READ
from cprs_core.evaluation.options import Options
from cprs_core.evaluation.reading import holds_answer
from cprs_core.evaluation.systems import CriticSystem, System
from cprs_core.instructions import resolve_instruction

if TYPE_CHECKING:
    from cprs_core.training.records import Record

RATIOS = (0.05, 0.10, 0.20)


def measure_own(path: Path, systems: Sequence[System], options: Options) -> list[Measure]:
    """Recall, full support and empty outputs on a file of evidence records."""
    from cprs_core.training.records import read_inline
    from cprs_core.training.views import view_of_tag

    source = read_inline(path)
    records = source.records[: options.sample(len(source.records))]
    requests, facts, right = [], [], []
    for record in records:
        corpus = Corpus([source.texts[index] for index in record.documents], options.tokenizer)
        tag = next((item.tag for item in record.evidence), record.tag or "fact").split(":")[0]
        # Asked for as `cprs train` teaches it; short answers are looked for as the sentences that hold them.
        asked = record.instruction or (None if tag in ("fact", "answer") else view_of_tag(tag).instructions[0])
        preset = resolve_instruction(asked, None)
        requests.append(Request(corpus, record.query, preset))
        bases = dict(zip(record.documents, corpus.context.document_bounds.tolist(), strict=False))
        ranges = [(bases[e.document] + e.start, bases[e.document] + e.end) for e in record.evidence]
        facts.append([Fact.locate(corpus, start, end) for start, end in ranges])
        right.append({int(i) for start, end in ranges for i in corpus.gold_segments(start, end)})
    measures = []
    marked = [i for i, where in enumerate(facts) if where]
    for system in systems:
        rankings = system.rank(requests)
        for ratio in RATIOS:
            masks = [
                fill_budget(rankings[i], requests[i].corpus.costs, int(ratio * requests[i].corpus.tokens))
                for i in marked
            ]
            shares = [
                float(np.mean([fact.found(kept) for fact in facts[i]])) for i, kept in zip(marked, masks, strict=True)
            ]
            measures.append(mean_measure(path.name, f"recall at {ratio:.0%}", system.name, shares))
            if ratio == 0.10:
                whole = [share == 1.0 for share in shares]
                measures.append(mean_measure(path.name, "full support at 10%", system.name, whole))
                measures += _answers_kept(path.name, system.name, [(records[i], requests[i]) for i in marked], masks)
        if isinstance(system, CriticSystem):
            least = system.threshold("sentence")
            found = [float(np.mean([fact.found(rankings[i] >= least) for fact in facts[i]])) for i in marked]
            measures.append(mean_measure(path.name, "recall at default threshold", system.name, found))
            chosen = [np.flatnonzero(scores >= least) for scores in rankings]
            outcomes = [Outcome.of(kept.tolist(), own) for kept, own in zip(chosen, right, strict=True)]
            measures += evidence_measures(path.name, system.name, outcomes, recall=False)
            spent = [float(r.corpus.costs[kept].sum()) for r, kept in zip(requests, chosen, strict=True)]
            measures.append(mean_measure(path.name, KEPT, system.name, spent, scale=1.0))
            read = [float(request.corpus.tokens) for request in requests]
            measures.append(mean_measure(path.name, READ, system.name, read, scale=1.0))
            empty = [not (rankings[i] >= least).any() for i, where in enumerate(facts) if not where]
            if empty:
                measures.append(mean_measure(path.name, "empty without evidence", system.name, empty))
    return measures


def _answers_kept(
    task: str, system: str, cases: Sequence[tuple[Record, Request]], masks: Sequence[NDArray[np.bool_]]
) -> list[Measure]:
    """Share of records with answers of which one stands in the kept text; nothing where no record names any."""
    held = [
        holds_answer("\n".join(np.array(request.corpus.segment_texts, dtype=object)[kept]), record.answers)
        for (record, request), kept in zip(cases, masks, strict=True)
        if record.answers
    ]
    return [mean_measure(task, "answer kept at 10%", system, held)] if held else []
