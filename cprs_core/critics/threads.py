"""How many threads torch may use on this machine: no more than there are processors for this process."""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path

import torch

_log = logging.getLogger(__name__)


def bound_threads() -> None:
    """Lower torch's number of threads to `available_processors`; it is never raised, and ``OMP_NUM_THREADS`` wins.

    torch counts the physical cores, of which a container may only be given a few; its threads then wait for each other.
    """
    bound = available_processors()
    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > bound:
        _log.info("torch's threads lowered from %d to %d, the processors given to us", torch.get_num_threads(), bound)
        torch.set_num_threads(bound)


def available_processors(groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Processors that this process may use: its affinity, and its container's quota, at least 1.

    Args:
        groups: where Linux shows control groups, version 2 or 1.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    allowed = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return max(1, min(allowed, math.ceil(_quota(groups))))


def _quota(groups: Path) -> float:
    """Processors of a container's quota; many where there is none."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join((groups / name).read_text() for name in names).split()
            if float(quota) > 0:
                return float(quota) / float(period)
        except (OSError, ValueError, ZeroDivisionError):  # no such file, "max", or another system
            continue
    return 1e6
