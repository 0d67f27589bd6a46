"""Made-up records: keys with look-alikes, needles, chains, logs, code and facts about people, inside real paragraphs.

Every generator plants the right item in about 70 % of its records and only look-alikes in the others, where keeping
nothing is right. Word lists here are for training alone; benchmarks bring their own.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence

from cprs_core.training.records import Evidence, EvidenceSet, Record

_COLOURS = (
    "amber azure beige bronze coral crimson cyan ebony fuchsia golden indigo ivory khaki lilac maroon ochre".split()
)
_NOUNS = """
    anchor basket beacon bridge candle canyon castle cobalt comet copper cradle desert dragon engine falcon feather
    forest garden glacier hammer harbor hazel island jacket kettle ladder lantern lagoon magnet marble meadow mirror
    nectar needle orchard oyster paddle pebble pepper pigeon pillar pocket quartz rabbit ribbon saddle sailor shovel
    spider temple thunder tunnel turtle valley velvet walnut window winter zipper
""".split()
_FIRST = """
    Agnes Bruno Carla Dmitri Elena Farid Greta Hassan Ingrid Jonas Katya Lorenzo Mirela Nikhil Olga Pavel Quentin Rosa
    Stefan Tamara Ulrich Viktor Wanda Xenia Yusuf Zofia Amara Boris Chen Dalia Emeka Fatima Goran Hana Ivan Jamila
""".split()
_LAST = """
    Abadi Bergman Castro Dvorak Eriksen Fontaine Gupta Hoffmann Ibsen Jansen Kovacs Larsen Moreno Novak Okafor Petrov
    Quist Romero Schmidt Takeda Ueda Varga Weber Xiang Yilmaz Zeman Almeida Brandt Conti Duarte
