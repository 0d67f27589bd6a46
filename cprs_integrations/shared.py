"""What adapters of a process share: one loaded critic, for all that were not given a compressor; and how they lock."""

from __future__ import annotations

import threading

from cprs_core import Compressor

_lock = threading.Lock()
_loaded: list[Compressor] = []


class CopyableLock:
    """A lock that is new and open in every copy, so that what holds one can be copied and pickled."""

    def __init__(self) -> None:
        self._held = threading.RLock()

    def __enter__(self) -> None:
        self._held.acquire()

    def __exit__(self, *error: object) -> None:
        self._held.release()

    def __reduce__(self) -> tuple[type[CopyableLock], tuple[()]]:
        return CopyableLock, ()


def shared_compressor() -> Compressor:
    """The process's compressor with the embedded critic, loaded on the first call.

    Raises:
        CheckpointError: the critic's files are missing or damaged; the next call tries again.
    """
    with _lock:
        if not _loaded:
            _loaded.append(Compressor.from_pretrained())
        return _loaded[0]
