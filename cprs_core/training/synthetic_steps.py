"""Makers of made-up chains, where one line names what the next is about.

A query of a later step is the question and, after a space, the line it follows: what `cprs_core.hops` asks with. The
line that is to be found is the next one; the followed line itself may stand in the text too.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

from cprs_core.training.synthetic_items import Item
from cprs_core.training.synthetic_words import CITIES, FIRST, GOODS, OBJECTS, OFFICES, ROOMS, VERBS

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def assignments(rng: random.Random) -> Item:
    """Variables that get their value from each other: the whole chain, or the line after one of it."""
    low, high = rng.choice(((3, 3), (3, 5), (5, 5)))
    small = rng.random() < 0.25

    def name() -> str:
        letters = "".join(rng.choices(_LETTERS, k=rng.randint(low, high)))
        return letters.lower() if small else letters

    first, then = rng.choice(
        (
            ("VAR {a} = {v}", "VAR {b} = VAR {a}"),
            ("VAR {a} = {v}", "VAR {b} = VAR {a}"),
            ("let {a} = {v}", "let {b} = {a}"),
            ("{a} := {v}", "{b} := {a}"),
            ("set {a} to {v}", "copy {a} into {b}"),
        )
    )
    value = rng.randint(1_000, 99_999)

    def chain(start: int) -> list[str]:
        names = [name() for _ in range(rng.randint(3, 7))]
        return [first.format(a=names[0], v=start), *(then.format(a=a, b=b) for a, b in itertools.pairwise(names))]

    right = chain(value)
    near = [line for _ in range(rng.randint(0, 3)) for line in chain(rng.randint(1_000, 99_999))]
    ask = rng.choice(
        (f"Find all variables that are assigned the value {value}.", f"Which variables hold {value}?", f"value {value}")
    )
    if rng.random() < 0.25:  # the whole chain in one window
        return Item(ask, right, near, "chain", in_order=True)
    return _next(rng, ask, right, near, "chain")


def calls(rng: random.Random) -> Item:
    """Functions that call each other: the definition of the one that is called, not its other uses."""
    style = rng.randrange(4)
    base = rng.choice(("fn_", "step", "f", "calc_", "op_"))

    def name() -> str:
        return f"{base}{rng.randint(1, 4_000)}" if style < 3 else f"{rng.choice(VERBS)}_{rng.choice(OBJECTS)}"

    form = (
        "def {f}(x): return {body}",
        "def {f}(x):\n    return {body}",
        "int {f}(int x) {{ return {body}; }}",
        "def {f}(value):\n    return {body}",
    )[style]
    argument = "value" if style == 3 else "x"

    def define(own: str, called: str | None) -> str:
        sign = rng.choice("+-*")
        body = (
            f"{called}({argument}) {sign} {rng.randint(0, 20)}" if called else f"{argument} {sign} {rng.randint(0, 20)}"
        )
        return form.format(f=own, body=body)

    names = list(dict.fromkeys(name() for _ in range(30)))
    chain, others = names[: rng.randint(2, 5)], names[8:]
    right = [define(own, called) for own, called in itertools.zip_longest(chain, chain[1:])]
    uses = [define(own, rng.choice(chain)) for own in others[: rng.randint(0, 3)]]
    near = uses + [define(own, rng.choice(others)) for own in others[3 : 3 + rng.randint(4, 12)]]
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
                (f"In which town does the body sit that commands the {a}?", "The {x} has its seat in {c}."),
                (f"Since when has there been the body that commands the {a}?", "The {x} was founded in {y}."),
                (f"Who leads the organisation above the {a}?", "The head of the {x} is {p}."),
            ),
        ),
        (
            f"{who} spent the whole of last year with the {b}.",
            lambda other: f"{rng.choice(people)} spent the whole of last year with the {other}.",
            (
                (f"Where is the place at which {who} spent last year?", "The {x} moved into a new house in {c}."),
                (f"How old is the institution that had {who} last year?", "The {x} has existed since {y}."),
            ),
        ),
        (
            f"The prize of {year()} went to the {b}.",
            lambda other: f"The prize of {year()} was refused by the {other}.",
            (("In which town is the winner of the prize?", "Anyone who wants to see the {x} must go to {c}."),),
        ),
    )
    link, like_link, ends = rng.choice(links)
    ask, end = rng.choice(ends)

    def tell(of: str) -> str:
        return end.format(x=of, c=city(), y=year(), p=stranger)

    near = [tell(of) for of in others[: rng.randint(1, 4)]] + [like_link(of) for of in others[: rng.randint(0, 2)]]
    near = [line for line in near if f"the {b}" not in line.lower() and who not in line]
    draw = rng.random()
    if draw < 0.25:
        return Item(ask, [link], near, "fact")
    if draw < 0.4:
        return Item(ask, [link, tell(b)], near, "fact")
    return _next(rng, ask, [link, tell(b)], near, "fact")


def moves(rng: random.Random) -> Item:
    """Where a thing is, when the person who carries it walks on."""
    who, *people = rng.sample(FIRST, 5)
    thing, *things = rng.sample(GOODS, 4)
    take = (
        "{p} picked up the {t}.",
        "{p} took the {t} along.",
        "The {t} was handed to {p}.",
        "{p} got hold of the {t}.",
    )
    walk = ("{p} walked to the {r}.", "{p} went into the {r}.", "{p} is in the {r} now.", "{p} returned to the {r}.")

    def line(forms: tuple[str, ...], person: str, good: str = "") -> str:
        return rng.choice(forms).format(p=person, t=good, r=rng.choice(ROOMS))

    link = line(take, who, thing)
    steps = [line(walk, who) for _ in range(rng.randint(1, 3))]
    near = [line(walk, rng.choice(people)) for _ in range(rng.randint(2, 6))]
    near += [line(take, rng.choice(people), rng.choice(things)) for _ in range(rng.randint(0, 3))]
    ask = rng.choice(
        (f"Where can the {thing} be found?", f"In which room is the {thing}?", f"Where is the {thing} now?")
    )
    if rng.random() < 0.3:
        return Item(ask, [link], near, "fact", in_order=True)
    present = [link] if rng.random() < 0.4 else []
    return Item(f"{ask} {link}", present + steps, near, "fact", in_order=True)


def _next(rng: random.Random, ask: str, right: list[str], near: list[str], tag: str, in_prose: bool = True) -> Item:
    """The step after one of the lines; the line that is followed stands in the text too now and then."""
    at = rng.randrange(len(right) - 1)
    shown = right[at : at + 2] if rng.random() < 0.3 else right[at + 1 : at + 2]
    later = right[at + 2 :] if rng.random() < 0.3 else []
    return Item(f"{ask} {right[at]}", shown, near + later, tag, in_prose)
