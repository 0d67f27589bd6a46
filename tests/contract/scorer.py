"""What every `Scorer` promises: subclass `ScorerContract` with a ``scorer`` fixture, and its tests run.

class TestMyScorer(ScorerContract):
    @pytest.fixture
    def scorer(self) -> Scorer:
        return MyScorer(...)
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from cprs_core import Compressor, Prefix, Scorer
from cprs_core.scorer import LABELS
from cprs_core.selection import GRANULARITIES
from tests.core.texts import NASTY

TEXT = "It rained all day. Ada King signed the lease on Monday. Bob left early, and nobody paid. " * 12
QUERY = "Who signed the lease?"
INSTRUCTION = "Extract the sentences that support answering the question."


class ScorerContract:
    """The shared tests. ``tolerance`` is the largest difference between two readings of one window."""

    tolerance = 1e-4

    @pytest.fixture
    def scorer(self) -> Scorer:
        """The scorer under test."""
        raise NotImplementedError("give the subclass a fixture named 'scorer'")

    def prefix(self, scorer: Scorer, *tags: str) -> Prefix:
        return scorer.tokenizer.encode_prefix(INSTRUCTION, QUERY, tags or ("fact",))

    def windows(self, scorer: Scorer, lengths: Sequence[int]) -> list[NDArray[np.int32]]:
        """Windows of these lengths, from one text, with different beginnings."""
        ids = scorer.tokenizer.encode(TEXT).ids
        return [np.resize(np.roll(ids, -7 * index), length) for index, length in enumerate(lengths)]

    def test_is_a_scorer(self, scorer: Scorer) -> None:
        assert isinstance(scorer, Scorer)
        assert tuple(scorer.labels) == LABELS
        assert scorer.window_tokens >= 128
        assert all(name in GRANULARITIES and 0.0 <= value <= 1.0 for name, value in scorer.thresholds.items())

    def test_gives_one_array_of_probabilities_per_window_in_the_order_given(self, scorer: Scorer) -> None:
        windows = self.windows(scorer, [5, 40, 1, 40, 17])
        scores = scorer.score(self.prefix(scorer), windows)
        assert [rows.shape for rows in scores] == [(len(window), 4) for window in windows]
        for rows in scores:
            assert rows.dtype == np.float32
            assert ((rows >= 0.0) & (rows <= 1.0)).all()
            assert rows.sum(axis=1) == pytest.approx(np.ones(len(rows)), abs=1e-3)

    def test_gives_a_group_of_label_columns_per_tag(self, scorer: Scorer) -> None:
        windows = self.windows(scorer, [20, 9])
        for rows in scorer.score(self.prefix(scorer, "fact", "name", "date"), windows):
            assert rows.shape[1] == 12
            assert rows.reshape(len(rows), 3, 4).sum(axis=2) == pytest.approx(np.ones((len(rows), 3)), abs=1e-3)

    def test_scores_of_a_window_do_not_depend_on_its_neighbours(self, scorer: Scorer) -> None:
        windows = self.windows(scorer, [33, 8, 50, 8, 21])
        together = scorer.score(self.prefix(scorer), windows)
        for window, rows in zip(windows, together, strict=True):
            (alone,) = scorer.score(self.prefix(scorer), [window])
            assert rows == pytest.approx(alone, abs=self.tolerance)

    def test_takes_a_full_window(self, scorer: Scorer) -> None:
        prefix = self.prefix(scorer)
        (rows,) = scorer.score(prefix, self.windows(scorer, [scorer.window_tokens - len(prefix)]))
        assert len(rows) == scorer.window_tokens - len(prefix)

    def test_no_windows_no_scores(self, scorer: Scorer) -> None:
        assert scorer.score(self.prefix(scorer), []) == []

    def test_leaves_the_callers_windows_as_they_were(self, scorer: Scorer) -> None:
        windows = self.windows(scorer, [12, 30])
        before = [window.copy() for window in windows]
        scorer.score(self.prefix(scorer), windows)
        assert all(np.array_equal(window, copy) for window, copy in zip(windows, before, strict=True))

    def test_progress_grows_and_ends_with_every_token(self, scorer: Scorer) -> None:
        seen: list[tuple[int, int]] = []
        scorer.score(
            self.prefix(scorer), self.windows(scorer, [12, 30, 4]), lambda done, total: seen.append((done, total))
        )
        assert seen == sorted(seen)
        assert seen[-1] == (46, 46)

    def test_threads_get_the_scores_that_one_caller_gets(self, scorer: Scorer) -> None:
        batches = [self.windows(scorer, [10 + index, 25]) for index in range(8)]
        prefix = self.prefix(scorer)
        expected = [scorer.score(prefix, windows) for windows in batches]
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda windows: scorer.score(prefix, windows), batches))
        for scores, wanted in zip(results, expected, strict=True):
            for rows, same in zip(scores, wanted, strict=True):
                assert rows == pytest.approx(same, abs=self.tolerance)

    @pytest.mark.parametrize("name", NASTY)
    def test_tokens_lie_in_their_text_in_order(self, scorer: Scorer, name: str) -> None:
        tokens = scorer.tokenizer.encode(NASTY[name])
        assert len(tokens.ids) == len(tokens.starts) == len(tokens.ends) == len(tokens)
        assert tokens.ids.dtype == np.int32
        assert (tokens.starts[:-1] <= tokens.starts[1:]).all()
        assert (tokens.starts < tokens.ends).all()
        assert tokens.ends.max(initial=0) <= len(NASTY[name])

    @pytest.mark.parametrize("text", ["[CLS] a [SEP] b", "<|im_start|>system\nYou<|im_end|>", "</s><pad>[MASK]"])
    def test_control_tokens_in_a_text_are_text(self, scorer: Scorer, text: str) -> None:
        """No token may be as long as a control token's spelling, and none of the prefix's own may appear."""
        tokens = scorer.tokenizer.encode(text)
        spellings = {text[start:end] for start, end in zip(tokens.starts, tokens.ends, strict=True)}
        assert spellings.isdisjoint({"[CLS]", "[SEP]", "[MASK]", "<|im_start|>", "<|im_end|>", "</s>", "<pad>"})

    @pytest.mark.parametrize("name", NASTY)
    def test_spans_are_slices_whatever_the_text(self, scorer: Scorer, name: str) -> None:
        text = NASTY[name]
        for granularity in ("sentence", "keyword"):
            for span in Compressor(scorer).compress(text, QUERY, granularity=granularity, threshold=0.0).spans:
                assert text[span.start : span.end] == span.text
                assert span.end > span.start
