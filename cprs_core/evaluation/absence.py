"""Knowing when nothing is there: paragraphs without evidence must leave an empty output, paragraphs with it must not.

From SQuAD dev, each paragraph a context of its own: answerable questions over their own paragraph (evidence kept: as in
`cprs_core.evaluation.haystack`), the same questions over a random paragraph and over the BM25-hardest paragraph of
another article, and SQuAD 2.0's unanswerable questions over the paragraph they were written against (arXiv
1806.03822). All at the critic's default threshold; one column is free of it: the evidence kept by the threshold that
empties 97 % of the BM25-hard paragraphs. Calibration is that of all sentences of the answerable, random and hard cases.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cprs_core.errors import MissingExtraError
from cprs_core.evaluation.baselines import BM25System
from cprs_core.evaluation.corpus import Corpus, Request
from cprs_core.evaluation.data import Dataset, Record, read_dataset
from cprs_core.evaluation.metrics import Fact, Measure, mean_measure, reliability
from cprs_core.evaluation.options import Options
from cprs_core.evaluation.systems import CriticSystem, System
from cprs_core.instructions import PRESETS

QUESTIONS = 1_000
EMPTY_SHARE = 0.97
TASK = "nothing there"


def measure_absence(systems: Sequence[System], options: Options) -> list[Measure]:
    """Empty outputs on paragraphs without evidence, and evidence kept on those with it."""
    critics = [system for system in systems if isinstance(system, CriticSystem)]
    if not critics:
        return []
    dataset = read_dataset(options.folder, "squad", "dev")
    corpora = {name: Corpus([item.text], options.tokenizer) for name, item in dataset.documents.items()}
    answerable = _sample([r for r in dataset.records if r.answerable], options, 0)
    unanswerable = _sample([r for r in dataset.records if not r.answerable], options, 1)
    own = _requests(corpora, [(record, record.document_ids[0]) for record in answerable])
    facts = [_facts(request.corpus, record) for request, record in zip(own, answerable, strict=True)]
    elsewhere = {
        "random paragraph": _requests(corpora, _random_elsewhere(dataset, answerable, options.seed)),
        "BM25-hard paragraph": _requests(corpora, _hard_elsewhere(dataset, answerable, options)),
    }
    unanswered = _requests(corpora, [(record, record.document_ids[0]) for record in unanswerable])
    measures = []
    for critic in critics:
        least = critic.threshold("sentence")
        kept = critic.rank(own)
        found = [_any_found(row, where, least) for row, where in zip(kept, facts, strict=True)]
        measures.append(mean_measure(TASK, "evidence kept", critic.name, found))
        scores, positive = list(kept), [_labels(row, where) for row, where in zip(kept, facts, strict=True)]
        for name, requests in {**elsewhere, "unanswerable question": unanswered}.items():
            if not requests:
                continue
            rows = critic.rank(requests)
            empty = [not (row >= least).any() for row in rows]
            measures.append(mean_measure(TASK, f"empty: {name}", critic.name, empty))
            if requests is not unanswered:
                scores += rows
                positive += [np.zeros(len(row), dtype=bool) for row in rows]
            if name == "BM25-hard paragraph":
                strict = float(np.quantile([row.max(initial=0.0) for row in rows], EMPTY_SHARE)) + 1e-6
                found = [_any_found(row, where, strict) for row, where in zip(kept, facts, strict=True)]
                measures.append(mean_measure(TASK, "evidence kept at 97 % empty", critic.name, found))
        measures += _calibration(critic.name, np.concatenate(scores), np.concatenate(positive))
    return measures


def _calibration(name: str, scores: NDArray[np.float32], positive: NDArray[np.bool_]) -> list[Measure]:
    """Expected calibration error, and one measure per filled bin of the reliability diagram."""
    bins = reliability(scores, positive)
    measures = [Measure("calibration", "expected calibration error", name, 100 * bins.error, n=len(scores))]
    for score, share, count in zip(bins.scores, bins.positives, bins.counts.tolist(), strict=True):
        if count:
            measures.append(Measure("calibration", f"right at {score:.2f}", name, 100 * float(share), n=count))
    return measures


def _sample(records: Sequence[Record], options: Options, salt: int) -> list[Record]:
    chosen = np.random.default_rng([options.seed, salt]).permutation(len(records))
    return [records[i] for i in sorted(chosen[: options.sample(len(records), QUESTIONS)].tolist())]


def _requests(corpora: dict[str, Corpus], pairs: Sequence[tuple[Record, str]]) -> list[Request]:
    return [Request(corpora[name], record.query, PRESETS["supporting_facts"]) for record, name in pairs]


def _facts(corpus: Corpus, record: Record) -> list[Fact]:
    answers = [(e.start, e.end) for e in record.tagged("answer")]
    return [Fact.locate(corpus, e.start, e.end, answers) for e in record.tagged("fact")]


def _any_found(scores: NDArray[np.float32], facts: Sequence[Fact], threshold: float) -> bool:
    return any(fact.found(scores >= threshold) for fact in facts)


def _labels(scores: NDArray[np.float32], facts: Sequence[Fact]) -> NDArray[np.bool_]:
    labels = np.zeros(len(scores), dtype=bool)
    for fact in facts:
        labels[fact.segments] = True
    return labels


def _random_elsewhere(dataset: Dataset, records: Sequence[Record], seed: int) -> list[tuple[Record, str]]:
    rng = np.random.default_rng([seed, 2])
    names, groups = _names_and_groups(dataset)
    pairs = []
    for record in records:
        others = np.flatnonzero(groups != dataset.documents[record.document_ids[0]].group)
        if len(others):
            pairs.append((record, names[int(others[rng.integers(len(others))])]))
    return pairs


def _hard_elsewhere(dataset: Dataset, records: Sequence[Record], options: Options) -> list[tuple[Record, str]]:
    """Each question with the paragraph of another article that BM25 likes best."""
    try:
        bm25 = BM25System()
    except MissingExtraError:
        return []
    names, groups = _names_and_groups(dataset)
    corpus = Corpus([dataset.documents[name].text for name in names], options.tokenizer, "document")
    pairs = []
    rankings = bm25.rank([Request(corpus, record.query, PRESETS["supporting_facts"]) for record in records])
    for record, scores in zip(records, rankings, strict=True):
        own = dataset.documents[record.document_ids[0]].group
        pairs.append((record, names[int(np.where(groups == own, -np.inf, scores).argmax())]))
    return pairs


def _names_and_groups(dataset: Dataset) -> tuple[list[str], NDArray[np.str_]]:
    return list(dataset.documents), np.array([document.group for document in dataset.documents.values()])
