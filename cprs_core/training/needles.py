"""Made-up windows for hybrid critics: needles, key-values and assignment chains in the wording of RULER.

RULER (arXiv 2404.06654). Every window has the same length, so that batches need no padding; one in ten lacks what is
asked for, where keeping nothing is right.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cprs_core.critics.chat_tokenizer import ChatTokenizer
from cprs_core.scorer import LABELS, OUTSIDE

INSTRUCTIONS = {
    "needle": "Extract the line that holds the value for the key in the question.",
    "pair": "Extract the key-value pair in question; tag it with 'pair'.",
    "chain": "Extract the assignments of the chain; tag them with 'chain'.",
}
TAGS = tuple(INSTRUCTIONS)
OUTSIDE_WORD = "outside"
MISSING = 0.1  # share of windows without what is asked for
UNCOUNTED = -1  # label of positions that teach nothing: the prefix, and a span that the window cuts

_NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
_SYLLABLES = "ba be bi bo da de di do fa fe ga go ka ke ki ko la le li lo ma me mi mo na ne ni no pa pe ra re".split()
_WORDS = """
    time river house light stone water morning letter garden window market silver summer winter paper road bridge table
    people story north harbour engine field music number answer question small large early late quiet open broken
    found carried wrote asked kept moved turned stood began ended under behind across before after again never often
""".split()


@dataclass(frozen=True)
class Case:
    """One made-up question: lines to be hidden, of which ``gold`` are right, and what the hay is made of."""

    tag: str
    query: str
    lines: list[str]
    gold: frozenset[int]
    keeps_order: bool = False


@dataclass(frozen=True)
class Examples:
    """Windows of one length, prefix included.

    ``ids`` (int32, (w, n)); ``labels`` (int8, (w, n)): index into `LABELS`, or `UNCOUNTED`; ``tags`` (int8, (w,)):
    index into `TAGS`; ``prefixes`` (int32, (w,)): tokens of each prefix.
    """

    ids: NDArray[np.int32]
    labels: NDArray[np.int8]
    tags: NDArray[np.int8]
    prefixes: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.ids)


def make_examples(tokenizer: ChatTokenizer, count: int, length: int, seed: int, tags: Sequence[str] = TAGS) -> Examples:
    """``count`` windows of ``length`` tokens, the tags in turn."""
    rng = random.Random(seed)
    sample = "\n".join([_NOISE, *(_sentence(rng) for _ in range(50))])
    characters = len(sample) / len(tokenizer.encode(sample))  # per token
    rows = []
    for number in range(count):
        row = None
        while row is None:  # a case too long for the window is dropped
            row = _example(rng, tokenizer, make_case(rng, tags[number % len(tags)]), length, characters)
        rows.append(row)
    ids, labels, kinds, prefixes = zip(*rows, strict=True)
    return Examples(np.stack(ids), np.stack(labels), np.array(kinds, dtype=np.int8), np.array(prefixes, dtype=np.int32))


def make_case(rng: random.Random, tag: str) -> Case:
    """One question of a kind, with look-alikes of the right lines."""
    case = {"needle": _needle, "pair": _pair, "chain": _chain}[tag](rng)
    if rng.random() >= MISSING:
        return case
    others = [line for index, line in enumerate(case.lines) if index not in case.gold]
    return Case(case.tag, case.query, others, frozenset(), case.keeps_order)


def _needle(rng: random.Random) -> Case:
    count = rng.randint(1, 5)
    keys = _distinct(rng, _key, count)
    kind = rng.choice(("number", "word"))
    value = _number if kind == "number" else _key
    lines = [f"One of the special magic {kind}s for {key} is: {value(rng)}." for key in keys]
    query = f"What is the special magic {kind} for {keys[0]} mentioned in the provided text?"
    return Case("needle", query, lines, frozenset({0}))


def _pair(rng: random.Random) -> Case:
    keys = _distinct(rng, _hex, rng.randint(2, 7))
    lines = [f'"{key}": "{_hex(rng)}",' for key in keys]
    return Case("pair", f'What is the value of the key "{keys[0]}"?', lines, frozenset({0}))


def _chain(rng: random.Random) -> Case:
    hops = [rng.randint(1, 4)] if rng.random() < 0.6 else [1, 1]
    names = iter(_distinct(rng, _name, sum(hops) + len(hops)))
    values = _distinct(rng, lambda rng: str(rng.randint(10_000, 99_999)), len(hops))
    lines: list[str] = []
    for value, count in zip(values, hops, strict=True):
        before = next(names)
        lines.append(f"VAR {before} = {value}")
        for _ in range(count):
            name = next(names)
            lines.append(f"VAR {name} = VAR {before}")
            before = name
    query = f"Find all variables that are assigned the value {values[0]} in the text above."
    return Case("chain", query, lines, frozenset(range(hops[0] + 1)), keeps_order=True)


def _example(
    rng: random.Random, tokenizer: ChatTokenizer, case: Case, length: int, characters: float
) -> tuple[NDArray[np.int32], NDArray[np.int8], int, int] | None:
    """Ids, labels, tag and prefix length of one window; None where the hay was too short or a right line was cut."""
    prefix = tokenizer.encode_prefix(INSTRUCTIONS[case.tag], case.query, (case.tag,))
    room = length - len(prefix)
    hay = _hay(rng, case, characters * room)
    order = list(range(len(case.lines)))
    # Rejecting windows that cut a right line makes it likelier in front, which the places make up for.
    places = [rng.randint(0, len(hay)) for _ in order]
    if case.keeps_order:
        places.sort()
    mixed = [(place, 0, index, case.lines[index]) for place, index in zip(places, order, strict=True)]
    mixed += [(place, 1, -1, line) for place, line in enumerate(hay)]
    mixed.sort(key=lambda item: item[:2])
    text, spans = "", []
    for _, _, index, line in mixed:
        if index in case.gold:
            spans.append((len(text), len(text) + len(line)))
        text += line + "\n"
    tokens = tokenizer.encode(text)
    if len(tokens) < room:
        return None
    labels = np.full(length, OUTSIDE, dtype=np.int8)
    labels[: len(prefix)] = UNCOUNTED
    for start, end in spans:
        first, last = np.searchsorted(tokens.starts, [start, end]).tolist()
        if first >= room:
            return None
        inside = labels[len(prefix) :][first:last]
        if last > room:
            inside[:] = UNCOUNTED
            continue
        inside[:] = LABELS.index("I")
        inside[-1] = LABELS.index("E")
        inside[0] = LABELS.index("B")
    ids = np.concatenate([prefix.ids, tokens.ids[:room]])
    return ids, labels, TAGS.index(case.tag), len(prefix)


def _hay(rng: random.Random, case: Case, characters: float) -> list[str]:
    """Lines of hay of about so many characters together with the case's own."""
    kind = rng.random()
    lines: list[str] = []
    characters -= sum(len(line) for line in case.lines) - rng.uniform(0, 90)
    while characters > 0:
        line = (
            _NOISE if kind < 0.35 else _sentence(rng) if kind < 0.9 or case.tag == "chain" else _look_alike(rng, case)
        )
        lines.append(line)
        characters -= len(line)
    return lines


