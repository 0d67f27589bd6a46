"""``cprs advise``: what is given, what the table says, and numbers that cannot be."""

from __future__ import annotations

import json

import pytest

from cprs_core.cli import main


def advise(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["advise", "--tokens", "30000", "--speed", "6000", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_given_price_leaves_the_prompt_cache_of_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    """Ten questions from the cache are cheaper than nine tenths of the text ten times, whoever says the price."""
    often = ("--model", "gpt-4o", "--calls", "10", "--keep", "0.9", "--json")
    _, out, _ = advise(capsys, *often, "--price", "3")
    advice = json.loads(out)
    assert advice["price"]["input"] == 3.0
    assert advice["price"]["cached_input"] == 1.25
    assert advice["direct_dollars"] == pytest.approx(0.03 * (3.0 + 9 * 1.25) / 10)
    assert not advice["pays_in_money"]
    _, out, _ = advise(capsys, *often, "--price", "3", "--cached-price", "3")
    assert json.loads(out)["pays_in_money"]


def test_a_given_price_needs_no_entry_in_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = advise(capsys, "--model", "my-own", "--price", "2")
    assert code == 0
    assert "my-own" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--machine-price", "nan"), "machine_price is nan"),
        (("--machine-price", "inf"), "machine_price is inf"),
        (("--first-token", "nan@100"), "first_token has (100, nan)"),
        (("--first-token", "inf@100"), "first_token has (100, inf)"),
        (("--speed", "inf"), "a speed of inf"),
    ],
)
def test_numbers_that_cannot_be_are_named(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    code, out, error = advise(capsys, "--price", "2", *arguments)
    assert (code, out) == (2, "")
    assert message in error
