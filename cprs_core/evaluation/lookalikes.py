"""Look-alikes: the text holds something that resembles what is asked for, and may or may not hold the thing itself.

Each case is a short text of one kind with one to three look-alikes (another key, another name, the right name with
another attribute). It comes twice: without the right line, where the output at the default threshold must be empty,
and with it, where it must be kept. Which line ranks first is measured for every system.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cprs_core.evaluation.corpus import Corpus, Request
from cprs_core.evaluation.metrics import Fact, Measure, mean_measure
from cprs_core.evaluation.options import Options
from cprs_core.evaluation.systems import CriticSystem, System
from cprs_core.evaluation.words import (
    ADJECTIVES,
    CODES,
    FACILITIES,
    GIVEN_NAMES,
    NOUNS,
    PLACES,
    SURNAMES,
    key_phrase,
    pick,
    pick_two,
    plain_sentence,
    uuid,
)
from cprs_core.instructions import PRESETS

TASK = "look-alikes"
CASES = 240
LINES = 24


@dataclass(frozen=True)
class Case:
    """A question, the right line, lines that resemble it, and lines that do not."""

    kind: str
    query: str
    right: str
    similar: tuple[str, ...]
    filler: tuple[str, ...]
    joiner: str
    preset: str

    def text(self, rng: np.random.Generator, with_right: bool) -> tuple[str, int]:
        """The lines in a random order, and where the right one begins (-1 where it is left out)."""
        lines = [*self.similar, *self.filler]
        order = rng.permutation(len(lines)).tolist()
        lines = [lines[i] for i in order]
        place = int(rng.integers(len(lines) + 1))
        if not with_right:
            return self.joiner.join(lines), -1
        at = sum(len(line) + len(self.joiner) for line in lines[:place])
        return self.joiner.join([*lines[:place], self.right, *lines[place:]]), at


def place_codes(rng: np.random.Generator) -> Case:
    """The same kind of code of another place."""
    kind, facility = pick(rng, CODES), pick(rng, FACILITIES)
    right, other = pick_two(rng, PLACES)

    def line(place: str, building: str) -> str:
        return f"The {kind} of the {place} {building} is {rng.integers(1_000, 10_000)}."

    similar = (line(other, facility), line(right, pick(rng, [name for name in FACILITIES if name != facility])))
    query = f"What is the {kind} of the {right} {facility}?"
    return Case("place", query, line(right, facility), similar[: int(rng.integers(1, 3))], _prose(rng), " ", "needles")


def settings(rng: np.random.Generator) -> Case:
    """Settings whose names differ in one part."""
    part, rest = pick_two(rng, NOUNS)
    suffix, other = pick_two(rng, ("timeout", "limit", "retries", "delay", "capacity", "interval", "quota", "ratio"))
    filler = tuple(
        f"{pick(rng, NOUNS)}.{pick(rng, ADJECTIVES)}.{pick(rng, NOUNS)} = {rng.integers(1, 900)}" for _ in range(LINES)
    )
    similar = (f"{part}.{rest}.{other} = {rng.integers(1, 900)}", f"{rest}.{part}.{suffix} = {rng.integers(1, 900)}")
    right = f"{part}.{rest}.{suffix} = {rng.integers(1, 900)}"
    query = f"What is the value of {part}.{rest}.{suffix}?"
    return Case("setting", query, right, similar[: int(rng.integers(1, 3))], filler, "\n", "needles")


def uuid_keys(rng: np.random.Generator) -> Case:
    """JSON-like pairs whose keys differ in a few digits."""
    key = uuid(rng)
    at = int(rng.integers(0, 8))
    other = key[:at] + "0123456789abcdef"[(int(key[at], 16) + 1 + int(rng.integers(14))) % 16] + key[at + 1 :]
    filler = tuple(f'"{uuid(rng)}": "{uuid(rng)}",' for _ in range(3))
    similar = (f'"{other}": "{uuid(rng)}",',)
    return Case("uuid", f'Key: "{key}"', f'"{key}": "{uuid(rng)}",', similar, filler, "\n", "needles")


def people(rng: np.random.Generator) -> Case:
    """The attribute of a person with the same given name or the same surname."""
    given, other_given = pick_two(rng, GIVEN_NAMES)
    surname, other_surname = pick_two(rng, SURNAMES)
    verb, asked = (
        ("was born in {year} in {place}", "When was {name} born?"),
        ("joined the {place} office in {year}", "When did {name} join the office?"),
        ("won the {place} medal in {year}", "In which year did {name} win the medal?"),
    )[int(rng.integers(3))]

    def line(name: str) -> str:
        return f"{name} {verb.format(year=rng.integers(1_900, 2_020), place=pick(rng, PLACES))}."

    similar = (line(f"{given} {other_surname}"), line(f"{other_given} {surname}"))
    name = f"{given} {surname}"
    shown = similar[: int(rng.integers(1, 3))]
    return Case("person", asked.format(name=name), line(name), shown, _prose(rng), " ", "supporting_facts")


def attributes(rng: np.random.Generator) -> Case:
    """The right thing with another attribute."""
    place, facility = pick(rng, PLACES), pick(rng, FACILITIES)
    name = f"the {place} {facility}"
    facts = [
        (f"{name.capitalize()} is {rng.integers(20, 400)} metres long.", f"How long is {name}?"),
        (f"{name.capitalize()} was opened in {rng.integers(1_850, 2_020)}.", f"When was {name} opened?"),
        (f"{name.capitalize()} employs {rng.integers(12, 900)} people.", f"How many people work at {name}?"),
        (
            f"{name.capitalize()} was designed by {pick(rng, GIVEN_NAMES)} {pick(rng, SURNAMES)}.",
            f"Who designed {name}?",
        ),
        (f"{name.capitalize()} cost {rng.integers(2, 90)} million crowns.", f"How much did {name} cost?"),
    ]
    order = rng.permutation(len(facts)).tolist()
    right, query = facts[order[0]]
    similar = tuple(facts[i][0] for i in order[1 : 2 + int(rng.integers(3))])
    return Case("attribute", query, right, similar, _prose(rng), " ", "supporting_facts")


def orders(rng: np.random.Generator) -> Case:
    """Numbers with two digits swapped, or one digit changed."""
    digits = rng.permutation(10)[:5].tolist()
    number = "".join(map(str, digits))
    at = int(rng.integers(4))
    swapped = "".join(map(str, [*digits[:at], digits[at + 1], digits[at], *digits[at + 2 :]]))
    changed = number[:-1] + str((digits[-1] + 1 + int(rng.integers(8))) % 10)

    def line(order: str) -> str:
        return f"Order {order} was shipped to {pick(rng, PLACES)} on day {rng.integers(1, 365)}."

    filler = tuple(line(str(rng.integers(10_000, 100_000))) for _ in range(LINES))
    similar = (line(swapped), line(changed))[: int(rng.integers(1, 3))]
    return Case("number", f"Where was order {number} shipped to?", line(number), similar, filler, "\n", "needles")


def years(rng: np.random.Generator) -> Case:
    """The right event in another year."""
    event = f"the {pick(rng, PLACES)} {pick(rng, ('fair', 'regatta', 'festival', 'marathon', 'auction'))}"
    year, *others = (1_950 + rng.permutation(70)[:3]).tolist()

    def line(when: int) -> str:
        return f"In {when} {event} drew {rng.integers(500, 90_000)} visitors."

    similar = tuple(line(other) for other in others)[: int(rng.integers(1, 3))]
    query = f"How many visitors did {event} draw in {year}?"
    return Case("year", query, line(year), similar, _prose(rng), " ", "supporting_facts")


def needles(rng: np.random.Generator) -> Case:
    """Needles in RULER's wording whose keys share a word."""
    adjective, noun = key_phrase(rng).split("-")

    def line(key: str) -> str:
        return f"One of the special magic numbers for {key} is: {rng.integers(1_000_000, 10_000_000)}."

    others = (
        f"{adjective}-{pick(rng, [word for word in NOUNS if word != noun])}",
        f"{pick(rng, [word for word in ADJECTIVES if word != adjective])}-{noun}",
    )
    key = f"{adjective}-{noun}"
    query = f"What is the special magic number for {key} mentioned in the provided text?"
    similar = tuple(line(other) for other in others)[: int(rng.integers(1, 3))]
    return Case("needle", query, line(key), similar, _prose(rng), " ", "needles")


