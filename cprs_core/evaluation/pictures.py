"""Results as PNG files, for a README or a slide: recall curves, heat maps by depth, latency, calibration."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cprs_core.errors import MissingExtraError
from cprs_core.evaluation.html_report import (
    area_under,
    calibration_curves,
    depth_maps,
    latency_curves,
    recall_curves,
)
from cprs_core.evaluation.metrics import Measure

Lines = Mapping[str, Sequence[tuple[float, float]]]
_DOTS_PER_INCH = 150


def write_pictures(folder: Path, measures: Sequence[Measure]) -> list[Path]:
    """One file per task and kind of picture; tasks that have nothing to draw have none.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        figure_type = importlib.import_module("matplotlib.figure").Figure
    except ImportError:
        raise MissingExtraError("matplotlib", "bench", "drawing PNG files") from None
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for task in dict.fromkeys(measure.task for measure in measures):
        own = [measure for measure in measures if measure.task == task]
        for kind, figure in _figures(figure_type, task, own).items():
            path = folder / f"{re.sub(r'[^a-z0-9]+', '-', task.lower()).strip('-')}-{kind}.png"
            figure.savefig(path, dpi=_DOTS_PER_INCH)
            written.append(path)
    return written


def _figures(figure_type: Any, task: str, measures: Sequence[Measure]) -> dict[str, Any]:
    figures = {}
    if lines := recall_curves(measures):
        named = {f"{name} (area {area_under(points):.1f})": points for name, points in lines.items()}
        figures["recall"] = _line_figure(figure_type, task, _powers(named, 2), "tokens kept", "recall, %", "log")
    if lines := latency_curves(measures):
        seconds = {name: [(2**x, 10**y) for x, y in points] for name, points in lines.items()}
        figure = _line_figure(figure_type, task, seconds, "tokens of context", "seconds to the first token", "log")
        figure.axes[0].set_yscale("log")
        figures["latency"] = figure
    if lines := calibration_curves(measures):
        figure = _line_figure(figure_type, task, lines, "score, %", "right, %", "linear")
        figure.axes[0].plot([0, 100], [0, 100], color="#bbbbbb", linestyle="--", zorder=0)
        figures["calibration"] = figure
    if maps := depth_maps(measures):
        figures["depth"] = _map_figure(figure_type, task, maps)
    return figures


def _powers(lines: Lines, base: float) -> dict[str, list[tuple[float, float]]]:
    return {name: [(base**x, y) for x, y in points] for name, points in lines.items()}


def _line_figure(figure_type: Any, title: str, lines: Lines, x_name: str, y_name: str, scale: str) -> Any:
    figure = figure_type(figsize=(8.5, 4.0), layout="constrained")
    axes = figure.subplots()
    for number, (name, points) in enumerate(lines.items()):
        # The first row, ours, lies on top; styles change with the colours' second round.
        style = {
            "color": f"C{number % 10}",
            "linestyle": "-" if number < 10 else "--",
            "zorder": 10 + len(lines) - number,
        }
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name, **style)
    axes.set(title=title, xlabel=x_name, ylabel=y_name, xscale=scale)
    if scale == "log":
        xs = sorted({x for points in lines.values() for x, _ in points})
        powers = [x for x in xs if math.log2(x).is_integer()]
        ticks = powers if len(powers) > 2 else xs
        axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks], rotation=45 if len(ticks) > 6 else 0)
        axes.minorticks_off()
    axes.grid(alpha=0.25)
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    return figure


def _map_figure(figure_type: Any, title: str, maps: Mapping[str, Mapping[tuple[float, int], float]]) -> Any:
    figure = figure_type(figsize=(8.5, 0.8 + 1.6 * len(maps)), layout="constrained")
    panels = figure.subplots(len(maps), 1, squeeze=False)[:, 0]
    image = None
    for axes, (system, cells) in zip(panels, maps.items(), strict=True):
        depths, lengths = (sorted({cell[axis] for cell in cells}) for axis in (0, 1))
        grid = [[cells.get((depth, int(length)), float("nan")) for depth in depths] for length in lengths]
        image = axes.imshow(grid, vmin=0, vmax=100, cmap="RdYlGn", aspect="auto")
        axes.set_xticks(range(len(depths)), [f"{depth:.0%}" for depth in depths], fontsize="x-small")
        axes.set_yticks(range(len(lengths)), [f"{length:,.0f}" for length in lengths], fontsize="x-small")
        axes.set_title(system, fontsize="small")
    figure.suptitle(f"{title}: recall by depth and tokens of context", fontsize="medium")
    figure.colorbar(image, ax=list(panels), label="%")
    return figure
