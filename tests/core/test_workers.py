"""Threads for asynchronous calls: few, with the caller's context, and there again after a fork."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections import Counter

import pytest

from cprs_core.workers import MAX_WORKERS, in_worker

REQUEST: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")


async def test_many_calls_share_a_few_threads_and_all_come_back() -> None:
    names = await asyncio.gather(*(in_worker(lambda: threading.current_thread().name) for _ in range(100)))
    assert len(names) == 100
    assert len(Counter(names)) <= MAX_WORKERS
    assert all(name.startswith("cprs") for name in names)


async def test_a_call_sees_the_context_of_its_caller() -> None:
    REQUEST.set("seven")
    assert await in_worker(REQUEST.get) == "seven"


async def test_errors_come_back() -> None:
    with pytest.raises(ZeroDivisionError):
        await in_worker(lambda: 1 / 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_gets_threads_of_its_own() -> None:
    assert asyncio.run(in_worker(len, "abc")) == 3
    child = os.fork()
    if child == 0:
        os._exit(0 if asyncio.run(asyncio.wait_for(in_worker(len, "abcd"), 10)) == 4 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
