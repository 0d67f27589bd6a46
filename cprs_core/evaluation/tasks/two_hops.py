"""Two-hop questions made of pairs of questions over different documents.

A bridge: the answer of one question is named in another; there it is replaced by the first question. A comparison: two
questions for years, and which of the two years is earlier. Distractors are the documents that BM25 confuses most with
either question.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from cprs_core.evaluation.baselines import BM25System
from cprs_core.evaluation.corpus import Corpus, Request
from cprs_core.evaluation.data import Dataset, Record
from cprs_core.evaluation.tasks.sample import Sample
from cprs_core.forms import STOP_WORDS
from cprs_core.instructions import PRESETS
from cprs_core.scorer import Tokenizer

HARD = 60  # documents per question that BM25 ranks highest
_YEAR = re.compile(r"1[0-9]{3}|20[0-2][0-9]")
_NAME = re.compile(r"[A-Z][\w'’-]+(?: (?:of |de |the )?[A-Z][\w'’-]+)*")


def make_two_hop_questions(
    dataset: Dataset, tokenizer: Tokenizer, tokens: int, count: int, seed: int, kind: str = "bridge"
) -> list[Sample]:
    """``count`` questions of a kind ("bridge" or "comparison"), each over its own shuffled documents.

    Raises:
        MissingExtraError: bm25s is not installed.
    """
    rng = np.random.default_rng(seed)
    records = [record for record in dataset.records if record.answerable and record.tagged("fact")]
    pairs = (_bridges if kind == "bridge" else _comparisons)([records[i] for i in rng.permutation(len(records))])
    pairs = pairs[:count]
    names = list(dataset.documents)
    place = {name: index for index, name in enumerate(names)}
    texts = [dataset.documents[name].text for name in names]
    costs = np.array([len(tokenizer.encode(text)) for text in texts])
    pool = Corpus(texts, tokenizer, "document")
    asked = [record.query for _, first, second in pairs for record in (first, second)]
    rankings = BM25System().rank([Request(pool, query, PRESETS["supporting_facts"]) for query in asked])
    samples = []
    for number, (query, first, second) in enumerate(pairs):
        own = [place[first.document_ids[0]], place[second.document_ids[0]]]
        hard = [np.argsort(-scores, kind="stable")[:HARD] for scores in rankings[2 * number : 2 * number + 2]]
        mixed = np.stack(hard, axis=1).ravel().tolist()
        order = list(dict.fromkeys([*own, *mixed, *rng.permutation(len(names)).tolist()]))
        fits = max(2, int(np.searchsorted(np.cumsum(costs[order]), tokens, side="right")))
        chosen = rng.permutation(order[:fits]).tolist()
        starts = np.concatenate([[0], np.cumsum([len(texts[i]) + 2 for i in chosen])]).tolist()
        gold = []
        for record, index in zip((first, second), own, strict=True):
            start = starts[chosen.index(index)]
            fact = record.tagged("fact")[0]
            gold.append((start + fact.start, start + fact.end))
        samples.append(
            Sample(
                f"two hops, {kind}",
                "\n\n".join(texts[i] for i in chosen),
                query,
                tuple(gold),
                second.answers,
                preset="supporting_facts",
            )
        )
    return samples


def _bridges(records: Sequence[Record]) -> list[tuple[str, Record, Record]]:
    """(query, first, second): the first's answer is a name in the second's question, nowhere in the first question."""
    asking_for: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        for answer in record.answers[:1]:
            if _NAME.fullmatch(answer) and answer.casefold() not in STOP_WORDS and len(answer) > 4:
                asking_for[answer].append(record)
    pairs = []
    used: set[str] = set()
    for second in records:
        for name in _NAME.findall(second.query)[1:]:  # the first is the question word
            first = next((r for r in asking_for.get(name, []) if _fits(r, second, name)), None)
            if first is not None and name not in used:
                used.add(name)
                inner = first.query.rstrip("? ")
                query = second.query.replace(f"the {name}", name).replace(name, f"the answer to “{inner}”")
                pairs.append((query, first, second))
                break
    return pairs


def _fits(first: Record, second: Record, name: str) -> bool:
    return (
        first.document_ids[0] != second.document_ids[0]
        and name not in first.query
        and not any(answer in first.query or name in answer for answer in second.answers)
    )


def _comparisons(records: Sequence[Record]) -> list[tuple[str, Record, Record]]:
    """(query, first, second): two questions for years, of different documents."""
    dated = [r for r in records if r.answers and _YEAR.fullmatch(r.answers[0]) and len(r.tagged("fact")) == 1]
    pairs = []
    for first, second in zip(dated[::2], dated[1::2], strict=False):
        if first.document_ids[0] != second.document_ids[0] and first.answers[0] != second.answers[0]:
            query = f"Which is earlier: “{first.query.rstrip('? ')}” or “{second.query.rstrip('? ')}”?"
            pairs.append((query, first, second))
    return pairs
