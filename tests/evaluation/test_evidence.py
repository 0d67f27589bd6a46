"""Precision and its kin, against numbers worked out by hand; and what every result promises."""

from __future__ import annotations

import pytest

from cprs_core.evaluation.evidence import F1, F2, PRECISION, RECALL, Outcome, evidence_measures
from cprs_core.evaluation.options import Options
from cprs_core.evaluation.promises import GRANULARITIES, VERBATIM, WITHIN, measure_promises
from cprs_core.evaluation.systems import CriticSystem, HeadSystem
from cprs_core.scorer import KeywordScorer


def test_precision_recall_and_f_are_of_all_cases_together() -> None:
    """Kept 4, right 5, both 3: P = 3/4, R = 3/5, F1 = 6/9, F2 = 15/24 = 5PR / (4P + R)."""
    outcomes = [Outcome.of([0, 1, 2], [1, 2, 3, 4]), Outcome.of([7], [7])]
    rows = {row.metric: row.value for row in evidence_measures("t", "s", outcomes)}
    assert rows == {
        PRECISION: pytest.approx(75.0),
        RECALL: pytest.approx(60.0),
        F1: pytest.approx(200 / 3),
        F2: pytest.approx(62.5),
    }


def test_keeping_nothing_where_nothing_is_right_costs_nothing() -> None:
    rows = evidence_measures("t", "s", [Outcome.of([], []), Outcome.of([1], [1])])
    assert all(row.value == 100.0 for row in rows)


def test_where_one_of_several_is_enough_the_others_are_neither_missing_nor_wrong() -> None:
    assert Outcome.of([3], [3, 5], any_of=True) == Outcome(1, 1, 1)
    assert Outcome.of([3, 5], [3, 5], any_of=True) == Outcome(2, 2, 2)
    assert Outcome.of([4], [3, 5], any_of=True) == Outcome(1, 1, 0)


def test_results_are_slices_within_the_budget_in_every_granularity() -> None:
    measures = measure_promises([CriticSystem("ours", KeywordScorer()), HeadSystem()], Options())
    assert {(row.system, row.metric): row.value for row in measures} == {
        ("ours", VERBATIM): 100.0,
        ("ours", WITHIN): 100.0,
    }
    assert all(row.n == 12 * len(GRANULARITIES) for row in measures)
