"""Hard documents for each query: those that BM25 likes best, without the ones that hold the answer."""

from __future__ import annotations

import itertools
import re

import numpy as np
from numpy.typing import NDArray

from cprs_core.libraries import load_bm25s
from cprs_core.training.corpus import NEGATIVES
from cprs_core.training.records import EvidenceSet, Record

_WORD = re.compile(r"\w+")
_IDEOGRAPHS = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")


def mine_negatives(one: EvidenceSet) -> NDArray[np.int32]:
    """int32 (queries, NEGATIVES): indices of documents of the set, best first, -1 where there are fewer.

    Raises:
        MissingExtraError: `bm25s` is not installed.
    """
    bm25s = load_bm25s("train", "mining hard negatives")
    result = np.full((len(one.records), NEGATIVES), -1, dtype=np.int32)
    if len(one.texts) < 2 or not one.records:
        return result
    folded = [text.casefold() for text in one.texts]
    vocabulary: dict[str, int] = {}
    documents = [[vocabulary.setdefault(word, len(vocabulary)) for word in _words(text)] for text in folded]
    retriever = bm25s.BM25()
    retriever.index((documents, vocabulary), show_progress=False)
    queries = [
        [vocabulary[word] for word in _words(record.query.casefold()) if word in vocabulary] for record in one.records
    ]
    asked = [row for row, query in enumerate(queries) if query]
    depth = min(3 * NEGATIVES, len(one.texts))
    found, _ = retriever.retrieve([queries[row] for row in asked], k=depth, show_progress=False, n_threads=2)
    for row, candidates in zip(asked, found, strict=True):
        hard = [int(index) for index in candidates if not _holds_answer(one.records[row], int(index), folded)]
        result[row, : len(hard[:NEGATIVES])] = hard[:NEGATIVES]
    return result


def _holds_answer(record: Record, document: int, folded: list[str]) -> bool:
    if document in record.documents or any(item.document == document for item in record.evidence):
        return True
    answers = [one.casefold() for one in record.answers if len(one) < 80]
    return any(answer in folded[document] for answer in answers if len(answer) > 2 or not answer.isascii())


def _words(text: str) -> list[str]:
    if _IDEOGRAPHS.search(text):
        letters = [character for character in text if character.isalnum()]
        return ["".join(pair) for pair in itertools.pairwise(letters)]
    return _WORD.findall(text)
