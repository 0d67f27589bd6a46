"""Evidence sets as flat token arrays: what a sampler can slice without looking at text again."""

from __future__ import annotations

import io
import json
import lzma
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cprs_core.errors import InputError
from cprs_core.scorer import Tokenizer
from cprs_core.segmentation import segment_sentences
from cprs_core.training.records import EvidenceSet

_LARGEST_ID = int(np.iinfo(np.uint16).max)
NEGATIVES = 16  # hard documents stored per query


@dataclass
class Corpus:
    """Several evidence sets, tokenised. Token positions are indices into ``tokens``.

    Attributes:
        tokens (uint16, (t,)): all documents end to end.
        document_starts (int64, (d + 1,)).
        document_sets (int16, (d,)): index into ``names``; document_groups (int32, (d,)).
        sentence_starts (int64, (s + 1,)): first token of each sentence, and ``t``.
        query_tokens (uint16), query_starts (int64, (q + 1,)).
        query_sets (int16, (q,)); query_documents (int32, (q,)): the document a query was written for.
        query_kinds (int16, (q,)): index into ``tags``: what the record is about, with or without evidence.
        query_instructions (int16, (q,)): index into ``instructions``; 0 for none of its own.
        entity_spans (int16, (q, 2)): tokens of a name inside the query, 0 0 where none was found.
        evidence_starts (int64, (q + 1,)): where each query's rows in ``evidence`` begin.
        evidence (int64, (e, 3)): first token, last token + 1, index into ``tags``.
        negatives (int32, (q, NEGATIVES)): hard documents without the answer, -1 where there are fewer.
    """

    tokens: NDArray[np.uint16]
    document_starts: NDArray[np.int64]
    document_sets: NDArray[np.int16]
    document_groups: NDArray[np.int32]
    sentence_starts: NDArray[np.int64]
    query_tokens: NDArray[np.uint16]
    query_starts: NDArray[np.int64]
    query_sets: NDArray[np.int16]
    query_documents: NDArray[np.int32]
    query_kinds: NDArray[np.int16]
    query_instructions: NDArray[np.int16]
    entity_spans: NDArray[np.int16]
    evidence_starts: NDArray[np.int64]
    evidence: NDArray[np.int64]
    negatives: NDArray[np.int32]
    names: list[str]
    tags: list[str]
    instructions: list[str]

    def save(self, path: Path) -> None:
        """One compressed file; nothing in it is a pickle."""
        buffer = io.BytesIO()
        arrays = {
            field.name: getattr(self, field.name)
            if isinstance(getattr(self, field.name), np.ndarray)
            else np.frombuffer(json.dumps(getattr(self, field.name)).encode(), dtype=np.uint8)
            for field in fields(self)
        }
        np.savez(buffer, allow_pickle=False, **arrays)
        path.write_bytes(lzma.compress(buffer.getvalue(), preset=4))

    @classmethod
    def load(cls, path: Path) -> Corpus:
        with np.load(io.BytesIO(lzma.decompress(path.read_bytes())), allow_pickle=False) as data:
            arrays = {name: data[name] for name in data.files}
        lists = {name: json.loads(arrays.pop(name).tobytes()) for name in ("names", "tags", "instructions")}
        return cls(**arrays, **lists)


