"""A time by which an answer is wanted."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cprs_core.errors import InputError


@dataclass(frozen=True)
class Deadline:
    """``seconds`` after it was made; several calls may share one.

    ``clock`` gives seconds that only ever grow.

    Raises:
        InputError: the seconds are negative or no number.
    """

    seconds: float
    clock: Callable[[], float] = time.monotonic
    began: float = field(init=False)

    def __post_init__(self) -> None:
        if isinstance(self.seconds, bool) or not isinstance(self.seconds, int | float) or not self.seconds >= 0:
            raise InputError(f"deadline is {self.seconds!r}; it is in seconds, 0 or more (leave it out for none)")
        object.__setattr__(self, "began", self.clock())

    @property
    def left(self) -> float:
        """Seconds left, below 0 when it has passed."""
        return self.began + self.seconds - self.clock()

    @property
    def passed(self) -> float:
        """Seconds since it was made."""
        return self.clock() - self.began

    def half(self) -> Deadline:
        """Half of the time that is left."""
        return Deadline(max(0.0, self.left / 2), self.clock)
