"""Bad input gets a clear error or a clear result."""

from __future__ import annotations

import pytest

from cprs_core import Compressor, CPRSError, Document, InputError, KeywordScorer, PrefixTooLongError, Preset
from cprs_core.context import ScoredContext
from cprs_core.selection import Candidates, by_sentence


def backwards(context: ScoredContext) -> Candidates:
    """A granularity whose candidates are not in source order."""
    sentences = by_sentence(context)
    return Candidates(sentences.starts[::-1], sentences.ends[::-1], sentences.scores[::-1], sentences.tags[::-1])


@pytest.mark.parametrize("documents", ["", [], [""], ["", " \n\t", "\x00"], [Document("")]])
def test_text_with_nothing_in_it_gives_an_empty_result_that_says_so(lease: Compressor, documents) -> None:  # type: ignore[no-untyped-def]
    result = lease.compress(documents, "Who signed?")
    assert (result.text, result.spans, result.low_confidence) == ("", [], True)
    assert result.notice
    assert result.usage.output_tokens == 0
    assert len(result.documents) == (1 if documents == "" else len(documents))


@pytest.mark.parametrize("query", ["", "  \n"])
def test_neither_query_nor_instruction_is_an_error(lease: Compressor, query: str) -> None:
    with pytest.raises(InputError, match="query and instruction are both empty"):
        lease.compress("The lease.", query)
    with pytest.raises(InputError, match="query and instruction are both empty"):
        lease.compress("The lease.", query, instruction="  ")


def test_instruction_longer_than_a_window_is_an_error_with_numbers(lease: Compressor) -> None:
    with pytest.raises(PrefixTooLongError, match=r"take 1,\d\d\d tokens; a window holds 512.*shorten"):
        lease.compress("The lease.", "Who signed?", instruction="word " * 1_000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": 0}, "max_tokens is 0; it must be at least 1"),
        ({"max_tokens": -5}, "max_tokens is -5"),
        ({"ratio": 0.0}, "ratio is 0.0; it must be above 0"),
        ({"ratio": 1.5}, "ratio is 1.5"),
        ({"ratio": float("nan")}, "ratio is nan"),
        ({"threshold": -0.1}, "threshold is -0.1; scores lie between 0 and 1"),
        ({"threshold": 2.0}, "threshold is 2.0"),
        ({"granularity": "word"}, "granularity is 'word'; it must be one of 'keyword', 'sentence'"),
        ({"max_tokens": "10"}, "max_tokens is '10'; it must be at least 1"),
        ({"max_tokens": float("nan")}, "max_tokens is nan"),
        ({"ratio": "0.1"}, "ratio is '0.1'"),
        ({"threshold": "high"}, "threshold is 'high'"),
        ({"granularity": None}, "granularity is None; it must be one of"),
        ({"instruction": b"Keep it."}, "instruction is of type bytes; pass a str or a cprs_core.Preset"),
        ({"instruction": Preset("Keep it.", (), "sentence")}, "names no tag; give it one"),
        ({"count_tokens": 4}, "count_tokens is of type int; pass a function"),
        ({"count_tokens": str.split}, r"count_tokens gave \['The', 'lease.'\] for a text; it must give the number"),
        ({"granularity": backwards}, "not sorted by start"),
    ],
)
def test_option_out_of_range_is_an_error_that_says_what_fits(lease: Compressor, options, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=message):
        lease.compress(["The lease.", "It rained."], "Who signed?", **options)


@pytest.mark.parametrize("documents", [None, 5, b"bytes", [b"bytes"], ["text", None], [["nested"]], {"a": "b"}])
def test_documents_of_another_type_are_an_error_that_names_it(lease: Compressor, documents) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=r"of type (NoneType|int|bytes|list|dict).*pass a str"):
        lease.compress(documents, "Who signed?")


@pytest.mark.parametrize("query", [None, 5, b"bytes"])
def test_query_of_another_type_is_an_error_that_names_it(lease: Compressor, query) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=r"query is of type (NoneType|int|bytes); pass a str"):
        lease.compress("The lease.", query, instruction="Keep it.")


def test_every_error_of_ours_can_be_caught_as_one(lease: Compressor) -> None:
    with pytest.raises(CPRSError):
        lease.compress("The lease.", "q", max_tokens=0)
    with pytest.raises(ValueError, match="max_tokens"):
        lease.compress("The lease.", "q", max_tokens=0)


def test_budget_below_the_shortest_segment_gives_an_empty_result_that_names_it(lease: Compressor) -> None:
    result = lease.compress("Ada signed the lease. It rained today.", "Who signed?", max_tokens=3)
    assert (result.text, result.spans, result.low_confidence) == ("", [], True)
    assert result.notice == "the budget of 3 tokens is below the shortest segment that matches (4 tokens)"


def test_ratio_of_less_than_one_token_gives_an_empty_result(lease: Compressor) -> None:
    result = lease.compress("Ada signed the lease.", "Who signed?", ratio=0.01)
    assert (result.text, result.usage.output_tokens) == ("", 0)
    assert result.notice


def test_keywords_that_match_nothing_are_not_said_to_be_missing_text() -> None:
    text = "It rained. Ada signed the lease."
    result = Compressor(KeywordScorer("zebra")).compress(text, "Which animal?", granularity="keyword")
    assert result.text == ""
    assert result.notice is not None
    assert "nothing matches" in result.notice
    empty = Compressor(KeywordScorer("zebra")).compress("", "Which animal?", granularity="keyword")
    assert empty.notice == "the documents hold no text"


def test_nothing_that_matches_gives_an_empty_result_with_low_confidence_and_the_best_guess(lease: Compressor) -> None:
    result = lease.compress("It rained. Bob left.", "Who signed?")
    assert (result.text, result.spans, result.low_confidence) == ("", [], True)
    assert "nothing matches" in (result.notice or "")
    assert result.best is not None
    assert result.best.text == "It rained."


def test_match_is_not_low_confidence(lease: Compressor) -> None:
    result = lease.compress("Ada signed the lease.", "Who signed?")
    assert (result.low_confidence, result.notice, result.best) == (False, None, None)


def test_single_line_of_five_megabytes_is_read_whole() -> None:
    text = "It rained all day long. " * 100_000 + "Ada signed the lease. " + "It rained all day long. " * 110_000
    assert len(text) > 5_000_000
    assert "\n" not in text
    result = Compressor(KeywordScorer("lease")).compress(text, "Who signed?")
    assert result.text == "Ada signed the lease."
    assert result.spans[0].start == 2_400_000


def test_binary_garbage_is_text_like_any_other(lease: Compressor) -> None:
    garbage = bytes(range(256)) * 200
    text = garbage.decode("utf-8", "surrogateescape") + " lease " + garbage.decode("latin-1")
    result = lease.compress(text, "Who signed?", max_tokens=200)
    assert all(text[span.start : span.end] == span.text for span in result.spans)
    assert result.usage.output_tokens <= 200


def test_control_tokens_in_texts_are_text(lease: Compressor) -> None:
    text = "[CLS] the lease [SEP] <|im_start|>system was signed <|im_end|>"
    assert lease.compress(text, text).text == text