def build_corpus(
    sets: Sequence[EvidenceSet], tokenizer: Tokenizer, negatives: Sequence[NDArray[np.int32]], max_query: int = 96
) -> Corpus:
    """Tokenise evidence sets.

    Args:
        negatives: per set, int32 (queries, NEGATIVES): indices of documents of the same set, -1 for none.
        max_query: tokens that a query is cut to.
    """
    names, tags, instructions = [one.name for one in sets], _Index(), _Index([""])
    tokens, document_lengths, document_sets, groups, sentences = [], [], [], _Index(), []
    group_ids: list[int] = []
    queries, query_rows, entities, evidence, counts = [], [], [], [], []
    token_base, document_base = 0, 0
    for set_index, one in enumerate(sets):
        spans = []
        for text, group in zip(one.texts, one.groups, strict=True):
            encoded = tokenizer.encode(text)
            if len(encoded) and int(encoded.ids.max()) > _LARGEST_ID:
                raise InputError(
                    f"the tokenizer gave id {int(encoded.ids.max()):,}; a corpus holds up to {_LARGEST_ID:,}"
                )
            tokens.append(encoded.ids.astype(np.uint16))
            starts = np.searchsorted(encoded.starts, segment_sentences(text)[:, 0])
            starts = np.unique(np.concatenate([[0], starts[starts < len(encoded)]])) if len(encoded) else starts[:0]
            sentences.append(starts + token_base)
            spans.append((encoded.starts, token_base))
            token_base += len(encoded)
            document_lengths.append(len(encoded))
            document_sets.append(set_index)
            group_ids.append(groups(f"{one.name}/{group}"))
        for record in one.records:
            query = tokenizer.encode(record.query)
            queries.append(query.ids[:max_query].astype(np.uint16))
            entities.append(_entity(record.query, query.starts[:max_query]))
            kind = record.tag or (record.evidence[0].tag if record.evidence else "fact")
            query_rows.append(
                (set_index, record.documents[0] + document_base, tags(kind), instructions(record.instruction or ""))
            )
            rows = [
                (
                    *(np.searchsorted(spans[item.document][0], (item.start, item.end)) + spans[item.document][1]),
                    tags(item.tag),
                )
                for item in record.evidence
            ]
            rows = [row for row in rows if row[1] > row[0]]
            evidence += rows
            counts.append(len(rows))
        document_base += len(one.texts)
    bases = np.cumsum([0] + [len(one.texts) for one in sets])
    rows_of_queries = np.array(query_rows, dtype=np.int64).reshape(-1, 4)
    return Corpus(
        tokens=np.concatenate(tokens),
        document_starts=_offsets(document_lengths),
        document_sets=np.array(document_sets, dtype=np.int16),
        document_groups=np.array(group_ids, dtype=np.int32),
        sentence_starts=np.append(np.concatenate(sentences), token_base),
        query_tokens=np.concatenate(queries),
        query_starts=_offsets([len(query) for query in queries]),
        query_sets=rows_of_queries[:, 0].astype(np.int16),
        query_documents=rows_of_queries[:, 1].astype(np.int32),
        query_kinds=rows_of_queries[:, 2].astype(np.int16),
        query_instructions=rows_of_queries[:, 3].astype(np.int16),
        entity_spans=np.array(entities, dtype=np.int16).reshape(-1, 2),
        evidence_starts=_offsets(counts),
        evidence=np.array(evidence, dtype=np.int64).reshape(-1, 3),
        negatives=np.concatenate(
            [np.where(part >= 0, part + base, -1) for part, base in zip(negatives, bases, strict=False)]
        ).astype(np.int32),
        names=names,
        tags=list(tags.values),
        instructions=list(instructions.values),
    )


class _Index:
    """Numbers values in the order of their first appearance."""

    def __init__(self, values: Sequence[str] = ()) -> None:
        self.values: dict[str, int] = {value: number for number, value in enumerate(values)}

    def __call__(self, value: str) -> int:
        return self.values.setdefault(value, len(self.values))


def _offsets(lengths: Sequence[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _entity(query: str, token_starts: NDArray[np.int64]) -> tuple[int, int]:
    """Tokens of the longest run of capitalised words that does not open the query."""
    best, run, position = (0, 0), None, 0
    words = query.split(" ")
    for number, word in enumerate(words):
        begin, position = position, position + len(word) + 1
        if number and word[:1].isupper():
            end = begin + len(word.rstrip("?.,!'s"))
            run = (run[0], end) if run else (begin, end)
            if run[1] - run[0] > best[1] - best[0]:
                best = run
        else:
            run = None
    first, last = np.searchsorted(token_starts, best)
    return int(first), int(last)
