"""Right answers, not only kept ones: one reader over full, truncated, retrieved and compressed contexts.

Questions are those of `cprs_core.evaluation.tasks.questions` (SQuAD dev, BM25-hard documents, 131,072 tokens). A *view*
is what the reader gets to see of a context:

- full: all of it;
- first, last, both ends: what a chat model with a window of `Options.reader_tokens` tokens is given when the rest is
  cut off (an eighth of the context by default, so 16,384 of 131,072);
- a retriever over 600-token chunks, best first until the same window is full: the RAG rows of arXiv 2505.18092;
- every critic and retriever by sentences at 1,000 tokens.

Views hold whole sentences in source order. Differences are paired: the same questions, the same reader.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cprs_core.errors import InputError, MissingExtraError
from cprs_core.evaluation.corpus import Corpus, Request
from cprs_core.evaluation.data import read_dataset
from cprs_core.evaluation.metrics import (
    Measure,
    answer_f1,
    exact_match,
    fill_budget,
    mean_measure,
    normalize_answer,
)
from cprs_core.evaluation.options import Options
from cprs_core.evaluation.readers import CriticReader, Reader
from cprs_core.evaluation.systems import ChunkSystem, CriticSystem, HeadSystem, System, TailSystem
from cprs_core.evaluation.tasks.questions import make_questions
from cprs_core.evaluation.tasks.sample import Sample

TOKENS = 131_072
QUESTIONS = 100
KEPT = 1_000  # about what QwenLong-CPRS kept for question answering (arXiv 2505.18092, table 4)
TASK = "reader"
GAINED = "reader: F1 points gained by "  # and the name of a view

Select = Callable[[Sequence[Request]], list[NDArray[np.bool_]]]  # kept segments of each request


@dataclass(frozen=True)
class View:
    """What a reader is given of a context; ``kind`` is "direct", "retrieved" or "compressed"."""

    name: str
    kind: str
    select: Select


def measure_reader(systems: Sequence[System], options: Options) -> list[Measure]:
    """Exact match, token F1, answers kept and tokens per view, and what compressing gains over the other views."""
    dataset = read_dataset(options.folder, "squad", "dev")
    tokens, count = options.tokens or TOKENS, options.questions or QUESTIONS
    try:
        samples = make_questions(dataset, options.tokenizer, tokens, count, options.seed)
    except MissingExtraError as error:
        return [Measure(TASK, "exact match", "all", float("nan"), note=str(error))]
    reader = options.reader or own_reader(systems)
    window = options.reader_tokens or tokens // 8
    requests = [sample.request(options.tokenizer) for sample in samples]
    measures: list[Measure] = []
    f1: dict[str, list[float]] = {}
    views = make_views(systems, window)
    for view in views:
        rows = _read(reader, view, samples, requests)
        f1[view.name] = rows["token F1"]
        for metric, values in rows.items():
            scale = 1.0 if metric == "tokens" else 100.0
            measures.append(mean_measure(f"{TASK}: {reader.name}", metric, view.name, values, scale=scale))
    for ours in (view for view in views if view.kind == "compressed"):
        for other in (view for view in views if view.kind in ("direct", "retrieved")):
            gained = np.subtract(f1[ours.name], f1[other.name])
            measures.append(mean_measure(f"{GAINED}{ours.name}", "over it", other.name, gained, share=False))
    return measures


def own_reader(systems: Sequence[System]) -> Reader:
    """The first critic as its own reader.

    Raises:
        InputError: no critic takes part.
    """
    for system in systems:
        if isinstance(system, CriticSystem):
            return CriticReader(system.scorer, f"{system.name}, best span")
    raise InputError("no critic takes part that could read; name a chat model with --reader")


def make_views(systems: Sequence[System], window: int) -> list[View]:
    """The views of the module's description, for a reader of ``window`` tokens."""
    views = [View("full context", "direct", lambda requests: [_all(request.corpus) for request in requests])]
    views += [
        View(f"first {window:,} tokens", "direct", _truncated(lambda costs: _first(costs, window))),
        View(f"last {window:,} tokens", "direct", _truncated(lambda costs: _first(costs[::-1], window)[::-1])),
        View(
            f"both ends, {window:,} tokens",
            "direct",
            _truncated(lambda costs: _first(costs, window // 2) | _first(costs[::-1], window // 2)[::-1]),
        ),
    ]
    for system in systems:
        if isinstance(system, HeadSystem | TailSystem):
            continue
        if isinstance(system, ChunkSystem):
            views.append(View(f"{system.name}, {window:,} tokens", "retrieved", _within(system, window)))
        else:
            kind = "compressed" if isinstance(system, CriticSystem) else "sentences"
            views.append(View(f"{system.name}, {KEPT:,} tokens", kind, _within(system, KEPT)))
    return views


def _all(corpus: Corpus) -> NDArray[np.bool_]:
    return np.ones(len(corpus.segments), dtype=bool)


def _within(system: System, tokens: int) -> Select:
    def select(requests: Sequence[Request]) -> list[NDArray[np.bool_]]:
        rankings = system.rank(requests)
        return [
            fill_budget(scores, request.corpus.costs, tokens)
            for request, scores in zip(requests, rankings, strict=True)
        ]

    return select


def _first(costs: NDArray[np.int64], tokens: int) -> NDArray[np.bool_]:
    """bool, (s,): segments from the front up to ``tokens``, none beyond the first that does not fit."""
    return np.cumsum(costs) <= tokens


def _truncated(cut: Callable[[NDArray[np.int64]], NDArray[np.bool_]]) -> Select:
    return lambda requests: [cut(request.corpus.costs) for request in requests]


def _read(reader: Reader, view: View, samples: Sequence[Sample], requests: Sequence[Request]) -> dict[str, list[float]]:
    """Per metric one value per question."""
    masks = view.select(requests)
    contexts = [
        kept_text(sample.text, request.corpus, kept)
        for sample, request, kept in zip(samples, requests, masks, strict=True)
    ]
    answers = reader.answer([(context, sample.query) for context, sample in zip(contexts, samples, strict=True)])
    pairs = list(zip(answers, samples, strict=True))
    return {
        "exact match": [exact_match(answer, sample.answers) for answer, sample in pairs],
        "token F1": [answer_f1(answer, sample.answers) for answer, sample in pairs],
        "answer kept": [holds_answer(text, s.answers) for text, s in zip(contexts, samples, strict=True)],
        "tokens": [float(request.corpus.costs[kept].sum()) for request, kept in zip(requests, masks, strict=True)],
    }


def kept_text(text: str, corpus: Corpus, kept: NDArray[np.bool_]) -> str:
    """Kept segments of a one-text corpus as `compress` lays them out: neighbours as they stand, else a line break."""
    runs: list[list[int]] = []
    indices = np.flatnonzero(kept)
    for index, (start, end) in zip(indices.tolist(), corpus.segments[indices].tolist(), strict=True):
        if runs and runs[-1][2] == index - 1:
            runs[-1][1:] = [end, index]
        else:
            runs.append([start, end, index])
    return "\n".join(text[start:end] for start, end, _ in runs)


def holds_answer(text: str, answers: Sequence[str]) -> float:
    """1.0 where any answer, normalised as in SQuAD, stands in the text as whole words."""
    words = f" {normalize_answer(text)} "
    return float(any(f" {normalize_answer(answer)} " in words for answer in answers if normalize_answer(answer)))
