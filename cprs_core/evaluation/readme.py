"""The README's measured table, written from results."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from cprs_core.errors import InputError
from cprs_core.evaluation.haystack import BUDGETS
from cprs_core.evaluation.metrics import Measure
from cprs_core.evaluation.report import render_rows, render_value

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
_KEPT = (512, 1_024, 4_096)


def render_measured(measures: Sequence[Measure], machine: Mapping[str, str]) -> str:
    """Markdown: answer-sentence recall in the haystack per budget, and where it was measured.

    Systems that could not be measured there have no row.

    Raises:
        InputError: the results hold no haystack.
    """
    rows = [measure for measure in measures if measure.task == "haystack" and not measure.detail]
    cells = {(measure.system, measure.metric): measure for measure in rows}
    if not cells:
        raise InputError("the results hold no haystack; run: cprs bench haystack --out FILE")
    budgets = [budget for budget in _KEPT if budget in BUDGETS]
    table = [["kept tokens", *(f"{budget:,}" for budget in budgets), "questions"]]
    for system in dict.fromkeys(measure.system for measure in rows):
        values = [cells.get((system, f"recall@{budget:,}")) for budget in budgets]
        n = next((value.n for value in values if value is not None and value.n), 0)
        if n:
            table.append([system, *map(render_value, values), f"{n:,}"])
    facts = ", ".join(f"{key} {machine[key]}" for key in ("device", "cpus", "torch", "cprs") if machine.get(key))
    return f"{render_rows(table)}\n\nMeasured with `cprs bench haystack` ({facts})."


def update_readme(path: Path, text: str) -> None:
    """Replaces what stands between the two marks.

    Raises:
        InputError: the file is missing or lacks the marks.
    """
    try:
        page = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    block = re.compile(re.escape(BEGIN) + r".*?" + re.escape(END), re.DOTALL)
    if len(block.findall(page)) != 1:
        raise InputError(f"{path} must hold {BEGIN} and {END} once each; the table goes between them")
    path.write_text(block.sub(lambda _: f"{BEGIN}\n{text}\n{END}", page), encoding="utf-8")
