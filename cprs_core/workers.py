"""The few threads that asynchronous calls run on."""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# More threads make CPU-bound work no faster, and every one that waits for the interpreter keeps the event loop waiting
# a little longer. A pool of our own also leaves the loop's default pool to others when many calls queue up.
MAX_WORKERS = min(4, os.cpu_count() or 1)


@cache
def _pool() -> ThreadPoolExecutor:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_pool.cache_clear)  # a forked process has the pool but not its threads
    return ThreadPoolExecutor(MAX_WORKERS, thread_name_prefix="cprs")


async def in_worker(function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """``function`` on one of the threads, in the context of the caller; the event loop stays free."""
    call = partial(contextvars.copy_context().run, function, *arguments, **named)
    return await asyncio.get_running_loop().run_in_executor(_pool(), call)
