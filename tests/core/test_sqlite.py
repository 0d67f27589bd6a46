"""A locked file is waited for, and only that."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from cprs_core.sqlite import until_free


def connect(path: Path) -> sqlite3.Connection:
    """A connection that SQLite itself does not let wait."""
    return sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)


def test_a_locked_file_is_waited_for(tmp_path: Path) -> None:
    one, other = connect(tmp_path / "file.db"), connect(tmp_path / "file.db")
    one.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(0.1, lambda: one.execute("COMMIT"))
    release.start()
    until_free(lambda: other.execute("CREATE TABLE IF NOT EXISTS found (name TEXT)") and None, 60)
    release.join()
    assert one.execute("SELECT name FROM sqlite_master").fetchone() == ("found",)


def test_a_file_that_stays_locked_is_an_error_in_the_end(tmp_path: Path) -> None:
    one, other = connect(tmp_path / "file.db"), connect(tmp_path / "file.db")
    one.execute("BEGIN EXCLUSIVE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        until_free(lambda: other.execute("BEGIN EXCLUSIVE") and None, 0.05)


def test_another_error_is_not_tried_again(tmp_path: Path) -> None:
    tried = []

    def act() -> None:
        tried.append(1)
        connect(tmp_path / "file.db").execute("SELECT 1 FROM nowhere")

    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        until_free(act, 60)
    assert tried == [1]
