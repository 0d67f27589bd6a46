"""The small trained hybrid critic (`benchmarks/hybrid_ablation.py`) does through the public path what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cprs_core import Compressor, Prefix
from cprs_core.critics.hybrid_checkpoint import load_hybrid
from cprs_core.critics.hybrid_runtime import HybridScorer
from cprs_core.critics.memory import WeightFormat
from cprs_core.scorer import LABELS, OUTSIDE
from cprs_core.selection import decode_spans
from cprs_core.training.needles import TAGS, UNCOUNTED, Examples, make_examples

FOLDER = Path(__file__).parent.parent / "data" / "hybrid-tiny"
MEASURED = json.loads((FOLDER / "measured.json").read_text())
WINDOWS = 30


def scorer_in(dtype: torch.dtype) -> HybridScorer:
    critic, config, tokenizer = load_hybrid(FOLDER, torch.device("cpu"), WeightFormat(dtype))
    return HybridScorer(critic, tokenizer, window_tokens=config.window_tokens)


@pytest.fixture(scope="module")
def scorer() -> HybridScorer:
    return scorer_in(torch.float32)


@pytest.fixture(scope="module")
def examples(scorer: HybridScorer) -> Examples:
    return make_examples(scorer.tokenizer, WINDOWS, MEASURED["length"], seed=77)


def scores_of(scorer: HybridScorer, examples: Examples) -> list[np.ndarray]:
    found = []
    for ids, tag, p in zip(examples.ids, examples.tags.tolist(), examples.prefixes.tolist(), strict=True):
        found += scorer.score(Prefix(ids[:p], (TAGS[tag],)), [ids[p:]])
    return found


@pytest.fixture(scope="module")
def exact(scorer: HybridScorer, examples: Examples) -> dict[str, float]:
    """Share of right spans that are decoded with their very borders, per kind of task."""
    hits: dict[str, list[bool]] = {tag: [] for tag in TAGS}
    for number, rows in enumerate(scores_of(scorer, examples)):
        labels = examples.labels[number, examples.prefixes[number] :]
        first, last = decode_spans(rows, np.array([[0, len(rows)]]))
        decoded = set(zip(first.tolist(), last.tolist(), strict=True))
        begins = np.flatnonzero(labels == LABELS.index("B")).tolist()
        ends = np.flatnonzero(labels == LABELS.index("E")).tolist()
        assert ((labels != OUTSIDE) & (labels != UNCOUNTED)).any() or not begins
        hits[TAGS[examples.tags[number]]] += [pair in decoded for pair in zip(begins, ends, strict=True)]
    return {tag: float(np.mean(found)) for tag, found in hits.items()}


@pytest.mark.parametrize("tag", TAGS)
def test_spans_are_found_with_their_borders_as_often_as_measured(tag: str, exact: dict[str, float]) -> None:
    assert exact[tag] >= MEASURED["held_out"][tag]["exact"] - 0.05


@pytest.mark.parametrize("tag", TAGS)
def test_the_recipe_finds_99_percent_with_exact_borders(tag: str) -> None:
    assert MEASURED["held_out"][tag]["recall"] >= 0.99
    assert MEASURED["held_out"][tag]["exact"] >= 0.99


def test_bfloat16_labels_agree_with_float32(scorer: HybridScorer, examples: Examples) -> None:
    few = Examples(*(part[:6] for part in vars(examples).values()))
    other = scores_of(scorer_in(torch.bfloat16), few)
    same = [a.argmax(1) == b.argmax(1) for a, b in zip(scores_of(scorer, few), other, strict=True)]
    assert np.concatenate(same).mean() >= 0.995


def test_it_is_a_fixture_of_at_most_4_megabytes() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 4_000_000


def test_the_lines_of_a_chain_score_above_all_noise() -> None:
    noise = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.\n"
    text = f"{noise * 2}VAR QWXYZ = 40213\n{noise * 2}VAR KLMNO = VAR QWXYZ\n{noise}"
    query = "Find all variables that are assigned the value 40213 in the text above."
    segments = Compressor(scorer_in(torch.float32)).score(
        text, query, instruction="Extract the assignments of the chain; tag them with 'chain'.", granularity="line"
    )
    best = sorted(segments, key=lambda segment: -segment.score)[:2]
    assert {text[segment.start : segment.end] for segment in best} == {"VAR QWXYZ = 40213", "VAR KLMNO = VAR QWXYZ"}
