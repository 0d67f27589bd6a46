"""People and objects that move, as in bAbI's tasks 2 and 3 (arXiv 1502.05698), spread over a long context.

Two supporting facts: who took the object, and where that person went last. Three: who took it, and the last two places.
Wording and names are our own; places, people and objects change in every sample.
"""

from __future__ import annotations

import numpy as np

from cprs_core.evaluation.tasks.sample import MakeHay, Sample, hay_to_length, own_essay, place_lines
from cprs_core.evaluation.words import GIVEN_NAMES, NOUNS, pick
from cprs_core.scorer import Tokenizer

_PLACES = "attic balcony bathroom cellar garage greenhouse hallway library nursery pantry stable workshop".split()
_WALKS = (
    "{p} strolled over to the {r}.",
    "{p} made for the {r}.",
    "{p} headed back to the {r}.",
    "{p} set off for the {r}.",
)
_TAKES = ("{p} collected the {o}.", "{p} pocketed the {o}.", "{p} carried off the {o}.")
_LEAVES = ("{p} let go of the {o}.", "{p} handed in the {o}.")
PEOPLE = 6
OBJECTS = 4
EVENTS = 30


def make_movement(tokenizer: Tokenizer, tokens: int, seed: int, facts: int = 2, essay: MakeHay = own_essay) -> Sample:
    """A story of some forty lines in ``tokens`` tokens of other text, and where one object is (2 facts) or was (3)."""
    rng = np.random.default_rng(seed)
    people = rng.permutation(GIVEN_NAMES)[:PEOPLE].tolist()
    owner = people[0]
    asked, *things = rng.permutation(NOUNS)[:OBJECTS].tolist()
    lines = _wanderings(rng, people, things, EVENTS)
    # What the answer hangs on: the owner takes the object somewhere in the middle and walks on.
    taken_at = int(rng.integers(len(lines) // 3, 2 * len(lines) // 3))
    before = lines[:taken_at]
    after = [line for line in lines[taken_at:] if not line.startswith(f"{owner} ")]
    last, previous = rng.permutation(_PLACES)[:2].tolist()
    own = [_say(rng, _TAKES, owner, thing=asked), _say(rng, _WALKS, owner, place=previous)]
    own.append(_say(rng, _WALKS, owner, place=last))
    places = np.sort(rng.integers(0, len(after) + 1, size=2)).tolist()
    story = [*before, own[0], *after[: places[0]], own[1], *after[places[0] : places[1]], own[2], *after[places[1] :]]
    gold_lines = (own[0], own[2]) if facts == 2 else tuple(own)
    query = f"Where is the {asked}?" if facts == 2 else f"Where was the {asked} before the {last}?"
    hay = hay_to_length(rng, tokenizer, tokens, essay, reserve=len(tokenizer.encode(" ".join(story))))
    positions = np.sort(rng.integers(0, len(hay) + 1, size=len(story))).tolist()
    text, ranges = place_lines(hay, story, positions, " ")
    # The owner's later lines are the last of their wording in the story, whatever was said before.
    gold = tuple(ranges[len(story) - 1 - story[::-1].index(line)] for line in gold_lines)
    answer = last if facts == 2 else previous
    return Sample(f"movement, {facts} facts", text, query, gold, (answer,), preset="supporting_facts")


def _wanderings(rng: np.random.Generator, people: list[str], things: list[str], count: int) -> list[str]:
    """Lines in which nobody touches the asked object."""
    lines = []
    for _ in range(count):
        who = pick(rng, people)
        if rng.random() < 0.7:
            lines.append(_say(rng, _WALKS, who, place=pick(rng, _PLACES)))
        else:
            lines.append(_say(rng, _TAKES if rng.random() < 0.5 else _LEAVES, who, thing=pick(rng, things)))
    return lines


def _say(rng: np.random.Generator, forms: tuple[str, ...], person: str, *, place: str = "", thing: str = "") -> str:
    return pick(rng, forms).format(p=person, r=place, o=thing)
