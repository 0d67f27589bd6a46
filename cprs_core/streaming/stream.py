"""One stream: documents in, selections out, a checkpoint behind."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from cprs_core.errors import CheckpointError, InputError, StreamError
from cprs_core.streaming.parts import Part, cut, digest
from cprs_core.streaming.reader import StreamReader
from cprs_core.types import Compression, Document
from cprs_core.workers import in_worker

_log = logging.getLogger(__name__)

_CHECKPOINT_VERSION = 1


class Stream:
    """One call: documents into a reader, results out, a checkpoint behind.

    Args:
        reader: reads and selects.
        describe: makes a result of the reader's selection.
        as_document: checks and converts the n-th thing that the caller's iterable gives.
        whole: documents are not cut into parts.
        checkpoint: file to go on from, and to write after every batch.
        call: what a checkpoint must agree with (query, budget, critic ...), in any stable text.

    Raises:
        CheckpointError: the checkpoint is damaged, or of another call.
    """

    def __init__(
        self,
        reader: StreamReader,
        describe: Callable[[], Compression],
        as_document: Callable[[object, int], Document],
        *,
        whole: bool = False,
        checkpoint: Path | None = None,
        call: str = "",
    ) -> None:
        self._reader = reader
        self._describe = describe
        self._as_document = as_document
        self._whole = whole
        self._checkpoint = checkpoint
        self._call = hashlib.sha256(call.encode("utf-8", "surrogatepass")).hexdigest()
        self._index = 0
        self._skip = 0  # documents that were read in an earlier run
        self._skip_characters = 0  # of the one after them
        self._digest: str | None = None
        self._rows: dict[int, list[tuple[bool, list[Any]]]] = {}
        if checkpoint is not None:
            self._open(checkpoint)

    def run(self, documents: Iterable[object]) -> Iterator[Compression]:
        """The best selection after every batch; the last one is the answer."""
        iterator = iter(documents)
        while True:
            try:
                given = next(iterator)
            except StopIteration:
                break
            except Exception as error:
                raise self._failed(error) from error
            for part in self._parts(given):
                self._reader.take(part)
                if self._reader.full:
                    yield self.read()
        yield self.finish()

    async def run_async(self, documents: Iterable[object] | AsyncIterable[object]) -> AsyncIterator[Compression]:
        """`run` with everything slow on a worker thread, for iterables of both kinds."""
        if not isinstance(documents, AsyncIterable):
            results = self.run(documents)
            while (result := await in_worker(next, results, None)) is not None:
                yield result
            return
        iterator = aiter(documents)
        while True:
            try:
                given = await anext(iterator)
            except StopAsyncIteration:
                break
            except Exception as error:
                raise await in_worker(self._failed, error) from error
            for part in self._parts(given):
                self._reader.take(part)
                if self._reader.full:
                    yield await in_worker(self.read)
        yield await in_worker(self.finish)

    def read(self) -> Compression:
        """Read what was taken."""
        self._reader.read()
        self._save()
        return self._describe()

    def finish(self) -> Compression:
        """Read the rest."""
        if self._index < self._skip:
            raise CheckpointError(
                f"the checkpoint {self._checkpoint} has {self._skip:,} documents behind it, the stream only "
                f"{self._index:,}; pass the same documents, or delete the file to begin anew"
            )
        if self._checkpoint is not None:
            self._reader.read()
            self._save()  # before the last window is closed: documents that come another day go on in it
        self._reader.finish()
        return self._describe()

    def _parts(self, given: object) -> Iterator[Part]:
        index = self._index
        try:
            document = self._as_document(given, index)
        except InputError as error:
            raise self._failed(error) from error
        self._index += 1
        for nearest, row in self._rows.pop(index, []):
            if row[1] > len(document.text):
                raise self._other_documents(index)
            self._reader.recall(document, index, [row], nearest=nearest)
        if index < self._skip:
            if index == self._skip - 1:
                if digest(document) != self._digest:
                    raise self._other_documents(index)
                self._reader.pass_by(document)
            return
        for part in cut(document, index, whole=self._whole):
            if index > self._skip or part.start >= self._skip_characters:
                yield part

    def _failed(self, error: Exception) -> StreamError:
        """What is raised where the caller's iterable fails: with everything that was read until then."""
        where = f"document {self._index} of the stream could not be had ({type(error).__name__}: {error})"
        if self._index < self._skip:
            return StreamError(f"{where}; it was read in an earlier run", None, self._index)
        return StreamError(
            f"{where}; the selection of those before it is in this error's .partial", self.finish(), self._index
        )

    def _other_documents(self, index: int) -> CheckpointError:
        return CheckpointError(
            f"document {index} of the stream is not the one that the checkpoint {self._checkpoint} has behind it; "
            "pass the same documents in the same order, or delete the file to begin anew"
        )

    def _open(self, path: Path) -> None:
        if not path.parent.is_dir():
            raise InputError(f"the checkpoint's folder {path.parent} does not exist; make it first")
        try:
            state = json.loads(path.read_bytes())
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise CheckpointError(f"the checkpoint {path} cannot be read ({error}); delete it to begin anew") from error
        try:
            version, call = state["version"], state["call"]
            if version == _CHECKPOINT_VERSION and call == self._call:
                self._reader.restore(state)
                self._skip, self._skip_characters = int(state["documents_read"]), int(state["part_start"])
                self._digest = state["last_document"]
                items = [(False, row) for row in state["items"]] + [(True, row) for row in state["nearest"]]
                for nearest, (index, *row) in items:
                    self._rows.setdefault(int(index), []).append((nearest, row))
                return
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"the checkpoint {path} is damaged ({error!r}); delete it to begin anew") from error
        raise CheckpointError(
            f"the checkpoint {path} belongs to another call (query, instruction, budget, critic or version differ); "
            "pass another file, or delete it to begin anew"
        )

    def _save(self) -> None:
        """Write the checkpoint, whole or not at all; a full disk does not end the run."""
        if self._checkpoint is None:
            return
        state = {"version": _CHECKPOINT_VERSION, "call": self._call, **self._reader.state()}
        new = self._checkpoint.with_name(f"{self._checkpoint.name}.{os.getpid()}.new")
        try:
            with open(new, "w", encoding="ascii") as file:
                json.dump(state, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, self._checkpoint)
        except OSError as error:
            _log.warning(
                "the checkpoint %s could not be written (%s); the run goes on without", self._checkpoint, error
            )
            new.unlink(missing_ok=True)
