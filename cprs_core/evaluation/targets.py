"""What the embedded critic is meant to reach, and one table of that beside the best baseline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cprs_core.evaluation.metrics import Measure
from cprs_core.evaluation.report import render_rows, render_value


@dataclass(frozen=True)
class Target:
    """The number to reach on one metric and the ambition, in percent.

    ``rival`` is the metric that baselines are compared by where they have no such metric of their own; with
    ``over_bm25`` the numbers are points above BM25.
    """

    label: str
    task: str
    metric: str
    reach: float
    ambition: float
    rival: str = ""
    over_bm25: bool = False


TARGETS = (
    Target("SQuAD haystack, answer sentence at 512 tokens", "haystack", "recall@512", 97, 99),
    Target("SQuAD haystack, answer sentence at 1,024 tokens", "haystack", "recall@1,024", 98.5, 99.5),
    Target("SQuAD haystack, answer sentence at 4,096 tokens", "haystack", "recall@4,096", 99.5, 99.9),
    Target("QED, right sentence first", "qed", "right sentence first", 80, 86),
    Target("XQuAD English, right sentence first", "xquad-en", "right sentence first", 92, 96),
    Target("XQuAD Chinese, right sentence first", "xquad-zh", "right sentence first", 82, 92),
    Target("XQuAD, mean over the other ten", "xquad-others", "right sentence first", 5, 10, over_bm25=True),
    Target("CMRC2018, right sentence first", "cmrc", "right sentence first", 82, 90),
    Target("WiCE claims, best-set sentence F1", "wice", "best-set F1, first 2", 65, 73),
    Target(
        "WiCE claims, the same at default threshold",
        "wice",
        "best-set F1, default threshold",
        65,
        73,
        rival="best-set F1, first 2",
    ),
    Target("QMSum, turn F1 at 15 % kept", "qmsum", "turn F1 at 15 %", 28, 36),
    Target("CUAD, clause recall at 10 % kept", "cuad", "clause recall at 10 %", 88, 95),
    Target("SQuAD answer spans, exact match", "squad-spans", "exact match", 60, 70),
    Target("SQuAD answer spans, token F1", "squad-spans", "token F1", 72, 80),
    Target("CrossNER and WNUT-17, span F1", "entities", "mean span F1", 50, 65),
    Target("no shared word, kept at 1 %", "no-shared-word", "kept at 1 %", 75, 88),
    Target("look-alike present, right one absent: empty", "look-alikes", "empty without it", 90, 98),
    Target("needles, key-values, pass keys: recall", "needles", "recall at right lines + 64", 99.9, 100),
    Target("random paragraph without evidence: empty", "nothing there", "empty: random paragraph", 97, 97),
    Target("BM25-hard paragraph without evidence: empty", "nothing there", "empty: BM25-hard paragraph", 97, 97),
    Target("paragraph with evidence: kept", "nothing there", "evidence kept", 92, 92),
)


def _is_ours(system: str, critics: Sequence[str]) -> bool:
    """Whether a row is a critic or one of its variants: "NAME, cascade", "NAME, hops"."""
    return any(system == critic or system.startswith(f"{critic}, ") for critic in critics)


def render_summary(measures: Sequence[Measure], critics: Sequence[str]) -> str:
    """Markdown: one row per target that was measured, with every critic, the best baseline, reach and ambition."""
    found = {(m.task, m.metric, m.system): m for m in measures if not math.isnan(m.value)}
    rows = [["measure", *critics, "best baseline", "reach", "ambition"]]
    for target in TARGETS:
        rivals = [
            m
            for (task, metric, system), m in found.items()
            if task == target.task and metric == (target.rival or target.metric) and not _is_ours(system, critics)
        ]
        ours = [found.get((target.task, target.metric, critic)) for critic in critics]
        if not any(ours) and not rivals:
            continue
        best = max(rivals, key=lambda m: m.value, default=None)
        reach, ambition = target.reach, target.ambition
        if target.over_bm25:
            bm25 = next((m for m in rivals if m.system == "BM25"), None)
            best = bm25
            reach, ambition = (value + (bm25.value if bm25 else math.nan) for value in (reach, ambition))
        baseline = f"{best.value:.1f} ({best.system})" if best else "-"
        rows.append([target.label, *(render_value(m) for m in ours), baseline, f"{reach:.4g}", f"{ambition:.4g}"])
    return render_rows(rows) if len(rows) > 1 else ""
