"""Batches that run on a device while the host prepares the next ones: copies there and back that nobody waits for.

Memory that the host and a GPU share is pinned, and torch keeps it until the copies that read it are through.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_Result = TypeVar("_Result")

_AHEAD = 2  # batches that are queued on a GPU while the host prepares the next


@dataclass(frozen=True)
class Running:
    """A batch that the device may still be busy with.

    Attributes:
        batch: indices of its windows.
        scores: on the host; they are there when ``event`` has come.
    """

    batch: list[int]
    scores: Tensor
    event: torch.cuda.Event | None

    @classmethod
    def of(cls, batch: list[int], scores: Tensor) -> Running:
        """Queues the copy of ``scores`` to the host."""
        if scores.device.type != "cuda":
            return cls(batch, scores.cpu(), None)
        copy = torch.empty(scores.shape, dtype=scores.dtype, pin_memory=True)
        copy.copy_(scores, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        return cls(batch, copy, event)

    def wait(self) -> tuple[list[int], NDArray]:
        """The batch and its scores, the shape that they came in."""
        if self.event is None:
            return self.batch, self.scores.numpy()
        self.event.synchronize()
        return self.batch, self.scores.numpy().copy()  # the next batch can have the pinned memory


def finished(sent: Iterable[Running]) -> Iterator[tuple[list[int], NDArray]]:
    """Every batch and its scores, in order; on a GPU the next batches are sent before one is waited for."""
    running: deque[Running] = deque()
    for one in sent:
        running.append(one)
        if one.event is None or len(running) > _AHEAD:
            yield running.popleft().wait()
    while running:
        yield running.popleft().wait()


class DeviceThread:
    """Runs calls for a GPU one after another on a thread that stays: cuDNN keeps by thread what it has prepared.

    Without a GPU calls run where they are made.
    """

    def __init__(self, device: torch.device) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"cprs-{device}") if device.type == "cuda" else None

    def run(self, call: Callable[..., _Result], *arguments: Any) -> _Result:
        """What ``call`` returns or raises."""
        return call(*arguments) if self._pool is None else self._pool.submit(call, *arguments).result()


def to_device(device: torch.device, *parts: NDArray) -> list[Tensor]:
    """Integer arrays (n_i,) as int64 tensors on a device, in one copy."""
    sizes = [len(part) for part in parts]
    host = torch.empty(sum(sizes), dtype=torch.int64, pin_memory=device.type == "cuda")
    np.concatenate(parts, out=host.numpy())
    return list(torch.split(host.to(device, non_blocking=True), sizes))


def on_device(device: torch.device) -> torch.cuda.device:
    """The current GPU of this thread; without a GPU it changes nothing."""
    return torch.cuda.device(device if device.type == "cuda" else -1)
