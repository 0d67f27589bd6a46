"""Spans as the released server decodes them."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from cprs_core import Compressor, KeywordScorer, Prefix
from cprs_core.scorer import LABELS, OnProgress
from cprs_core.selection import by_released_rules


class Labels(KeywordScorer):
    """Words in capitals are tagged: B for the first of a run, I for the others."""

    def score(
        self, prefix: Prefix, windows: object, on_progress: OnProgress | None = None
    ) -> list[NDArray[np.float32]]:
        found = []
        for window in windows:  # type: ignore[attr-defined]
            tagged = np.isin(window, [id for word, id in self.tokenizer.vocabulary.items() if word.startswith("x")])
            rows = np.zeros((len(window), 4), dtype=np.float32)
            rows[:, LABELS.index("O")] = np.where(tagged, 0.4, 0.9)
            rows[:, LABELS.index("B")] = np.where(tagged, 0.6, 0.1)
            found.append(rows)
        return found


def spans(text: str | list[str], **options: object) -> list[str]:
    granularity = partial(by_released_rules, **{"complete_sentences": False, **options})
    result = Compressor(Labels()).compress(text, "q", granularity=granularity)
    return [span.text for span in result.spans]


def words(kind: str, count: int) -> str:
    return " ".join(f"{kind}{number}" for number in range(count))


@pytest.mark.parametrize(("gap", "count"), [(1, 1), (19, 1), (20, 2)])
def test_gaps_of_fewer_than_20_tokens_are_bridged(gap: int, count: int) -> None:
    assert len(spans(f"{words('x', 5)} {words('o', gap)} {words('x', 5)}")) == count


@pytest.mark.parametrize(("length", "kept"), [(1, 0), (4, 0), (5, 1)])
def test_spans_of_at_most_4_tokens_are_dropped(length: int, kept: int) -> None:
    assert len(spans(f"{words('o', 30)} {words('x', length)} {words('o', 30)}")) == kept


def test_a_span_never_reaches_into_the_next_document() -> None:
    assert spans([f"{words('o', 3)} {words('x', 6)}", f"{words('x', 7)} {words('o', 3)}"]) == [
        words("x", 6),
        words("x", 7),
    ]


def test_spans_grow_to_the_sentence_marks_around_them() -> None:
    text = f"It rained. And so {words('x', 6)} it went on: {words('o', 30)}. The end"
    assert spans(text, complete_sentences=True) == [f"And so {words('x', 6)} it went on:"]
    result = Compressor(Labels()).compress(text, "q", granularity="released")
    assert [span.text for span in result.spans] == [f"And so {words('x', 6)} it went on:"]
    assert result.spans[0].score == pytest.approx(0.6)


def test_nothing_tagged_is_an_empty_result_with_a_notice() -> None:
    result = Compressor(Labels()).compress(words("o", 40), "q", granularity="released")
    assert result.text == ""
    assert result.notice
