"""Numbers and intervals, and what counts as kept."""

from __future__ import annotations

import numpy as np
import pytest

from cprs_core.evaluation.corpus import Corpus, segment_phrases
from cprs_core.evaluation.metrics import (
    Fact,
    answer_f1,
    exact_match,
    fill_budget,
    mean_measure,
    ratio_measure,
    reliability,
    set_f1,
)
from cprs_core.scorer import WordTokenizer
from cprs_core.selection import Candidates, choose

TEXT = "Ada signed the lease. It rained (a lot). They left early."


def corpus(text: str = TEXT) -> Corpus:
    return Corpus([text], WordTokenizer())


def kept(*indices: int, of: int = 3) -> np.ndarray:
    mask = np.zeros(of, dtype=bool)
    mask[list(indices)] = True
    return mask


def test_budget_keeps_what_the_compressor_would_keep() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        scores = rng.random(60).astype(np.float32)
        costs = rng.integers(1, 30, 60)
        starts = np.arange(60) * 100
        candidates = Candidates(starts, starts + 50, scores, np.zeros(60, dtype=np.int64))
        chosen = choose(candidates, threshold=None, max_tokens=150, cost=lambda index, costs=costs: int(costs[index]))
        assert np.flatnonzero(fill_budget(scores, costs, 150)).tolist() == chosen.tolist()


def test_budget_keeps_one_that_fits_however_many_better_ones_do_not_as_the_compressor_does() -> None:
    scores = np.linspace(1.0, 0.1, 400).astype(np.float32)
    costs = np.append(np.full(398, 50), [5, 4])
    candidates = Candidates(np.arange(400), np.arange(1, 401), scores, np.zeros(400, dtype=np.int64))
    chosen = choose(candidates, threshold=None, max_tokens=10, cost=lambda index: int(costs[index]))
    assert chosen.tolist() == np.flatnonzero(fill_budget(scores, costs, 10)).tolist() == [398]


def test_budget_is_never_exceeded_and_zero_keeps_nothing() -> None:
    scores = np.array([0.1, 0.9, 0.5], dtype=np.float32)
    costs = np.array([5, 50, 6])
    assert fill_budget(scores, costs, 11).tolist() == [True, False, True]
    assert not fill_budget(scores, costs, 0).any()


def test_interval_encloses_the_mean_and_narrows_with_more_cases() -> None:
    few, many = (mean_measure("t", "m", "s", np.tile([0.0, 1.0], n)) for n in (20, 500))
    assert few.low < few.value == 50.0 < few.high
    assert many.high - many.low < few.high - few.low
    assert (few.n, many.n) == (40, 1_000)


def test_ratio_is_the_sum_over_the_sum() -> None:
    measure = ratio_measure("t", "m", "s", [1, 0], [1, 3])
    assert measure.value == 25.0


def test_no_cases_give_no_number() -> None:
    assert np.isnan(mean_measure("t", "m", "s", []).value)


def test_fact_is_found_only_with_enough_characters_and_a_whole_answer() -> None:
    both = Fact.locate(corpus(), 0, 40, [(0, 3)])
    assert both.segments.tolist() == [0, 1]
    assert both.found(kept(0, 1))
    assert not both.found(kept(0))
    assert not both.found(kept(1, 2))
    assert both.found(kept(0), share=0.5)
    assert not both.found(kept(1), share=0.1)  # the answer "Ada" is gone


def test_blanks_between_segments_do_not_count() -> None:
    assert Fact.locate(corpus(), 0, len(TEXT)).share(kept(0, 1, 2)) == 1.0


def test_gold_segments_share_half_of_the_shorter_range() -> None:
    text = corpus()
    assert text.gold_segments(0, 21).tolist() == [0]
    assert text.gold_segments(2, 24).tolist() == [0]
    assert text.gold_segments(0, len(TEXT)).tolist() == [0, 1, 2]


def test_segment_costs_add_up_to_the_tokens() -> None:
    text = corpus()
    assert int(text.costs.sum()) == text.tokens
    assert text.segment_texts[1] == "It rained (a lot)."


def test_phrases_are_long_runs_between_blanks() -> None:
    text = " ".join(["ก" * 30] * 7)
    assert segment_phrases(text).tolist() == [[0, 92], [93, 185], [186, 216]]


@pytest.mark.parametrize(("predicted", "gold", "f1"), [({1, 2}, {2, 3}, 0.5), (set(), set(), 1.0), (set(), {1}, 0.0)])
def test_set_f1(predicted: set[int], gold: set[int], f1: float) -> None:
    assert set_f1(predicted, gold) == f1


def test_answers_are_compared_without_case_articles_and_punctuation() -> None:
    assert exact_match("The Lease!", ["lease"]) == 1.0
    assert answer_f1("the old lease", ["lease", "a new lease"]) == pytest.approx(2 / 3)
    assert answer_f1("", ["lease"]) == 0.0


def test_calibration_error_is_zero_where_scores_are_shares() -> None:
    scores = np.repeat(np.array([0.25, 0.75], dtype=np.float32), 400)
    positive = np.concatenate([np.arange(400) % 4 == 0, np.arange(400) % 4 != 0])
    assert reliability(scores, positive).error == pytest.approx(0.0, abs=1e-9)
    assert reliability(scores, ~positive).error == pytest.approx(0.5)


def test_a_share_without_a_miss_is_not_certain() -> None:
    """Exact binomial bounds: with eight of eight a true share of 63 % is still possible, with one of one 2.5 %."""
    eight = mean_measure("t", "m", "s", [1.0] * 8)
    assert (eight.value, eight.high) == (100.0, 100.0)
    assert eight.low == pytest.approx(63.06, abs=0.01)
    assert mean_measure("t", "m", "s", [1.0]).low == pytest.approx(2.5)
    none = mean_measure("t", "m", "s", [0.0] * 8)
    assert (none.low, none.high) == (0.0, pytest.approx(36.94, abs=0.01))
    assert mean_measure("t", "m", "s", [1.0] * 500).low > 99.2


def test_numbers_that_are_no_shares_keep_the_bootstrap_interval() -> None:
    assert mean_measure("t", "tokens", "s", [0.0, 0.0], scale=1.0).high == 0.0
    assert mean_measure("t", "points gained", "s", [0.0, 0.0], share=False).high == 0.0
