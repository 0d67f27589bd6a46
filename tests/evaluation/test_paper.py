"""The paper's table: its rows, its budgets, and what counts as reached."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cprs_core.evaluation import paper
from cprs_core.evaluation.bench import critic_variants
from cprs_core.evaluation.metrics import Fact, Measure
from cprs_core.evaluation.needles import _Ranked, recall_on_average
from cprs_core.evaluation.options import Options
from cprs_core.evaluation.paper import (
    BY_DEFAULT,
    EQUAL_RECALL,
    LENGTH,
    RECALL_BY_DEFAULT,
    ROWS,
    compression,
    measure_row,
    render_paper,
)
from cprs_core.evaluation.systems import ChunkSystem, CriticSystem, HeadSystem, System
from cprs_core.scorer import KeywordScorer, WordTokenizer


@pytest.fixture(scope="module")
def measures() -> list[Measure]:
    systems: list[System] = [CriticSystem("ours", KeywordScorer()), HeadSystem(), ChunkSystem(paper.RAG, HeadSystem())]
    options = Options(tokens=1_600, questions=2)
    return [measure for row in ROWS for measure in measure_row(row, systems, options)]


def test_every_row_is_measured_at_its_own_tokens(measures: list[Measure]) -> None:
    for row in ROWS:
        found = [m for m in measures if m.task == row.task and m.metric == row.metric]
        if row.label.startswith("RULER QA"):
            assert "data" in found[0].note  # no data folder: the row says so and the others go on
        else:
            assert {m.system for m in found} >= {"ours", "first tokens"}, row.label


def test_cases_are_shared_out_over_the_kinds_of_a_row() -> None:
    options = Options(tokens=400)
    needles = list(ROWS[0].make(options, 400, 10))
    assert len(needles) == 10
    assert len({sample.task for sample in needles}) == 8
    assert len(list(ROWS[0].make(options, 400, 1))) == 8  # never fewer than one each


def test_looked_up_lines_stand_all_over_the_context() -> None:
    row = next(row for row in ROWS if "pass key" in row.label)
    options = Options(tokens=2_000, tokenizer=WordTokenizer())
    samples = list(row.make(options, 2_000, 5))
    places = [sample.gold[0][0] / len(sample.text) for sample in samples]
    assert max(places) - min(places) > 0.5


def test_compression_is_input_over_what_the_recall_of_rag_takes(measures: list[Measure]) -> None:
    rows = {(m.metric, m.system): m.value for m in compression(measures)}
    assert rows[EQUAL_RECALL, "ours"] > rows[EQUAL_RECALL, "first tokens"] >= 1.0
    assert rows[BY_DEFAULT, "ours"] > 1.0
    assert 0 < rows[RECALL_BY_DEFAULT, "ours"] <= 100
    assert (BY_DEFAULT, "first tokens") not in rows  # truncation has no threshold
    assert compression([m for m in measures if m.metric != LENGTH]) == []


def test_a_curve_that_never_reaches_rag_keeps_everything() -> None:
    task = ROWS[0].task
    curve = [Measure(task, f"recall@{n:,}", "weak", 10.0, 9.0, 11.0, 5, detail=True) for n in (32, 64, 128)]
    assert paper._tokens_for(curve, ROWS[0], "weak", 50.0) is None
    assert paper._tokens_for(curve, ROWS[0], "weak", 10.0) == pytest.approx(32)


def test_what_could_not_be_measured_has_no_compression() -> None:
    row = ROWS[0]
    found = [
        Measure(row.task, LENGTH, "", 1_000.0, detail=True),
        Measure(row.task, "recall@125", paper.RAG, 100.0),
        Measure(row.task, row.metric, "absent", math.nan, note="weights not found"),
    ]
    assert [m.system for m in compression(found) if m.metric == EQUAL_RECALL] == [paper.RAG]


def test_table_says_what_is_reached_and_prefers_hops_where_they_found_more() -> None:
    needles, chains = ROWS[0], ROWS[1]
    rows = [
        Measure(needles.task, needles.metric, "ours", 99.95, 99.9, 100.0, 50),
        Measure(chains.task, chains.metric, "ours", 40.0, 30.0, 50.0, 50),
        Measure(chains.task, chains.metric, "ours, hops", 98.0, 96.0, 100.0, 50),
        Measure(chains.task, chains.metric, "BM25", 20.0, 20.0, 20.0, 50),
    ]
    lines = {line.split("|")[1].strip(): line for line in render_paper(rows, ["ours"]).splitlines()}
    assert "reached" in lines[needles.label]
    assert "98.0 [96.0, 100.0] with hops" in lines[chains.label]
    assert "missed" in lines[chains.label]
    assert "20.0 [20.0, 20.0]" in lines[chains.label]
    assert render_paper([], ["ours"]) == ""


def test_a_cascade_takes_part_in_long_contexts_only() -> None:
    critics = {"ours": KeywordScorer()}
    assert "ours, cascade" in [system.name for system in critic_variants(critics, "haystack")]
    assert critic_variants(critics, "qed") == []


def test_readers_gain_stands_in_the_table() -> None:
    task = "reader: F1 points gained by ours, 1,000 tokens"
    rows = [
        Measure(task, "over it", "first 16,384 tokens", 42.0, 35.0, 49.0, 50),
        Measure(task, "over it", f"{paper.RAG}, 16,384 tokens", -3.0, -5.0, -1.0, 50),
    ]
    over_truncation, over_rag = render_paper(rows, ["ours"]).splitlines()[2:]
    assert "42.0" in over_truncation
    assert "reached" in over_truncation
    assert "missed" in over_rag


def test_rows_that_could_not_be_measured_are_missed_not_left_out() -> None:
    row = Measure(ROWS[0].task, ROWS[0].metric, "all", math.nan, note="no data")
    line = render_paper([row], ["ours"]).splitlines()[2]
    assert ROWS[0].label in line
    assert "missed" in line


def test_a_budget_on_average_lets_samples_with_more_right_lines_take_more() -> None:
    def ranked(right: int, score: float) -> _Ranked:
        scores = np.full(6, 0.1, dtype=np.float32)
        scores[:right] = score
        facts = [Fact(np.array([i]), np.array([9])) for i in range(right)]
        return _Ranked(facts, False, scores, np.full(6, 10))

    pool = [ranked(1, 0.9), ranked(3, 0.8)]
    assert recall_on_average(pool, 20) == [1.0, 1.0]  # 10 and 30 tokens
    assert recall_on_average(pool, 10) == [1.0, 1 / 3]
    assert recall_on_average(pool, 4) == [0.0, 0.0]
