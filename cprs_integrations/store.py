"""Originals of what was shortened, under keys made of their content, in SQLite.

A store is in memory or in a file. A file may be shared by processes and survives a killed one. It holds at most
``max_bytes`` and forgets what was used longest ago first. Memory works on without a store: when one cannot be read or
written, that is logged once and counted, never raised.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import re
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import regex

from cprs_core import InputError
from cprs_core.sqlite import until_free

logger = logging.getLogger(__name__)

T = TypeVar("T")

KEY_CHARACTERS = 12
DEFAULT_MAX_BYTES = 256 * 1024 * 1024

_WAIT_SECONDS = 5.0  # for another process's write
_TOUCH_SECONDS = 60  # how exact "used longest ago" is: reads do not write more often than this
_READ_AT_ONCE = 2_000  # characters of a line that a search reads at once: expressions may take the square of it
_EXCERPT = 400  # characters that a search answers of a longer line
_SEARCH_SECONDS = 1.0  # of processor time; expressions come from models, and some would take years
_ANYTHING_FIRST = re.compile(r"(?:\.\*\??)+")
_FREE_SHARE = 0.9  # forgetting makes some room, so that not every write forgets

_SCHEMA = """
CREATE TABLE IF NOT EXISTS texts (
    key TEXT PRIMARY KEY, bytes INTEGER NOT NULL, used INTEGER NOT NULL, body BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS texts_used ON texts (used, bytes);
"""

_ORIGINAL, _FROZEN = "o:", "f:"  # what a row's key begins with


class OriginalStore:
    """Originals by content key, and frozen results by the key of what they were made from.

    Safe to share between threads, between processes (one object each), and across a fork.

    >>> store = OriginalStore()
    >>> key = store.put("a long text")
    >>> store.get(key)
    'a long text'
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        """A store in the file ``path``, or in memory.

        Args:
            path: a file, made when it is not there; None keeps everything in memory, for this process only.
            max_bytes: most bytes of compressed texts; one text beyond it is not stored at all.

        Raises:
            InputError: ``max_bytes`` is not positive. A file that cannot be opened raises nothing: see ``failures``.
        """
        if max_bytes < 1:
            raise InputError(f"max_bytes is {max_bytes}; it must be at least 1 (the default is {DEFAULT_MAX_BYTES:,})")
        self.path = Path(path) if path is not None else None
        self.max_bytes = max_bytes
        self.failures = 0
        """Reads and writes that failed so far; the first failure of each kind is logged."""
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._process = os.getpid()
        self._parents: list[sqlite3.Connection | None] = []
        self._reported: set[str] = set()

    def put(self, text: str) -> str | None:
        """The text's key, under which `get` finds it from now on; None where it could not be stored."""
        key = key_of(text)
        return key if self._write(key, _ORIGINAL, text) else None

    def get(self, key: str) -> str | None:
        """The original with this key; None where it was never stored, is forgotten, or cannot be read."""
        return self._read(key, _ORIGINAL)

    def freeze(self, key: str, text: str) -> bool:
        """Remember a result under the key of what it was made from, so that a later process repeats its bytes.

        The first result stays: where another process was faster, `frozen` gives that one.
        """
        return self._write(key, _FROZEN, text)

    def frozen(self, key: str) -> str | None:
        """The result that was remembered under this key."""
        return self._read(key, _FROZEN)

    def search(self, key: str, pattern: str, *, limit: int = 50) -> list[tuple[int, str]]:
        """(line number from 1, line) of the original's lines that hold ``pattern``, a regular expression.

        A pattern that is no valid expression is searched for as it stands. Case does not matter. Of a line of more than
        400 characters the answer holds what is around each match.

        Raises:
            TimeoutError: the expression takes longer than a second on this text.
        """
        text = self.get(key)
        if text is None:
            return []
        try:
            # What begins with "anything" is found without it, and in a fraction of the time.
            wanted = regex.compile(
                _ANYTHING_FIRST.sub("", pattern, count=1) if pattern[:2] == ".*" else pattern, regex.IGNORECASE
            )
        except regex.error:
            wanted = regex.compile(regex.escape(pattern), regex.IGNORECASE)
        until = time.monotonic() + _SEARCH_SECONDS
        lines = enumerate(text.splitlines(), start=1)
        found = ((number, excerpt) for number, line in lines for excerpt in _excerpts(line, wanted, until))
        return list(itertools.islice(found, limit))

    @property
    def bytes_used(self) -> int:
        """Bytes of compressed texts held now; 0 where the store cannot be read."""
        return self._attempt("read", _bytes_used) or 0

    def __reduce__(self) -> tuple[Callable[[], OriginalStore], tuple[()]]:
        # A copy has a connection of its own; of what is in memory it knows nothing.
        return partial(OriginalStore, self.path, max_bytes=self.max_bytes), ()

    def close(self) -> None:
        """Close the file; a later call opens it again. What was in memory is gone."""
        self._leave_parent()
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _write(self, key: str, kind: str, text: str) -> bool:
        body = zlib.compress(text.encode("utf-8", "surrogatepass"), 1)
        if len(body) > self.max_bytes:
            self._report("size", f"a text of {len(body):,} bytes is larger than the whole store ({self.max_bytes:,})")
            return False

        def write(connection: sqlite3.Connection) -> bool:
            connection.execute("BEGIN IMMEDIATE")
            known = connection.execute("SELECT body FROM texts WHERE key = ?", (kind + key,)).fetchone()
            if known is None:
                self._make_room(connection, len(body))
                connection.execute(
                    "INSERT INTO texts VALUES (?, ?, CAST(strftime('%s') AS INTEGER), ?)",
                    (kind + key, len(body), body),
                )
            connection.execute("COMMIT")
            # Two texts with one key are a chance of 2 in 10^14, or an attack: the one that was first stays.
            return known is None or kind == _FROZEN or known[0] == body

        return self._attempt("write", write) or False

    def _read(self, key: str, kind: str) -> str | None:
        def read(connection: sqlite3.Connection) -> str | None:
            row = connection.execute(
                "SELECT body, CAST(strftime('%s') AS INTEGER) - used FROM texts WHERE key = ?", (kind + key,)
            ).fetchone()
            if row is None:
                return None
            text = zlib.decompress(row[0]).decode("utf-8", "surrogatepass")
            if row[1] > _TOUCH_SECONDS:
                self._touch(connection, kind + key)
            return text

        return self._attempt("read", read)

    def _touch(self, connection: sqlite3.Connection, key: str) -> None:
        # A store that can only be read still answers, so this write may fail alone.
        try:
            connection.execute("UPDATE texts SET used = CAST(strftime('%s') AS INTEGER) WHERE key = ?", (key,))
        except sqlite3.Error as error:
            self._report("write", f"cannot note what was used: {error}")

    def _make_room(self, connection: sqlite3.Connection, size: int) -> None:
        total = _bytes_used(connection)
        if total + size <= self.max_bytes:
            return
        target = max(int(self.max_bytes * _FREE_SHARE) - size, 0)
        for key, held in connection.execute("SELECT key, bytes FROM texts ORDER BY used, key").fetchall():
            if total <= target:
                break
            connection.execute("DELETE FROM texts WHERE key = ?", (key,))
            total -= held

    def _attempt(self, what: str, action: Callable[[sqlite3.Connection], T]) -> T | None:
        """What the action answers; None where the store fails, which is counted."""
        self._leave_parent()
        with self._lock:
            connection: sqlite3.Connection | None = None
            try:
                connection = self._open()
                return action(connection)
            except (sqlite3.Error, zlib.error, UnicodeDecodeError, OSError) as error:
                if connection is not None and connection.in_transaction:
                    connection.rollback()
                self._report(what, f"cannot {what}: {error}")
                return None

    def _leave_parent(self) -> None:
        """In a forked child: a lock of its own, as a thread of the parent may hold that one, and no connection yet.

        The parent's connection must not be used here, nor closed.
        """
        if self._process != os.getpid():
            self._lock, self._process = threading.RLock(), os.getpid()
            self._parents, self._connection = [*self._parents, self._connection], None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            name = ":memory:" if self.path is None else str(self.path)
            connection = sqlite3.connect(
                name, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=16
            )
            try:
                until_free(lambda: self._set_up(connection), _WAIT_SECONDS)
            except sqlite3.Error:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _set_up(self, connection: sqlite3.Connection) -> None:
        try:
            # The write-ahead log lets readers and a writer work side by side and is whole after a killed process.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(_SCHEMA)
        except sqlite3.OperationalError as error:
            if "readonly" not in str(error):
                raise
            connection.execute("SELECT 1 FROM texts LIMIT 1")  # a file that can only be read is good for reading
            self._report("write", f"cannot write: {error}")

    def _report(self, what: str, message: str) -> None:
        self.failures += 1
        if what not in self._reported:
            self._reported.add(what)
            logger.warning("store of originals (%s): %s; memory goes on without it", self.path or "in memory", message)


def _excerpts(line: str, wanted: regex.Pattern[str], until: float) -> Iterator[str]:
    """The line where it matches; of a long one what is around each match, so far as they lie apart."""
    at = 0
    while at <= len(line):
        left = max(until - time.monotonic(), 1e-3)
        match = wanted.search(line, at, at + _READ_AT_ONCE, timeout=left)
        if match is None:
            at += _READ_AT_ONCE - _EXCERPT  # a match may lie across the border
            if at + _EXCERPT >= len(line):
                return
        elif len(line) <= _EXCERPT:
            yield line
            return
        else:
            start = max(match.start() - _EXCERPT // 2, at)
            at = start + _EXCERPT
            yield f"… {line[start:at]} …"


def _bytes_used(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT COALESCE(SUM(bytes), 0) FROM texts").fetchone()[0])


def key_of(text: str) -> str:
    """The content key of a text: the first characters of its SHA-256, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:KEY_CHARACTERS]
