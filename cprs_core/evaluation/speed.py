"""How long compression takes: cold start, tokens per second, and where the time goes.

The text is English prose of our own generator. Times are of this machine and depend on what else it does; nothing here
passes or fails.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np

from cprs_core.compressor import Compressor
from cprs_core.evaluation.metrics import Measure
from cprs_core.evaluation.options import Options
from cprs_core.evaluation.systems import CriticSystem, System
from cprs_core.evaluation.words import plain_sentence

CHARACTERS = 100_000
REPEATS = 3
TASK = "speed"


def prose(characters: int, seed: int) -> str:
    """Paragraphs of about seven plain sentences."""
    rng = np.random.default_rng(seed)
    parts: list[str] = []
    length = 0
    while length < characters:
        parts.append(plain_sentence(rng) + ("\n\n" if rng.random() < 0.15 else " "))
        length += len(parts[-1])
    return "".join(parts)[:characters]


def measure_speed(systems: Sequence[System], options: Options) -> list[Measure]:
    """Tokens per second, seconds per stage, and the share of the time that is not the model."""
    characters = CHARACTERS if options.tokens is None else 5 * options.tokens
    text = prose(characters, options.seed)
    measures = [Measure(TASK, "import cprs_core, s", "python", _import_seconds(), n=REPEATS)]
    for system in systems:
        if not isinstance(system, CriticSystem):
            continue
        compressor = Compressor(system.scorer)
        query = "Which object from the archive was described as useful?"
        compressor.compress(text[:5_000], query)  # first use allocates
        runs = [compressor.compress(text, query, ratio=0.1).usage for _ in range(REPEATS)]
        best = min(runs, key=lambda usage: usage.seconds)
        model = best.stage_seconds["score"]
        values = {
            "tokens/s": best.input_tokens / best.seconds,
            "tokens": float(best.input_tokens),
            "seconds": best.seconds,
            **{f"{stage}, s": seconds for stage, seconds in best.stage_seconds.items()},
            "outside the model, %": 100 * (1 - model / best.seconds),
        }
        measures += [Measure(TASK, metric, system.name, value, n=REPEATS) for metric, value in values.items()]
    return measures


def _import_seconds() -> float:
    """Best of three: a fresh interpreter's ``import cprs_core``, less the interpreter's own start."""

    def seconds(code: str) -> float:
        best = float("inf")
        for _ in range(REPEATS):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            best = min(best, time.perf_counter() - began)
        return best

    return max(0.0, seconds("import cprs_core") - seconds("pass"))
