"""One loaded critic per process, for every adapter that was not given a compressor."""

from __future__ import annotations

import threading

from cprs_core import Compressor

_lock = threading.Lock()
_loaded: list[Compressor] = []


def shared_compressor() -> Compressor:
    """The process's compressor with the embedded critic, loaded on the first call.

    Raises:
        CheckpointError: the critic's files are missing or damaged; the next call tries again.
    """
    with _lock:
        if not _loaded:
            _loaded.append(Compressor.from_pretrained())
        return _loaded[0]
