"""What was missed: counts by kind, and the worst cases with their text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cprs_core.evaluation.corpus import Request
from cprs_core.evaluation.metrics import Fact
from cprs_core.evaluation.report import render_rows

WORST = 3  # kept per task, kind and system
_SHOWN = 400  # characters of a text


@dataclass(frozen=True)
class Failure:
    """One case in which something that was needed was not kept.

    ``missed`` is the needed text, empty where nothing is right; ``instead`` the segment that scored best; ``gap`` how
    far the best needed segment scored below it, so the largest are the worst.
    """

    task: str
    kind: str
    system: str
    query: str
    missed: str
    instead: str
    gap: float


@dataclass
class FailureLog:
    """Counts every case and keeps the worst failures of each task, kind and system."""

    counts: dict[tuple[str, str, str], list[int]] = field(default_factory=dict)
    _worst: dict[tuple[str, str, str], list[Failure]] = field(default_factory=dict)

    def add(
        self,
        task: str,
        kind: str,
        system: str,
        request: Request,
        facts: Sequence[Fact],
        scores: NDArray[np.float32],
        kept: NDArray[np.bool_],
        *,
        missed: bool,
    ) -> None:
        """One case: ``facts`` were needed, ``kept`` (bool, (s,)) was kept, and that was too little where ``missed``."""
        key = (task, kind, system)
        counts = self.counts.setdefault(key, [0, 0])
        counts[1] += 1
        if not missed:
            return
        counts[0] += 1
        lost = [fact for fact in facts if not fact.found(kept)]
        segments = np.unique(np.concatenate([np.zeros(0, np.int64), *(fact.segments for fact in lost)]))
        texts = request.corpus.segment_texts
        best = int(scores.argmax()) if len(scores) else -1
        gap = float(scores[best] - scores[segments].max(initial=0.0)) if best >= 0 else 0.0
        failure = Failure(
            task,
            kind,
            system,
            request.query.strip(),
            _shorten(" ... ".join(texts[i] for i in segments.tolist())),
            _shorten(texts[best]) if best >= 0 else "",
            gap,
        )
        self._worst[key] = sorted([*self._worst.get(key, []), failure], key=lambda f: -f.gap)[:WORST]

    @property
    def worst(self) -> list[Failure]:
        """The worst failures, task by task."""
        return [failure for failures in self._worst.values() for failure in failures]

    def to_rows(self) -> dict[str, Any]:
        """As JSON."""
        counts = [[*key, *numbers] for key, numbers in self.counts.items()]
        return {"counts": counts, "worst": [asdict(failure) for failure in self.worst]}

    @classmethod
    def from_rows(cls, rows: dict[str, Any]) -> FailureLog:
        """From what `to_rows` returned; an empty log from nothing."""
        log = cls({(task, kind, system): [a, b] for task, kind, system, a, b in rows.get("counts", ())})
        for row in rows.get("worst", ()):
            failure = Failure(**row)
            log._worst.setdefault((failure.task, failure.kind, failure.system), []).append(failure)
        return log

    def render(self) -> str:
        """Markdown: how many cases of each kind were missed; empty where none was."""
        rows = [["missed", "kind", "system", "cases"]]
        for (task, kind, system), (missed, cases) in self.counts.items():
            if missed:
                rows.append([task, kind, system, f"{missed} of {cases}"])
        return render_rows(rows) if len(rows) > 1 else ""


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else text[:_SHOWN] + " ..."
