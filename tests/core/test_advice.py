"""Whether compressing pays, against numbers worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cprs_core import ChatPrice, Compressor, InputError, KeywordScorer, Speed
from cprs_core.advice import LONGEST, advise, fit_first_token, read_prices
from cprs_core.advice_chart import write_chart
from cprs_core.cli import main

FAST = Speed(10_000)


def test_money_is_tokens_times_price() -> None:
    advice = advise(30_000, price=2.5, speed=FAST)
    assert advice.direct_dollars == pytest.approx(0.075)
    assert advice.compressed_dollars == pytest.approx(0.0075)
    assert advice.kept_tokens == 3_000
    assert advice.pays_in_money
    assert advice.dollars_from == 2  # of one token nothing can be left out


def test_a_fixed_number_of_kept_tokens_pays_from_there_on() -> None:
    assert advise(30_000, price=2.5, speed=FAST, keep=1_000).dollars_from == 1_001
    short = advise(500, price=2.5, speed=FAST, keep=1_000)
    assert short.kept_tokens == 500
    assert not short.pays_in_money


def test_prompt_cache_may_make_the_direct_way_cheaper() -> None:
    cached = ChatPrice(3.0, cached_input=0.3, cache_write=3.75)
    once = advise(100_000, price=cached, speed=FAST, keep=0.2)
    assert once.direct_dollars == pytest.approx(0.3)  # nobody writes a cache that is never read
    often = advise(100_000, price=cached, speed=FAST, keep=0.2, calls=20)
    assert often.direct_dollars == pytest.approx(0.1 * (3.75 + 19 * 0.3) / 20)
    assert not often.pays_in_money
    assert often.dollars_from is None


def test_a_machine_that_costs_money_counts() -> None:
    advice = advise(36_000, price=0.1, speed=Speed(1_000), machine_price=1.0)
    assert advice.compressed_dollars == pytest.approx(36 / 3_600 + 3_600 * 0.1e-6)
    assert not advice.pays_in_money
    assert advice.dollars_from is None


def test_time_pays_once_the_square_of_the_length_outgrows_the_compressor() -> None:
    reader = ChatPrice(0.0, first_token=((65_536, 8.35), (131_072, 26.76)))
    advice = advise(131_072, price=reader, speed=FAST)
    assert advice.direct_seconds == pytest.approx(26.76)
    assert advice.compressed_seconds == pytest.approx(13.1 + 0.87, abs=0.1)
    assert advice.pays_in_time
    assert advice.seconds_from is not None
    assert advice.at(advice.seconds_from).pays_in_time
    assert not advice.at(advice.seconds_from - 1).pays_in_time


def test_time_is_unknown_without_a_measurement_of_the_chat_model() -> None:
    advice = advise(30_000, price=2.5, speed=FAST)
    assert advice.pays_in_time is None
    assert advice.direct_seconds is None
    assert "--first-token" in str(advice)


def test_a_slow_compressor_never_pays_in_time() -> None:
    reader = ChatPrice(0.0, first_token=((1_000, 0.1),))
    advice = advise(30_000, price=reader, speed=Speed(5_000))
    assert advice.seconds_from is None
    assert f"up to {LONGEST:,}" in str(advice)


def test_measured_times_are_met_and_never_fall_with_length() -> None:
    a, b = fit_first_token([(65_536, 8.35), (131_072, 26.76)])
    assert a * 65_536 + b * 65_536**2 == pytest.approx(8.35)
    assert fit_first_token([(1_000, 2.0), (2_000, 3.0)])[1] == 0.0  # concave: a line
    assert fit_first_token([(1_000, 1.0), (2_000, 8.0)])[0] == 0.0  # steeper than a square: a square


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": 0}, "tokens is 0"),
        ({"keep": 0}, "keep is 0"),
        ({"keep": 1.5}, "keep is 1.5"),
        ({"calls": 0}, "calls is 0"),
        ({"machine_price": -1.0}, "machine_price"),
        ({"price": -2.0}, "input is -2.0"),
        ({"price": "no-such-model"}, "gpt-4o"),
    ],
)
def test_numbers_out_of_range_are_named(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        advise(**{"tokens": 1_000, "price": 2.5, "speed": FAST, **options})


def test_impossible_speeds_are_refused() -> None:
    with pytest.raises(InputError, match="tokens/s"):
        Speed(0.0)


def test_every_price_of_the_package_says_when_and_where() -> None:
    prices = read_prices()
    assert len(prices) > 5
    assert all(price.checked and price.source for price in prices.values())
    assert all("check your provider" in price.source for price in prices.values() if price.input)


def test_own_price_table_is_read_and_its_mistakes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text("[mine]\ninput = 1.5\nfirst_token = [[1000, 0.2]]\n")
    assert read_prices(path)["mine"] == ChatPrice(1.5, first_token=((1_000, 0.2),), model="mine")
    path.write_text("[mine]\nprice = 1.5\n")
    with pytest.raises(InputError, match="'mine'"):
        read_prices(path)
    path.write_text("[mine\n")
    with pytest.raises(InputError, match="not TOML"):
        read_prices(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_prices(tmp_path / "nowhere.toml")


def test_compressor_advises_with_its_own_measured_speed() -> None:
    advice = Compressor(KeywordScorer("canal")).advise(30_000, price="gpt-4o", calls=2)
    assert advice.speed.tokens_per_second > 0
    assert advice.price.model == "gpt-4o"


@pytest.fixture
def cprs(capsys: pytest.CaptureFixture[str]):
    loads = []

    def run(*arguments: str) -> tuple[int, str, str]:
        def load(critic, **_):
            loads.append(critic)
            return Compressor(KeywordScorer("canal"))

        code = main(["advise", *arguments], load_compressor=load)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    run.loads = loads
    return run


def test_command_advises_from_passed_numbers_without_loading_a_critic(cprs) -> None:
    code, out, _ = cprs("--tokens", "30000", "--price", "2.5", "--speed", "6000", "--first-token", "3.5@30000")
    assert code == 0
    assert "compressing pays (it does from 2 tokens on)" in out
    assert "3.50 s direct, 5.35 s compressed" in out
    assert cprs.loads == []


def test_command_measures_once_and_remembers_where_it_is_told(cprs, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "speed.json"
    arguments = ["--tokens", "30000", "--model", "claude-sonnet-4", "--speed-file", str(path), "--json"]
    first = json.loads(cprs(*arguments)[1])
    again = json.loads(cprs(*arguments)[1])
    assert len(cprs.loads) == 1
    assert again["speed"] == first["speed"]
    assert again["price"]["cache_write"] == 3.75


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--price"),
        (["--model", "gpt-99"], "'gpt-99'"),
        (["--price", "2", "--first-token", "soon"], "SECONDS@TOKENS"),
        (["--price", "2", "--keep", "7"], "keep is 7"),
        (["--price", "2", "--max-tokens", "0"], "keep is 0"),
        (["--price", "2", "--chart", "chart.docx"], ".png"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_measured(cprs, arguments: list[str], message: str) -> None:
    code, _, error = cprs("--tokens", "1000", *arguments)
    assert code == 2
    assert message in error
    assert error.count("\n") == 1
    assert cprs.loads == []


def test_chart_is_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    advice = advise(30_000, price="qwen2.5-7b-on-one-a100", speed=FAST)
    write_chart(advice, tmp_path / "charts" / "advice.png")
    assert (tmp_path / "charts" / "advice.png").read_bytes().startswith(b"\x89PNG")