""".split()
_CITIES = (
    "Graz Turku Porto Lodz Ghent Bergen Malaga Trieste Izmir Sofia Tampere Lyon Basel Cork Varna Oulu Bari".split()
)
_JOBS = "welder surgeon botanist carpenter notary pilot plumber librarian geologist baker tailor chemist".split()
_THINGS = "router invoice shipment turbine reactor warehouse ticket account sensor server contract parcel".split()
_UNITS = [
    *("access code", "serial number", "opening password", "gate number"),
    *("tracking id", "locker combination", "badge number", "room key"),
]
_SERVICES = "billing search upload payment session catalog mailer scheduler gateway indexer exporter".split()
_VERBS = "load parse merge render fetch encode filter update validate export resolve rotate".split()
_OBJECTS = "header invoice matrix profile token image schema record bundle widget report cursor".split()
_FAULTS = [
    *("connection refused by {host}", "disk quota exceeded on {host}", "certificate of {host} has expired"),
    *("out of memory while reading {host}", "permission denied for {host}", "timeout after {n} ms waiting for {host}"),
]
_CALM = [
    *("request {n} served in {m} ms", "cache warmed with {n} entries", "heartbeat ok", "user {n} signed in"),
    *("job {n} finished", "connected to {host}", "flushed {n} rows", "retry queue is empty"),
]

Maker = Callable[[random.Random], tuple[str, list[str], list[str], str]]  # query, right lines, look-alike lines, tag


def make_synthetic(count: int, paragraphs: Sequence[str], seed: int) -> EvidenceSet:
    """``count`` records of all kinds, in equal parts.

    Args:
        paragraphs: real text that the planted lines are put into.
    """
    rng = random.Random(seed)
    result = EvidenceSet("synthetic")
    for number in range(count):
        make, in_prose = _MAKERS[number % len(_MAKERS)]
        query, right, wrong, tag = make(rng)
        present = rng.random() < 0.7
        lines = [(line, True) for line in right if present] + [(line, False) for line in wrong]
        filler = _filler(rng, paragraphs) if in_prose else [(line, False) for line in _more_lines(rng, make)]
        text, spans = _plant(
            rng, lines, filler, keep_order=tag in ("chain", "error"), glue=" " if in_prose and tag != "chain" else "\n"
        )
        document = result.add_document(text, group=f"{tag}{number}")
        evidence = tuple(Evidence(document, start, end, tag) for start, end in spans)
        result.records.append(Record(query, (document,), evidence, tag=tag))
    return result


def _plant(
    rng: random.Random, lines: list[tuple[str, bool]], filler: list[tuple[str, bool]], keep_order: bool, glue: str
) -> tuple[str, list[tuple[int, int]]]:
    """The lines spread over the filler, and where the right ones came to lie."""
    if not keep_order:
        rng.shuffle(lines)
    places = sorted(rng.choices(range(len(filler) + 1), k=len(lines)))
    mixed: list[tuple[str, bool]] = []
    for position in range(len(filler) + 1):
        mixed += [line for line, place in zip(lines, places, strict=True) if place == position]
        mixed += filler[position : position + 1]
    text, spans = "", []
    for line, is_right in mixed:
        text += glue if text else ""
        if is_right:
            spans.append((len(text), len(text) + len(line)))
        text += line
    return text, spans


def _filler(rng: random.Random, paragraphs: Sequence[str]) -> list[tuple[str, bool]]:
    sentences = [sentence for sentence in rng.choice(paragraphs).replace("\n", " ").split(". ") if sentence.strip()]
    return [(sentence if sentence.endswith(".") else f"{sentence}.", False) for sentence in sentences]


def _more_lines(rng: random.Random, make: Maker) -> list[str]:
    return [line for _ in range(rng.randint(0, 3)) for line in make(rng)[2]]


def _key(rng: random.Random) -> str:
    return rng.choice(
        (
            f"{rng.choice(_COLOURS)}-{rng.choice(_NOUNS)}",
            rng.choice(_NOUNS),
            f"{rng.choice(_NOUNS)} {rng.randint(2, 99)}",
        )
    )


def _value(rng: random.Random) -> str:
    return rng.choice(
        (
            str(rng.randint(1_000, 99_999_999)),
            f"{rng.getrandbits(64):x}",
            f"{rng.choice(_NOUNS).upper()}{rng.randint(1, 999)}",
        )
    )


def _others(rng: random.Random, right: str, make: Callable[[random.Random], str], count: int) -> list[str]:
    found: list[str] = []
    while len(found) < count:
        other = make(rng)
        if other != right and other not in found:
            found.append(other)
    return found


def _needle(rng: random.Random) -> tuple[str, list[str], list[str], str]:
    unit, key = rng.choice(_UNITS), _key(rng)
    form = rng.choice(
        ("The {u} for {k} is {v}.", "One of the hidden {u}s for {k} is: {v}.", "Remember that the {u} of {k} is {v}.",
         "{k} has the {u} {v}.", "For {k}, use the {u} {v}.")
    )  # fmt: skip
    ask = rng.choice(("What is the {u} for {k}?", "Which {u} belongs to {k}?", "{k} {u}", "Tell me the {u} of {k}."))
    near = [
        form.format(u=unit, k=other, v=_value(rng)) for other in _others(rng, key, _near_key(key), rng.randint(1, 4))
    ]
    other_unit = rng.choice([one for one in _UNITS if one != unit])
    near += [form.format(u=other_unit, k=key, v=_value(rng))] if rng.random() < 0.4 else []
    return ask.format(u=unit, k=key), [form.format(u=unit, k=key, v=_value(rng))], near, "needle"


def _near_key(key: str) -> Callable[[random.Random], str]:
    """Keys that share a word with ``key`` half of the time."""

    def make(rng: random.Random) -> str:
        if "-" in key and rng.random() < 0.6:
            colour, noun = key.split("-")
            return rng.choice((f"{colour}-{rng.choice(_NOUNS)}", f"{rng.choice(_COLOURS)}-{noun}"))
        return _key(rng)

    return make


def _pair(rng: random.Random) -> tuple[str, list[str], list[str], str]:
    style = rng.randrange(3)

    def key(rng: random.Random) -> str:
        if style == 0:
            digits = f"{rng.getrandbits(128):032x}"
            return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
        return (
            f"{rng.choice(_THINGS)}_{rng.randint(10, 9999)}"
            if style == 1
            else f"{rng.choice(_VERBS)}.{rng.choice(_OBJECTS)}.{rng.choice(_NOUNS)}"
        )

    form = rng.choice(('"{k}": "{v}",', "{k} = {v}", "{k}: {v}", "| {k} | {v} |", "{k}\t{v}"))
    right = key(rng)
    others = _others(rng, right, key, rng.randint(3, 9))
    value = key if style == 0 else _value
    ask = rng.choice(('Key: "{k}"', "What is the value of {k}?", "{k}", "value associated with {k}"))
    return (
        ask.format(k=right),
        [form.format(k=right, v=value(rng))],
        [form.format(k=k, v=value(rng)) for k in others],
        "needle",
    )


def _chain(rng: random.Random) -> tuple[str, list[str], list[str], str]:
    names = ["".join(rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=rng.randint(3, 5))) for _ in range(rng.randint(3, 8))]
    value = rng.randint(10_000, 99_999)
    chain = [f"VAR {names[0]} = {value}"] + [f"VAR {b} = VAR {a}" for a, b in itertools.pairwise(names)]
    return f"Find all variables that are assigned the value {value}.", chain, [], "chain"


def _log(rng: random.Random) -> tuple[str, list[str], list[str], str]:
    service, host = rng.choice(_SERVICES), f"{rng.choice(_NOUNS)}{rng.randint(1, 20)}"
    hour, minute = rng.randint(0, 23), rng.randint(0, 40)

    def line(level: str, name: str, message: str, second: int) -> str:
        text = message.format(host=host, n=rng.randint(10, 9_999), m=rng.randint(1, 900))
        return f"2026-03-{rng.randint(10, 28)} {hour:02}:{minute:02}:{second:02} {level} {name}: {text}"

    fault = rng.choice(_FAULTS)
    right = [line("ERROR", service, fault, 30), line("ERROR", service, f"{service} request failed", 31)]
    calm = [line("INFO", rng.choice(_SERVICES), rng.choice(_CALM), 5 * i) for i in range(rng.randint(4, 10))]
    ask = rng.choice(
        ("Why did the {s} service fail?", "What went wrong in {s}?", "{s} error", "cause of the failure of {s}")
    )
    return ask.format(s=service), right, calm, "error"


def _code(rng: random.Random) -> tuple[str, list[str], list[str], str]:
    def name(rng: random.Random) -> str:
        return f"{rng.choice(_VERBS)}_{rng.choice(_OBJECTS)}"

    right = name(rng)
    argument = rng.choice(_NOUNS)
    near = [f"def {other}({rng.choice(_NOUNS)}):" for other in _others(rng, right, name, 4)]
    near += [
        f"    {rng.choice(_NOUNS)} = {right}({argument})",
        f"    return {rng.choice(_NOUNS)} + {rng.randint(1, 99)}",
    ]
    ask = rng.choice(("Where is {f} defined?", "definition of {f}", "What are the arguments of {f}?"))
    return ask.format(f=right), [f"def {right}({argument}, {rng.choice(_NOUNS)}=None):"], near, "code"


def _person(rng: random.Random) -> tuple[str, list[str], list[str], str]:
    def name(rng: random.Random) -> str:
        return f"{rng.choice(_FIRST)} {rng.choice(_LAST)}"

    facts = {
        "job": (("What does {n} do for a living?", "What is the profession of {n}?"), "{n} works as a {j}."),
        "city": (("Where does {n} live?", "In which town is the home of {n}?"), "{n} moved to {c} in {y}."),
        "born": (("When was {n} born?", "What is the year of birth of {n}?"), "{n} was born in {y}."),
        "owns": (("What does {n} own?", "Which thing belongs to {n}?"), "{n} is the owner of a {t}."),
    }  # fmt: skip

    def tell(who: str, kind: str) -> str:
        return facts[kind][1].format(
            n=who, j=rng.choice(_JOBS), c=rng.choice(_CITIES), y=rng.randint(1900, 2020), t=rng.choice(_THINGS)
        )

    who, kind = name(rng), rng.choice(list(facts))
    first, last = who.split()
    near = [tell(other, kind) for other in _others(rng, who, name, rng.randint(1, 3))]
    near.append(tell(rng.choice((f"{first} {rng.choice(_LAST)}", f"{rng.choice(_FIRST)} {last}")), kind))
    near += [tell(who, other) for other in facts if other != kind and rng.random() < 0.5]
    near = [line for line in near if line.split()[:2] != who.split() or facts[kind][1].split()[1] not in line]
    return rng.choice(facts[kind][0]).format(n=who), [tell(who, kind)], near, "fact"


def _pass_key(rng: random.Random) -> tuple[str, list[str], list[str], str]:
    value = rng.randint(10_000, 9_999_999_999)
    what = rng.choice(("secret number", "magic code", "hidden word", "code of the day", "answer to the riddle"))
    form = rng.choice(("The {w} is {v}. Keep it in mind.", "The {w} is {v}. Do not forget it.", "{v} is the {w}."))
    other = rng.choice(("weather", "menu", "timetable", "room plan"))
    near = [f"The {other} is on page {rng.randint(2, 99)}. Keep it in mind."] if rng.random() < 0.5 else []
    return f"What is the {what}?", [form.format(w=what, v=value)], near, "needle"


# (maker, whether its lines stand in prose)
_MAKERS: tuple[tuple[Maker, bool], ...] = (
    (_needle, True),
    (_person, True),
    (_pair, False),
    (_needle, False),
    (_log, False),
    (_code, False),
    (_person, True),
    (_chain, True),
    (_pass_key, True),
)
