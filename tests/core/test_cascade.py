"""A cascade reads less and finds the same."""

from __future__ import annotations

import numpy as np
import pytest

from cprs_core import CascadeScorer, Compressor, InputError, KeywordScorer, LexicalRanker
from cprs_core.cascade import ALWAYS_READ, cut_for
from tests.core.slow import Clock, SlowScorer
from tests.core.test_reading import NEEDLE, haystack

QUERY = "Who signed the lease?"


def cascade(risk: float = 0.005, *words: str) -> CascadeScorer:
    return CascadeScorer(LexicalRanker(), KeywordScorer(*(words or ("lease",)), window_tokens=128), recall_risk=risk)


@pytest.mark.parametrize("position", [0, 57, 199, 400])
def test_the_cascade_keeps_what_the_strong_scorer_keeps(position: int) -> None:
    text = haystack(position)
    scorer = cascade()
    result = Compressor(scorer).compress(text, QUERY, max_tokens=20)
    assert NEEDLE.strip() in result.text
    assert result.usage.windows_read == scorer.strong.windows_scored  # type: ignore[attr-defined]
    assert result.usage.windows_read <= result.usage.windows / 4
    assert result.usage.complete


def test_no_risk_reads_everything() -> None:
    usage = Compressor(cascade(0.0)).compress(haystack(9), QUERY).usage
    assert usage.windows_read == usage.windows


def test_more_risk_reads_less() -> None:
    text = haystack(9).replace("7 It rained", "7 It signed the papers")
    read = [Compressor(cascade(risk)).compress(text, QUERY).usage.windows_read for risk in (0.0, 0.0025, 0.02)]
    assert read == sorted(read, reverse=True)
    assert read[0] > read[-1]


def test_few_windows_are_all_read() -> None:
    usage = Compressor(cascade()).compress(haystack(9, 40), QUERY).usage
    assert usage.windows_read == usage.windows <= ALWAYS_READ


def test_without_a_query_everything_is_read() -> None:
    usage = Compressor(cascade()).compress(haystack(9), instruction="Extract what is about the lease.").usage
    assert usage.windows_read == usage.windows


def test_a_query_that_shares_no_word_reads_everything() -> None:
    usage = Compressor(cascade()).compress(haystack(9), "Qui a paraphé?").usage
    assert usage.windows_read == usage.windows


def test_unread_windows_are_outside() -> None:
    scorer = cascade()
    ids = scorer.tokenizer.encode(haystack(200)).ids
    windows = np.array_split(ids, 80)
    prefix = scorer.tokenizer.encode_prefix("", QUERY, ("fact", "name"))
    chosen = scorer.plan(prefix, windows).tolist()
    rows = scorer.score(prefix, windows)
    assert ALWAYS_READ <= len(chosen) < 40
    for index, part in enumerate(rows):
        assert part.shape == (len(windows[index]), 8)
        if index not in chosen:
            assert (part.reshape(-1, 2, 4) == np.array([0, 0, 1, 0], dtype=np.float32)).all()


def test_a_cheap_critic_with_another_tokenizer_reads_text(embedded: Compressor) -> None:
    strong = KeywordScorer("lease", window_tokens=300)
    scorer = CascadeScorer(embedded.scorer, strong)
    result = Compressor(scorer).compress(haystack(200, 240), QUERY, max_tokens=20)
    assert NEEDLE.strip() in result.text
    assert result.usage.windows_read < result.usage.windows


def test_a_cascade_in_a_cascade_reads_less_still() -> None:
    outer = CascadeScorer(KeywordScorer("signed", window_tokens=64), cascade(0.02))
    result = Compressor(outer).compress(haystack(200), QUERY, max_tokens=20)
    assert NEEDLE.strip() in result.text
    assert result.usage.windows_read <= result.usage.windows / 4


def test_a_slow_cheap_stage_leaves_half_of_the_time_to_the_strong_one() -> None:
    clock = Clock()
    cheap = SlowScorer("lease", clock=clock, tokens_per_second=2_000)
    strong = SlowScorer("lease", clock=clock, tokens_per_second=1_000)
    compressor = Compressor(CascadeScorer(cheap, strong), clock=clock)
    result = compressor.compress(haystack(390), QUERY, deadline=3.0, max_tokens=20)
    assert NEEDLE.strip() in result.text
    assert sum(strong.batches) >= 1_000
    assert clock.now - 100.0 <= 4.0


@pytest.mark.parametrize("risk", [-0.1, 1.5, "little", None])
def test_a_risk_that_is_no_share_is_refused(risk: float) -> None:
    with pytest.raises(InputError, match=r"share of recall, in 0\.\.1"):
        cascade(risk)


def test_the_cut_lies_between_measured_points() -> None:
    curve = {10: ((0.0, 0.0), (0.01, 0.4)), 1_000: ((0.0, 0.0), (0.01, 0.2))}
    assert cut_for(curve, 10, 0.005) == pytest.approx(0.2)
    assert cut_for(curve, 100, 0.01) == pytest.approx(0.3)
    assert cut_for(curve, 10**6, 0.5) == pytest.approx(0.2)
    assert cut_for(curve, 10, 0.0) == 0.0


def test_a_cascade_can_be_told_from_others_or_is_not_cached() -> None:
    class Nameless(KeywordScorer):
        fingerprint = ""

    curve = {10: ((0.0, 0.0), (0.01, 0.9))}
    keywords = KeywordScorer("lease")
    assert CascadeScorer(LexicalRanker(), keywords).fingerprint
    assert (
        CascadeScorer(LexicalRanker(curve=curve), keywords).fingerprint
        != CascadeScorer(LexicalRanker(), keywords).fingerprint
    )
    assert not CascadeScorer(LexicalRanker(), Nameless("lease")).fingerprint
    assert not CascadeScorer(Nameless("lease"), keywords).fingerprint


def test_from_pretrained_takes_the_risk(embedded: Compressor) -> None:
    compressor = Compressor.from_pretrained(device="cpu", recall_risk=0.01)
    assert isinstance(compressor.scorer, CascadeScorer)
    assert compressor.scorer.recall_risk == 0.01
    result = compressor.compress(haystack(100, 350), QUERY, max_tokens=20)
    assert NEEDLE.strip() in result.text
    assert result.usage.windows_read < result.usage.windows
