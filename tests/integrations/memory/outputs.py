"""Tool outputs with a known line that matters, made from a random generator; all text is our own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from random import Random

SERVICES = ["billing", "search", "mailer", "catalog", "gateway", "ledger", "profile", "thumbnail"]
CITIES = ["Lisbon", "Oslo", "Quito", "Nairobi", "Hanoi", "Tallinn", "Lima", "Accra", "Bergen", "Cusco"]
NAMES = ["Ada", "Grace", "Alan", "Edsger", "Barbara", "Donald", "Frances", "Ken", "Radia", "Tim"]
VERBS = ["load", "store", "merge", "parse", "render", "resolve", "rotate", "split", "verify", "walk"]
NOUNS = ["account", "batch", "cursor", "digest", "frame", "header", "index", "journal", "packet", "token"]


@dataclass(frozen=True)
class Output:
    """A tool's output, the request it answers, and texts that must survive."""

    kind: str
    text: str
    request: str
    gold: tuple[str, ...]


def service_log(rng: Random, lines: int = 400) -> Output:
    service = rng.choice(SERVICES)
    rows = [_log_line(rng, at) for at in range(lines)]
    code = rng.randrange(1000, 9999)
    at = rng.randrange(lines // 4, lines)
    gold = [
        f"2031-03-04 {_clock(at)} ERROR {service}: request {code} failed",
        "Traceback (most recent call last):",
        f'  File "{service}/handler.py", line {rng.randrange(10, 300)}, in handle',
        f"    return {rng.choice(VERBS)}_{rng.choice(NOUNS)}(request)",
        f"TimeoutError: no answer from {rng.choice(SERVICES)}-db within 30 s",
    ]
    rows[at:at] = gold
    return Output("log", "\n".join(rows), f"Why did the {service} request {code} fail?", tuple(gold))


def build_log(rng: Random, lines: int = 400) -> Output:
    units = [f"src/{rng.choice(NOUNS)}_{rng.choice(VERBS)}_{n}.c" for n in range(lines)]
    rows = [f"[{n + 1}/{lines}] CC {unit}" for n, unit in enumerate(units)]
    at = rng.randrange(5, lines)
    symbol = f"{rng.choice(VERBS)}_{rng.choice(NOUNS)}"
    line = rng.randrange(10, 900)
    gold = [
        f"{units[at]}:{line}:9: error: implicit declaration of function '{symbol}'",
        f"  {line} |         {symbol}(ctx);",
        "      |         ^~~~~~~~~~",
    ]
    rows[at + 1 : at + 1] = gold
    rows.append("ninja: build stopped: subcommand failed.")
    return Output("log", "\n".join(rows), "Why does the build stop?", tuple(gold))


def pytest_log(rng: Random, lines: int = 400) -> Output:
    rows = [f"tests/test_{rng.choice(NOUNS)}.py::test_{rng.choice(VERBS)}_{n} PASSED" for n in range(lines)]
    name = f"test_{rng.choice(VERBS)}_{rng.choice(NOUNS)}"
    value = rng.randrange(100)
    gold = [f"E   AssertionError: expected {value + 1} rows, got {value}", f"FAILED tests/test_rows.py::{name}"]
    rows += ["=" * 30 + " FAILURES " + "=" * 30, f"____ {name} ____", *gold, f"1 failed, {lines} passed in 12.3s"]
    return Output("log", "\n".join(rows), f"What is wrong in {name}?", tuple(gold))


def grep_hits(rng: Random, lines: int = 400) -> Output:
    def row() -> str:
        call = f"{rng.choice(VERBS)}_{rng.choice(NOUNS)}(timeout={rng.randrange(90)})"
        return f"src/{rng.choice(NOUNS)}/{rng.choice(VERBS)}.py:{rng.randrange(1, 900)}:    {call}"

    rows = [row() for _ in range(lines)]
    symbol = f"reconnect_{rng.choice(NOUNS)}"
    gold = [f"src/net/client.py:{rng.randrange(1, 900)}:def {symbol}(retries: int, backoff: float) -> None:"]
    rows.insert(rng.randrange(lines), gold[0])
    return Output("log", "\n".join(rows), f"Where is {symbol} defined?", tuple(gold))


def json_list(rng: Random, records: int = 200) -> Output:
    rows = [
        {
            "order_id": f"W{rng.randrange(10**6, 10**7)}",
            "customer": rng.choice(NAMES),
            "city": rng.choice(CITIES),
            "status": rng.choice(["shipped", "pending", "returned"]),
            "total": round(rng.uniform(5, 500), 2),
            "items": [{"sku": rng.randrange(10**5), "quantity": rng.randrange(1, 5)} for _ in range(2)],
        }
        for _ in range(records)
    ]
    wanted = rng.choice(rows)
    text = json.dumps({"page": 1, "orders": rows}, indent=rng.choice([None, 2]))
    gold = (str(wanted["order_id"]), str(wanted["total"]))
    return Output("json", text, f"What did order {wanted['order_id']} cost?", gold)


def web_page(rng: Random, paragraphs: int = 60) -> Output:
    city = rng.choice(CITIES)
    year = rng.randrange(1850, 1990)
    person = f"{rng.choice(NAMES)} {rng.choice(NOUNS).title()}"
    gold = f"The harbour bridge of {city} was opened in {year} by the engineer {person}."
    body = [_filler(rng) for _ in range(paragraphs)]
    at = rng.randrange(1, paragraphs)
    body[at] = f"{body[at]} {gold}"
    if rng.random() < 0.5:
        inside = "\n".join(f"<p>{text}</p>" for text in body)
        page = f"<html><head><script>var a = 1;</script></head><body><nav>Home</nav>\n{inside}</body></html>"
        return Output("html", page, f"Who opened the harbour bridge in {city}?", (gold,))
    return Output("text", "\n\n".join(body), f"Who opened the harbour bridge in {city}?", (gold,))


MAKERS = [service_log, build_log, pytest_log, grep_hits, json_list, web_page]


def any_output(rng: Random, size: int = 400) -> Output:
    """One of all kinds; ``size`` in lines or records."""
    return rng.choice(MAKERS)(rng, max(size, 8))


def _clock(second: int) -> str:
    return f"10:{second // 60 % 60:02d}:{second % 60:02d}"


def _log_line(rng: Random, second: int) -> str:
    service, number = rng.choice(SERVICES), rng.randrange(10**5)
    said = rng.choice(
        [
            f"INFO {service}: {rng.choice(VERBS)} {rng.choice(NOUNS)} {number} took {rng.randrange(900)} ms",
            f"INFO {service}: heartbeat {number}",
            f"DEBUG {service}: cache {rng.choice(['hit', 'miss'])} for {rng.choice(NOUNS)}-{number}",
            f"WARN {service}: slow {rng.choice(NOUNS)} {number}",
        ]
    )
    return f"2031-03-04 {_clock(second)} {said}"


def _filler(rng: Random) -> str:
    return " ".join(
        f"The {rng.choice(NOUNS)} of {rng.choice(CITIES)} {rng.choice(VERBS)}s every {rng.choice(NOUNS)} in spring, "
        f"says {rng.choice(NAMES)} to visitors number {rng.randrange(999)}."
        for _ in range(rng.randrange(2, 5))
    )
