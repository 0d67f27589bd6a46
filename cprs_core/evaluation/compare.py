"""Two runs side by side: what changed by more than the noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cprs_core.evaluation.metrics import Measure
from cprs_core.evaluation.report import render_rows, render_value

_NORMAL_95 = 1.96


@dataclass(frozen=True)
class Change:
    """One measure in both runs; ``significant`` where the difference is outside its 95 % interval.

    The interval adds both runs' variances as if their cases were independent, which overstates the noise of runs over
    the same cases: what it calls significant is.
    """

    before: Measure
    after: Measure

    @property
    def difference(self) -> float:
        return self.after.value - self.before.value

    @property
    def noise(self) -> float:
        """Half width of the 95 % interval of the difference."""
        widths = [(m.high - m.low) / 2 for m in (self.before, self.after)]
        return math.hypot(*(0.0 if math.isnan(width) else width for width in widths))

    @property
    def significant(self) -> bool:
        return abs(self.difference) > max(self.noise, 1e-9)

    @property
    def worse(self) -> bool:
        """Fell by more than the noise. Fewer tokens and smaller errors are better."""
        sign = -1.0 if self.after.metric in ("tokens kept", "expected calibration error") else 1.0
        return self.significant and sign * self.difference < 0


def compare_runs(before: Sequence[Measure], after: Sequence[Measure]) -> list[Change]:
    """Measures of the same task, metric and system in both runs; NaN and details are left out."""
    old = {(m.task, m.metric, m.system): m for m in before if not (m.detail or math.isnan(m.value))}
    changes = []
    for measure in after:
        match = old.get((measure.task, measure.metric, measure.system))
        if match is not None and not (measure.detail or math.isnan(measure.value)):
            changes.append(Change(match, measure))
    return changes


def render_changes(changes: Sequence[Change]) -> str:
    """Markdown: both values, the difference, and a mark where it is more than noise."""
    rows = [["task", "metric", "system", "before", "after", "difference", "verdict"]]
    for change in changes:
        verdict = "worse" if change.worse else "better" if change.significant else "same"
        measure = change.after
        values = [render_value(change.before), render_value(measure), f"{change.difference:+.1f} ± {change.noise:.1f}"]
        rows.append([measure.task, measure.metric, measure.system, *values, verdict])
    return render_rows(rows)
