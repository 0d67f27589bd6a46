"""RULER's question answering (qa_1, qa_2): documents of which one answers, the others hard to tell from it.

Published RULER fills up with documents of the same article and random ones, which a lexical retriever tells apart;
here the documents that BM25 confuses most with the right one come first. qa_1 asks SQuAD's questions as RULER does;
where RULER's qa_2 takes HotpotQA, which is not among our data, ours takes QED: search queries over Wikipedia.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cprs_core.evaluation.baselines import BM25System
from cprs_core.evaluation.corpus import Corpus, Request
from cprs_core.evaluation.data import Dataset
from cprs_core.evaluation.tasks.sample import Sample
from cprs_core.instructions import PRESETS
from cprs_core.scorer import Tokenizer

HARD = 100  # documents per question that BM25 ranks highest


def make_questions(
    dataset: Dataset, tokenizer: Tokenizer, tokens: int, count: int, seed: int, task: str = "qa_1"
) -> list[Sample]:
    """``count`` questions, each over its own shuffled documents up to ``tokens`` tokens.

    Raises:
        MissingExtraError: bm25s is not installed.
    """
    rng = np.random.default_rng(seed)
    answerable = [record for record in dataset.records if record.answerable]
    records = [answerable[i] for i in rng.permutation(len(answerable))[:count].tolist()]
    names = list(dataset.documents)
    texts = [dataset.documents[name].text for name in names]
    costs = np.array([len(tokenizer.encode(text)) + 4 for text in texts])  # 4: the line "Document 12:"
    pool = Corpus(texts, tokenizer, "document")
    rankings = BM25System().rank([Request(pool, r.query, PRESETS["supporting_facts"]) for r in records])
    samples = []
    for record, scores in zip(records, rankings, strict=True):
        own = names.index(record.document_ids[0])
        hard = np.argsort(-scores, kind="stable")[:HARD]
        order = [own, *(i for i in [*hard.tolist(), *rng.permutation(len(names)).tolist()] if i != own)]
        order = list(dict.fromkeys(order))
        fits = max(1, int(np.searchsorted(np.cumsum(costs[order]), tokens, side="right")))
        chosen = rng.permutation(order[:fits]).tolist()
        text, start = _lay_out([texts[i] for i in chosen], chosen.index(own))
        facts = tuple((start + e.start, start + e.end) for e in record.tagged("fact"))
        samples.append(Sample(task, text, record.query, facts, record.answers, preset="supporting_facts", any_of=True))
    return samples


def _lay_out(texts: Sequence[str], own: int) -> tuple[str, int]:
    """Numbered documents joined by blank lines, and where the text of one of them begins."""
    parts = [f"Document {number}:\n{text}" for number, text in enumerate(texts, start=1)]
    before = sum(len(part) + 2 for part in parts[:own])
    return "\n\n".join(parts), before + len(f"Document {own + 1}:\n")
