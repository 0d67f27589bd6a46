"""From token scores to kept ranges."""

from __future__ import annotations

import itertools
import time
import tracemalloc
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cprs_core import Candidates, Compressor, Document, KeywordScorer, ScoredContext
from cprs_core.context import read_context
from cprs_core.scorer import Tokens, WordTokenizer
from cprs_core.selection import B, E, I, O, by_keyword, choose, decode_spans, surest_tokens


def is_legal(path: tuple[int, ...]) -> bool:
    """A span is B, then any I, then E; or a lone B; a window may cut a span's end off, never its beginning."""
    open_span = False
    for label, following in itertools.zip_longest(path, path[1:]):
        if label == B:
            open_span = True
        elif label in (I, E) and not open_span:
            return False
        if label == I and following in (B, O):
            return False
        if label in (O, E):
            open_span = False
    return True


def best_path_by_enumeration(scores: NDArray[np.float32]) -> tuple[float, tuple[int, ...]]:
    logs = np.log(np.maximum(scores, 1e-9))
    return max(
        (float(sum(logs[step, label] for step, label in enumerate(path))), path)
        for path in itertools.product(range(4), repeat=len(scores))
        if is_legal(path)
    )


def spans_of(path: tuple[int, ...]) -> list[tuple[int, int]]:
    spans: list[list[int]] = []
    for position, label in enumerate(path):
        if label == B:
            spans.append([position, position])
        elif label in (I, E):
            spans[-1][1] = position
    return [(first, last) for first, last in spans]


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 2**31))
@settings(max_examples=80, deadline=None)
def test_decoded_spans_are_those_of_the_best_legal_path(lengths: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.dirichlet(np.full(4, 0.5), size=sum(lengths)).astype(np.float32)
    ends = np.cumsum(lengths)
    windows = np.stack([ends - lengths, ends], axis=1)
    expected: list[tuple[int, int]] = []
    for start, end in windows.tolist():
        _, path = best_path_by_enumeration(scores[start:end])
        expected += [(start + first, start + last) for first, last in spans_of(path)]
    first, last = decode_spans(scores, windows)
    assert list(zip(first.tolist(), last.tolist(), strict=True)) == expected


def test_decoding_no_windows_gives_no_spans() -> None:
    first, last = decode_spans(np.empty((0, 4), dtype=np.float32), np.empty((0, 2), dtype=np.int64))
    assert len(first) == len(last) == 0


@st.composite
def candidate_sets(draw: st.DrawFn) -> Candidates:
    rows = draw(
        st.lists(st.tuples(st.integers(0, 60), st.integers(1, 15), st.floats(0, 1, width=32)), max_size=15).map(sorted)
    )
    return Candidates(
        np.array([start for start, _, _ in rows], dtype=np.int64),
        np.array([start + length for start, length, _ in rows], dtype=np.int64),
        np.array([score for _, _, score in rows], dtype=np.float32),
        np.zeros(len(rows), dtype=np.int64),
    )


@given(candidate_sets(), st.none() | st.floats(0, 1), st.none() | st.integers(0, 60))
@settings(max_examples=300, deadline=None)
def test_chosen_candidates_fit_reach_the_threshold_and_never_overlap(
    candidates: Candidates, threshold: float | None, max_tokens: int | None
) -> None:
    lengths = candidates.ends - candidates.starts
    kept = choose(candidates, threshold=threshold, max_tokens=max_tokens, cost=lambda index: int(lengths[index]))
    assert kept.tolist() == sorted(set(kept.tolist()))
    assert (candidates.ends[kept][:-1] <= candidates.starts[kept][1:]).all()
    if max_tokens is not None:
        assert lengths[kept].sum() <= max_tokens
    if threshold is not None:
        assert (candidates.scores[kept] >= threshold).all()


@given(candidate_sets(), st.integers(0, 60))
@settings(max_examples=300, deadline=None)
def test_what_was_left_out_overlaps_something_better_or_would_not_fit(candidates: Candidates, max_tokens: int) -> None:
    lengths = candidates.ends - candidates.starts
    kept = choose(candidates, threshold=None, max_tokens=max_tokens, cost=lambda index: int(lengths[index]))
    room = max_tokens - int(lengths[kept].sum())
    for index in set(range(len(candidates))) - set(kept.tolist()):
        overlaps = (candidates.starts[kept] < candidates.ends[index]) & (
            candidates.ends[kept] > candidates.starts[index]
        )
        better = candidates.scores[kept][overlaps] >= candidates.scores[index]
        assert better.any() or lengths[index] > room


def test_one_that_fits_is_kept_however_many_better_ones_do_not() -> None:
    starts = np.arange(0, 30_000, 100)
    ends = starts + np.append(np.full(len(starts) - 2, 50), [3, 2])
    scores = np.linspace(0.9, 0.1, len(starts), dtype=np.float32)
    candidates = Candidates(starts, ends, scores, np.zeros(len(starts), dtype=np.int64))
    lengths = ends - starts
    for threshold, expected in [(None, [298]), (0.5, [])]:
        kept = choose(candidates, threshold=threshold, max_tokens=10, cost=lambda index: int(lengths[index]))
        assert kept.tolist() == expected


def test_hundreds_of_thousands_of_candidates_are_chosen_from_in_seconds() -> None:
    starts = np.arange(400_000) * 10
    scores = np.random.default_rng(0).random(len(starts)).astype(np.float32)
    candidates = Candidates(starts, starts + 5, scores, np.zeros(len(starts), dtype=np.int64))
    began = time.perf_counter()
    kept = choose(candidates, threshold=0.5, max_tokens=None, cost=lambda _: 1)
    assert time.perf_counter() - began < 5
    assert kept.tolist() == np.flatnonzero(scores >= 0.5).tolist()


def test_equal_scores_are_taken_from_the_front() -> None:
    candidates = Candidates(
        np.array([0, 10, 20]), np.array([5, 15, 25]), np.full(3, 0.5, dtype=np.float32), np.zeros(3, dtype=np.int64)
    )
    assert choose(candidates, threshold=None, max_tokens=2, cost=lambda _: 1).tolist() == [0, 1]


def kept(text: str | list[str], granularity: str, *words: str, instruction: str | None = None) -> list[str]:
    compressor = Compressor(KeywordScorer(*words))
    return [
        span.text for span in compressor.compress(text, "q", granularity=granularity, instruction=instruction).spans
    ]


TEXT = "Ada signed the lease. It rained.\nBob left early.\n\nNobody paid. The lease ended."


@pytest.mark.parametrize(
    ("granularity", "expected"),
    [
        ("keyword", ["lease", "lease"]),
        ("sentence", ["Ada signed the lease.", "The lease ended."]),
        ("line", ["Ada signed the lease. It rained.", "Nobody paid. The lease ended."]),
        ("paragraph", ["Ada signed the lease. It rained.\nBob left early.", "Nobody paid. The lease ended."]),
        ("document", [TEXT]),
    ],
)
def test_granularities_keep_what_their_names_say(granularity: str, expected: list[str]) -> None:
    assert kept(TEXT, granularity, "lease") == expected


def test_auto_takes_the_granularity_that_the_instruction_is_meant_for() -> None:
    assert kept(TEXT, "auto", "lease", instruction="answers") == ["lease", "lease"]
    assert kept(TEXT, "auto", "lease", instruction="paragraphs")[0].endswith("left early.")
    assert kept(TEXT, "auto", "lease") == ["Ada signed the lease.", "The lease ended."]


def test_document_granularity_keeps_whole_documents_and_skips_empty_ones() -> None:
    assert kept(["", "It rained.", "A lease. Signed.", ""], "document", "lease") == ["A lease. Signed."]


def test_keyword_spans_take_their_combining_marks_along() -> None:
    """Tokenizers that normalise leave combining marks outside every token."""
    scorer = KeywordScorer("lease")
    scorer.tokenizer = _MarklessTokenizer(scorer.tokenizer.vocabulary)
    text = "One lease\u0301\u0323 here. A lease\u0336\n\u0301 lease\u0301"
    result = Compressor(scorer).compress([text, "\u0301 It rained."], "q", granularity="keyword")
    assert [span.text for span in result.spans] == ["lease\u0301\u0323", "lease\u0336", "lease\u0301"]


class _MarklessTokenizer(WordTokenizer):
    def encode(self, text: str) -> Tokens:
        tokens = super().encode(text)
        kept = np.array([not unicodedata.combining(text[start]) for start in tokens.starts.tolist()], dtype=bool)
        return Tokens(tokens.ids[kept], tokens.starts[kept], tokens.ends[kept])


def test_keyword_spans_stay_inside_their_document() -> None:
    """Documents lie end to end with nothing between them; a run of matches over the border is two spans."""
    texts = ["the lease", "lease the", "lease"]
    result = Compressor(_RunScorer("lease")).compress(texts, "q", granularity="keyword")
    assert [(span.document_index, span.text) for span in result.spans] == [(0, "lease"), (1, "lease"), (2, "lease")]


class _RunScorer(KeywordScorer):
    """Labels runs of its words as one span: B, then I, then E."""

    def score(self, prefix, windows, on_progress=None):  # type: ignore[no-untyped-def]
        rows = super().score(prefix, windows, on_progress)
        for window in rows:
            hit = window[:, B] == 1.0
            window[:, I] = hit & np.append(False, hit[:-1]) & np.append(hit[1:], False)
            window[:, E] = hit & np.append(False, hit[:-1]) & ~np.append(hit[1:], False)
            window[:, B] = hit & ~np.append(False, hit[:-1])
        return rows


def test_many_short_windows_beside_a_long_one_are_decoded_in_little_memory() -> None:
    ends = np.append(np.arange(1, 50_001) * 3, 150_500)
    scores = np.full((150_500, 4), 0.25, dtype=np.float32)
    tracemalloc.start()
    decode_spans(scores, np.stack([np.append(0, ends[:-1]), ends], axis=1))
    assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    tracemalloc.stop()


@given(st.integers(0, 2**32), st.lists(st.integers(1, 40), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_windows_decoded_together_have_the_spans_of_each_alone(seed: int, lengths: list[int]) -> None:
    ends = np.cumsum(lengths)
    windows = np.stack([ends - lengths, ends], axis=1)
    scores = np.random.default_rng(seed).dirichlet(np.ones(4), int(ends[-1])).astype(np.float32)
    alone = [decode_spans(scores[a:b], np.array([[0, b - a]])) for a, b in windows.tolist()]
    firsts, lasts = decode_spans(scores, windows)
    assert firsts.tolist() == [
        t + a for (first, _), (a, _) in zip(alone, windows.tolist(), strict=True) for t in first.tolist()
    ]
    assert lasts.tolist() == [
        t + a for (_, last), (a, _) in zip(alone, windows.tolist(), strict=True) for t in last.tolist()
    ]


def test_every_tag_of_the_instruction_has_spans_of_its_own() -> None:
    scorer = _TwoTagScorer("lease", "rent")
    instruction = "Tag the leases with 'lease' and tag the rents with 'rent'."
    result = Compressor(scorer).compress("A lease and a rent.", "q", instruction=instruction, granularity="keyword")
    assert [(span.text, span.tag) for span in result.spans] == [("lease", "lease"), ("rent", "rent")]


class _TwoTagScorer(KeywordScorer):
    """The first word belongs to the first tag, the second to the second."""

    def score(self, prefix, windows, on_progress=None):  # type: ignore[no-untyped-def]
        results = []
        for window in windows:
            rows = np.zeros((len(window), 8), dtype=np.float32)
            for tag, word in enumerate(self._words):
                hit = np.isin(window, self.tokenizer.encode(word).ids)
                rows[hit, 4 * tag + B] = 1.0
                rows[~hit, 4 * tag + O] = 1.0
            results.append(rows)
        return results


def test_granularity_may_be_the_callers_own_function() -> None:
    def first_words(context: ScoredContext) -> Candidates:
        sentences = context.sentences
        first = context.context.first_tokens(sentences[:, 0])
        ends = context.context.ends[first]
        scores = context.mean_scores(sentences).max(axis=1)
        return Candidates(sentences[:, 0], ends, scores, np.zeros(len(ends), dtype=np.int64))

    result = Compressor(KeywordScorer("lease")).compress(
        [Document("It rained. The lease ended."), Document("My lease.")], "q", granularity=first_words
    )
    assert [span.text for span in result.spans] == ["The", "My"]


def test_paragraph_longer_than_any_budget_is_offered_in_pieces() -> None:
    text = "It rained all day. " * 800 + "Ada signed the lease. " + "Nobody came by. " * 800
    result = Compressor(KeywordScorer("lease")).compress(text, "q", granularity="paragraph", max_tokens=1_000)
    assert "Ada signed the lease." in result.text
    assert result.usage.output_tokens <= 1_000


@given(lengths=st.lists(st.integers(1, 5), max_size=6), gaps=st.integers(0, 2), seed=st.integers(0, 99))
def test_a_span_has_the_score_of_its_surest_token(lengths: list[int], gaps: int, seed: int) -> None:
    first = np.cumsum([0, *(length + gaps for length in lengths)])[:-1].astype(np.int64)
    last = first + np.array(lengths, dtype=np.int64) - 1
    tokens = int(last[-1]) + 1 if lengths else 3
    keep = np.random.default_rng(seed).random(tokens, dtype=np.float32)
    scores = surest_tokens(keep, first, last)
    assert scores.tolist() == [keep[a : b + 1].max() for a, b in zip(first.tolist(), last.tolist(), strict=True)]


def test_doubt_about_its_borders_does_not_put_a_span_behind_another() -> None:
    # An answer of three tokens, sure in the middle, and a lone token elsewhere that is likelier than their mean.
    labels = [(0.5, 0.0, 0.5, 0.0), (0.0, 0.9, 0.1, 0.0), (0.0, 0.0, 0.5, 0.5), (0, 0, 1, 0), (0.7, 0.0, 0.3, 0.0)]
    context = read_context(["seven old mills and Oslo"], WordTokenizer())
    scored = ScoredContext(context, np.array(labels, dtype=np.float32), np.array([[0, 5]]), piece_tokens=64)
    found = by_keyword(scored)
    texts = [context.text(a, b) for a, b in zip(found.starts.tolist(), found.ends.tolist(), strict=True)]
    assert texts == ["seven old mills", "Oslo"]
    assert found.scores.tolist() == pytest.approx([0.9, 0.7])
