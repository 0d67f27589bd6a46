"""Made-up records: right lines and look-alikes planted in real paragraphs, or in lists of such lines.

Every maker's right lines are there in about 65 % of its records and only the look-alikes in the others, where keeping
nothing is right.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from cprs_core.training.records import Evidence, EvidenceSet, Record
from cprs_core.training.synthetic_items import (
    Maker,
    code,
    dated,
    log,
    needle,
    numbered,
    pair,
    pass_key,
    person,
    setting,
    site,
)
from cprs_core.training.synthetic_sayings import saying
from cprs_core.training.synthetic_steps import assignments, bridges, calls, moves

_PRESENT = 0.65

# Twice where one maker stands for many kinds of text.
_MAKERS: tuple[Maker, ...] = (
    *(needle, person, pair, site, setting, dated, numbered, needle, person, site),
    *(log, code, pass_key, saying, saying),
    *(assignments, calls, bridges, moves, assignments, calls, bridges),
)


def make_synthetic(count: int, paragraphs: Sequence[str], seed: int) -> EvidenceSet:
    """``count`` records of all kinds, in turn.

    Args:
        paragraphs: real text that the planted lines are put into.
    """
    rng = random.Random(seed)
    result = EvidenceSet("synthetic")
    for number in range(count):
        make = _MAKERS[number % len(_MAKERS)]
        item = make(rng)
        present = rng.random() < _PRESENT
        lines = [(line, True) for line in item.right if present] + [(line, False) for line in item.near]
        in_lines = not item.in_prose
        filler = [(line, False) for line in _more_lines(rng, make)] if in_lines else _filler(rng, paragraphs)
        glue = "\n" if in_lines or item.tag == "chain" else " "
        text, spans = _plant(rng, lines, filler, keep_order=item.in_order, glue=glue)
        document = result.add_document(text, group=f"{item.tag}{number}")
        evidence = tuple(Evidence(document, start, end, item.tag) for start, end in spans)
        result.records.append(Record(item.query, (document,), evidence, tag=item.tag))
    return result


def _plant(
    rng: random.Random, lines: list[tuple[str, bool]], filler: list[tuple[str, bool]], keep_order: bool, glue: str
) -> tuple[str, list[tuple[int, int]]]:
    """The lines spread over the filler, and where the right ones came to lie."""
    if not keep_order:
        rng.shuffle(lines)
    places = sorted(rng.choices(range(len(filler) + 1), k=len(lines)))
    mixed: list[tuple[str, bool]] = []
    for position in range(len(filler) + 1):
        mixed += [line for line, place in zip(lines, places, strict=True) if place == position]
        mixed += filler[position : position + 1]
    text, spans = "", []
    for line, is_right in mixed:
        text += glue if text else ""
        if is_right:
            spans.append((len(text), len(text) + len(line)))
        text += line
    return text, spans


def _filler(rng: random.Random, paragraphs: Sequence[str]) -> list[tuple[str, bool]]:
    sentences = [sentence for sentence in rng.choice(paragraphs).replace("\n", " ").split(". ") if sentence.strip()]
    return [(sentence if sentence.endswith(".") else f"{sentence}.", False) for sentence in sentences]


def _more_lines(rng: random.Random, make: Maker) -> list[str]:
    return [line for _ in range(rng.randint(0, 3)) for line in make(rng).near]
