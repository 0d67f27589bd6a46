"""Makers of made-up lines that are found by themselves: needles, keys, settings, logs, code, facts about a thing.

Each maker returns what is asked, the lines that answer it, and lines that only look like it: another key, another name,
the right name with another attribute.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from cprs_core.training.synthetic_words import (
    CALM,
    CITIES,
    COLOURS,
    EVENTS,
    FAULTS,
    FIRST,
    JOBS,
    LAST,
    NOUNS,
    OBJECTS,
    SERVICES,
    SETTINGS,
    SITES,
    THINGS,
    UNITS,
    VERBS,
)


class Item(NamedTuple):
    """A query, the lines that answer it, and those that do not.

    ``in_prose``: the lines stand between sentences, not in a list of such lines. ``in_order``: their order matters.
    """

    query: str
    right: list[str]
    near: list[str]
    tag: str
    in_prose: bool = True
    in_order: bool = False


Maker = Callable[[random.Random], Item]


def _key(rng: random.Random) -> str:
    return rng.choice(
        (
            f"{rng.choice(COLOURS)}-{rng.choice(NOUNS)}",
            rng.choice(NOUNS),
            f"{rng.choice(NOUNS)} {rng.randint(2, 99)}",
        )
    )


def _value(rng: random.Random) -> str:
    return rng.choice(
        (
            str(rng.randint(1_000, 99_999_999)),
            f"{rng.getrandbits(64):x}",
            f"{rng.choice(NOUNS).upper()}{rng.randint(1, 999)}",
        )
    )


def _one_sign_off(rng: random.Random, text: str) -> str:
    """``text`` with one digit (or hexadecimal digit) changed, or two neighbours exchanged."""
    places = [i for i, sign in enumerate(text) if sign.isdigit()]
    at = rng.choice(places)
    if rng.random() < 0.4 and at + 1 < len(text) and text[at + 1].isalnum():
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    return text[:at] + rng.choice([d for d in "0123456789" if d != text[at]]) + text[at + 1 :]


def _others(rng: random.Random, right: str, make: Callable[[random.Random], str], count: int) -> list[str]:
    found: list[str] = []
    while len(found) < count:
        other = make(rng)
        if other != right and other not in found:
            found.append(other)
    return found


def needle(rng: random.Random) -> Item:
    unit, key = rng.choice(UNITS), _key(rng)
    form = rng.choice(
        ("The {u} for {k} is {v}.", "One of the hidden {u}s for {k} is: {v}.", "Remember that the {u} of {k} is {v}.",
         "{k} has the {u} {v}.", "For {k}, use the {u} {v}.")
    )  # fmt: skip
    ask = rng.choice(("What is the {u} for {k}?", "Which {u} belongs to {k}?", "{k} {u}", "Tell me the {u} of {k}."))
    near = [
        form.format(u=unit, k=other, v=_value(rng)) for other in _others(rng, key, _near_key(key), rng.randint(1, 4))
    ]
    other_unit = rng.choice([one for one in UNITS if one != unit])
    near += [form.format(u=other_unit, k=key, v=_value(rng))] if rng.random() < 0.4 else []
    return Item(ask.format(u=unit, k=key), [form.format(u=unit, k=key, v=_value(rng))], near, "needle")


def _near_key(key: str) -> Callable[[random.Random], str]:
    """Keys that share a word with ``key`` half of the time."""

    def make(rng: random.Random) -> str:
        if "-" in key and rng.random() < 0.6:
            colour, noun = key.split("-")
            return rng.choice((f"{colour}-{rng.choice(NOUNS)}", f"{rng.choice(COLOURS)}-{noun}"))
        return _key(rng)

    return make


def pair(rng: random.Random) -> Item:
    """Keys and values; some of the other keys differ from the right one in a sign or a part."""
    style = rng.randrange(3)

    def key(rng: random.Random) -> str:
        if style == 0:
            digits = f"{rng.getrandbits(128):032x}"
            return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
        if style == 1:
            return f"{rng.choice(THINGS)}_{rng.randint(10, 9999)}"
        return f"{rng.choice(VERBS)}.{rng.choice(OBJECTS)}.{rng.choice(NOUNS)}"

    form = rng.choice(('"{k}": "{v}",', "{k} = {v}", "{k}: {v}", "| {k} | {v} |", "{k}\t{v}"))
    right = key(rng)
    others = _others(rng, right, key, rng.randint(2, 8))
    others += _others(rng, right, lambda rng: _one_sign_off(rng, right), rng.randint(0, 3)) if style < 2 else []
    value = key if style == 0 else _value
    ask = rng.choice(('Key: "{k}"', "What is the value of {k}?", "{k}", "value associated with {k}"))
    near = [form.format(k=k, v=value(rng)) for k in others]
    return Item(ask.format(k=right), [form.format(k=right, v=value(rng))], near, "needle", in_prose=False)


def setting(rng: random.Random) -> Item:
    """Settings whose names have the same parts in another order, or differ in one part."""
    glue = rng.choice("._/-:")
    parts = [rng.choice(SERVICES), rng.choice(NOUNS), rng.choice(SETTINGS)]
    form = rng.choice(("{k} = {v}", "{k}: {v}", "set {k} {v}", "--{k}={v}", "{k}\t{v}", "export {k}={v}"))

    def other(rng: random.Random) -> str:
        changed = list(parts)
        kind = rng.randrange(4)
        if kind == 0:
            rng.shuffle(changed)
        else:
            changed[kind - 1] = rng.choice((SERVICES, NOUNS, SETTINGS)[kind - 1])
        return glue.join(changed)

    right = glue.join(parts)
    ask = rng.choice(("How is {k} set?", "{k}", "What was {k} configured to?", "current {k}", "Which value has {k}?"))
    near = [form.format(k=key, v=rng.randint(1, 900)) for key in _others(rng, right, other, rng.randint(1, 5))]
    right_line = form.format(k=right, v=rng.randint(1, 900))
    return Item(ask.format(k=right), [right_line], near, "needle", in_prose=False)


def numbered(rng: random.Random) -> Item:
    """Numbers that differ in one digit or have two of them exchanged."""
    what = rng.choice(("Ticket", "Flight", "Claim", "Sample", "Container", "Batch", "Case"))
    told, asked = rng.choice(
        (
            ("{w} {n} was closed by {p}.", "Who closed {w} {n}?"),
            ("{w} {n} is waiting in {c}.", "In which city is {w} {n} now?"),
            ("{w} {n} | {c} | {p}", "{w} {n}"),
            ("{p} signed for {w} {n} on Tuesday.", "Whose signature is on {w} {n}?"),
        )
    )
    digits = rng.randint(3, 7)
    number = str(rng.randint(10 ** (digits - 1), 10**digits - 1))

    def line(of: str) -> str:
        return told.format(w=what, n=of, p=rng.choice(FIRST), c=rng.choice(CITIES))

    near = _others(rng, number, lambda rng: _one_sign_off(rng, number), rng.randint(1, 3))
    near += [str(rng.randint(10 ** (digits - 1), 10**digits - 1)) for _ in range(rng.randint(0, 8))]
    near = [line(of) for of in near if of != number]
    in_prose = rng.random() < 0.4
    return Item(asked.format(w=what.lower(), n=number), [line(number)], near, "needle", in_prose)


def dated(rng: random.Random) -> Item:
    """An event of one year beside the same event of other years and other events of that year."""
    city, event, year = rng.choice(CITIES), rng.choice(EVENTS), rng.randint(1_900, 2_024)
    told, asked = rng.choice(
        (
            ("The {y} {e} of {c} cost {n} guilders.", "What did the {e} of {c} cost in {y}?"),
            ("{n} tickets were sold for the {c} {e} of {y}.", "How many tickets did the {c} {e} sell in {y}?"),
            ("{p} opened the {e} at {c} in {y}.", "Who opened the {c} {e} of {y}?"),
            ("During the {y} {c} {e} it rained for {n} minutes.", "For how long did it rain at the {y} {e} in {c}?"),
        )
    )

    def line(where: str, what: str, when: int) -> str:
        return told.format(c=where, e=what, y=when, n=rng.randint(200, 99_999), p=rng.choice(FIRST))

    near = [line(city, event, when) for when in rng.sample([y for y in range(1_900, 2_025) if y != year], 3)]
    near.append(line(rng.choice([c for c in CITIES if c != city]), event, year))
    near.append(line(city, rng.choice([e for e in EVENTS if e != event]), year))
    query = asked.format(c=city, e=event, y=year)
    return Item(query, [line(city, event, year)], rng.sample(near, rng.randint(1, 4)), "fact")


# (told, asked): what is known about a site. Several say a number of something, so that only the meaning tells.
_SITE_FACTS = (
    ("The {s} rises {n} feet above the river.", ("What is the height of the {s}?", "How tall is the {s}?")),
    ("The {s} stretches over {n} yards.", ("What is the length of the {s}?", "How far does the {s} reach?")),
    ("Work on the {s} began in {y}.", ("In what year did they start to build the {s}?", "When was the {s} begun?")),
    ("The {s} was finished in {y}.", ("When was the {s} completed?", "In which year was the {s} ready?")),
    ("A fire destroyed the {s} in {y}.", ("When did the {s} burn down?", "In what year was the {s} lost?")),
    ("{p} drew the plans of the {s}.", ("Who was the architect of the {s}?", "Whose plans is the {s} built to?")),
    ("{p} paid for the {s}.", ("Who financed the {s}?", "Whose money built the {s}?")),
    ("The {s} swallowed {n} thousand guilders.", ("How expensive was the {s}?", "What was the price of the {s}?")),
    ("Some {n} visitors see the {s} every day.", ("How popular is the {s}?", "How many guests does the {s} have?")),
    ("{n} men keep the {s} running.", ("How many staff does the {s} have?", "How big is the crew of the {s}?")),
    ("The {s} is made of grey granite.", ("What material is the {s} built from?", "Which stone was used for the {s}?")),
    ("The {s} closes at {h} in the evening.", ("Until when is the {s} open?", "At what hour does the {s} shut?")),
)


def site(rng: random.Random) -> Item:
    """One fact about a building beside other facts about it and the same fact about another."""

    def tell(name: str, fact: int) -> str:
        person = f"{rng.choice(FIRST)} {rng.choice(LAST)}"
        text = _SITE_FACTS[fact][0]
        numbers = {"n": rng.randint(10, 990), "y": rng.randint(1_700, 2_020), "h": rng.randint(6, 11)}
        line = text.format(s=name, p=person, **numbers)
        return line[0].upper() + line[1:]

    city, kind = rng.choice(CITIES), rng.choice(SITES)
    name, asked = f"{city} {kind}", rng.randrange(len(_SITE_FACTS))
    near = [tell(name, fact) for fact in rng.sample(range(len(_SITE_FACTS)), rng.randint(2, 5)) if fact != asked]
    if rng.random() < 0.6:
        other = rng.choice((f"{rng.choice(CITIES)} {kind}", f"{city} {rng.choice(SITES)}"))
        near += [tell(other, asked)] if other != name else []
    return Item(rng.choice(_SITE_FACTS[asked][1]).format(s=name), [tell(name, asked)], near, "fact")


def log(rng: random.Random) -> Item:
    service, host = rng.choice(SERVICES), f"{rng.choice(NOUNS)}{rng.randint(1, 20)}"
    hour, minute = rng.randint(0, 23), rng.randint(0, 40)

    def line(level: str, name: str, message: str, second: int) -> str:
        text = message.format(host=host, n=rng.randint(10, 9_999), m=rng.randint(1, 900))
        return f"2026-03-{rng.randint(10, 28)} {hour:02}:{minute:02}:{second:02} {level} {name}: {text}"

    fault = rng.choice(FAULTS)
    right = [line("ERROR", service, fault, 30), line("ERROR", service, f"{service} request failed", 31)]
    calm = [line("INFO", rng.choice(SERVICES), rng.choice(CALM), 5 * i) for i in range(rng.randint(4, 10))]
    ask = rng.choice(
        ("Why did the {s} service fail?", "What went wrong in {s}?", "{s} error", "cause of the failure of {s}")
    )
    return Item(ask.format(s=service), right, calm, "error", in_prose=False, in_order=True)


def code(rng: random.Random) -> Item:
    def name(rng: random.Random) -> str:
        return f"{rng.choice(VERBS)}_{rng.choice(OBJECTS)}"

    right = name(rng)
    argument = rng.choice(NOUNS)
    near = [f"def {other}({rng.choice(NOUNS)}):" for other in _others(rng, right, name, 4)]
    near += [
        f"    {rng.choice(NOUNS)} = {right}({argument})",
        f"    return {rng.choice(NOUNS)} + {rng.randint(1, 99)}",
    ]
    ask = rng.choice(("Where is {f} defined?", "definition of {f}", "What are the arguments of {f}?"))
    definition = f"def {right}({argument}, {rng.choice(NOUNS)}=None):"
    return Item(ask.format(f=right), [definition], near, "code", in_prose=False)


def person(rng: random.Random) -> Item:
    def name(rng: random.Random) -> str:
        return f"{rng.choice(FIRST)} {rng.choice(LAST)}"

    facts = {
        "wed": (("Whom did {n} marry?", "Who is married to {n}?"), "{n} married a {j} from {c}."),
        "quit": (("When did {n} retire?", "In what year did {n} stop working?"), "{n} retired in {y}."),
        "learned": (("Where did {n} study?", "At which university was {n}?"), "{n} studied in {c}."),
        "job": (("What does {n} do for a living?", "What is the profession of {n}?"), "{n} works as a {j}."),
        "city": (("Where does {n} live?", "In which town is the home of {n}?"), "{n} moved to {c} in {y}."),
        "born": (("When was {n} born?", "What is the year of birth of {n}?"), "{n} was born in {y}."),
        "owns": (("What does {n} own?", "Which thing belongs to {n}?"), "{n} is the owner of a {t}."),
    }  # fmt: skip

    def tell(who: str, kind: str) -> str:
        return facts[kind][1].format(
            n=who, j=rng.choice(JOBS), c=rng.choice(CITIES), y=rng.randint(1900, 2020), t=rng.choice(THINGS)
        )

    who, kind = name(rng), rng.choice(list(facts))
    first, last = who.split()
    near = [tell(other, kind) for other in _others(rng, who, name, rng.randint(1, 3))]
    near.append(tell(rng.choice((f"{first} {rng.choice(LAST)}", f"{rng.choice(FIRST)} {last}")), kind))
    near += [tell(who, other) for other in facts if other != kind and rng.random() < 0.5]
    near = [line for line in near if line.split()[:2] != who.split() or facts[kind][1].split()[1] not in line]
    return Item(rng.choice(facts[kind][0]).format(n=who), [tell(who, kind)], near, "fact")


def pass_key(rng: random.Random) -> Item:
    value = rng.randint(10_000, 9_999_999_999)
    what = rng.choice(("secret number", "magic code", "hidden word", "code of the day", "answer to the riddle"))
    form = rng.choice(("The {w} is {v}. Keep it in mind.", "The {w} is {v}. Do not forget it.", "{v} is the {w}."))
    other = rng.choice(("weather", "menu", "timetable", "room plan"))
    near = [f"The {other} is on page {rng.randint(2, 99)}. Keep it in mind."] if rng.random() < 0.5 else []
    return Item(f"What is the {what}?", [form.format(w=what, v=value)], near, "needle")