def _look_alike(rng: random.Random, case: Case) -> str:
    """A line of the case's kind that answers another question."""
    other = make_case(rng, case.tag)
    return next((line for line in other.lines if line not in case.lines), _NOISE)


def _sentence(rng: random.Random) -> str:
    words = [_key(rng) if rng.random() < 0.08 else rng.choice(_WORDS) for _ in range(rng.randint(4, 11))]
    return " ".join(words).capitalize() + rng.choice(("", " " + str(rng.randint(2, 9_999)), "")) + "."


def _key(rng: random.Random) -> str:
    return f"{_made_up(rng)}-{_made_up(rng)}"


def _made_up(rng: random.Random) -> str:
    if rng.random() < 0.3:
        return rng.choice(_WORDS)
    ending = rng.choice(("", "n", "r", "s", "t", "ck", "x"))
    return "".join(rng.choice(_SYLLABLES) for _ in range(rng.randint(1, 3))) + ending


def _number(rng: random.Random) -> str:
    return str(rng.randint(1_000_000, 9_999_999))


def _hex(rng: random.Random) -> str:
    return f"{rng.getrandbits(32):08x}"


def _name(rng: random.Random) -> str:
    return "".join(rng.choice(string.ascii_uppercase) for _ in range(5))


def _distinct(rng: random.Random, make: Callable[[random.Random], str], count: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
        found[make(rng)] = None
    return list(found)


def corpus_lines(count: int, seed: int) -> list[str]:
    """Text that a tokenizer for these windows can be made from."""
    rng = random.Random(seed)
    lines = [*INSTRUCTIONS.values(), *TAGS, OUTSIDE_WORD, "system\n", "user\n", "context\n"] * 50
    for number in range(count):
        case = make_case(rng, TAGS[number % len(TAGS)])
        lines += [case.query, *case.lines, _sentence(rng), _NOISE]
    return lines
