"""Answer sentences in a long context: recall at equal numbers of kept tokens.

The context is whole SQuAD dev paragraphs in a seeded order, filled up to the length asked for; questions are sampled
from those that its paragraphs answer. A question's answer sentence counts as kept when at least 90 % of the characters
of its marked fact are in kept segments, and every segment that holds one of the answers inside that fact is kept whole
(`cprs_core.evaluation.metrics.Fact`). Systems see the same segments and the same budgets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cprs_core.evaluation.corpus import Corpus, Request
from cprs_core.evaluation.data import Dataset, Record, read_dataset
from cprs_core.evaluation.failures import FailureLog
from cprs_core.evaluation.metrics import Fact, Measure, fill_budget, mean_measure
from cprs_core.evaluation.options import Options
from cprs_core.evaluation.systems import CriticSystem, System
from cprs_core.instructions import PRESETS
from cprs_core.scorer import Tokenizer

TOKENS = 131_072
BUDGETS = (512, 1_024, 2_048, 4_096, 8_192)
QUESTIONS = 500


@dataclass(frozen=True)
class Haystack:
    """A long context and the questions that it answers; ``facts[i]`` are where question i is answered, any will do."""

    corpus: Corpus
    queries: tuple[str, ...]
    ranges: tuple[tuple[tuple[int, int], ...], ...]
    answers: tuple[tuple[tuple[int, int], ...], ...]

    def facts(self, corpus: Corpus) -> list[list[Fact]]:
        """Every question's facts in the segments of a corpus over the same texts."""
        return [
            [Fact.locate(corpus, start, end, answers) for start, end in ranges]
            for ranges, answers in zip(self.ranges, self.answers, strict=True)
        ]

    def in_unit(self, unit: str) -> Corpus:
        """The same texts cut into other segments."""
        return Corpus(self.corpus.texts, self.corpus.tokenizer, unit)


def build_haystack(dataset: Dataset, tokenizer: Tokenizer, tokens: int, questions: int, seed: int) -> Haystack:
    """Whole documents in a seeded order up to ``tokens`` tokens, and a sample of the questions they answer."""
    rng = np.random.default_rng(seed)
    names = list(dataset.documents)
    texts, ids, total = [], [], 0
    for index in rng.permutation(len(names)).tolist():
        text = dataset.documents[names[index]].text
        size = len(tokenizer.encode(text))
        if total + size > tokens:
            if total > 0.99 * tokens:
                break
            continue
        total += size
        ids.append(names[index])
        texts.append(text)
    corpus = Corpus(texts, tokenizer)
    base = dict(zip(ids, corpus.context.document_bounds.tolist(), strict=False))
    answered = [record for record in dataset.records if record.answerable and record.document_ids[0] in base]
    chosen = [answered[i] for i in rng.permutation(len(answered))[:questions].tolist()]
    return Haystack(
        corpus,
        tuple(record.query for record in chosen),
        tuple(_ranges(record, "fact", base) for record in chosen),
        tuple(_ranges(record, "answer", base) for record in chosen),
    )


def _ranges(record: Record, tag: str, base: dict[str, int]) -> tuple[tuple[int, int], ...]:
    return tuple((base[e.document_id] + e.start, base[e.document_id] + e.end) for e in record.tagged(tag))


def measure_haystack(systems: Sequence[System], options: Options) -> list[Measure]:
    """Recall at every budget, for each system by sentences and for retrievers by paragraphs too."""
    dataset = read_dataset(options.folder, "squad", "dev")
    questions = options.questions or QUESTIONS
    haystack = build_haystack(dataset, options.tokenizer, options.tokens or TOKENS, questions, options.seed)
    # A document's score is that of its best sentence, so critics have no row by paragraphs.
    retrievers = [system for system in systems if not isinstance(system, CriticSystem)]
    measures = []
    for unit, ranked in (("sentence", systems), ("document", retrievers)):
        if not ranked:
            continue
        corpus = haystack.corpus if unit == "sentence" else haystack.in_unit(unit)
        facts = haystack.facts(corpus)
        requests = [Request(corpus, query, PRESETS["supporting_facts"]) for query in haystack.queries]
        for system in ranked:
            name = system.name if unit == "sentence" else f"{system.name}, paragraphs"
            log = options.failures if isinstance(system, CriticSystem) else None
            measures += recall_at_budgets("haystack", name, system, requests, facts, BUDGETS, log)
    return measures


def recall_at_budgets(
    task: str,
    name: str,
    system: System,
    requests: Sequence[Request],
    facts: Sequence[Sequence[Fact]],
    budgets: Sequence[int],
    log: FailureLog | None = None,
) -> list[Measure]:
    """Share of requests with any of their facts kept, per budget, all from one ranking.

    Requests whose facts are not kept at the first budget go to ``log``.
    """
    found = np.zeros((len(requests), len(budgets)), dtype=bool)
    for i, scores in enumerate(system.rank(requests)):
        for j, budget in enumerate(budgets):
            kept = fill_budget(scores, requests[i].corpus.costs, budget)
            found[i, j] = any(fact.found(kept) for fact in facts[i])
            if log is not None and j == 0:
                log.add(task, f"at {budget:,}", name, requests[i], facts[i], scores, kept, missed=not found[i, j])
    return [mean_measure(task, f"recall@{budget:,}", name, found[:, j]) for j, budget in enumerate(budgets)]
