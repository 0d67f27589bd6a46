"""What word statistics say of pieces."""

from __future__ import annotations

import time
import tracemalloc
from types import SimpleNamespace

import pytest

from cprs_integrations.ranking import fit_query, lexical_scores

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


def test_a_long_request_over_many_pieces_takes_neither_minutes_nor_gigabytes() -> None:
    pieces = [f"line {n} of worker {n % 77} did step {n % 1_000}" for n in range(50_000)]
    pieces[4_321] = "line 4321 lost the lease"
    request = " ".join(f"remark{n}" for n in range(20_000)) + " Who lost the lease?"
    tracemalloc.start()
    began = time.perf_counter()
    scores = lexical_scores(pieces, request)
    seconds, (_, peak) = time.perf_counter() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert int(scores.argmax()) == 4_321
    assert seconds < 20
    assert peak < 100_000_000


def test_a_long_query_is_cut_to_its_beginning_and_its_end_in_any_script() -> None:
    remote = SimpleNamespace()  # it tells nothing of its tokenizer: one token for a character that is not ASCII
    for query in ("first " + "and " * 5_000 + "last", "甲" + "在中间" * 5_000 + "乙"):
        short = fit_query(query, remote)
        assert short[0] == query[0]
        assert short[-1] == query[-1]
        assert len(short) < 600
