"""Makers of made-up chains, where one line names what the next is about.

A query of a later step is the question and, after a space, the line it follows: what `cprs_core.hops` asks with. The
line that is to be found is the next one; the followed line itself may stand in the text too.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

from cprs_core.training.synthetic_items import Item
from cprs_core.training.synthetic_words import CITIES, FIRST, GOODS, JOBS, LAST, OBJECTS, OFFICES, ROOMS, SITES, VERBS

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


# (first line, how a value is handed on)
_ASSIGNMENTS = (
    *((("VAR {a} = {v}", "VAR {b} = VAR {a}"),) * 3),
    ("let {a} = {v}", "let {b} = {a}"),
    ("{a} := {v}", "{b} := {a}"),
    ("set {a} to {v}", "copy {a} into {b}"),
    ("alias {a} = {v}", "alias {b} = {a}"),
    ("set ${a} = {v}", "set ${b} = ${a}"),
    ("{a} equals {v}.", "{b} equals {a}."),
)


def assignments(rng: random.Random) -> Item:
    """Variables that get their value from each other: the whole chain, or the line after one of it."""
    low, high = rng.choice(((3, 3), (3, 5), (5, 5)))
    style = rng.randrange(3)

    def name() -> str:
        if style == 2:
            return f"{rng.choice('xvkq')}_{rng.randint(1, 99)}"
        letters = "".join(rng.choices(_LETTERS, k=rng.randint(low, high)))
        return letters.lower() if style else letters

    first, then = rng.choice(_ASSIGNMENTS)
    value = rng.randint(1_000, 99_999)

    def chain(start: int) -> list[str]:
        names = list(dict.fromkeys(name() for _ in range(rng.randint(3, 7))))
        return [first.format(a=names[0], v=start), *(then.format(a=a, b=b) for a, b in itertools.pairwise(names))]

    right = chain(value)
    near = [line for _ in range(rng.randint(0, 5)) for line in chain(rng.randint(1_000, 99_999))]
    ask = rng.choice(
        (
            f"Find all variables that are assigned the value {value}.",
            f"Find all variables that are assigned the value {value} in the text.",
            f"Which names hold {value}?",
            f"What equals {value}?",
            f"value {value}",
        )
    )
    if rng.random() < 0.25 or len(right) < 2:  # the whole chain in one window
        return Item(ask, right, near, "chain", in_order=True)
    return _next(rng, ask, right, near, "chain", in_prose=rng.random() < 0.6)


_FUNCTIONS = (
    "def {f}(x): return {body}",
    "def {f}(x):\n    return {body}",
    "int {f}(int x) {{ return {body}; }}",
    "def {f}(value):\n    return {body}",
    "{f} = lambda a: {body}",
    "function {f}(x) {{ return {body} }}",
)


def calls(rng: random.Random) -> Item:
    """Functions that call each other: the definition of the one that is called, not its other uses."""
    style = rng.randrange(len(_FUNCTIONS))
    base = rng.choice(("fn_", "step", "f", "calc_", "op_", "task"))

    def name() -> str:
        if style >= 3:
            return f"{rng.choice(VERBS)}_{rng.choice(OBJECTS)}"
        number = str(rng.randint(1, 4_000))
        return base + rng.choice((number, number, number[:-1] or number, number + str(rng.randint(0, 9))))

    form = _FUNCTIONS[style]
    argument = next(word for word in ("value", "x", "a") if f"{word})" in form or f"{word}:" in form)

    def define(own: str, called: str | None) -> str:
        sign = rng.choice("+-*")
        body = (
            f"{called}({argument}) {sign} {rng.randint(0, 20)}" if called else f"{argument} {sign} {rng.randint(0, 20)}"
        )
        return form.format(f=own, body=body)

    names = list(dict.fromkeys(name() for _ in range(40)))
    chain, others = names[: rng.randint(2, 5)], names[8:]
    right = [define(own, called) for own, called in itertools.zip_longest(chain, chain[1:])]
    uses = [define(own, rng.choice(chain)) for own in others[: rng.randint(0, 3)]]
    near = uses + [define(own, rng.choice(others)) for own in others[3 : 3 + rng.randint(4, 20)]]
    number = rng.randint(-20, 99)
    ask = rng.choice(
        (
            f"What does {chain[0]}({number}) return?",
            f"result of {chain[0]}({number})",
            f"Evaluate {chain[0]}({number}).",
        )
    )
    if rng.random() < 0.3:  # the first step: the definition of the function that is asked about
        return Item(ask, right[:1], right[1:] + near, "code", in_prose=False)
    return _next(rng, ask, right, near, "code", in_prose=False)


def bridges(rng: random.Random) -> Item:
    """Two facts that share a name which the question lacks."""
    a, b, *others = rng.sample(OFFICES, 6)
    who, stranger, *people = rng.sample(FIRST, 6)

    def city() -> str:
        return rng.choice(CITIES)

    def year() -> int:
        return rng.randint(1_900, 2_024)

    links: tuple[tuple[str, Callable[[str], str], tuple[tuple[str, str], ...]], ...] = (
        (
            f"The {a} takes its orders from the {b}.",
            lambda other: f"The {other} takes its orders from the {rng.choice(others)}.",
            (
                (f"In which town does the body sit that commands the {a}?", "{x} has its seat in {c}."),
                (f"Since when has there been the body that commands the {a}?", "{x} was founded in {y}."),
                (f"Who leads the organisation above the {a}?", "The head of {x} is {p}."),
            ),
        ),
        (
            f"{who} spent the whole of last year with the {b}.",
            lambda other: f"{rng.choice(people)} spent the whole of last year with the {other}.",
            (
                (f"Where is the place at which {who} spent last year?", "{x} moved into a new house in {c}."),
                (f"How old is the institution that had {who} last year?", "{x} has existed since {y}."),
            ),
        ),
        (
            f"The prize of {year()} went to the {b}.",
            lambda other: f"The prize of {year()} was refused by the {other}.",
            (("In which town is the winner of the prize?", "Anyone who wants to see {x} must go to {c}."),),
        ),
    )
    built, firm, other_firm = f"{city()} {rng.choice(SITES)}", f"{rng.choice(LAST)} & Co", f"{rng.choice(LAST)} & Co"
    leader = f"{who} {rng.choice(LAST)}"
    links += (
        (
            f"The {built} was put up by {firm}.",
            lambda other: f"The {city()} {rng.choice(SITES)} was put up by {other_firm}.",
            (
                (f"When was the builder of the {built} founded?", "{x} was founded in {y}."),
                (f"Where does the firm that built the {built} sit?", "{x} has its yard in {c}."),
            ),
        ),
        (
            f"The {a} is led by {leader}.",
            lambda other: f"The {other} is led by {rng.choice(people)} {rng.choice(LAST)}.",
            (
                (f"Which town is the head of the {a} from?", "{x} left {c} as a child."),
                (f"How old is whoever leads the {a}?", "{x} was born in {y}."),
                (f"What did the boss of the {a} do before?", "{x} used to be a " + rng.choice(JOBS) + "."),
            ),
        ),
    )
    kind = rng.randrange(len(links))
    link, like_link, ends = links[kind]
    subject = (f"the {b}", f"the {b}", f"the {b}", firm, rng.choice((leader, leader.split()[1])))[kind]
    ask, end = rng.choice(ends)

    def tell(of: str) -> str:
        text = end.format(x=of, c=city(), y=year(), p=stranger)
        return text[0].upper() + text[1:]

    strangers = (
        [f"{rng.choice(people)} {rng.choice(LAST)}" for _ in others]
        if kind == 4
        else [other_firm if kind == 3 else f"the {name}" for name in others]
    )
    near = [tell(of) for of in strangers[: rng.randint(1, 4)]] + [like_link(of) for of in others[: rng.randint(0, 2)]]
    near = [line for line in near if subject.lower() not in line.lower() and who not in line]
    draw = rng.random()
    if draw < 0.25:
        return Item(ask, [link], near, "fact")
    if draw < 0.4:
        return Item(ask, [link, tell(subject)], near, "fact")
    return _next(rng, ask, [link, tell(subject)], near, "fact")


_TAKE = (
    *("{p} picked up the {t}.", "{p} took the {t} along.", "The {t} was handed to {p}.", "{p} got hold of the {t}."),
    *("{p} grabbed the {t} there.", "{p} has the {t}.", "{q} gave the {t} to {p}."),
)
_LEAVE = ("{p} put the {t} down.", "{p} left the {t} behind.", "{p} dropped the {t}.")
_WALK = (
    *("{p} walked to the {r}.", "{p} went into the {r}.", "{p} is in the {r} now.", "{p} returned to the {r}."),
    *("{p} travelled to the {r}.", "{p} came to the {r}.", "{p} moved to the {r}."),
)


def moves(rng: random.Random) -> Item:
    """Where a thing is, when the person who carries it walks on."""
    who, *people = rng.sample(FIRST, 5)
    thing, *things = rng.sample(GOODS, 4)

    def line(forms: tuple[str, ...], person: str, good: str = "") -> str:
        return rng.choice(forms).format(p=person, t=good, r=rng.choice(ROOMS), q=rng.choice(people))

    link = line(_TAKE, who, thing)
    links = [link] + [line(_LEAVE, who, thing)] * (rng.random() < 0.3)
    steps = [line(_WALK, who) for _ in range(rng.randint(1, 3))]
    near = [line(_WALK, rng.choice(people)) for _ in range(rng.randint(2, 8))]
    near += [line(_TAKE + _LEAVE, rng.choice(people), rng.choice(things)) for _ in range(rng.randint(0, 4))]
    near = [text for text in near if who not in text]
    ask = rng.choice(
        (
            *(f"Where can the {thing} be found?", f"In which room is the {thing}?", f"Where is the {thing} now?"),
            f"Where was the {thing} before it came to the {rng.choice(ROOMS)}?",
        )
    )
    if rng.random() < 0.35:  # the first step: whoever has to do with the thing
        return Item(ask, links, near + steps, "fact", in_order=True)
    if rng.random() < 0.15:  # a wrong turn: somebody who has to do with another thing
        stranger = rng.choice(people)
        wrong = [line(_WALK, stranger)]
        return Item(f"{ask} {line(_TAKE, stranger, rng.choice(things))}", [], near + wrong, "fact", in_order=True)
    return Item(f"{ask} {link}", (links if rng.random() < 0.4 else []) + steps, near, "fact", in_order=True)


def _next(rng: random.Random, ask: str, right: list[str], near: list[str], tag: str, in_prose: bool = True) -> Item:
    """The step after one of the lines; the line that is followed stands in the text too now and then."""
    at = rng.randrange(len(right) - 1)
    if near and rng.random() < 0.15:  # a wrong turn: what is followed leads nowhere
        return Item(f"{ask} {near[0]}", [], [*near[1:], *right[at + 1 :]], tag, in_prose)
    shown = right[at : at + 2] if rng.random() < 0.3 else right[at + 1 : at + 2]
    later = right[at + 2 :] if rng.random() < 0.3 else []
    return Item(f"{ask} {right[at]}", shown, near + later, tag, in_prose)
