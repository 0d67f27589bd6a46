"""InfiniteBench's regenerable tasks (arXiv 2402.13718; OpenBMB/InfiniteBench).

Pass key, number, key-value, code run and math find; the critic gets the question alone as query.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from statistics import median

import numpy as np

from cprs_core.evaluation.tasks.ruler import noise_hay
from cprs_core.evaluation.tasks.sample import Sample, hay_to_length, place_lines
from cprs_core.evaluation.words import uuid
from cprs_core.scorer import Tokenizer

MATH_QUESTIONS: dict[str, Callable[[list[int]], float]] = {  # largest and smallest of different numbers
    "largest number": max,
    "second largest number": lambda numbers: sorted(set(numbers))[-2],
    "third largest number": lambda numbers: sorted(set(numbers))[-3],
    "smallest number": min,
    "second smallest number": lambda numbers: sorted(set(numbers))[1],
    "third smallest number": lambda numbers: sorted(set(numbers))[2],
    "median of the numbers": median,
}
DEPTH_STEPS = 59  # the published sweep of positions


def make_pass_key(tokenizer: Tokenizer, tokens: int, seed: int) -> Sample:
    """Five digits in repeated noise."""
    key = "".join(map(str, np.random.default_rng(seed).integers(0, 10, 5).tolist()))
    line = f"The pass key is {key}. Remember it. {key} is the pass key."
    return _in_noise("passkey", line, key, "What is the pass key?", tokenizer, tokens, seed)


def make_number(tokenizer: Tokenizer, tokens: int, seed: int) -> Sample:
    """Ten digits with repetitions in repeated noise."""
    rng = np.random.default_rng(seed)
    digits = rng.integers(0, 10, 5).tolist()
    for _ in range(5):  # five times, one digit is doubled beside itself
        at = int(rng.integers(len(digits)))
        digits.insert(at, digits[at])
    number = "".join(map(str, digits))
    line = f"The sequence of digits is {number}. Remember it. {number} is the sequence of digits."
    return _in_noise("number", line, number, "What is the sequence of digits?", tokenizer, tokens, seed)


def _in_noise(task: str, line: str, answer: str, query: str, tokenizer: Tokenizer, tokens: int, seed: int) -> Sample:
    rng = np.random.default_rng([seed, 1])
    hay = hay_to_length(rng, tokenizer, tokens, noise_hay, reserve=len(tokenizer.encode(line)))
    position = (seed % DEPTH_STEPS) * len(hay) // (DEPTH_STEPS - 1)
    text, ranges = place_lines(hay, [line], [position], "\n")
    start, end = ranges[0]
    # The line states the value twice; either sentence is enough.
    gold = ((start, start + line.index(".") + 1), (start + line.rindex(answer), end))
    return Sample(task, text, query, gold, (answer,), any_of=True)


def make_key_values(tokenizer: Tokenizer, tokens: int, seed: int) -> Sample:
    """A JSON object of UUID pairs, one per line here so that a pair is a segment."""
    rng = np.random.default_rng(seed)

    def make(rng: np.random.Generator, lines: int) -> list[str]:
        return [f'"{uuid(rng)}": "{uuid(rng)}",' for _ in range(lines)]

    pairs = hay_to_length(rng, tokenizer, tokens, make)
    asked = int(rng.integers(len(pairs)))
    text = "JSON data:\n{" + "\n".join(pairs) + "}"
    start = len("JSON data:\n{") + sum(len(pair) + 1 for pair in pairs[:asked])
    key, value = pairs[asked][1:37], pairs[asked][41:77]
    gold = ((start, start + len(pairs[asked])),)
    return Sample(
        "kv", text, f'Key: "{key}"\nThe value associated with the specified key is: ', gold, (value,), unit="line"
    )


def make_code_run(tokenizer: Tokenizer, tokens: int, seed: int, depth: int = 4) -> Sample:
    """A chain of one-line functions; every function on the way from the call is evidence."""
    rng = np.random.default_rng(seed)
    typical = "\n".join(f"def func_{n}(x): return func_{n + 77}(x) + {n % 17}" for n in range(1_000, 1_050))
    functions = max(depth + 2, 50 * tokens // len(tokenizer.encode(typical)))
    order = rng.permutation(functions).tolist()
    chain = order[:depth]
    target = dict(itertools.pairwise(chain))
    leaves = order[depth:]
    lines = []
    for number in range(functions):
        constant = int(rng.integers(-12, 18))
        sign = "+" if constant >= 0 else "-"
        if number == chain[-1]:
            body = f"x {sign} {abs(constant)}"
        else:
            callee = target.get(number, leaves[int(rng.integers(len(leaves)))])
            body = f"func_{callee}(x) {sign} {abs(constant)}"
        lines.append(f"def func_{number}(x): return {body}")
    shuffled = rng.permutation(functions).tolist()
    text, ranges = place_lines([], [lines[i] for i in shuffled], list(range(functions)), "\n")
    place = {number: index for index, number in enumerate(shuffled)}
    query = f"What is the return value of func_{chain[0]}({int(rng.integers(-10, 11))})?"
    gold = tuple(ranges[place[number]] for number in chain)
    return Sample(f"code_run_{depth}", text, query, gold, tuple(lines[i] for i in chain), preset="code", unit="line")


def make_math_find(tokenizer: Tokenizer, tokens: int, seed: int) -> Sample:
    """One of seven questions about a long list of numbers, in turn by seed: every number counts.

    Numbers are 0..99 with a random upper bound (79..99), or a random lower one (0..19) where small ones are asked for.
    """
    rng = np.random.default_rng(seed)
    asked = list(MATH_QUESTIONS)[seed % len(MATH_QUESTIONS)]
    low, high = (int(rng.integers(0, 20)), 99) if "smallest" in asked else (0, int(rng.integers(79, 100)))
    numbers = rng.integers(low, high + 1, size=max(8, tokens // 2)).tolist()
    text = "[" + ", ".join(map(str, numbers)) + "]"
    answer = f"{MATH_QUESTIONS[asked](numbers):g}"
    return Sample(
        "math_find", text, f"What is the {asked} in the list?", ((0, len(text)),), (answer,), compressible=False
    )
