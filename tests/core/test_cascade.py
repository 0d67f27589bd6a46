"""A cascade reads less and finds the same."""

from __future__ import annotations

import numpy as np
import pytest

from cprs_core import CascadeScorer, Compressor, InputError, KeywordScorer, LexicalRanker, Prefix, Scorer
from cprs_core.cascade import ALWAYS_READ, cut_for
from cprs_core.scorer import WordTokenizer
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


class TestInPieces:
    """One context whose windows come in several calls, as a stream's do."""

    strong = KeywordScorer("lease")

    def windows(self, *texts: str) -> list[np.ndarray]:
        return [self.strong.tokenizer.encode(text).ids for text in texts]

    def prefix(self, query: str) -> Prefix:
        return WordTokenizer().encode_prefix("Extract it.", query, ("fact",))

    def test_all_in_one_piece_is_planned_as_ever(self) -> None:
        windows = self.windows(*(f"page {n} says little" for n in range(40)), "Ada signed the lease")
        cascade = CascadeScorer(LexicalRanker(), KeywordScorer("lease"), recall_risk=0.01)
        prefix = self.prefix("Who signed the lease?")
        assert cascade.in_pieces().plan(prefix, windows).tolist() == cascade.plan(prefix, windows).tolist()

    @pytest.mark.parametrize("cheap", [LexicalRanker(), KeywordScorer("lease", "signed")])
    def test_what_is_far_less_likely_than_something_before_is_not_read(self, cheap: LexicalRanker | Scorer) -> None:
        prefix = self.prefix("Who signed the lease that says so?")
        found = self.windows(*(f"page {n} is blank" for n in range(40)), "Ada signed the lease")
        later = self.windows(*(f"page {n} says little of anything that anybody wants to know" for n in range(40)))
        cascade = CascadeScorer(cheap, self.strong, recall_risk=0.02)
        assert len(cascade.plan(prefix, later)) >= ALWAYS_READ
        pieces = cascade.in_pieces()
        assert 40 in pieces.plan(prefix, found)
        assert len(pieces.plan(prefix, later)) == 0

    def test_before_the_likely_window_has_come_those_with_a_word_or_two_are_not_read(self) -> None:
        prefix = self.prefix("Who signed the lease of the old boathouse?")
        first = self.windows(*(f"page {n} tells of an old man by the sea" for n in range(40)))
        later = self.windows(*(f"page {n} tells of nothing" for n in range(40)), "Ada signed the lease of a boathouse")
        pieces = CascadeScorer(LexicalRanker(), self.strong, recall_risk=0.01).in_pieces()
        assert len(pieces.plan(prefix, first)) == ALWAYS_READ
        assert pieces.plan(prefix, later).tolist() == [40]

    def test_until_a_word_of_the_query_has_come_everything_is_read(self) -> None:
        prefix = self.prefix("Wer hat unterschrieben?")
        windows = self.windows(*(f"page {n} is blank" for n in range(40)))
        pieces = CascadeScorer(LexicalRanker(), self.strong, recall_risk=0.01).in_pieces()
        assert [len(pieces.plan(prefix, windows)) for _ in range(2)] == [40, 40]

    def test_a_twin_serves_one_context_and_leaves_the_cascade_as_it_was(self) -> None:
        prefix = self.prefix("Who signed the lease?")
        windows = self.windows(*(f"page {n} says little" for n in range(40)), "Ada signed the lease")
        cascade = CascadeScorer(LexicalRanker(), KeywordScorer("lease"), recall_risk=0.01)
        before = cascade.plan(prefix, windows).tolist()
        twin = cascade.in_pieces()
        for _ in range(3):
            twin.plan(prefix, windows)
        assert cascade.plan(prefix, windows).tolist() == before

    def test_cascades_inside_of_cascades_come_in_pieces_too(self) -> None:
        inner = CascadeScorer(LexicalRanker(), KeywordScorer("lease"))
        outer = CascadeScorer(LexicalRanker(), inner).in_pieces()
        assert isinstance(outer.strong, CascadeScorer)
        assert outer.strong is not inner

    def test_without_a_query_every_piece_is_read(self) -> None:
        windows = self.windows(*(f"page {n}" for n in range(20)))
        pieces = CascadeScorer(LexicalRanker(), KeywordScorer("page"), recall_risk=0.01).in_pieces()
        assert [len(pieces.plan(self.prefix(""), windows)) for _ in range(2)] == [20, 20]
