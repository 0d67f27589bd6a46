"""The straight path as its callers see it."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cprs_core import Compression, Compressor, Document, KeywordScorer, Preset
from cprs_core.inputs import Documents
from cprs_core.selection import GRANULARITIES
from tests.core.texts import NASTY, any_text

LEASE = "It rained. Ada signed the lease on Monday. Bob left early. The lease ended last year. Nobody paid. "


def assert_spans_are_slices(result: Compression, texts: list[str]) -> None:
    previous = (-1, 0)
    for span in result.spans:
        assert texts[span.document_index][span.start : span.end] == span.text
        assert 0 <= span.start < span.end <= len(texts[span.document_index])
        assert (span.document_index, span.start) >= previous
        previous = (span.document_index, span.end)
    for index, document in enumerate(result.documents):
        for span in result.spans:
            assert span.document_index != index or span.text in document.text
        assert document.text in result.text


@given(st.lists(any_text, max_size=4), st.sampled_from([*GRANULARITIES, "auto"]), st.none() | st.integers(1, 30))
@settings(max_examples=250, deadline=None)
def test_every_span_is_a_slice_of_its_document(texts: list[str], granularity: str, max_tokens: int | None) -> None:
    compressor = Compressor(KeywordScorer("lease", "signed", window_tokens=96))
    result = compressor.compress(texts, "q", granularity=granularity, max_tokens=max_tokens)
    assert_spans_are_slices(result, texts)
    if max_tokens is not None:
        assert compressor.count_tokens(result.text) <= max_tokens


@pytest.mark.parametrize("granularity", [*GRANULARITIES, "auto"])
@pytest.mark.parametrize("name", NASTY)
def test_nasty_text_comes_back_verbatim(name: str, granularity: str) -> None:
    texts = [NASTY[name], "", LEASE]
    result = Compressor(KeywordScorer("lease")).compress(texts, NASTY[name], granularity=granularity)
    assert_spans_are_slices(result, texts)
    assert {span.document_index for span in result.spans} == {0, 2}


def test_spans_say_where_they_came_from() -> None:
    documents = [Document("It rained.", id="weather"), Document(LEASE, id="contract", title="Lease")]
    result = Compressor(KeywordScorer("lease")).compress(documents, "Who signed?")
    first = result.spans[0]
    assert (first.document_id, first.document_index, first.tag) == ("contract", 1, "fact")
    assert (first.start, first.end) == (11, 42)
    assert [document.id for document in result.documents] == ["weather", "contract"]
    assert result.text == "Ada signed the lease on Monday.\nThe lease ended last year."


@pytest.mark.parametrize("documents", [LEASE, Document(LEASE), [LEASE], (Document(LEASE),), iter([LEASE])])
def test_documents_come_as_text_document_or_sequence(lease: Compressor, documents: Documents) -> None:
    result = lease.compress(documents, "q")
    assert len(result.documents) == 1
    assert len(result.spans) == 2


def test_callers_documents_stay_as_they_were(lease: Compressor) -> None:
    document = Document(LEASE, metadata={"tags": ["a"]})
    result = lease.compress([document], "q")
    result.documents[0].metadata["new"] = 1
    assert document == Document(LEASE, metadata={"tags": ["a"]})


def whole_words(text: str) -> int:
    return len(text.split())


def characters(text: str) -> int:
    return len(text)


def more_than_the_parts(text: str) -> int:
    """A count in which a whole costs more than its parts together."""
    return len(text.split()) + len(text) ** 2 // 500


def lines_are_dear(text: str) -> int:
    return len(text.split()) + 5 * text.count("\n")


@pytest.mark.parametrize("granularity", ["sentence", "keyword", "document"])
@pytest.mark.parametrize("count_tokens", [None, whole_words, characters, more_than_the_parts, lines_are_dear])
def test_budget_is_never_exceeded(count_tokens, granularity: str) -> None:  # type: ignore[no-untyped-def]
    compressor = Compressor(KeywordScorer("lease", "Bob"))
    documents = [LEASE, "", LEASE * 2, "Bob came back with another lease."]
    count = count_tokens or compressor.count_tokens
    for max_tokens in range(1, 120):
        result = compressor.compress(
            documents, "q", granularity=granularity, max_tokens=max_tokens, count_tokens=count_tokens
        )
        assert (count(result.text) if result.spans else 0) == result.usage.output_tokens <= max_tokens


def test_budget_of_a_counter_that_calls_short_texts_nothing_is_filled_and_held() -> None:
    lines = "\n".join(["ab"] * 5_000 + ["lease"])
    result = Compressor(KeywordScorer("lease")).compress(
        lines, "q", granularity="line", max_tokens=100, count_tokens=lambda text: len(text) // 4
    )
    assert "lease" in result.text
    assert 20 <= result.usage.output_tokens <= 100


def test_an_estimate_of_tokens_is_rounded_up() -> None:
    text = "Ada signed the lease. It rained. " * 20
    result = Compressor(KeywordScorer("lease")).compress(
        text, "q", max_tokens=20, count_tokens=lambda text: len(text) / 4
    )  # type: ignore[arg-type, return-value]
    assert 10 < len(result.text) / 4 <= result.usage.output_tokens <= 20


def test_budget_is_filled_with_the_best_even_below_the_threshold() -> None:
    result = Compressor(KeywordScorer("lease")).compress(LEASE, "q", max_tokens=1_000)
    assert result.text == LEASE.strip()


def test_larger_budget_never_keeps_less() -> None:
    compressor = Compressor(KeywordScorer("lease"))
    kept = [compressor.compress(LEASE, "q", max_tokens=n).usage.output_tokens for n in range(1, 40)]
    assert kept[-1] == compressor.count_tokens(LEASE)
    assert sorted(kept) == kept


@pytest.mark.parametrize("ratio", [0.01, 0.2, 0.5, 1.0])
def test_ratio_is_a_share_of_the_input(ratio: float) -> None:
    usage = Compressor(KeywordScorer("lease")).compress(LEASE, "q", ratio=ratio).usage
    assert usage.output_tokens <= ratio * usage.input_tokens
    assert usage.ratio == pytest.approx(usage.output_tokens / usage.input_tokens)


def test_the_smaller_of_two_budgets_holds() -> None:
    compressor = Compressor(KeywordScorer("lease"))
    assert compressor.compress(LEASE, "q", max_tokens=6, ratio=1.0).text == "The lease ended last year."
    assert compressor.compress(LEASE, "q", max_tokens=1_000, ratio=0.3).text == "The lease ended last year."


def test_threshold_alone_cuts_and_with_a_budget_both_hold() -> None:
    compressor = Compressor(KeywordScorer("lease"))
    assert compressor.compress(LEASE, "q", threshold=0.15).text.count("lease") == 1  # one of 6 tokens, one of 7
    assert compressor.compress(LEASE, "q", threshold=0.10).text.count("lease") == 2
    assert compressor.compress(LEASE, "q", threshold=0.10, max_tokens=6).text == "The lease ended last year."
    assert compressor.compress(LEASE, "q", threshold=0.0).text == LEASE.strip()


def test_score_drops_nothing_and_agrees_with_compress() -> None:
    compressor = Compressor(KeywordScorer("lease"))
    scored = compressor.score([LEASE, "The lease."], "q")
    assert len(scored) == 6
    best = {(s.document_index, s.start, s.end, s.score) for s in scored if s.score > 0}
    kept = {(s.document_index, s.start, s.end, s.score) for s in compressor.compress([LEASE, "The lease."], "q").spans}
    assert best == kept


def test_usage_adds_up() -> None:
    texts = [LEASE, "", "The lease.", "It rained."]
    usage = Compressor(KeywordScorer("lease")).compress(texts, "q").usage
    assert usage.input_tokens == sum(document.input_tokens for document in usage.documents)
    assert [document.output_tokens for document in usage.documents] == [13, 0, 3, 0]
    assert usage.windows == 1
    assert set(usage.stage_seconds) == {"tokenize", "segment", "score", "select"}
    assert sum(usage.stage_seconds.values()) <= usage.seconds


def test_progress_ends_with_everything_read() -> None:
    seen: list[tuple[int, int]] = []
    compressor = Compressor(KeywordScorer("lease", window_tokens=96))
    distinct = "".join(f"{number} {LEASE}" for number in range(50))  # equal windows are read once
    result = compressor.compress(distinct, "q", on_progress=lambda done, total: seen.append((done, total)))
    assert len(seen) == result.usage.windows > 5
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1]


def test_long_context_scores_like_its_parts() -> None:
    """Windows end between sentences, so a sentence scores the same wherever it stands."""
    small = Compressor(KeywordScorer("lease", window_tokens=96))
    large = Compressor(KeywordScorer("lease", window_tokens=100_000))
    assert small.score(LEASE * 200, "q") == large.score(LEASE * 200, "q")


def test_instruction_stands_in_for_a_query() -> None:
    result = Compressor(KeywordScorer("lease")).compress(LEASE, instruction="Keep the leases; tag them with 'lease'.")
    assert {span.tag for span in result.spans} == {"lease"}
    assert result.instruction == "Keep the leases; tag them with 'lease'."


def test_instruction_may_be_a_preset_of_ones_own() -> None:
    preset = Preset("Keep the leases.", ("deal",), "paragraph")
    result = Compressor(KeywordScorer("lease")).compress(LEASE, instruction=preset, granularity="auto")
    assert [(span.tag, span.text) for span in result.spans] == [("deal", LEASE.strip())]


async def test_acompress_gives_what_compress_gives(lease: Compressor) -> None:
    result = await lease.acompress([LEASE], "q", max_tokens=20)
    plain = lease.compress([LEASE], "q", max_tokens=20)
    assert result.model_dump(exclude={"usage"}) == plain.model_dump(exclude={"usage"})


class BlockedScorer(KeywordScorer):
    """Scores only once ``release`` is set."""

    def __init__(self, *words: str) -> None:
        super().__init__(*words)
        self.release = threading.Event()

    def score(self, prefix, windows, on_progress=None):  # type: ignore[no-untyped-def]
        assert self.release.wait(timeout=20)
        return super().score(prefix, windows, on_progress)


async def test_acompress_leaves_the_event_loop_free() -> None:
    scorer = BlockedScorer("lease")
    task = asyncio.create_task(Compressor(scorer).acompress(LEASE, "q"))
    for _ in range(20):  # the loop turns while the scorer waits
        await asyncio.sleep(0.001)
    assert not task.done()
    scorer.release.set()
    assert (await task).spans


def test_one_compressor_serves_many_threads_at_once() -> None:
    compressor = Compressor(KeywordScorer("lease", window_tokens=96))
    texts = [f"Word{i} came. The lease of tenant{i} ended. " * (i % 7 + 1) for i in range(60)]
    expected = [Compressor(KeywordScorer("lease", window_tokens=96)).compress(text, "q").text for text in texts]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda text: compressor.compress(text, "q").text, texts)) == expected


def test_seconds_are_those_of_the_call() -> None:
    began = time.perf_counter()
    usage = Compressor(KeywordScorer("lease")).compress(LEASE, "q").usage
    assert 0 < usage.seconds <= time.perf_counter() - began
