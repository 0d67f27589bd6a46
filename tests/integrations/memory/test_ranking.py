"""What word statistics say of pieces."""

from __future__ import annotations

import pytest

from cprs_integrations.ranking import lexical_scores

RECORDS = [f"reservation {n} of seat {n % 7}" for n in range(100)]


def test_words_that_occur_nowhere_do_not_dilute_those_that_do() -> None:
    short = lexical_scores(RECORDS, "reservation 42")
    long = lexical_scores(RECORDS, "yes everything looks good please proceed reservation 42 thank kindly")
    assert long == pytest.approx(short, abs=1e-6)
    assert long.argmax() == 42


def test_a_piece_with_all_that_is_asked_for_scores_about_one_and_others_little() -> None:
    scores = lexical_scores([*RECORDS, "Ada signed the lease"], "Who signed the lease, Ada?")
    assert 0.5 < scores[-1] <= 1.2
    assert scores[:-1].max() == 0.0


def test_a_word_that_most_pieces_hold_says_little() -> None:
    assert lexical_scores(RECORDS, "reservation").max() < 0.1


def test_without_words_or_pieces_there_is_nothing_to_say() -> None:
    assert lexical_scores(RECORDS, "?!").tolist() == [0.0] * 100
    assert lexical_scores([], "lease").shape == (0,)
