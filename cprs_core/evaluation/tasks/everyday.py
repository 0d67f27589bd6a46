"""Our own long contexts: two-hop questions, long dialogues and tool output."""

from __future__ import annotations

import json

import numpy as np

from cprs_core.evaluation.tasks.sample import MakeHay, Sample, hay_to_length, own_essay, place_lines
from cprs_core.evaluation.words import (
    ADJECTIVES,
    FACILITIES,
    GIVEN_NAMES,
    NOUNS,
    PLACES,
    SURNAMES,
    pick,
    pick_two,
    plain_sentence,
)
from cprs_core.scorer import Tokenizer

DISTRACTORS = 12


def make_two_hops(tokenizer: Tokenizer, tokens: int, seed: int, essay: MakeHay = own_essay) -> Sample:
    """A bridge (the second fact names no word of the question) or a comparison, among facts of the same kinds."""
    rng = np.random.default_rng(seed)
    people = [f"{given} {surname}" for given in GIVEN_NAMES for surname in SURNAMES]
    names = [people[i] for i in rng.permutation(len(people))[: DISTRACTORS + 2].tolist()]
    sites = [f"{place} {facility}" for place in PLACES for facility in FACILITIES]
    own_sites = [sites[i] for i in rng.permutation(len(sites))[: DISTRACTORS + 2].tolist()]
    if seed % 2:
        built = [f"The {site} was designed by {name}." for site, name in zip(own_sites, names, strict=True)]
        born = [f"{name} grew up in {pick(rng, PLACES)}." for name in names]
        query, gold, lines = f"Where did the designer of the {own_sites[0]} grow up?", (0, 1), [built[0], born[0]]
        lines += [line for pair in zip(built[1:], born[1:], strict=True) for line in pair]
        task = "bridge"
    else:
        opened = rng.choice(np.arange(1_850, 2_020), size=len(own_sites), replace=False).tolist()
        lines = [f"The {site} opened its doors in {year}." for site, year in zip(own_sites, opened, strict=True)]
        query, gold = f"Which is older, the {own_sites[0]} or the {own_sites[1]}?", (0, 1)
        task = "comparison"
    hay = hay_to_length(rng, tokenizer, tokens, essay, reserve=len(tokenizer.encode(" ".join(lines))))
    text, ranges = place_lines(hay, lines, rng.integers(0, len(hay) + 1, size=len(lines)).tolist(), " ")
    answers = tuple(lines[i] for i in gold)
    return Sample(task, text, query, tuple(ranges[i] for i in gold), answers, preset="supporting_facts")


_MEMORIES = (
    ("my {who}'s birthday is on the {number}th of {month}", "When is my {who}'s birthday?"),
    ("my {who} now works at the {facility} in {place}", "Where does my {who} work?"),
    ("my {who} is called {given}", "What is the name of my {who}?"),
    ("I lent my {noun} to my {who}", "What did I lend to my {who}?"),
    ("my {who} cannot eat {food}", "What food must I avoid when my {who} comes to dinner?"),
)
_WHO = ("sister", "brother", "dentist", "landlord", "cousin", "neighbour", "colleague", "trainer", "aunt", "godson")
_MONTHS = ("January", "March", "May", "July", "August", "October", "December")
_FOODS = ("celery", "prawns", "peanuts", "rye bread", "goat cheese", "mustard", "sesame", "mango")
_REPLIES = (
    "Thank you for telling me. Is there anything else?",
    "I see. Shall we go on with the list from yesterday?",
    "That sounds good. Here is another idea: {sentence}",
    "Understood. As for the other matter: {sentence}",
)


def make_dialogue(tokenizer: Tokenizer, tokens: int, seed: int) -> Sample:
    """A long chat in which the user once mentioned something; similar remarks are about other people."""
    rng = np.random.default_rng(seed)

    def remark(template: str, who: str) -> str:
        return template.format(
            who=who,
            number=rng.integers(4, 20),
            month=pick(rng, _MONTHS),
            facility=pick(rng, FACILITIES),
            place=pick(rng, PLACES),
            given=pick(rng, GIVEN_NAMES),
            noun=f"{pick(rng, ADJECTIVES)} {pick(rng, NOUNS)}",
            food=pick(rng, _FOODS),
        )

    def chat(rng: np.random.Generator, lines: int) -> list[str]:
        return [
            f"User: {plain_sentence(rng)}"
            if number % 2 == 0
            else f"Assistant: {pick(rng, _REPLIES).format(sentence=plain_sentence(rng))}"
            for number in range(lines)
        ]

    memory, question = _MEMORIES[int(rng.integers(len(_MEMORIES)))]
    who, other = pick_two(rng, _WHO)
    turns = [f"User: By the way, {remark(memory, who)}.", f"User: Before I forget, {remark(memory, other)}."]
    others = [template for template, _ in _MEMORIES if template != memory]
    turns.append(f"User: You should know that {remark(pick(rng, tuple(others)), who)}.")
    hay = hay_to_length(rng, tokenizer, tokens, chat, reserve=len(tokenizer.encode("\n".join(turns))))
    text, ranges = place_lines(hay, turns, rng.integers(0, len(hay) + 1, size=len(turns)).tolist(), "\n")
    query = question.format(who=who)
    return Sample("dialogue", text, query, (ranges[0],), (turns[0],), preset="turns", unit="line")


_STATUSES = ("packed", "in transit", "held at customs", "delivered", "returned", "awaiting payment")


def make_tool_output(tokenizer: Tokenizer, tokens: int, seed: int) -> Sample:
    """One row of a long table that a tool returned as JSON lines; other rows differ from it in one field."""
    rng = np.random.default_rng(seed)

    def row(number: int, city: str) -> str:
        item = f"{pick(rng, ADJECTIVES)} {pick(rng, NOUNS)}"
        fields = {"consignment": f"CN-{number}", "item": item, "town": city, "status": pick(rng, _STATUSES)}
        return json.dumps(fields)

    def rows(rng: np.random.Generator, lines: int) -> list[str]:
        return [row(int(number), pick(rng, PLACES)) for number in rng.integers(100_000, 1_000_000, size=lines)]

    number = int(rng.integers(100_000, 1_000_000))
    city = pick(rng, PLACES)
    lines = [row(number, city), row(number + 1, city), row(number - 10, pick(rng, PLACES))]
    hay = hay_to_length(rng, tokenizer, tokens, rows, reserve=len(tokenizer.encode("\n".join(lines))))
    hay = [line for line in hay if f'"CN-{number}"' not in line]
    text, ranges = place_lines(hay, lines, rng.integers(0, len(hay) + 1, size=len(lines)).tolist(), "\n")
    query = f"What is the status of consignment CN-{number}?"
    return Sample("tool output", text, query, (ranges[0],), (lines[0],), preset="needles", unit="line")
