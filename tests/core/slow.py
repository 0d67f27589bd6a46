"""A clock that stands still until a scorer reads, so that tests of deadlines never wait."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cprs_core import KeywordScorer, Prefix
from cprs_core.scorer import OnProgress


class Clock:
    """Seconds that pass only when somebody says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class SlowScorer(KeywordScorer):
    """A `KeywordScorer` that takes a second of ``clock`` for ``tokens_per_second`` tokens, prefix included."""

    def __init__(
        self, *words: str, clock: Clock, tokens_per_second: float, batch_tokens: int = 1_000, window_tokens: int = 128
    ) -> None:
        super().__init__(*words, window_tokens=window_tokens)
        self.batch_tokens = batch_tokens
        self.clock = clock
        self.tokens_per_second = tokens_per_second
        self.batches: list[int] = []

    def score(
        self, prefix: Prefix, windows: Sequence[NDArray[np.int32]], on_progress: OnProgress | None = None
    ) -> list[NDArray[np.float32]]:
        tokens = sum(len(window) + len(prefix) for window in windows)
        self.batches.append(tokens)
        self.clock.now += tokens / self.tokens_per_second
        return super().score(prefix, windows, on_progress)
