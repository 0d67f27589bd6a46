"""Whether compressing pays, in money and in time, and from which length on.

With ``n`` input tokens, ``k`` of them kept, ``m`` questions asked about one context while the provider's cache holds
it, prices per token ``p`` (input), ``c`` (cached) and ``w`` (cache write), and a compressor that reads ``v`` tokens/s
after ``o`` seconds, on a machine that costs ``r`` per second:

    money, direct      n * min(p, (w + (m - 1) * c) / m)
    money, compressed  k * p + r * (o + n / v)
    time, direct       first(n) / m        first(n) = a * n + b * n**2: a chat model's time to its first token
    time, compressed   o + n / v + first(k)

Kept text depends on the question, so no cache helps it; the direct way is given a cache whose hits take no time at all.
Everything after the first token costs both ways the same and is left out. Nothing here is about quality.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cprs_core.errors import InputError

LONGEST = 10_000_000  # tokens: break-even lengths beyond this are "never"
_CALIBRATION_SECONDS = 0.5
_CALIBRATION_TOKENS = 262_144


@dataclass(frozen=True)
class ChatPrice:
    """What a chat model's input costs, in US dollars per million tokens, and how long it reads.

    Attributes:
        input: a token that the provider has not seen.
        cached_input: a token from its prompt cache; None where there is none.
        cache_write: a token written to the cache; None where that costs the same as ``input``.
        first_token: measured (tokens, seconds) until the first token of the answer; empty where unknown.
        model, checked, source: whose price, from when and where.
    """

    input: float
    cached_input: float | None = None
    cache_write: float | None = None
    first_token: tuple[tuple[int, float], ...] = ()
    model: str = ""
    checked: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        for name in ("input", "cached_input", "cache_write"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and 0 <= value < float("inf")):
                raise InputError(f"the price {name} is {value!r}; pass US dollars per million tokens, 0 or more")
        for point in self.first_token:
            if len(point) != 2 or point[0] < 1 or not 0 <= point[1] < float("inf"):
                raise InputError(f"first_token has {point!r}; pass pairs of tokens (1 or more) and seconds (0 or more)")


@dataclass(frozen=True)
class Speed:
    """How fast a compressor reads on one machine: ``seconds(n) = overhead_seconds + n / tokens_per_second``."""

    tokens_per_second: float
    overhead_seconds: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.tokens_per_second < float("inf"):
            raise InputError(f"a speed of {self.tokens_per_second} tokens/s cannot be; pass one above 0")
        if not 0 <= self.overhead_seconds < float("inf"):
            raise InputError(f"an overhead of {self.overhead_seconds} s cannot be; pass 0 or more")


@dataclass(frozen=True)
class Advice:
    """Both ways of asking one question, per call.

    Attributes:
        tokens, kept_tokens: of the context, and what is kept of it.
        direct_dollars, compressed_dollars: input costs; a machine of one's own counts by ``machine_price``.
        direct_seconds, compressed_seconds: until the first token of the answer; None where the chat model's is unknown.
        pays_in_money, pays_in_time: whether compressing costs less; None where unknown.
        dollars_from, seconds_from: least tokens of context from which on it does, up to 10 million; None for never.
        price, speed, keep, calls, machine_price: what was assumed (see `advise`).
    """

    tokens: int
    kept_tokens: int
    direct_dollars: float
    compressed_dollars: float
    direct_seconds: float | None
    compressed_seconds: float | None
    pays_in_money: bool
    pays_in_time: bool | None
    dollars_from: int | None
    seconds_from: int | None
    price: ChatPrice
    speed: Speed
    keep: float | int
    calls: int = 1
    machine_price: float = 0.0

    def __str__(self) -> str:
        kept = f"{self.kept_tokens:,} of {self.tokens:,} tokens kept"
        lines = [f"{self.price.model or 'chat model'}, {kept}, {self.calls} question(s) per context"]
        lines.append(
            f"money  ${self.direct_dollars:.6f} direct, ${self.compressed_dollars:.6f} compressed per question: "
            f"{_verdict(self.pays_in_money, self.dollars_from)}"
        )
        if self.direct_seconds is None or self.compressed_seconds is None:
            seconds = self.speed.overhead_seconds + self.tokens / self.speed.tokens_per_second
            lines.append(
                f"time   compressing takes {seconds:.2f} s; the chat model's time to its first token is unknown: "
                "measure it and pass it (--first-token SECONDS@TOKENS)"
            )
        else:
            lines.append(
                f"time   {self.direct_seconds:.2f} s direct, {self.compressed_seconds:.2f} s compressed to the first "
                f"token: {_verdict(bool(self.pays_in_time), self.seconds_from)}"
            )
        lines.append(
            f"speed  {self.speed.tokens_per_second:,.0f} tokens/s, {self.speed.overhead_seconds:.3f} s per call"
        )
        if self.price.source:
            lines.append(f"price  {self.price.source} ({self.price.checked})")
        return "\n".join(lines)

    def at(self, tokens: int) -> Advice:
        """The same question about a context of another length."""
        return advise(
            tokens,
            price=self.price,
            speed=self.speed,
            keep=self.keep,
            calls=self.calls,
            machine_price=self.machine_price,
        )


def _verdict(pays: bool, first: int | None) -> str:
    verdict = "compressing pays" if pays else "compressing does not pay"
    if first is None:
        return f"{verdict} (at no length up to {LONGEST:,} tokens)"
    return f"{verdict} (it does from {first:,} tokens on)"


def advise(
    tokens: int,
    *,
    price: ChatPrice | float | str,
    speed: Speed,
    keep: float | int = 0.1,
    calls: int = 1,
    machine_price: float = 0.0,
) -> Advice:
    """Both ways of asking, and from which length on compressing pays.

    Args:
        tokens: length of the context.
        price: a `ChatPrice`, US dollars per million input tokens, or the name of a model in the package's table.
        speed: of the compressor, measured (`measure_speed`) or known.
        keep: share of the tokens that is kept (a float in 0..1), or their number (an int).
        calls: questions asked about one context while the provider's prompt cache holds it.
        machine_price: US dollars per hour of the machine that compresses.

    Raises:
        InputError: a number out of range, or a model that the table does not have.
    """
    if not isinstance(tokens, int) or tokens < 1:
        raise InputError(f"tokens is {tokens}; pass the context's length, 1 or more")
    if (isinstance(keep, float) and not 0 < keep <= 1) or keep <= 0:
        raise InputError(f"keep is {keep}; pass a share above 0 and at most 1.0, or a whole number of tokens")
    if calls < 1:
        raise InputError(f"calls is {calls}; at least one question is asked")
    if not 0 <= machine_price < float("inf"):
        raise InputError(f"machine_price is {machine_price}; pass US dollars per hour, 0 or more")
    resolved = _resolve_price(price)
    model = _Costs(resolved, speed, keep, calls, machine_price)
    length = np.array([float(tokens)])
    dollars, cheap = (float(row(length)[0]) for row in (model.direct_dollars, model.compressed_dollars))
    advice = Advice(
        tokens=tokens,
        kept_tokens=int(model.kept(length)[0]),
        direct_dollars=dollars,
        compressed_dollars=cheap,
        direct_seconds=None,
        compressed_seconds=None,
        pays_in_money=cheap < dollars,
        pays_in_time=None,
        dollars_from=_first_length(lambda n: model.compressed_dollars(n) < model.direct_dollars(n)),
        seconds_from=None,
        price=resolved,
        speed=speed,
        keep=keep,
        calls=calls,
        machine_price=machine_price,
    )
    if not resolved.first_token:
        return advice
    slow, quick = (float(row(length)[0]) for row in (model.direct_seconds, model.compressed_seconds))
    return replace(
        advice,
        direct_seconds=slow,
        compressed_seconds=quick,
        pays_in_time=quick < slow,
        seconds_from=_first_length(lambda n: model.compressed_seconds(n) < model.direct_seconds(n)),
    )


@dataclass(frozen=True)
class _Costs:
    """The formulas at the head of this file, over arrays of lengths: float64 (n,) in and out."""

    price: ChatPrice
    speed: Speed
    keep: float | int
    calls: int
    machine_price: float
    curve: tuple[float, float] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "curve", fit_first_token(self.price.first_token))

    def kept(self, tokens: NDArray[np.float64]) -> NDArray[np.float64]:
        kept = np.ceil(tokens * self.keep) if isinstance(self.keep, float) else np.full_like(tokens, self.keep)
        return np.minimum(tokens, kept)

    def direct_dollars(self, tokens: NDArray[np.float64]) -> NDArray[np.float64]:
        each = self.price.input
        if self.price.cached_input is not None:
            write = self.price.input if self.price.cache_write is None else self.price.cache_write
            each = min(each, (write + (self.calls - 1) * self.price.cached_input) / self.calls)
        return tokens * each / 1e6

    def compressed_dollars(self, tokens: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.kept(tokens) * self.price.input / 1e6 + self._reading(tokens) * self.machine_price / 3_600

    def direct_seconds(self, tokens: NDArray[np.float64]) -> NDArray[np.float64]:
        hits = self.calls if self.price.cached_input is not None else 1
        return self._first(tokens) / hits

    def compressed_seconds(self, tokens: NDArray[np.float64]) -> NDArray[np.float64]:
        return self._reading(tokens) + self._first(self.kept(tokens))

    def _reading(self, tokens: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.speed.overhead_seconds + tokens / self.speed.tokens_per_second

    def _first(self, tokens: NDArray[np.float64]) -> NDArray[np.float64]:
        linear, square = self.curve
        return linear * tokens + square * tokens**2


def fit_first_token(points: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """``a`` and ``b`` of ``a * n + b * n**2`` nearest to measured (tokens, seconds), neither below 0.

    One point gives a line through the origin; none gives zeros.

    >>> a, b = fit_first_token([(1_000, 1.0), (2_000, 3.0)])
    >>> round(a * 1_000 + b * 1_000**2, 6)
    1.0
    """
    if not points:
        return 0.0, 0.0
    n, seconds = (np.array(column, dtype=np.float64) for column in zip(*points, strict=True))
    # Relative errors: a short prompt's seconds matter as much as a long one's.
    weight = 1 / np.maximum(seconds, 1e-9)
    line = float((weight**2 * n * seconds).sum() / (weight**2 * n**2).sum()), 0.0
    square = 0.0, float((weight**2 * n**2 * seconds).sum() / (weight**2 * n**4).sum())
    if len(set(n.tolist())) < 2:
        return line
    columns = np.stack([n, n**2], axis=1) * weight[:, None]
    a, b = np.linalg.lstsq(columns, seconds * weight, rcond=None)[0].tolist()
    return line if b < 0 else square if a < 0 else (a, b)


def _first_length(pays: Callable[[NDArray[np.float64]], NDArray[np.bool_]]) -> int | None:
    """Least length from which on it always pays, up to `LONGEST`; None where it does not pay at `LONGEST`."""
    lengths = np.unique(np.geomspace(1, LONGEST, 20_000).astype(np.int64)).astype(np.float64)
    good = pays(lengths)
    if not good[-1]:
        return None
    bad = np.flatnonzero(~good)
    if not len(bad):
        return 1
    low, high = int(lengths[bad[-1]]), int(lengths[bad[-1] + 1])
    between = pays(np.arange(low, high + 1, dtype=np.float64))
    return low + int(np.flatnonzero(~between)[-1]) + 1


def read_prices(path: Path | None = None) -> dict[str, ChatPrice]:
    """A price table by model; the package's own without a path (``cprs_core/prices.toml``, which shows the format).

    Raises:
        InputError: the file is missing or not such a table; the message names the entry.
    """
    try:
        text = path.read_text(encoding="utf-8") if path else (files("cprs_core") / "prices.toml").read_text("utf-8")
        table: Mapping[str, Any] = tomllib.loads(text)
    except OSError as error:
        raise InputError(f"the price table {path} cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"the price table {path} is not TOML: {error}") from None
    prices = {}
    for model, entry in table.items():
        try:
            points = tuple((int(tokens), float(seconds)) for tokens, seconds in entry.get("first_token", ()))
            prices[model] = ChatPrice(**{**entry, "first_token": points, "model": model})
        except (TypeError, ValueError, AttributeError) as error:
            raise InputError(f"the price table's entry {model!r} cannot be read: {error}") from None
    return prices


def find_price(model: str, prices: Mapping[str, ChatPrice]) -> ChatPrice:
    """The price of a model. Raises InputError that lists the known ones."""
    if model not in prices:
        raise InputError(f"the price table has no {model!r}, only {', '.join(prices)}; pass --price or your own table")
    return prices[model]


def _resolve_price(price: ChatPrice | float | str) -> ChatPrice:
    if isinstance(price, ChatPrice):
        return price
    return find_price(price, read_prices()) if isinstance(price, str) else ChatPrice(price)


def measure_speed(read: Callable[[str], tuple[int, float]]) -> Speed:
    """A short calibration: two lengths of made-up prose, the longer one taking about half a second or more.

    Args:
        read: compresses a text and returns its tokens and the seconds that it took.
    """
    read(_prose(500))  # first use allocates
    words = 1_000
    tokens, seconds = read(_prose(words))
    while seconds < _CALIBRATION_SECONDS and tokens < _CALIBRATION_TOKENS:
        words *= 4
        tokens, seconds = read(_prose(words))
    few, quick = min((read(_prose(words // 4)) for _ in range(2)), key=lambda run: run[1])
    tokens, seconds = min((read(_prose(words)), (tokens, seconds)), key=lambda run: run[1])
    if seconds <= quick:
        return Speed(tokens / max(seconds, 1e-6))
    rate = (tokens - few) / (seconds - quick)
    overhead = max(0.0, seconds - tokens / rate)
    return Speed(rate, overhead) if overhead else Speed(tokens / seconds)


_WORDS = (
    "the river ran low that year and farmers met in town to share what water there was while children carried "
    "letters between both councils until an engineer drew plans for a canal that nobody wanted to pay for"
).split()


def _prose(words: int) -> str:
    """Sentences of ten words in a seeded order."""
    drawn = np.random.default_rng(words).choice(_WORDS, size=words).tolist()
    return " ".join(" ".join(drawn[at : at + 10]).capitalize() + "." for at in range(0, words, 10))