KINDS: tuple[Callable[[np.random.Generator], Case], ...] = (
    place_codes,
    settings,
    uuid_keys,
    people,
    attributes,
    orders,
    years,
    needles,
)


def _prose(rng: np.random.Generator) -> tuple[str, ...]:
    return tuple(plain_sentence(rng) for _ in range(LINES))


def make_cases(count: int, seed: int) -> list[Case]:
    """``count`` cases, the kinds in turn."""
    rng = np.random.default_rng(seed)
    return [KINDS[number % len(KINDS)](rng) for number in range(count)]


def measure_lookalikes(systems: Sequence[System], options: Options) -> list[Measure]:
    """Empty without the right line; kept, and first, with it."""
    cases = make_cases(options.sample(CASES), options.seed)
    rng = np.random.default_rng(options.seed + 1)
    absent, present, facts = [], [], []
    for case in cases:
        preset = PRESETS[case.preset]
        text, _ = case.text(rng, with_right=False)
        absent.append(Request(Corpus([text], options.tokenizer), case.query, preset))
        text, at = case.text(rng, with_right=True)
        corpus = Corpus([text], options.tokenizer)
        present.append(Request(corpus, case.query, preset))
        facts.append(Fact.locate(corpus, at, at + len(case.right)))
    measures = []
    for system in systems:
        ranked = system.rank(present)
        first = [int(scores.argmax()) in fact.segments for scores, fact in zip(ranked, facts, strict=True)]
        measures.append(mean_measure(TASK, "right one first", system.name, first))
        if not isinstance(system, CriticSystem):
            continue
        least = system.threshold("sentence")
        unanswered = system.rank(absent)
        kept = [fact.found(scores >= least) for scores, fact in zip(ranked, facts, strict=True)]
        empty = [not (scores >= least).any() for scores in unanswered]
        for i, case in enumerate(cases):
            kind, name = f"{case.kind}, right one", system.name
            chosen = ranked[i] >= least
            options.failures.add(TASK, kind, name, present[i], [facts[i]], ranked[i], chosen, missed=not kept[i])
            kind, chosen = f"{case.kind}, nothing right", unanswered[i] >= least
            options.failures.add(TASK, kind, name, absent[i], [], unanswered[i], chosen, missed=not empty[i])
        measures.append(mean_measure(TASK, "right one kept", system.name, kept))
        measures.append(mean_measure(TASK, "empty without it", system.name, empty))
        for kind in dict.fromkeys(case.kind for case in cases):
            of_kind = [value for value, case in zip(empty, cases, strict=True) if case.kind == kind]
            measures.append(mean_measure(TASK, f"empty: {kind}", system.name, of_kind))
    return measures
