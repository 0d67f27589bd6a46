"""Evidence that shares no content word with its question, hidden in books.

The pairs are our own (``pairs.json``) and serve measuring only: nothing is ever trained on them. Each evidence
sentence is put between two sentences of a 32 K excerpt, at depths spread evenly over the pairs; it counts as kept when
it is whole within the best 1 % of the tokens.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import numpy as np

from cprs_core.evaluation.corpus import Corpus, Request
from cprs_core.evaluation.data import read_dataset
from cprs_core.evaluation.metrics import Fact, Measure, fill_budget, mean_measure
from cprs_core.evaluation.options import Options
from cprs_core.evaluation.systems import CriticSystem, System
from cprs_core.evaluation.tasks.sample import hay_to_length, own_essay
from cprs_core.instructions import PRESETS
from cprs_core.scorer import Tokenizer
from cprs_core.segmentation import segment_sentences

TOKENS = 32_768
RATIO = 0.01


@dataclass(frozen=True)
class Pair:
    """A question and the sentence that answers it in other words."""

    topic: str
    question: str
    evidence: str


@lru_cache(maxsize=1)
def read_pairs() -> tuple[Pair, ...]:
    """All pairs, in file order."""
    rows = json.loads((files("cprs_core.evaluation") / "pairs.json").read_text(encoding="utf-8"))
    return tuple(Pair(**row) for row in rows)


def excerpt(text: str, tokenizer: Tokenizer, tokens: int, seed: int) -> str:
    """About ``tokens`` tokens of whole sentences from a seeded place in ``text``."""
    encoded = tokenizer.encode(text)
    if len(encoded) <= tokens:
        return text
    first = int(np.random.default_rng(seed).integers(0, len(encoded) - tokens))
    piece = text[int(encoded.starts[first]) : int(encoded.ends[first + tokens - 1])]
    sentences = segment_sentences(piece)
    return piece[int(sentences[1, 0]) : int(sentences[-2, 1])] if len(sentences) > 3 else piece


def insert_sentence(text: str, sentence: str, depth: float) -> tuple[str, int]:
    """``text`` with ``sentence`` before the sentence at ``depth`` (0..1), and where it now begins."""
    starts = segment_sentences(text)[:, 0]
    at = int(starts[min(len(starts) - 1, round(depth * len(starts)))])
    return f"{text[:at]}{sentence} {text[at:]}", at


def _excerpts(options: Options, tokens: int) -> list[str]:
    """A few texts to hide evidence in, shared by all pairs, so that what is indexed once need not be again.

    Books where the data folder is at hand, else our own plain sentences.
    """
    if options.data is None:
        rng = np.random.default_rng(options.seed)
        hay = hay_to_length(rng, options.tokenizer, tokens, own_essay)
        return [" ".join(hay)]
    books = [document.text for document in read_dataset(options.folder, "haystack", "books").documents.values()]
    books = [text for text in books if len(text) > 8 * tokens] or books
    return [excerpt(text, options.tokenizer, tokens, options.seed + number) for number, text in enumerate(books[:6])]


def measure_pairs(systems: Sequence[System], options: Options) -> list[Measure]:
    """Right sentence kept at 1 % of 32 K tokens of books."""
    rng = np.random.default_rng(options.seed)
    order = rng.permutation(len(read_pairs()))[: options.sample(len(read_pairs()))]
    pairs = [read_pairs()[i] for i in sorted(order.tolist())]
    depths = (rng.permutation(len(pairs)) + 0.5) / len(pairs)
    tokens = options.tokens or TOKENS
    excerpts = _excerpts(options, tokens)
    requests, facts = [], []
    for number, (pair, depth) in enumerate(zip(pairs, depths.tolist(), strict=True)):
        text, at = insert_sentence(excerpts[number % len(excerpts)], pair.evidence, depth)
        corpus = Corpus([text], options.tokenizer)
        requests.append(Request(corpus, pair.question, PRESETS["supporting_facts"]))
        facts.append(Fact.locate(corpus, at, at + len(pair.evidence)))
    measures = []
    for system in systems:
        found = []
        for scores, request, fact, pair in zip(system.rank(requests), requests, facts, pairs, strict=True):
            kept = fill_budget(scores, request.corpus.costs, int(RATIO * request.corpus.tokens))
            found.append(fact.found(kept))
            if isinstance(system, CriticSystem):
                case = ("no-shared-word", pair.topic, system.name, request, [fact], scores, kept)
                options.failures.add(*case, missed=not found[-1])
        measures.append(mean_measure("no-shared-word", "kept at 1 %", system.name, found))
    return measures
