"""Ours, BM25 and embeddings through the same door."""

from __future__ import annotations

import itertools
import logging

import numpy as np
import pytest

from cprs_core.compressor import Compressor
from cprs_core.errors import CheckpointError
from cprs_core.evaluation.baselines import BM25System, EmbeddingSystem, in_groups, terms
from cprs_core.evaluation.corpus import Corpus, Request
from cprs_core.evaluation.progress import watched
from cprs_core.evaluation.systems import (
    ChunkSystem,
    CriticSystem,
    FusedSystem,
    HeadSystem,
    HopSystem,
    TailSystem,
    sum_of_reciprocal_ranks,
)
from cprs_core.instructions import PRESETS
from cprs_core.scorer import KeywordScorer, WordTokenizer

TEXT = "It rained for days. Ada signed the lease in March. They left early."
FACTS = PRESETS["supporting_facts"]


def request(text: str = TEXT, query: str = "Who signed the lease?", unit: str = "sentence") -> Request:
    return Request(Corpus([text], WordTokenizer(), unit), query, FACTS)


def test_critic_ranks_segments_as_the_compressor_scores_them() -> None:
    scorer = KeywordScorer()
    scores = CriticSystem("ours", scorer).rank([request()])[0]
    segments = Compressor(scorer).score(TEXT, "Who signed the lease?")
    assert scores.tolist() == pytest.approx([segment.score for segment in segments])


def test_critic_reads_long_contexts_window_by_window() -> None:
    scorer = KeywordScorer("lease", window_tokens=96)
    scores = CriticSystem("ours", scorer).rank([request("It rained for days. " * 100 + TEXT)])[0]
    assert scorer.windows_scored > 4
    assert int(scores.argmax()) == 101


def test_hops_rank_the_whole_chain_that_one_pass_cannot_see() -> None:
    lines = ["VAR ABCDE = 4711", *["The grass is green. The sky is blue."] * 300, "VAR FGHIJ = VAR ABCDE"]
    lines += [*["Here we go. There and back again."] * 300, "VAR KLMNO = VAR FGHIJ", "VAR XXXXX = 1234"]
    asked = request("\n".join(lines), "Find all variables that are assigned the value 4711.", "line")
    chain = [0, 301, 602]
    one_pass = CriticSystem("ours", KeywordScorer(window_tokens=128)).rank([asked])[0]
    hops = HopSystem("ours", KeywordScorer(window_tokens=128)).rank([asked])[0]
    assert len(hops) == len(asked.corpus.segments) == len(one_pass)
    assert hops[chain].min() > one_pass[602]
    assert set(np.argsort(-hops, kind="stable")[:3].tolist()) == set(chain)


def test_larger_units_score_as_their_best_sentence() -> None:
    scores = CriticSystem("ours", KeywordScorer("lease")).rank([request("A. B.\n\n" + TEXT, unit="paragraph")])[0]
    assert scores.tolist() == pytest.approx([0.0, 1 / 7])


def test_bm25_prefers_the_segment_that_shares_words() -> None:
    pytest.importorskip("bm25s")
    scores = BM25System().rank([request(), request(query="days of rain"), request(query="the of")])
    assert [int(row.argmax()) for row in scores[:2]] == [1, 0]
    assert scores[2].tolist() == [0.0, 0.0, 0.0]


def test_bm25_matches_character_pairs_where_words_have_no_blanks() -> None:
    pytest.importorskip("bm25s")
    scores = BM25System().rank([request("湖水很冷。她签了租约。", "谁签了租约？")])
    assert int(scores[0].argmax()) == 1
    assert terms("湖水很冷") == ["湖水", "水很", "很冷"]


def test_words_keep_their_vowel_signs() -> None:
    assert terms("किताब की दुकान") == ["किताब", "की", "दुकान"]


def test_missing_embedding_weights_are_named(tmp_path) -> None:
    with pytest.raises(CheckpointError, match="weights not found"):
        EmbeddingSystem(tmp_path)


def test_fusion_rewards_agreement() -> None:
    fused = sum_of_reciprocal_ranks([np.array([3.0, 2.0, 1.0]), np.array([1.0, 3.0, 2.0])])
    assert int(fused.argmax()) == 1


def test_truncation_keeps_one_end() -> None:
    both = FusedSystem("both", [HeadSystem(), HeadSystem()]).rank([request()])[0]
    assert int(both.argmax()) == 0
    assert int(TailSystem().rank([request()])[0].argmax()) == 2


def test_chunks_are_runs_of_whole_sentences_inside_one_document() -> None:
    corpus = Corpus(["One came. Two came. Three came. Four came.", "Five came."], WordTokenizer())
    chunks, chunk_of = corpus.chunks(7)
    assert chunks.segment_texts == ["One came. Two came.", "Three came. Four came.", "Five came."]
    assert chunk_of.tolist() == [0, 0, 1, 1, 2]
    assert int(chunks.costs.max()) <= 7


def test_a_segment_takes_the_score_of_its_chunk() -> None:
    text = Request(Corpus(["One came. Two came. Three came. Four came."], WordTokenizer()), "", FACTS)
    system = ChunkSystem("RAG", TailSystem())
    system.TOKENS = 7
    assert system.rank([text])[0].tolist() == [0.0, 0.0, 1.0, 1.0]


def test_long_rankings_say_how_far_they_are(caplog: pytest.LogCaptureFixture) -> None:
    clock = itertools.count(0.0, 10.0)
    with caplog.at_level(logging.INFO, logger="cprs_core.evaluation"):
        assert list(watched("abcd", "BM25", lambda: next(clock))) == list("abcd")
    assert caplog.messages == ["BM25: 1 of 4", "BM25: 3 of 4"]


@pytest.mark.parametrize(
    ("sizes", "groups"),
    [
        ([3, 4, 3, 5], [[0, 1, 2], [3]]),
        ([25, 1, 2], [[0], [1, 2]]),
        ([0, 4, 0], [[1]]),
        ([1, 30, 30], [[0], [1], [2]]),
        ([], []),
    ],
)
def test_contexts_are_embedded_with_their_neighbours_as_far_as_there_is_room(
    sizes: list[int], groups: list[list[int]]
) -> None:
    assert in_groups(sizes, 10) == groups
