"""Measures as tables people read and as JSON that runs are compared by."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cprs_core.errors import InputError
from cprs_core.evaluation.metrics import Measure

FORMAT = 1
_PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "bm25s", "sentencex")


def render_tables(measures: Sequence[Measure]) -> str:
    """One Markdown table per task: systems down, metrics across, each value with its 95 % interval."""
    measures = [measure for measure in measures if not measure.detail]
    tasks = dict.fromkeys(measure.task for measure in measures)
    return "\n\n".join(_table(task, [measure for measure in measures if measure.task == task]) for task in tasks)


def _table(task: str, measures: Sequence[Measure]) -> str:
    metrics = list(dict.fromkeys(measure.metric for measure in measures))
    systems = list(dict.fromkeys(measure.system for measure in measures))
    cells = {(measure.system, measure.metric): measure for measure in measures}
    n = sorted({measure.n for measure in measures if measure.n})
    counts = f"n = {n[0]:,}" if len(n) == 1 else f"n = {n[0]:,} to {n[-1]:,}" if n else "no cases"
    rows = [[f"{task} ({counts})", *metrics]]
    rows += [[system, *(render_value(cells.get((system, metric))) for metric in metrics)] for system in systems]
    return render_rows(rows)


def render_rows(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that is also aligned as plain text; the first row is the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def render_value(measure: Measure | None) -> str:
    """``97.2 [95.6, 98.4]``; a dash for nothing, the reason where a system could not take part."""
    if measure is None:
        return "-"
    if math.isnan(measure.value):
        return measure.note or "-"
    if math.isnan(measure.low):
        return f"{measure.value:.3g}" if abs(measure.value) < 10 else f"{measure.value:,.1f}"
    return f"{measure.value:.1f} [{measure.low:.1f}, {measure.high:.1f}]"


def describe_machine(device: str = "") -> dict[str, str]:
    """Processor, device and versions of what the numbers depend on."""
    from cprs_core import __version__

    facts = {"cprs": __version__, "python": platform.python_version(), "machine": platform.machine()}
    facts["cpus"] = str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    if device:
        facts["device"] = device
    for package in _PACKAGES:
        try:
            facts[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            facts[package] = "not installed"
    return facts


def write_results(
    path: Path,
    measures: Sequence[Measure],
    machine: Mapping[str, str],
    settings: Mapping[str, Any],
    failures: Mapping[str, Any] | None = None,
) -> None:
    """A run as JSON: settings, machine, measures and failures; NaN is null."""
    rows = [
        {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in asdict(row).items()}
        for row in measures
    ]
    run = {"format": FORMAT, "machine": dict(machine), "settings": dict(settings), "measures": rows}
    if failures is not None:
        run["failures"] = dict(failures)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(run, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_results(path: Path) -> list[Measure]:
    """The measures of a run that `write_results` wrote."""
    return [_measure(row) for row in read_run(path)["measures"]]


def read_run(path: Path) -> dict[str, Any]:
    """All that `write_results` wrote.

    Raises:
        InputError: the file holds no results.
    """
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        run["measures"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} holds no results of cprs bench; write them with --out") from None
    return dict(run)


def _measure(row: Mapping[str, Any]) -> Measure:
    fields: dict[str, Any] = {key: math.nan if value is None else value for key, value in row.items()}
    return Measure(**fields)
