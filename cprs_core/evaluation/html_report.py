"""One self-contained page per run: tables shaded by value, recall against kept tokens, calibration, machine."""

from __future__ import annotations

import html
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from cprs_core.evaluation.failures import FailureLog
from cprs_core.evaluation.metrics import Measure
from cprs_core.evaluation.report import render_value

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2.2rem; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { border: 1px solid #ddd; padding: .3rem .6rem; text-align: left; vertical-align: top; }
th { background: #f4f4f4; font-weight: 600; } .wide { overflow-x: auto; }
small { color: #666; } svg { max-width: 100%; height: auto; }
"""
_COLOURS = ("#1b6ca8", "#c0562b", "#3d8b3d", "#8b5fa8", "#a8871b", "#5b6b7a", "#b03060", "#2b8f8f")
_AT_BUDGET = re.compile(r"recall@([\d,]+)$")
_DEPTH = re.compile(r"depth ([01]\.\d+) at ([\d,]+)$")
_SECONDS_AT = re.compile(r"seconds at ([\d,]+)$")
_BIN = re.compile(r"right at (0?\.\d+|1\.00|\d\.\d+)$")


def render_page(
    measures: Sequence[Measure],
    machine: Mapping[str, str],
    summary: str = "",
    failures: FailureLog | None = None,
    published: str = "",
) -> str:
    """The page's text.

    Args:
        measures: of one run.
        machine: facts shown at the foot, those of the run too.
        summary: Markdown tables to open with, a blank line between them; may be empty.
        failures: what was missed; None for no such section.
        published: a Markdown table of other people's numbers; may be empty.
    """
    parts = ["<h1>Context compression, measured</h1>"]
    parts.append("<p>95 % bootstrap intervals in brackets. All systems rank the same segments, at equal tokens.</p>")
    parts += [_from_markdown(table) for table in summary.split("\n\n") if table]
    for task in dict.fromkeys(measure.task for measure in measures):
        own = [measure for measure in measures if measure.task == task]
        parts += [f"<h2>{html.escape(task)}</h2>", _task_table(own), _curves(own), _heat_maps(own), _latency(own)]
        parts.append(_calibration(own))
    parts.append(_failures(failures))
    if published:
        parts.append(f"<h2>What others published</h2>{_from_markdown(published)}")
    facts = ", ".join(f"{key} {value}" for key, value in machine.items())
    parts.append(f"<p><small>{html.escape(facts)}</small></p>")
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>cprs bench</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def write_page(
    path: Path,
    measures: Sequence[Measure],
    machine: Mapping[str, str],
    summary: str = "",
    failures: FailureLog | None = None,
    published: str = "",
) -> None:
    """`render_page` into a file; folders on the way are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render_page(measures, machine, summary, failures, published), encoding="utf-8")


def _from_markdown(table: str) -> str:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return _table(rows[0], rows[2:])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    lines = ("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{top}</tr>{"".join(lines)}</table></div>'


def _task_table(measures: Sequence[Measure]) -> str:
    """Systems down, metrics across; shares are shaded, so that a table reads as a heat map."""
    measures = [measure for measure in measures if not measure.detail]
    metrics = list(dict.fromkeys(measure.metric for measure in measures))
    cells = {(measure.system, measure.metric): measure for measure in measures}
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ["system", *metrics])
    lines = []
    for system in dict.fromkeys(measure.system for measure in measures):
        row = [f"<td>{html.escape(system)}</td>"]
        row += [_cell(cells.get((system, metric))) for metric in metrics]
        lines.append(f"<tr>{''.join(row)}</tr>")
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(lines)}</table></div>'


def _cell(measure: Measure | None) -> str:
    text = html.escape(render_value(measure))
    if measure is None or math.isnan(measure.value) or math.isnan(measure.low) or not 0 <= measure.value <= 100:
        return f"<td>{text}</td>"
    return f'<td style="background: {_shade(measure.value)}" title="n = {measure.n:,}">{text}</td>'


def _curves(measures: Sequence[Measure]) -> str:
    """Recall against kept tokens, with each system's area under the curve over the logarithm of the tokens."""
    lines = recall_curves(measures)
    if not lines:
        return ""
    low = min(y for points in lines.values() for _, y in points)
    floor = 10 * math.floor(min(low, 90) / 10)
    ticks = [(x, f"{2**x:,.0f}") for x in sorted({x for points in lines.values() for x, _ in points})]
    named = {f"{name} (area {area_under(points):.1f})": points for name, points in lines.items()}
    return _plot(named, ticks, (floor, 100.0), "tokens kept", "recall, %")


def recall_curves(measures: Sequence[Measure]) -> dict[str, list[tuple[float, float]]]:
    """By system: (log2 of the tokens kept, recall in percent), ascending; only curves of three points and more."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for measure in measures:
        match = _AT_BUDGET.match(measure.metric)
        if match and not math.isnan(measure.value):
            lines.setdefault(measure.system, []).append((math.log2(int(match[1].replace(",", ""))), measure.value))
    return {name: sorted(points) for name, points in lines.items() if len(points) > 2}


def depth_maps(measures: Sequence[Measure]) -> dict[str, dict[tuple[float, int], float]]:
    """By system: recall in percent by (depth in 0..1, length in tokens)."""
    maps: dict[str, dict[tuple[float, int], float]] = {}
    for measure in measures:
        match = _DEPTH.match(measure.metric)
        if match and not math.isnan(measure.value):
            cell = (float(match[1]), int(match[2].replace(",", "")))
            maps.setdefault(measure.system, {})[cell] = measure.value
    return maps


def latency_curves(measures: Sequence[Measure]) -> dict[str, list[tuple[float, float]]]:
    """By system: (log2 of the context's tokens, log10 of the seconds to the first token), ascending."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for measure in measures:
        match = _SECONDS_AT.match(measure.metric)
        if match and measure.value > 0:
            point = (math.log2(int(match[1].replace(",", ""))), math.log10(measure.value))
            lines.setdefault(measure.system, []).append(point)
    return {name: sorted(points) for name, points in lines.items()}


def _latency(measures: Sequence[Measure]) -> str:
    lines = latency_curves(measures)
    if not lines:
        return ""
    heights = [y for points in lines.values() for _, y in points]
    ticks = [(x, f"{2**x:,.0f}") for x in sorted({x for points in lines.values() for x, _ in points})]
    low, high = math.floor(min(heights)), math.ceil(max(heights))
    high += high == low  # all at one power of ten
    steps = (1, 2, 5) if high - low < 3 else (1,)
    marks = [(p + math.log10(step), f"{step * 10.0**p:g}") for p in range(low, high + 1) for step in steps]
    marks = [mark for mark in marks if mark[0] <= high]
    return _plot(lines, ticks, (low, high), "tokens of context", "seconds to the first token", marks)


def _heat_maps(measures: Sequence[Measure]) -> str:
    """Recall by depth and length, one table per system."""
    parts = []
    for system, cells in depth_maps(measures).items():
        depths, lengths = (sorted({cell[axis] for cell in cells}) for axis in (0, 1))
        head = "".join(f"<th>{depth:.0%}</th>" for depth in depths)
        lines = []
        for length in lengths:
            row = "".join(_shaded(cells.get((depth, int(length)))) for depth in depths)
            lines.append(f"<tr><td>{length:,}</td>{row}</tr>")
        title = f"<p><small>{html.escape(system)}: recall by depth of the needle and tokens of context</small></p>"
        table = f"<table><tr><th>tokens</th>{head}</tr>{''.join(lines)}</table>"
        parts.append(f'{title}<div class="wide">{table}</div>')
    return "".join(parts)


def _shaded(value: float | None) -> str:
    if value is None:
        return "<td></td>"
    return f'<td style="background: {_shade(value)}">{value:.0f}</td>'


def _shade(value: float) -> str:
    """From pale red over white to pale green; text stays readable at both ends."""
    return f"hsl({120 if value >= 50 else 10} 55% {100 - abs(value - 50) * 0.36:.0f}%)"


def _failures(log: FailureLog | None) -> str:
    """What was missed: counts, then the worst cases with their text."""
    if log is None or not log.worst:
        return ""
    parts = ["<h2>What was missed</h2>"]
    rows = [
        [task, kind, system, f"{missed} of {cases}"] for (task, kind, system), (missed, cases) in log.counts.items()
    ]
    parts.append(_table(["task", "kind", "system", "missed"], [row for row in rows if not row[3].startswith("0 ")]))
    parts.append("<p>The worst of each kind: what was needed, and what scored best instead.</p>")
    cells = [[f.task, f.kind, f.system, f.query, f.missed, f.instead, f"{f.gap:.3f}"] for f in log.worst]
    parts.append(_table(["task", "kind", "system", "query", "needed", "scored best", "by"], cells))
    return "".join(parts)


def area_under(points: Sequence[tuple[float, float]]) -> float:
    """Mean height of a line through ``points`` (x ascending) by the trapezium rule."""
    total = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(points))
    return total / (points[-1][0] - points[0][0])


def _calibration(measures: Sequence[Measure]) -> str:
    """Share of right sentences against score; a calibrated critic is on the diagonal."""
    lines = calibration_curves(measures)
    if not lines:
        return ""
    ticks = [(float(x), str(x)) for x in range(0, 101, 20)]
    return _plot({**lines, "calibrated": [(0.0, 0.0), (100.0, 100.0)]}, ticks, (0.0, 100.0), "score, %", "right, %")


def calibration_curves(measures: Sequence[Measure]) -> dict[str, list[tuple[float, float]]]:
    """By system: (score, share of right sentences), both in percent; bins of ten sentences and more."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for measure in measures:
        match = _BIN.match(measure.metric)
        if match and measure.n >= 10:
            lines.setdefault(measure.system, []).append((100 * float(match[1]), measure.value))
    return {name: sorted(points) for name, points in lines.items()}


def _plot(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    ticks: Sequence[tuple[float, str]],
    heights: tuple[float, float],
    x_name: str,
    y_name: str,
    marks: Sequence[tuple[float, str]] | None = None,
) -> str:
    """Lines with points as inline SVG; no script, no other file.

    Args:
        lines: by name, points with x ascending.
        ticks: labelled places along x.
        heights: the least and the largest y.
        marks: labelled places along y; None for six at equal distances, in whole numbers.
    """
    if marks is None:
        steps = [heights[0] + step * (heights[1] - heights[0]) / 5 for step in range(6)]
        marks = [(y, f"{y:.0f}") for y in steps]
    left, top, width, height = 60, 12, 460, 260
    low, high = ticks[0][0], ticks[-1][0]

    def place(x: float, y: float) -> tuple[float, float]:
        across = left + width * (x - low) / max(1e-9, high - low)
        return across, top + height * (1 - (y - heights[0]) / max(1e-9, heights[1] - heights[0]))

    tall = max(320, top + 20 * len(lines) + 14)  # the legend may be longer than the plot
    parts = [f'<svg viewBox="0 0 940 {tall}" width="940" role="img" aria-label="{y_name} against {x_name}">']
    for y, label in marks:
        x0, y0 = place(low, y)
        parts.append(f'<line x1="{x0}" y1="{y0:.1f}" x2="{left + width}" y2="{y0:.1f}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{left - 8}" y="{y0 + 4:.1f}" font-size="11" text-anchor="end">{label}</text>')
    for x, label in ticks:
        x0, y0 = place(x, heights[0])
        parts.append(f'<text x="{x0:.1f}" y="{y0 + 18:.1f}" font-size="11" text-anchor="middle">{label}</text>')
    middle = left + width / 2
    parts.append(f'<text x="{middle}" y="{top + height + 38}" font-size="12" text-anchor="middle">{x_name}</text>')
    parts.append(f'<text x="12" y="{top + 4}" font-size="12">{y_name.split(",")[0]}</text>')
    for number, (name, points) in enumerate(lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        placed = [place(x, max(heights[0], min(heights[1], y))) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        dashes = ' stroke-dasharray="6 4"' * (number // len(_COLOURS) % 2)  # the colours' second round
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in placed]
        y = top + 14 + 20 * number
        at, looks = left + width + 18, f'stroke="{colour}" stroke-width="3"{dashes}'
        parts.append(f'<line x1="{at}" y1="{y - 3}" x2="{at + 20}" y2="{y - 3}" {looks}/>')
        parts.append(f'<text x="{left + width + 42}" y="{y + 2}" font-size="12">{html.escape(name)}</text>')
    return "".join([*parts, "</svg>"])
