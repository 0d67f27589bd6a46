"""What every measurement may be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cprs_core.errors import InputError
from cprs_core.evaluation.failures import FailureLog
from cprs_core.evaluation.readers import Reader
from cprs_core.scorer import Tokenizer, WordTokenizer


@dataclass(frozen=True)
class Options:
    """Settings of one run.

    Attributes:
        data: the data folder; None where there is none (own generators still run).
        tokenizer: the run's meter; lengths and budgets are in its tokens.
        seed: of every generator and sample.
        tokens: length of haystacks; None for each task's own.
        questions: most cases of each set; None for each task's own.
        failures: where measurements put what was missed.
        reader: answers questions from kept text; None for the first critic itself.
        reader_tokens: the reader's window; None for an eighth of the context.
        shape: of the random reader whose time is taken (`cprs_core.evaluation.latency.SHAPES`); None for the device's.
        device: where that reader runs.
    """

    data: Path | None = None
    tokenizer: Tokenizer = field(default_factory=WordTokenizer)
    seed: int = 42
    tokens: int | None = None
    questions: int | None = None
    failures: FailureLog = field(default_factory=FailureLog, compare=False)
    reader: Reader | None = None
    reader_tokens: int | None = None
    shape: str | None = None
    device: str = "auto"

    @property
    def folder(self) -> Path:
        """The data folder. Raises InputError where there is none."""
        if self.data is None:
            raise InputError("this measurement needs the data folder; pass --data DIR or set CPRS_DATA")
        return self.data

    def sample(self, n: int, default: int | None = None) -> int:
        """How many of ``n`` cases to take."""
        limit = self.questions if self.questions is not None else default
        return n if limit is None else min(n, limit)
