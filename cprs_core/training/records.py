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
from dataclasses import dataclass, field, replace
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
    """A file of self-contained records. The same text in several records is one document.

    Raises:
        InputError: the file is missing, empty or has bad records; the first few are named by line and reason.
    """
    result = EvidenceSet(name or path.name)
    known: dict[str, int] = {}
    problems: list[str] = []
    for where, row in _rows(path, problems):
        try:
            _add_inline(result, row, where, known)
        except InputError as error:
            problems.append(str(error))
    if problems:
        rest = f"; and {len(problems) - _SHOWN:,} more bad records" if len(problems) > _SHOWN else ""
        raise InputError("; ".join(problems[:_SHOWN]) + rest)
    if not result.records:
        raise InputError(f"{path} holds no records; write one JSON object per line")
    return result


_SHOWN = 5  # bad records that one message names


def _add_inline(result: EvidenceSet, row: dict[str, Any], where: str, known: dict[str, int]) -> None:
    """One record and its documents; ``known`` holds the documents by their texts."""
    documents = row.get("documents")
    if not isinstance(documents, list) or not documents:
        raise InputError(f"{where}: 'documents' must be a list of at least one {{'id', 'text'}}")
    texts: dict[str, str] = {}
    for document in documents:
        if not isinstance(document, dict):
            raise InputError(f"{where}: a document must be an object with 'id' and 'text'")
        id = document.get("id", str(len(texts)))
        if not isinstance(id, str) or id in texts:
            raise InputError(f"{where}: each document's 'id' must be a string of its own; got {id!r}")
        texts[id] = _text(document, "text", where)
    local = {id: number for number, id in enumerate(texts)}
    record = _record(row, list(texts), local, list(texts.values()), where)
    parts = sorted({item.document for item in record.evidence})
    if len(parts) > 1:
        # A window is drawn around the evidence of one document, so evidence in several makes them one.
        starts = dict(zip(parts, _joined_starts([list(texts.values())[part] for part in parts]), strict=True))
        joined = _JOINT.join(list(texts.values())[part] for part in parts)
        moved = [replace(e, document=0, start=e.start + starts[e.document], end=e.end + starts[e.document])
                 for e in record.evidence]  # fmt: skip
        kept = [joined, *(text for number, text in enumerate(texts.values()) if number not in starts)]
    else:
        first = parts[0] if parts else 0
        moved = [replace(e, document=0) for e in record.evidence]
        all_texts = list(texts.values())
        kept = [all_texts[first], *all_texts[:first], *all_texts[first + 1 :]]
    numbers = [known[text] if text in known else result.add_document(text, group=where) for text in kept]
    known.update(zip(kept, numbers, strict=True))
    evidence = tuple(replace(item, document=numbers[0]) for item in moved)
    result.records.append(replace(record, documents=tuple(dict.fromkeys(numbers)), evidence=evidence))


_JOINT = "\n\n"


def _joined_starts(texts: list[str]) -> list[int]:
    return [sum(len(text) + len(_JOINT) for text in texts[:number]) for number in range(len(texts))]


def _record(row: dict[str, Any], document_ids: Any, index: dict[str, int], texts: list[str], where: str) -> Record:
    if not isinstance(document_ids, list) or not all(isinstance(id, str) and id in index for id in document_ids):
        raise InputError(f"{where}: 'document_ids' must list documents of this set; got {document_ids!r}")
    items = row.get("evidence") or []
    if not isinstance(items, list):
        raise InputError(f"{where}: 'evidence' must be a list of objects; got {items!r}"[:300])
    tag = _optional(row, "tag", where)
    evidence = []
    for item in items:
        named = item.get("document_id") if isinstance(item, dict) else None
        if not isinstance(named, str) or named not in index:
            raise InputError(f"{where}: evidence must name one of the record's documents; got {item!r}"[:300])
        document, start, end = index[named], item.get("start"), item.get("end")
        length = len(texts[document])
        if type(start) is not int or type(end) is not int or not 0 <= start < end <= length:
            raise InputError(
                f"{where}: evidence from {start!r} to {end!r} does not lie in its document of {length:,} characters; "
                "count Unicode characters from 0, end exclusive"
            )
        if not texts[document][start:end].strip():
            raise InputError(f"{where}: evidence from {start} to {end} is blank; mark the text that answers")
        evidence.append(Evidence(document, start, end, _optional(item, "tag", where) or tag or "fact"))
    answers = row.get("answers") or []
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        raise InputError(f"{where}: 'answers' must be a list of strings; got {answers!r}"[:300])
    instruction = _optional(row, "instruction", where)
    return Record(
        query=_text(row, "query", where, may_be_empty=bool(instruction)),
        documents=tuple(index[id] for id in document_ids),
        evidence=tuple(evidence),
        answers=tuple(answers),
        instruction=instruction,
        tag=tag,
    )


def _optional(row: dict[str, Any], key: str, where: str) -> str | None:
    value = row.get(key)
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise InputError(f"{where}: {key!r} must be a non-empty string where it is given; got {value!r}"[:300])
    return value


def _text(row: dict[str, Any], key: str, where: str, may_be_empty: bool = False) -> str:
    value = row.get(key)
    if may_be_empty and value in (None, ""):
        return ""
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where}: {key!r} must be a non-empty string; got {value!r}"[:300])
    return value


def _rows(path: Path, problems: list[str] | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each object stands, and the object. With ``problems`` bad lines are added there instead of raised."""
    number = 0
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                where = f"{path.name} line {number}"
                try:
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise InputError(f"{where}: must be an object, not {type(row).__name__}")
                except InputError as error:
                    if problems is None:
                        raise
                    problems.append(str(error))
                except ValueError as error:
                    said = f"{where}: not JSON ({error}); write one object per line"
                    if problems is None:
                        raise InputError(said) from None
                    problems.append(said)
                else:
                    yield where, row
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name}, after line {number}: not UTF-8 ({error}); save it as UTF-8") from None
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{path} is not a file of records; write one JSON object per line") from None
    except (gzip.BadGzipFile, EOFError) as error:
        raise InputError(f"{path} is not a whole gzip file: {error}") from None


def _find(folder: Path, stem: str) -> Path:
    candidates: Iterable[Path] = (folder / f"{stem}.jsonl.gz", folder / f"{stem}.jsonl")
    for path in candidates:
        if path.exists():
            return path
    raise InputError(f"{folder} has no {stem}.jsonl or {stem}.jsonl.gz")
