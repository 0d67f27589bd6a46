"""What a critic keeps without being told how much: precision, recall, F1 and F2 of segments at its default threshold.

Micro averages over all cases: sums of kept, right, and kept right segments. F2 counts recall twice as much as
precision, as OpenProvence reports it (``5 * P * R / (4 * P + R)``). Baselines have no threshold of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cprs_core.evaluation.metrics import Measure, ratio_measure

AT_THRESHOLD = "at default threshold"
PRECISION, RECALL = f"precision {AT_THRESHOLD}", f"segment recall {AT_THRESHOLD}"
F1, F2 = f"F1 {AT_THRESHOLD}", f"F2 {AT_THRESHOLD}"


@dataclass(frozen=True)
class Outcome:
    """One case, in segments: how many were kept, how many are right, and how many are both."""

    kept: int
    right: int
    both: int

    @classmethod
    def of(cls, kept: Iterable[int], right: Iterable[int], *, any_of: bool = False) -> Outcome:
        """From the indices of segments; with ``any_of`` one right segment is enough, and more of them are not wrong."""
        chosen, needed = set(kept), set(right)
        both = len(chosen & needed)
        return cls(len(chosen), max(1, both) if any_of and needed else len(needed), both)


def evidence_measures(task: str, system: str, outcomes: Sequence[Outcome], *, recall: bool = True) -> list[Measure]:
    """The four numbers in percent; without ``recall`` three, where a task has a recall of its own."""
    kept, right, both = ([getattr(outcome, name) for outcome in outcomes] for name in ("kept", "right", "both"))
    pairs = list(zip(kept, right, strict=True))
    rows = [ratio_measure(task, PRECISION, system, both, kept)]
    if recall:
        rows.append(ratio_measure(task, RECALL, system, both, right))
    twice, five = [2 * n for n in both], [5 * n for n in both]
    rows.append(ratio_measure(task, F1, system, twice, [k + r for k, r in pairs]))
    rows.append(ratio_measure(task, F2, system, five, [k + 4 * r for k, r in pairs]))
    return rows
