"""BM25 over token ids agrees with a library, and pairs help where words are spelled in pieces."""

from __future__ import annotations

import numpy as np
import pytest

from cprs_core import Compressor
from cprs_core.lexical import GrowingBM25, bm25

EMPTY = np.empty(0, dtype=np.int32)


def ranges_of(lengths: list[int]) -> np.ndarray:
    ends = np.cumsum(lengths)
    return np.stack([ends - lengths, ends], axis=1)


def test_scores_are_those_of_bm25s() -> None:
    bm25s = pytest.importorskip("bm25s")
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 60, size=40).tolist()
    ids = rng.zipf(1.3, size=sum(lengths)).clip(max=200).astype(np.int32)
    asked = np.array([3, 17, 42, 150], dtype=np.int32)
    index = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    documents = [ids[a:b].tolist() for a, b in ranges_of(lengths).tolist()]
    index.index((documents, {str(id): id for id in range(201)}), show_progress=False)
    known = [id for id in asked.tolist() if id in ids]
    expected = index.get_scores_from_ids(known)
    assert bm25(asked, ids, ranges_of(lengths), pair_weight=0.0) == pytest.approx(expected, rel=1e-4)


def test_neighbours_of_the_query_that_stay_neighbours_count_more() -> None:
    ids = np.array([1, 2, 9, 9, 1, 9, 2, 9], dtype=np.int32)
    together, apart = bm25(np.array([1, 2], dtype=np.int32), ids, ranges_of([4, 4]))
    assert together > apart > 0.0


def test_in_batches_the_best_so_far_is_the_best_of_all() -> None:
    rng = np.random.default_rng(1)
    lengths = rng.integers(5, 60, size=60).tolist()
    ids = rng.zipf(1.3, size=sum(lengths)).clip(max=200).astype(np.int32)
    asked = np.array([3, 17, 42, 150], dtype=np.int32)
    ranges, words = ranges_of(lengths), GrowingBM25(asked)
    for first in range(0, 60, 20):
        batch = ranges[first : first + 20]
        base, end = int(batch[0, 0]), int(batch[-1, 1])
        last = words.add(ids[base:end], batch - base)
    whole = bm25(asked, ids, ranges)
    assert last == pytest.approx(whole[40:], rel=1e-5)  # by then all statistics are known
    assert words.best == pytest.approx(whole.max(), rel=1e-5)


def test_what_all_words_are_worth_is_the_score_of_a_range_that_holds_each_once() -> None:
    asked = np.array([7, 8, 9], dtype=np.int32)
    words = GrowingBM25(asked, pair_weight=0.0)
    ids = np.array([1, 2, 7, 3, 9, 3, 2, 8, 1, 1, 7, 1], dtype=np.int32)
    scores = words.add(ids, ranges_of([4, 4, 4]))
    assert scores.max() < words.of_all_words
    more = words.add(np.array([8, 7, 1, 9], dtype=np.int32), ranges_of([4]))
    assert more.tolist() == pytest.approx([words.of_all_words])


def test_nothing_shared_scores_nothing() -> None:
    ids = np.arange(8, dtype=np.int32)
    assert bm25(np.array([77], dtype=np.int32), ids, ranges_of([4, 4])).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("asked", "lengths"), [([], [4, 4]), ([1], [])])
def test_no_query_or_no_ranges_is_fine(asked: list[int], lengths: list[int]) -> None:
    ranges = ranges_of(lengths) if lengths else np.empty((0, 2), dtype=np.int64)
    scores = bm25(np.array(asked, dtype=np.int32), np.arange(8, dtype=np.int32), ranges)
    assert scores.tolist() == [0.0] * len(lengths)


def test_empty_context_is_fine() -> None:
    assert bm25(np.array([1, 2], dtype=np.int32), EMPTY, np.array([[0, 0]])).tolist() == [0.0]


@pytest.mark.parametrize(
    ("query", "hay", "needle"),
    [
        ("Wer hat den Mietvertrag unterschrieben?", "Es regnete den ganzen Tag. ", "Ada hat den Mietvertrag. "),
        ("谁签了租约？", "今天下了一整天的雨。", "阿达签了租约。"),
        ("賃貸契約に署名したのは誰ですか", "一日中雨が降っていました。", "エイダが賃貸契約に署名した。"),
        ("Кто подписал договор?", "Весь день шёл дождь. ", "Ада подписала договор. "),
        ("من وقع عقد الإيجار؟", "هطل المطر طوال اليوم. ", "وقعت آدا عقد الإيجار. "),
    ],
)
def test_the_right_range_comes_first_in_many_scripts(embedded: Compressor, query: str, hay: str, needle: str) -> None:
    tokenizer = embedded.scorer.tokenizer
    texts = [hay * 3, needle + hay * 2, hay * 3, hay * 3]
    tokens = [tokenizer.encode(text).ids for text in texts]
    scores = bm25(tokenizer.encode(query).ids, np.concatenate(tokens), ranges_of([len(part) for part in tokens]))
    assert int(scores.argmax()) == 1
