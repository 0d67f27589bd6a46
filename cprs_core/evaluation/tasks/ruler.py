"""RULER (arXiv 2404.06654; NVIDIA/RULER): eight needle tasks, variable tracking, word counting, question answering.

Wording, counts and placement follow the published code; key words and hay are our own. The critic gets the question
alone as query; the context holds no prompt text. Length counts context tokens.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cprs_core.evaluation.tasks.sample import MakeHay, Sample, hay_to_length, own_essay, place_lines
from cprs_core.evaluation.words import ADJECTIVES, NOUNS, key_phrase, uuid
from cprs_core.scorer import Tokenizer

NOISE = (
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."  # RULER's own filler
)
DEPTHS = 40  # needles of the essay haystack stand at depths drawn from this many points


@dataclass(frozen=True)
class NeedleTask:
    """One row of RULER's needle table: haystack, kinds of key and value, and how many of each are hidden and asked."""

    hay: str
    key: str
    value: str
    keys: int = 1
    values: int = 1
    queries: int = 1


NEEDLE_TASKS: dict[str, NeedleTask] = {
    "niah_single_1": NeedleTask("noise", "words", "numbers"),
    "niah_single_2": NeedleTask("essay", "words", "numbers"),
    "niah_single_3": NeedleTask("essay", "words", "uuids"),
    "niah_multikey_1": NeedleTask("essay", "words", "numbers", keys=4),
    "niah_multikey_2": NeedleTask("needle", "words", "numbers"),
    "niah_multikey_3": NeedleTask("needle", "uuids", "uuids"),
    "niah_multivalue": NeedleTask("essay", "words", "numbers", values=4),
    "niah_multiquery": NeedleTask("essay", "words", "numbers", keys=4, queries=4),
}


def needle_line(kind: str, key: str, value: str) -> str:
    """A needle in RULER's words."""
    return f"One of the special magic {kind} for {key} is: {value}."


def _word(rng: np.random.Generator, kind: str) -> str:
    if kind == "uuids":
        return uuid(rng)
    return str(rng.integers(1_000_000, 10_000_000)) if kind == "numbers" else key_phrase(rng)


def _fresh_keys(rng: np.random.Generator, kind: str, count: int) -> list[str]:
    """``count`` different keys."""
    keys: dict[str, None] = {}
    while len(keys) < count:
        keys[_word(rng, kind)] = None
    return list(keys)


def noise_hay(rng: np.random.Generator, lines: int) -> list[str]:
    """RULER's repeated noise line."""
    return [NOISE] * lines


