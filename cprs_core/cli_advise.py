"""``cprs advise``: does compressing pay, in money and in time?"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cprs_core.errors import InputError

_DESCRIPTION = """\
Says whether compressing pays in money and in time, and from which length on. Prices come from the package's table
(second-hand: check your provider), your own table (--prices) or --price; the compressor's speed is measured here in a
few seconds, or read from --speed or --speed-file. Formulas: docs/advise.md.
"""


def add_advise_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds ``advise`` to a command line's subcommands (what ``ArgumentParser.add_subparsers`` returned)."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "advise",
        help="does compressing pay, in money and in time?",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tokens", type=int, required=True, metavar="N", help="length of the context")
    parser.add_argument("--model", metavar="NAME", help="chat model in the price table")
    parser.add_argument("--prices", type=Path, metavar="FILE", help="your own price table (TOML)")
    parser.add_argument("--price", type=float, metavar="USD", help="input price per million tokens")
    parser.add_argument("--cached-price", type=float, metavar="USD", help="the same for tokens from the prompt cache")
    parser.add_argument("--cache-write-price", type=float, metavar="USD", help="the same for tokens written to it")
    parser.add_argument(
        "--first-token",
        action="append",
        default=[],
        metavar="SECONDS@TOKENS",
        help="the chat model's measured time to its first token at a length; may be repeated",
    )
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument("--keep", type=float, default=0.1, metavar="SHARE", help="share of the tokens kept (default 0.1)")
    kept.add_argument("--max-tokens", type=int, metavar="N", help="tokens kept, whatever the length")
    parser.add_argument(
        "--calls", type=int, default=1, metavar="N", help="questions per context while the prompt cache holds it"
    )
    parser.add_argument(
        "--machine-price", type=float, default=0.0, metavar="USD", help="of the compressing machine, per hour"
    )
    parser.add_argument("--speed", type=float, metavar="N", help="tokens per second of the compressor")
    parser.add_argument(
        "--speed-file", type=Path, metavar="FILE", help="read the speed from here; measured and written where missing"
    )
    parser.add_argument("--critic", metavar="DIR", help="a critic's folder, for measuring; else the embedded one")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float16, int8")
    parser.add_argument("--json", action="store_true", help="the advice as JSON")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw both ways into a PNG, SVG or PDF")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Prints the advice; 0 whatever it is."""
    from cprs_core.advice import Speed, advise
    from cprs_core.advice_chart import check_chart, write_chart

    price = _price(args)
    keep = args.max_tokens if args.max_tokens is not None else args.keep
    options = {"keep": keep, "calls": args.calls, "machine_price": args.machine_price}
    if args.chart is not None:
        check_chart(args.chart)
    advise(args.tokens, price=price, speed=Speed(1.0), **options)  # mistakes are found before anything is measured
    advice = advise(args.tokens, price=price, speed=_speed(args), **options)
    sys.stdout.write((json.dumps(asdict(advice), indent=1) if args.json else str(advice)) + "\n")
    if args.chart is not None:
        write_chart(advice, args.chart)
    return 0


def _price(args: argparse.Namespace) -> Any:
    from cprs_core.advice import ChatPrice, find_price, read_prices

    if args.model is None and args.price is None:
        raise InputError(f"name a chat model (--model: {', '.join(read_prices(args.prices))}) or its price (--price)")
    table = read_prices(args.prices)
    price = find_price(args.model, table) if args.price is None else table.get(args.model or "")
    if price is None:  # a model that the table does not have
        price = ChatPrice(0.0, model=args.model or "")
    elif args.price is not None:
        # What is not given stays, above all the prompt cache, without which compressing would look better than it is.
        price = replace(price, source=f"input price given; the rest from {price.source}")
    given = {"input": args.price, "cached_input": args.cached_price, "cache_write": args.cache_write_price}
    points = tuple(_point(text) for text in args.first_token)
    price = replace(price, **{name: value for name, value in given.items() if value is not None})
    return replace(price, first_token=points) if points else price


def _point(text: str) -> tuple[int, float]:
    seconds, at, tokens = text.partition("@")
    try:
        if not at:
            raise ValueError
        return int(tokens.replace(",", "")), float(seconds)
    except ValueError:
        raise InputError(f"--first-token is {text!r}; pass SECONDS@TOKENS, as in 8.35@65536") from None


def _speed(args: argparse.Namespace) -> Any:
    from cprs_core.advice import Speed

    if args.speed is not None:
        return Speed(args.speed)
    if args.speed_file is not None and args.speed_file.exists():
        try:
            return Speed(**json.loads(args.speed_file.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise InputError(f"{args.speed_file} holds no speed: {error}; delete it to measure again") from None
    compressor = args.load_compressor(args.critic, device=args.device, dtype=args.dtype)
    speed = compressor.measure_speed()
    if args.speed_file is not None:
        args.speed_file.parent.mkdir(parents=True, exist_ok=True)
        args.speed_file.write_text(json.dumps(asdict(speed)) + "\n", encoding="utf-8")
    return speed
