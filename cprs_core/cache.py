"""Token scores that were computed before: in memory, or in a file that several processes share.

The same documents, query, instruction and critic give the same scores, so another budget, threshold or granularity
costs no forward pass. What is kept is everything up to the scores: tokens, sentences, windows; never the texts.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import sqlite3
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cprs_core.errors import InputError
from cprs_core.sqlite import until_free

_log = logging.getLogger(__name__)

Arrays = Mapping[str, NDArray]

# Part of every key: raise it when tokens, sentences, windows or scores of the same input come out differently.
_FORMAT = "3"
_WAIT = 5.0  # seconds for another process that writes


class ScoreCache:
    """A bounded store of scored contexts; pass it as ``Compressor(scorer, cache=...)``.

    Safe between threads and, with a ``path``, between processes. When it is full, what was not used for longest goes.
    A damaged file is put aside with a logged warning and begun anew; where nothing can be written, calls go on without.

    Args:
        max_bytes: the most that entries take together, in memory or in the file. 131,072 tokens take about 5 MB.
        path: a file to keep entries in; None for this process's memory.

    Raises:
        InputError: ``max_bytes`` is below 1.
    """

    def __init__(self, *, max_bytes: int = 256 * 2**20, path: str | os.PathLike[str] | None = None) -> None:
        if max_bytes < 1:
            raise InputError(f"max_bytes is {max_bytes}; a cache needs at least 1 (leave the cache out for none)")
        self.max_bytes = max_bytes
        self.path = Path(path) if path is not None else None
        self._store: _Memory | _File = _Memory(max_bytes) if self.path is None else _File(self.path, max_bytes)

    def get(self, key: bytes) -> Arrays | None:
        """What was put under a key, read-only, or None."""
        return self._store.get(key)

    def put(self, key: bytes, arrays: Arrays) -> None:
        """Keep arrays under a key; they must not be changed afterwards. One too large for the cache is not kept."""
        self._store.put(key, arrays)

    def clear(self) -> None:
        """Forget everything."""
        self._store.clear()


def cache_key(fingerprint: str, texts: Sequence[str], *words: str) -> bytes:
    """A digest of a scorer's fingerprint, the documents' texts and the words that they are read under."""
    digest = hashlib.blake2b(digest_size=32)
    for part in (_FORMAT, fingerprint, str(len(words)), *words, *texts):
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.digest()


class _Memory:
    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[bytes, Arrays] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: bytes) -> Arrays | None:
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def put(self, key: bytes, arrays: Arrays) -> None:
        kept = {name: _frozen(array) for name, array in arrays.items()}
        if _size(kept) > self._max_bytes:
            return
        with self._lock:
            self._bytes += _size(kept) - _size(self._entries.pop(key, {}))
            self._entries[key] = kept
            while self._bytes > self._max_bytes:
                self._bytes -= _size(self._entries.popitem(last=False)[1])

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
            self._bytes = 0


class _File:
    """One SQLite file. A connection per use: nothing is shared between threads or across a fork."""

    _SCHEMA = (
        "CREATE TABLE IF NOT EXISTS entries (key BLOB PRIMARY KEY, bytes INTEGER NOT NULL, used INTEGER NOT NULL, "
        "arrays BLOB NOT NULL) WITHOUT ROWID",
        "CREATE INDEX IF NOT EXISTS by_use ON entries (used, key, bytes)",
    )
    # Losing the last entries in a power cut is fine; the file itself stays whole.
    _PRAGMAS: tuple[str, ...] = ("PRAGMA synchronous = NORMAL",)
    _TOUCH = "UPDATE entries SET used = (SELECT coalesce(max(used), 0) + 1 FROM entries) WHERE key = ?"

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._warned = False

    def get(self, key: bytes) -> Arrays | None:
        arrays: Arrays | None = None
        with self._guard("read"), self._open() as database:
            arrays = self._find(database, key)
        return arrays

    def _find(self, database: sqlite3.Connection, key: bytes) -> Arrays | None:
        row = database.execute("SELECT arrays FROM entries WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        try:
            arrays = _load(row[0])
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            _log.warning("an entry of the score cache %s is damaged (%s); it is computed again", self._path, error)
            database.execute("DELETE FROM entries WHERE key = ?", (key,))
            return None
        with contextlib.suppress(sqlite3.OperationalError):  # a file that can only be read can still be used
            database.execute(self._TOUCH, (key,))
        return arrays

    def put(self, key: bytes, arrays: Arrays) -> None:
        data = _dump(arrays)
        if len(data) > self._max_bytes:
            return
        with self._guard("written"), self._open() as database:
            database.execute("BEGIN IMMEDIATE")
            database.execute("INSERT OR REPLACE INTO entries VALUES (?, ?, 0, ?)", (key, len(data), data))
            database.execute(self._TOUCH, (key,))
            self._shrink(database)
            database.execute("COMMIT")

    def clear(self) -> None:
        with self._guard("written"), self._open() as database:
            database.execute("DELETE FROM entries")

    def _shrink(self, database: sqlite3.Connection) -> None:
        total = database.execute("SELECT coalesce(sum(bytes), 0) FROM entries").fetchone()[0]
        if total <= self._max_bytes:
            return
        for key, size in database.execute("SELECT key, bytes FROM entries ORDER BY used").fetchall():
            database.execute("DELETE FROM entries WHERE key = ?", (key,))
            total -= size
            if total <= self._max_bytes:
                return

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        database = sqlite3.connect(self._path, timeout=_WAIT, isolation_level=None)
        try:
            until_free(lambda: self._set_up(database), _WAIT)
            for setting in self._PRAGMAS:
                database.execute(setting)
            yield database
        finally:
            database.close()

    def _set_up(self, database: sqlite3.Connection) -> None:
        if database.execute("PRAGMA user_version").fetchone()[0] == 0:
            database.execute("PRAGMA auto_vacuum = FULL")  # the file shrinks with its entries
            database.execute("PRAGMA journal_mode = WAL")
            for statement in self._SCHEMA:
                database.execute(statement)
            database.execute("PRAGMA user_version = 1")

    @contextlib.contextmanager
    def _guard(self, verb: str) -> Iterator[None]:
        """Whatever is wrong with the file, the call goes on without it."""
        try:
            yield
        except sqlite3.OperationalError as error:  # read-only, full, locked, no such folder
            if not self._warned:
                _log.warning("the score cache %s cannot be %s: %s; going on without", self._path, verb, error)
                self._warned = True
        except sqlite3.DatabaseError as error:  # not a database, or a damaged one
            self._rebuild(error)

    def _rebuild(self, error: Exception) -> None:
        aside = self._path.with_name(self._path.name + ".damaged")
        _log.warning("the score cache %s is damaged (%s); it is begun anew, see %s", self._path, error, aside.name)
        try:
            os.replace(self._path, aside)
            for suffix in ("-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        except OSError as failure:
            _log.warning("the score cache %s cannot be moved: %s; going on without", self._path, failure)


def _dump(arrays: Arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _load(data: bytes) -> Arrays:
    # Nothing is ever unpickled, and the archive's checksums find damage.
    with np.load(io.BytesIO(data), allow_pickle=False) as stored:
        return {name: _frozen(stored[name]) for name in stored.files}


def _frozen(array: NDArray) -> NDArray:
    view = array.view()
    view.setflags(write=False)
    return view


def _size(arrays: Arrays) -> int:
    return sum(array.nbytes for array in arrays.values())
