"""Evidence records: a query, the documents it was written for, and the character spans that answer it.

Two layouts are read. A *folder* layout keeps documents apart from queries (``NAME.documents.jsonl[.gz]`` and
``NAME.queries.jsonl[.gz]``); an *inline* layout has one self-contained record per line:

    {"query": "Who signed?", "instruction": "...", "tag": "fact",
     "documents": [{"id": "a", "text": "Ada signed the lease."}],
     "evidence": [{"document_id": "a", "start": 0, "end": 21, "tag": "fact"}]}

``instruction`` and ``evidence[].tag`` are optional; a record without evidence teaches the critic to keep nothing.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cprs_core.errors import InputError


@dataclass(frozen=True)
class Evidence:
    """A character span of a document, end exclusive, and what kind of thing it is."""

    document: int
    start: int
    end: int
    tag: str


@dataclass(frozen=True)
class Record:
    """One query; ``documents`` are indices into the set's documents, the first is the one it was written for."""

    query: str
    documents: tuple[int, ...]
    evidence: tuple[Evidence, ...]
    answers: tuple[str, ...] = ()
    instruction: str | None = None
    tag: str | None = None


@dataclass
class EvidenceSet:
    """Documents and the records over them. ``groups`` names the article, contract or meeting of each document."""

    name: str
    texts: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    languages: list[str] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)

    def add_document(self, text: str, group: str, language: str = "en") -> int:
        self.texts.append(text)
        self.groups.append(group)
        self.languages.append(language)
        return len(self.texts) - 1


def read_folder(folder: Path, split: str, name: str) -> EvidenceSet:
    """The set ``folder/split.documents.jsonl[.gz]`` and ``folder/split.queries.jsonl[.gz]``.

    Raises:
        InputError: a file is missing, or a line is not a valid record; the message names file, line and reason.
    """
    result = EvidenceSet(name)
    index: dict[str, int] = {}
    for where, row in _rows(_find(folder, f"{split}.documents")):
        index[_text(row, "id", where)] = result.add_document(
            _text(row, "text", where), str(row.get("group") or row["id"]), str(row.get("lang") or "en")
        )
    for where, row in _rows(_find(folder, f"{split}.queries")):
        result.records.append(_record(row, row.get("document_ids"), index, result.texts, where))
    return result


def read_inline(path: Path, name: str | None = None) -> EvidenceSet:
    """A file of self-contained records. Raises InputError as `read_folder` does."""
    result = EvidenceSet(name or path.name)
    for where, row in _rows(path):
        documents = row.get("documents")
        if not isinstance(documents, list) or not documents:
            raise InputError(f"{where}: 'documents' must be a list of at least one {{'id', 'text'}}")
        index: dict[str, int] = {}
        for document in documents:
            if not isinstance(document, dict):
                raise InputError(f"{where}: a document must be an object with 'id' and 'text'")
            key = str(document.get("id", len(index)))
            index[key] = result.add_document(_text(document, "text", where), group=where, language="en")
        result.records.append(_record(row, list(index), index, result.texts, where))
    if not result.records:
        raise InputError(f"{path} holds no records; write one JSON object per line")
    return result


def _record(row: dict[str, Any], document_ids: Any, index: dict[str, int], texts: list[str], where: str) -> Record:
    if not isinstance(document_ids, list) or not all(id in index for id in document_ids):
        raise InputError(f"{where}: 'document_ids' must list documents of this set; got {document_ids!r}")
    evidence = []
    for item in row.get("evidence", []):
        if not isinstance(item, dict) or item.get("document_id") not in index:
            raise InputError(f"{where}: evidence must name one of the record's documents; got {item!r}")
        document, start, end = index[item["document_id"]], item.get("start"), item.get("end")
        length = len(texts[document])
        if not isinstance(start, int) or not isinstance(end, int) or not 0 <= start < end <= length:
            raise InputError(
                f"{where}: evidence from {start!r} to {end!r} does not lie in its document of {length:,} characters; "
                "count Unicode characters from 0, end exclusive"
            )
        evidence.append(Evidence(document, start, end, str(item.get("tag") or row.get("tag") or "fact")))
    return Record(
        query=_text(row, "query", where, may_be_empty=bool(row.get("instruction"))),
        documents=tuple(index[id] for id in document_ids),
        evidence=tuple(evidence),
        answers=tuple(row.get("answers") or ()),
        instruction=row.get("instruction"),
        tag=row.get("tag"),
    )


def _text(row: dict[str, Any], key: str, where: str, may_be_empty: bool = False) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not (value or may_be_empty):
        raise InputError(f"{where}: {key!r} must be a non-empty string; got {value!r}"[:300])
    return value


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{path.name} line {number}"
            try:
                row = json.loads(line)
            except ValueError as error:
                raise InputError(f"{where}: not JSON ({error}); write one object per line") from None
            if not isinstance(row, dict):
                raise InputError(f"{where}: must be an object, not {type(row).__name__}")
            yield where, row


def _find(folder: Path, stem: str) -> Path:
    candidates: Iterable[Path] = (folder / f"{stem}.jsonl.gz", folder / f"{stem}.jsonl")
    for path in candidates:
        if path.exists():
            return path
    raise InputError(f"{folder} has no {stem}.jsonl or {stem}.jsonl.gz")
