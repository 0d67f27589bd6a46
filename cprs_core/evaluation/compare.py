"""Two runs side by side: what changed by more than the noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cprs_core.evaluation.metrics import Measure
from cprs_core.evaluation.report import render_rows, render_value

_FEWER_IS_BETTER = ("tokens kept", "tokens")


@dataclass(frozen=True)
class Change:
    """One measure in both runs; ``significant`` where the difference is outside its 95 % interval.

    Of each run that side of its interval counts which faces the other run (Newcombe, 1998). Both are added as if their
    cases were independent, which overstates the noise of runs over the same cases: what it calls significant is.
    Times, speeds and calibration errors have no interval, so nothing can be said of them.
    """

    before: Measure
    after: Measure

    @property
    def difference(self) -> float:
        return self.after.value - self.before.value

    @property
    def noise(self) -> float:
        """What the difference must exceed: the half width, on its own side, of its 95 % interval; NaN if unknown."""
        lower, upper = (self.after, self.before) if self.difference < 0 else (self.before, self.after)
        return math.hypot(lower.high - lower.value, upper.value - upper.low)

    @property
    def significant(self) -> bool:
        return abs(self.difference) > self.noise + 1e-9  # false where the noise is NaN

    @property
    def worse(self) -> bool:
        """Fell by more than the noise; of tokens, rose."""
        sign = -1.0 if self.after.metric in _FEWER_IS_BETTER else 1.0
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
        known = not math.isnan(change.noise)
        verdict = "worse" if change.worse else "better" if change.significant else "same" if known else "no interval"
        difference = f"{change.difference:+.1f} ± {change.noise:.1f}" if known else f"{change.difference:+.3g}"
        measure = change.after
        values = [render_value(change.before), render_value(measure), difference]
        rows.append([measure.task, measure.metric, measure.system, *values, verdict])
    return render_rows(rows)
