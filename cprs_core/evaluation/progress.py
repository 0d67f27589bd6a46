"""Signs of life from measurements that take minutes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

_log = logging.getLogger(__name__)

EVERY = 15.0  # seconds


def watched(items: Sequence[T], name: str, clock: Callable[[], float] = time.monotonic) -> Iterator[T]:
    """The items; how many of them are done is logged now and then."""
    last = clock()
    for done, item in enumerate(items):
        if clock() - last >= EVERY:
            last = clock()
            _log.info("%s: %d of %d", name, done, len(items))
        yield item
