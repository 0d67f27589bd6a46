"""Evidence records: queries over documents with the character ranges that answer them.

A data folder holds ``<dataset>/<split>.documents.jsonl.gz`` and ``<dataset>/<split>.queries.jsonl.gz``. Offsets count
Unicode code points of the document's text, end exclusive.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from cprs_core.errors import InputError

DATA_VARIABLE = "CPRS_DATA"


@dataclass(frozen=True)
class SourceDocument:
    """One text of a data set; documents of one ``group`` (an article, a meeting) make hard negatives."""

    id: str
    group: str
    lang: str
    text: str


@dataclass(frozen=True)
class Evidence:
    """A marked range of one document; ``tag`` is "answer", "fact", "clause", "passage" or "entity:<TYPE>"."""

    document_id: str
    start: int
    end: int
    tag: str


@dataclass(frozen=True)
class Record:
    """A query, the documents it was written for and where they answer it."""

    id: str
    query: str
    document_ids: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    answers: tuple[str, ...] = ()
    answerable: bool = True
    evidence_sets: tuple[tuple[int, ...], ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)

    def tagged(self, tag: str) -> list[Evidence]:
        """Evidence of one tag."""
        return [item for item in self.evidence if item.tag == tag]


@dataclass(frozen=True)
class Dataset:
    """Documents by id and the records over them, in file order."""

    documents: Mapping[str, SourceDocument]
    records: tuple[Record, ...]


def data_folder(path: str | os.PathLike[str] | None = None) -> Path:
    """The folder that was named, else the one in the environment, else ``shared/data`` beside the repository.

    Raises:
        InputError: it does not exist.
    """
    named = path or os.environ.get(DATA_VARIABLE)
    folder = Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "data"
    if not folder.is_dir():
        raise InputError(f"the data folder {folder} does not exist; pass --data DIR or set {DATA_VARIABLE}")
    return folder


@lru_cache(maxsize=32)
def read_dataset(folder: Path, dataset: str, split: str) -> Dataset:
    """One split; a split without queries (a haystack) has no records."""
    stem = folder / dataset / split
    documents = {
        row["id"]: SourceDocument(row["id"], row["group"], row["lang"], row["text"])
        for row in read_rows(Path(f"{stem}.documents.jsonl.gz"))
    }
    queries = Path(f"{stem}.queries.jsonl.gz")
    records = tuple(parse_record(row) for row in read_rows(queries)) if queries.exists() else ()
    return Dataset(documents, records)


def parse_record(row: Mapping[str, Any]) -> Record:
    """A record from one line of a queries file."""
    return Record(
        id=row["id"],
        query=row["query"],
        document_ids=tuple(row["document_ids"]),
        evidence=tuple(Evidence(e["document_id"], e["start"], e["end"], e["tag"]) for e in row.get("evidence", ())),
        answers=tuple(row.get("answers", ())),
        answerable=row.get("answerable", True),
        evidence_sets=tuple(tuple(indices) for indices in row.get("evidence_sets", ())),
        meta=row.get("meta", {}),
    )


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Lines of a JSONL file, gzipped or not."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)
    except FileNotFoundError:
        raise InputError(f"{path} is missing; this measurement needs it (see --data)") from None