def make_needles(
    name: str,
    tokenizer: Tokenizer,
    tokens: int,
    seed: int,
    essay: MakeHay = own_essay,
    *,
    depth: float | None = None,
) -> Sample:
    """One sample of one of `NEEDLE_TASKS`; with ``depth`` (0..1) all its needles stand there."""
    task = NEEDLE_TASKS[name]
    rng = np.random.default_rng(seed)
    keys = _fresh_keys(rng, task.key, max(task.keys, task.queries))
    lines = [needle_line(task.value, key, _word(rng, task.value)) for key in keys for _ in range(task.values)]
    taken = set(keys)

    def distractors(rng: np.random.Generator, count: int) -> list[str]:
        # Word keys run out in long contexts, as in RULER; the asked key itself is never among them.
        drawn = (_word(rng, task.key) for _ in range(count))
        return [needle_line(task.value, key, _word(rng, task.value)) for key in drawn if key not in taken]

    make = {"noise": noise_hay, "essay": essay, "needle": distractors}[task.hay]
    reserve = len(tokenizer.encode("\n".join(lines)))
    hay = hay_to_length(rng, tokenizer, tokens, make, reserve=reserve)
    if depth is not None:
        positions = [round(depth * len(hay))] * len(lines)
    elif task.hay == "essay":
        depths = rng.choice(DEPTHS, size=len(lines), replace=False) / (DEPTHS - 1)
        positions = [round(float(point) * len(hay)) for point in depths]
    else:
        positions = rng.integers(0, len(hay) + 1, size=len(lines)).tolist()
    text, ranges = place_lines(hay, lines, positions, " " if task.hay == "essay" else "\n")
    asked = keys[: task.queries]
    gold = [i for i in range(len(lines)) if keys[i // task.values] in asked]
    return Sample(
        task=name,
        text=text,
        query=_needle_question(task, asked),
        gold=tuple(ranges[i] for i in gold),
        answers=tuple(lines[i].rsplit(" ", 1)[1][:-1] for i in gold),
        unit="sentence" if task.hay == "essay" else "line",
        depth=depth,
    )


def _needle_question(task: NeedleTask, asked: Sequence[str]) -> str:
    names = asked[0] if len(asked) == 1 else ", ".join(asked[:-1]) + f", and {asked[-1]}"
    if len(asked) * task.values == 1:
        return f"What is the special magic {task.value[:-1]} for {names} mentioned in the provided text?"
    return f"What are all the special magic {task.value} for {names} mentioned in the provided text?"


def make_variables(
    tokenizer: Tokenizer, tokens: int, seed: int, *, chains: int = 1, hops: int = 4, essay: MakeHay | None = None
) -> Sample:
    """Variable tracking: every variable of the chain that starts at the asked value; noise or essay hay."""
    rng = np.random.default_rng(seed)
    letters = np.array(list(string.ascii_uppercase))
    names: dict[str, None] = {}
    while len(names) < chains * (hops + 1):
        names["".join(rng.choice(letters, 5).tolist())] = None
    variables = list(names)
    values = rng.choice(np.arange(10_000, 100_000), size=chains, replace=False).tolist()
    lines: list[str] = []
    for chain, value in enumerate(values):
        own = variables[chain * (hops + 1) : (chain + 1) * (hops + 1)]
        lines += [f"VAR {own[0]} = {value}", *(f"VAR {b} = VAR {a}" for a, b in itertools.pairwise(own))]
    make = essay or noise_hay
    hay = hay_to_length(rng, tokenizer, tokens, make, reserve=len(tokenizer.encode("\n".join(lines))))
    positions: list[int] = []
    for _ in values:  # a chain's lines come in order, chains interleave
        positions += np.sort(rng.integers(0, len(hay) + 1, size=hops + 1)).tolist()
    text, ranges = place_lines(hay, lines, positions, "\n")
    return Sample(
        task=f"vt_{chains}_chain" if chains == 1 else f"vt_{chains}_chains",
        text=text,
        query=f"Find all variables that are assigned the value {values[0]} in the text above.",
        gold=tuple(ranges[: hops + 1]),
        answers=tuple(variables[: hops + 1]),
        unit="line",
    )


def make_common_words(tokenizer: Tokenizer, tokens: int, seed: int) -> Sample:
    """Common words extraction: ten words 30 times, the others 3 times; nothing can be left out."""
    rng = np.random.default_rng(seed)
    pool = [f"{adjective}{noun}" for adjective in ADJECTIVES for noun in NOUNS]
    order = rng.permutation(len(pool)).tolist()
    typical = " ".join(f"{number}. {pool[i]}" for number, i in enumerate(order[:200], start=1_000))
    per_word = len(tokenizer.encode(typical)) / 200
    others = max(1, int(tokens / per_word - 300) // 3)
    common = [pool[i] for i in order[:10]]
    words = common * 30 + [pool[i] for i in order[10 : 10 + others]] * 3
    listed = [words[i] for i in rng.permutation(len(words)).tolist()]
    text = " ".join(f"{number}. {word}" for number, word in enumerate(listed, start=1))
    query = "What are the 10 most common words in the above list?"
    return Sample("cwe", text, query, ((0, len(text)),), tuple(common), compressible=False)


def make_frequent_words(tokenizer: Tokenizer, tokens: int, seed: int, alpha: float = 2.0) -> Sample:
    """Frequent words extraction: coded words by a zeta law, the most frequent one blanked out."""
    rng = np.random.default_rng(seed)
    letters = np.array(list(string.ascii_lowercase))
    vocabulary = ["".join(rng.choice(letters, 6).tolist()) for _ in range(max(8, tokens // 50))]
    per_word = max(1, len(tokenizer.encode(" ".join(vocabulary[:50]))) // min(50, len(vocabulary)))
    ranks = rng.zipf(alpha, size=max(16, tokens // per_word))
    ranks = ranks[ranks <= len(vocabulary)]
    text = " ".join("..." if rank == 1 else vocabulary[rank - 1] for rank in ranks.tolist())
    query = "Do not provide any explanation. What are the three most frequently appeared words in the above coded text?"
    return Sample("fwe", text, query, ((0, len(text)),), tuple(vocabulary[1:4]), compressible=False)
