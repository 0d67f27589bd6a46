"""Savings are counted net of notes, fetched originals and broken caches."""

from __future__ import annotations

import json

from cprs_integrations.accounting import Ledger, common_prefix_tokens


def test_a_run_that_only_grows_is_cached_but_for_what_is_new():
    ledger = Ledger()
    ledger.record([("a", 10)], input_tokens=100)
    account = ledger.record([("a", 10), ("b", 5)], input_tokens=150)
    assert (account.cached_tokens, account.broken_tokens, account.cached_input_tokens) == (10, 0, 100)
    assert account.saved_tokens == 135
    assert account.saved_cost == (150 - 0.9 * 100) - (15 - 0.9 * 10)


def test_a_broken_prefix_is_charged():
    ledger = Ledger()
    ledger.record([("a", 80), ("b", 80)], input_tokens=160)
    account = ledger.record([("x", 80), ("b", 80)], input_tokens=170)
    assert account.broken_tokens == 160
    assert account.saved_tokens == 10
    assert account.saved_cost < 0  # ten tokens fewer, at the price of the whole cache


def test_the_share_of_cached_tokens_leaves_out_what_is_new():
    ledger = Ledger()
    ledger.record([("a", 50)], input_tokens=50)
    ledger.record([("a", 50), ("b", 500)], input_tokens=550)
    assert ledger.total["cached_share"] == 1.0


def test_a_ledger_goes_through_json_and_on():
    ledger = Ledger(cache_price=0.25)
    ledger.record([("a", 10)], input_tokens=100, note_tokens=3)
    again = Ledger.from_dict(json.loads(json.dumps(ledger.to_dict())))
    assert again == ledger
    rows = [("a", 10), ("b", 7)]
    assert again.record(rows, input_tokens=120) == ledger.record(rows, input_tokens=120)
    assert Ledger.from_dict(None) == Ledger()


def test_totals_are_sums_of_turns():
    ledger = Ledger()
    for n in range(1, 6):
        ledger.record([(str(k), 10) for k in range(n)], input_tokens=50 * n, expanded_tokens=n)
    assert ledger.total["sent_tokens"] == 150
    assert ledger.total["expanded_tokens"] == 15
    assert ledger.total["requests"] == 5
    assert ledger.total["saved_cost"] == sum(turn.saved_cost for turn in ledger.turns)


def test_a_common_prefix_ends_at_the_first_difference():
    assert common_prefix_tokens([("a", 1), ("b", 2), ("c", 4)], [("a", 1), ("x", 2), ("c", 4)]) == 1
