"""Optional libraries whose import takes some care."""

from __future__ import annotations

import importlib
import logging
import os
from typing import Any

from cprs_core.errors import MissingExtraError

_PREALLOCATE = "XLA_PYTHON_CLIENT_PREALLOCATE"


def load_bm25s(extra: str, purpose: str) -> Any:
    """The library ``bm25s``, without its progress bars and log lines.

    Where JAX is installed, bm25s runs it once while it is imported, and JAX would take three quarters of a GPU's memory
    for itself, from critics and readers beside it. It is asked not to, unless the environment says otherwise.

    Raises:
        MissingExtraError: it is not installed; the message names ``extra`` and ``purpose``.
    """
    asked = _PREALLOCATE in os.environ
    os.environ.setdefault(_PREALLOCATE, "false")
    try:
        library = importlib.import_module("bm25s")
    except ImportError:
        raise MissingExtraError("bm25s", extra, purpose) from None
    finally:
        if not asked:
            del os.environ[_PREALLOCATE]
    logging.getLogger("bm25s").setLevel(logging.WARNING)
    return library
