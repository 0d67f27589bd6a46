"""Spans with exact borders: answers inside paragraphs, and names of a described kind.

SQuAD dev: the best span of the right paragraph against all annotators' answers, exact match and token F1 (arXiv
1606.05250). CrossNER and WNUT-17 test: spans at the default threshold, F1 over exact character ranges, micro within a
set (each CrossNER domain is one, as in arXiv 2012.04373), queries without any such name included; the mean is that of
the two data sets, CrossNER being the mean of its five domains. Retrievers mark no spans: for answers their best
sentence stands in, for names they have no row.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cprs_core.evaluation.corpus import Corpus, Request
from cprs_core.evaluation.data import Dataset, Record, read_dataset
from cprs_core.evaluation.metrics import Measure, answer_f1, exact_match, mean_measure, ratio_measure
from cprs_core.evaluation.options import Options
from cprs_core.evaluation.systems import CriticSystem, System
from cprs_core.instructions import PRESETS

QUESTIONS = 2_000
_DOMAINS = ("ai", "literature", "music", "politics", "science")


def measure_answers(systems: Sequence[System], options: Options) -> list[Measure]:
    """Exact match and token F1 of answer spans on SQuAD dev questions whose paragraph answers them."""
    dataset = read_dataset(options.folder, "squad", "dev")
    answerable = [record for record in dataset.records if record.answerable]
    limit = options.sample(len(answerable), QUESTIONS)
    order = np.random.default_rng(options.seed).permutation(len(answerable))[:limit]
    records = [answerable[i] for i in sorted(order.tolist())]
    requests = _requests(dataset, records, options, "answers")
    measures = []
    for system in systems:
        predictions = _best_spans(system, requests)
        pairs = list(zip(predictions, (record.answers for record in records), strict=True))
        exact = [exact_match(prediction, answers) for prediction, answers in pairs]
        shared = [answer_f1(prediction, answers) for prediction, answers in pairs]
        measures.append(mean_measure("squad-spans", "exact match", system.name, exact))
        measures.append(mean_measure("squad-spans", "token F1", system.name, shared))
    return measures


def _requests(dataset: Dataset, records: Sequence[Record], options: Options, preset: str) -> list[Request]:
    corpora: dict[str, Corpus] = {}
    for record in records:
        name = record.document_ids[0]
        if name not in corpora:
            corpora[name] = Corpus([dataset.documents[name].text], options.tokenizer)
    return [Request(corpora[record.document_ids[0]], record.query, PRESETS[preset]) for record in records]


def _best_spans(system: System, requests: Sequence[Request]) -> list[str]:
    """The text of each request's best span, or best sentence where a system knows no spans."""
    if not isinstance(system, CriticSystem):
        return [
            request.corpus.segment_texts[int(scores.argmax())] if len(scores) else ""
            for scores, request in zip(system.rank(requests), requests, strict=True)
        ]
    texts = []
    for candidates, request in zip(system.spans(requests), requests, strict=True):
        if len(candidates):
            best = int(candidates.scores.argmax())
            texts.append(request.corpus.context.text(int(candidates.starts[best]), int(candidates.ends[best])))
        else:
            texts.append("")
    return texts


def measure_entities(systems: Sequence[System], options: Options) -> list[Measure]:
    """Span F1 on every CrossNER domain, on WNUT-17, and their mean."""
    crossner = read_dataset(options.folder, "crossner", "test")
    wnut = read_dataset(options.folder, "wnut17", "test")
    sets = [(f"crossner {domain}", crossner, _in_group(crossner, f"crossner-{domain}")) for domain in _DOMAINS]
    sets = [(name, dataset, records) for name, dataset, records in sets if records]
    sets.append(("wnut17", wnut, list(wnut.records)))
    measures = []
    for system in systems:
        if not isinstance(system, CriticSystem):
            measures.append(Measure("entities", "mean span F1", system.name, float("nan"), note="marks no spans"))
            continue
        rows = [_entity_f1(name, dataset, records, system, options) for name, dataset, records in sets]
        measures += [_mean_of_sets(rows[:-1], rows[-1], system.name), *rows]
    return measures


def _in_group(dataset: Dataset, group: str) -> list[Record]:
    return [record for record in dataset.records if dataset.documents[record.document_ids[0]].group == group]


def _entity_f1(
    name: str, dataset: Dataset, records: Sequence[Record], system: CriticSystem, options: Options
) -> Measure:
    records = records[: options.sample(len(records))]
    requests = _requests(dataset, records, options, "entities")
    least = system.threshold(PRESETS["entities"].granularity)
    shared, sizes = [], []
    for candidates, record in zip(system.spans(requests), records, strict=True):
        chosen = candidates.scores >= least
        predicted = set(zip(candidates.starts[chosen].tolist(), candidates.ends[chosen].tolist(), strict=True))
        gold = {(e.start, e.end) for e in record.evidence}
        shared.append(2 * len(predicted & gold))
        sizes.append(len(predicted) + len(gold))
    return ratio_measure("entities", name, system.name, shared, sizes)


def _mean_of_sets(domains: Sequence[Measure], other: Measure, system: str) -> Measure:
    """The mean of two data sets, one of them the mean of its domains; sets are independent, so variances add."""
    weights = [0.5 / max(1, len(domains))] * len(domains) + [0.5 if domains else 1.0]
    rows = [*domains, other]
    value = sum(weight * row.value for weight, row in zip(weights, rows, strict=True))
    width = sum((weight * (row.high - row.low) / 2) ** 2 for weight, row in zip(weights, rows, strict=True)) ** 0.5
    return Measure("entities", "mean span F1", system, value, value - width, value + width, sum(row.n for row in rows))
