"""Needles, key-values and pass keys: recall of the lines that hold what is asked for, and at what price.

Two views of one ranking: what the default threshold keeps (critics only), and what fits in the tokens of the right
lines and 64 more (everyone). BM25 solves these, so they gate: a critic must not be worse.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cprs_core.evaluation.corpus import Request
from cprs_core.evaluation.data import read_dataset
from cprs_core.evaluation.metrics import Fact, Measure, fill_budget, mean_measure
from cprs_core.evaluation.options import Options
from cprs_core.evaluation.systems import CriticSystem, System
from cprs_core.evaluation.tasks.infinitebench import make_key_values, make_number, make_pass_key
from cprs_core.evaluation.tasks.ruler import NEEDLE_TASKS, make_needles
from cprs_core.evaluation.tasks.sample import MakeHay, Sample, essay_from, own_essay
from cprs_core.segmentation import segment_sentences

TOKENS = 32_768
SAMPLES = 10
SPARE_TOKENS = 64


def measure_needles(systems: Sequence[System], options: Options) -> list[Measure]:
    """RULER's eight needle tasks and InfiniteBench's three look-ups: mean recall, and each task's."""
    tokenizer, tokens = options.tokenizer, options.tokens or TOKENS
    essay = book_essay(options)
    # Few per task: eleven tasks make up for it, and each sample is a whole long context.
    count = SAMPLES if options.questions is None else max(1, min(SAMPLES, options.questions // 12))
    seeds = range(options.seed, options.seed + count)
    samples = [make_needles(name, tokenizer, tokens, seed, essay) for name in NEEDLE_TASKS for seed in seeds]
    for make in (make_pass_key, make_number, make_key_values):
        samples += [make(tokenizer, tokens, seed) for seed in seeds]
    return measure_samples("needles", samples, systems, options)


def measure_samples(task: str, samples: Sequence[Sample], systems: Sequence[System], options: Options) -> list[Measure]:
    """Recall and tokens of generated samples: over all of them, and recall per kind of sample."""
    requests = [sample.request(options.tokenizer) for sample in samples]
    facts = [sample.facts(request.corpus) for sample, request in zip(samples, requests, strict=True)]
    measures = []
    for system in systems:
        rankings = system.rank(requests)
        fits = [
            sample.recall(where, fill_budget(scores, request.corpus.costs, _room(request, where)))
            for sample, scores, request, where in zip(samples, rankings, requests, facts, strict=True)
        ]
        measures.append(mean_measure(task, f"recall at right lines + {SPARE_TOKENS}", system.name, fits))
        if isinstance(system, CriticSystem):
            least = system.threshold("sentence")
            masks = [scores >= least for scores in rankings]
            recall = [s.recall(where, kept) for s, where, kept in zip(samples, facts, masks, strict=True)]
            spent = [int(request.corpus.costs[kept].sum()) for request, kept in zip(requests, masks, strict=True)]
            measures.append(mean_measure(task, "recall at default threshold", system.name, recall))
            measures.append(mean_measure(task, "tokens kept", system.name, spent, scale=1.0))
        for kind in dict.fromkeys(sample.task for sample in samples):
            of_kind = [value for value, sample in zip(fits, samples, strict=True) if sample.task == kind]
            measures.append(mean_measure(task, kind, system.name, of_kind))
    return measures


def _room(request: Request, facts: Sequence[Fact]) -> int:
    segments = np.unique(np.concatenate([fact.segments for fact in facts]))
    return int(request.corpus.costs[segments].sum()) + SPARE_TOKENS


def book_essay(options: Options) -> MakeHay:
    """Hay of book sentences where the data folder is at hand, else of our own plain sentences."""
    if options.data is None or not (options.data / "haystack").is_dir():
        return own_essay
    books = list(read_dataset(options.data, "haystack", "books").documents.values())
    texts = [document.text[20_000:400_000] for document in books if len(document.text) > 30_000][:8]
    sentences = [" ".join(text[start:end].split()) for text in texts for start, end in segment_sentences(text).tolist()]
    return essay_from(sentences) if sentences else own_essay
