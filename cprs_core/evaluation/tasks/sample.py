"""One generated case, and what all generators need: hay to a length, and lines put into it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cprs_core.evaluation.corpus import Corpus, Request
from cprs_core.evaluation.metrics import Fact
from cprs_core.evaluation.words import plain_sentence
from cprs_core.instructions import PRESETS
from cprs_core.scorer import Tokenizer


@dataclass(frozen=True)
class Sample:
    """A context, a query and the character ranges that must be kept.

    All of ``gold`` is needed, or with ``any_of`` one of its ranges. ``preset`` names the instruction; ``unit`` how the
    context is cut; ``compressible`` is false where every line counts, so that the right output is to keep all or to
    refuse. ``depth`` (0..1) is where the gold stands, if a task sweeps it.
    """

    task: str
    text: str
    query: str
    gold: tuple[tuple[int, int], ...]
    answers: tuple[str, ...]
    preset: str = "needles"
    unit: str = "sentence"
    compressible: bool = True
    any_of: bool = False
    depth: float | None = None

    def request(self, tokenizer: Tokenizer) -> Request:
        """The sample as a ranking request."""
        return Request(Corpus([self.text], tokenizer, self.unit), self.query, PRESETS[self.preset])

    def facts(self, corpus: Corpus) -> list[Fact]:
        """Every gold range in a corpus' segments."""
        return [Fact.locate(corpus, start, end) for start, end in self.gold]

    def recall(self, facts: Sequence[Fact], kept: NDArray[np.bool_]) -> float:
        """Share of what is needed that is kept (`Fact.found`)."""
        return recall_of(facts, kept, self.any_of)


def recall_of(facts: Sequence[Fact], kept: NDArray[np.bool_], any_of: bool) -> float:
    """Share of facts that are kept, or with ``any_of`` whether any is."""
    found = [fact.found(kept) for fact in facts]
    return float(any(found)) if any_of else sum(found) / max(1, len(found))


MakeHay = Callable[[np.random.Generator, int], list[str]]  # (rng, lines at least) -> lines or sentences


def hay_to_length(
    rng: np.random.Generator, tokenizer: Tokenizer, tokens: int, make: MakeHay, *, reserve: int = 0
) -> list[str]:
    """Lines of hay that take at most ``tokens`` tokens less ``reserve`` for what is put into them.

    Lengths are estimated from a first batch, then cut exactly.
    """
    room = max(0, tokens - reserve)
    batch = make(rng, 64)
    per_line = max(1.0, len(tokenizer.encode("\n".join(batch))) / len(batch))
    lines = make(rng, int(1.1 * room / per_line) + 1)
    # One pass over the joined text; a line's cost is what begins in it.
    text = "\n".join(lines)
    starts = tokenizer.encode(text).starts
    ends = np.cumsum([len(line) + 1 for line in lines])
    costs = np.searchsorted(starts, ends)
    return lines[: int(np.searchsorted(costs, room, side="right"))]


def place_lines(
    hay: Sequence[str], lines: Sequence[str], positions: Sequence[int], joiner: str
) -> tuple[str, list[tuple[int, int]]]:
    """``hay`` with ``lines[i]`` before hay line ``positions[i]``: the text, and every line's characters."""
    order = sorted(range(len(lines)), key=lambda i: positions[i])
    parts: list[str] = []
    ranges: list[tuple[int, int]] = [(0, 0)] * len(lines)
    length, taken = 0, 0
    for i in order:
        before = hay[taken : positions[i]]
        taken = positions[i]
        length += sum(len(part) + len(joiner) for part in before)
        parts += before
        ranges[i] = (length, length + len(lines[i]))
        parts.append(lines[i])
        length += len(lines[i]) + len(joiner)
    parts += hay[taken:]
    return joiner.join(parts), ranges


def own_essay(rng: np.random.Generator, lines: int) -> list[str]:
    """Varied plain sentences, where no books are at hand."""
    return [plain_sentence(rng) for _ in range(lines)]


def essay_from(sentences: Sequence[str]) -> MakeHay:
    """Hay of running sentences from a seeded place in real text, going round at its end."""

    def make(rng: np.random.Generator, lines: int) -> list[str]:
        first = int(rng.integers(len(sentences)))
        return [sentences[(first + i) % len(sentences)] for i in range(lines)]

    return make
