"""Evidence on the border of two windows is found, wherever the border falls."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from cprs_core import CascadeScorer, Compressor, KeywordScorer, LexicalRanker, Prefix, Scorer
from cprs_core.context import read_context
from cprs_core.scorer import OUTSIDE, OnProgress
from cprs_core.windows import plan_windows

NEEDLE = "Ada King signed the lease on Monday."
QUERY = "Who signed the lease?"


class PhraseScorer(KeywordScorer):
    """The words of a phrase score 1 where one window holds the whole phrase, in a row; all else 0."""

    def __init__(self, phrase: str, window_tokens: int) -> None:
        super().__init__(window_tokens=window_tokens)
        self.phrase = self.tokenizer.encode(phrase).ids

    def score(
        self, prefix: Prefix, windows: Sequence[NDArray[np.int32]], on_progress: OnProgress | None = None
    ) -> list[NDArray[np.float32]]:
        scores = []
        for window in windows:
            rows = np.zeros((len(window), 4), dtype=np.float32)
            rows[:, OUTSIDE] = 1.0
            runs = np.lib.stride_tricks.sliding_window_view(window, len(self.phrase))
            for start in np.flatnonzero((runs == self.phrase).all(axis=1)).tolist():
                rows[start : start + len(self.phrase)] = np.eye(4, dtype=np.float32)[
                    [0, *[1] * (len(self.phrase) - 2), 3]
                ]
            scores.append(rows)
        return scores


def hay(count: int) -> list[str]:
    return [f"Number {index} came to the harbour at Northolt and left." for index in range(count)]


@pytest.mark.parametrize("position", range(41))
def test_a_sentence_at_any_place_is_seen_whole(position: int) -> None:
    sentences = hay(40)
    sentences.insert(position, NEEDLE)
    result = Compressor(PhraseScorer(NEEDLE, 160)).compress(" ".join(sentences), QUERY)
    assert result.usage.windows >= 4
    assert result.text == NEEDLE


@pytest.mark.parametrize("length", range(60, 100, 3))
def test_a_phrase_anywhere_in_an_endless_sentence_is_seen_whole(length: int) -> None:
    """The phrase moves over two window borders, token by token."""
    phrase = "Ada King signed the lease on Monday"
    compressor = Compressor(PhraseScorer(phrase, 96))
    words = [f"word{index}" for index in range(length * 3)]
    for place in range(length, length + 40):
        text = " ".join([*words[:place], phrase, *words[place:]])
        result = compressor.compress(text, QUERY, granularity="keyword")
        assert result.usage.windows > 2
        assert phrase in result.text


@pytest.mark.parametrize("kind", ["all", "cascade"])
def test_the_embedded_critic_finds_evidence_on_both_sides_of_every_border(embedded: Compressor, kind: str) -> None:
    scorer: Scorer = embedded.scorer
    if kind == "cascade":
        scorer = CascadeScorer(LexicalRanker(), scorer)
    compressor = Compressor(scorer)
    sentences = hay(100)
    for sentence in _beside_borders(embedded, sentences):
        text = " ".join([*sentences[:sentence], NEEDLE, *sentences[sentence:]])
        result = compressor.compress(text, QUERY, max_tokens=20)
        assert result.usage.windows >= 3
        assert NEEDLE in result.text


def test_the_embedded_critic_finds_evidence_on_the_borders_of_an_endless_sentence(embedded: Compressor) -> None:
    tokenizer = embedded.scorer.tokenizer
    clauses = [f"number {index} came to the harbour at Northolt and left, " for index in range(70)]
    size = len(tokenizer.encode(clauses[50]).ids)
    for border in (440, 330 + 440):  # where windows end, more or less: 512 less the prefix, three quarters on
        for shift in (-1, 0):
            place = border // size + shift
            text = "".join([*clauses[:place], "Ada King signed the lease on Monday, ", *clauses[place:]])
            result = embedded.compress(text, QUERY, max_tokens=260)
            assert result.usage.windows >= 2
            assert "Ada King signed the lease" in result.text


def _beside_borders(compressor: Compressor, sentences: list[str]) -> list[int]:
    """Sentences that are first or last in a window."""
    tokenizer = compressor.scorer.tokenizer
    context = read_context([" ".join(sentences)], tokenizer)
    prefix = tokenizer.encode_prefix("Extract the sentences that support answering the question.", QUERY, ("fact",))
    first = context.first_tokens(context.sentences[:, 0])
    capacity = compressor.scorer.window_tokens - len(prefix)
    starts = plan_windows(first, len(context.ids), capacity)[1:, 0]
    borders = np.searchsorted(first, starts)
    return sorted({int(border) + shift for border in borders for shift in (-1, 0)})
