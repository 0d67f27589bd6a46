"""What a SQLite file that processes share needs beside SQLite's own waiting."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_PRIMARY = 0xFF  # the bits of an error's code that name its kind
_PAUSE = 0.01


def until_free(action: Callable[[], None], seconds: float) -> None:
    """Do what may be done again, for as long as another connection has the file locked.

    SQLite's ``timeout`` does not cover ``PRAGMA journal_mode = WAL``: of several that open a new file at the same
    moment, those that have read it and would now write are told at once that it is locked.

    Args:
        action: does nothing the second time that it did the first.
        seconds: how long to go on trying.

    Raises:
        sqlite3.Error: what the action raises, if it is something else, or still is when the time is over.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            return action()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & _PRIMARY not in _BUSY or time.monotonic() >= until:
                raise
        time.sleep(_PAUSE)
