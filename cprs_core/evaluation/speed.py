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
from cprs_core.errors import CPRSError
from cprs_core.evaluation.metrics import Measure
from cprs_core.evaluation.options import Options
from cprs_core.evaluation.systems import CriticSystem, System
from cprs_core.evaluation.words import plain_sentence

CHARACTERS = 100_000
REPEATS = 3
TASK = "speed"
EMBEDDED = "cprs-mini"  # the row that `load_critics` gives the critic inside the package


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
        if system.name == EMBEDDED:
            measures.append(Measure(TASK, "cprs compress, s", system.name, _command_seconds(text), n=REPEATS))
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
    """A fresh interpreter's ``import cprs_core``, less the interpreter's own start."""
    return max(0.0, _process_seconds("import cprs_core") - _process_seconds("pass"))


def _command_seconds(text: str) -> float:
    """``cprs compress`` of ``text`` with the embedded critic, start-up included."""
    code = "import sys; from cprs_core.cli import main; sys.exit(main(['compress', '--query', 'What was useful?']))"
    return _process_seconds(code, text)


def _process_seconds(code: str, stdin: str = "") -> float:
    """Best of three runs of a fresh interpreter."""
    best = float("inf")
    for _ in range(REPEATS):
        began = time.perf_counter()
        # Exit code 3 says that nothing was kept, which is no failure here.
        done = subprocess.run([sys.executable, "-c", code], input=stdin, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 3):
            raise CPRSError(f"a fresh interpreter failed with exit code {done.returncode}: {done.stderr[-500:]}")
        best = min(best, time.perf_counter() - began)
    return best
