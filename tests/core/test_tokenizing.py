"""Tokens are the same whether texts are read alone, together, whole or in pieces."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as RustTokenizer

from cprs_core.critics import embedded_folder
from cprs_core.critics.wordpiece import WordPieceTokenizer
from cprs_core.scorer import Tokens, WordTokenizer
from cprs_core.types import replace_surrogates
from tests.core.texts import NASTY, any_text
from tests.core.tiny import tiny_tokenizer

TINY = WordPieceTokenizer(tiny_tokenizer())
RUST = RustTokenizer.from_file(str(embedded_folder() / "tokenizer.json"))
RUST.no_truncation()
RUST.encode_special_tokens = True
OURS = WordPieceTokenizer(RUST)
PROSE = "Ada King signed the lease on Monday, in Zürich; nobody knew why.\nIt rained all day. "


def rows(tokens: Tokens) -> list[tuple[int, int, int]]:
    return list(zip(tokens.ids.tolist(), tokens.starts.tolist(), tokens.ends.tolist(), strict=True))


@given(st.lists(any_text, max_size=6))
@settings(max_examples=60, deadline=None)
def test_texts_together_are_texts_alone(texts: list[str]) -> None:
    assert [rows(tokens) for tokens in TINY.encode_batch(texts)] == [rows(TINY.encode(text)) for text in texts]


def test_batches_of_texts_are_texts_alone() -> None:
    texts = [*NASTY.values(), "", PROSE * 2_000, "", PROSE, PROSE * 2_000, PROSE]
    tokens = TINY.encode_batch(texts)
    assert [len(part) for part in tokens] == [len(TINY.encode(text)) for text in texts]
    assert rows(tokens[-1]) == rows(TINY.encode(PROSE))
    assert rows(tokens[-2])[-20:] == rows(TINY.encode(texts[-2]))[-20:]


def test_pieces_of_a_long_text_are_the_text_read_whole() -> None:
    """The library's own tokens of the whole text, in one call."""
    text = "".join(f"{index} {PROSE}{nasty} " for index, nasty in enumerate(list(NASTY.values()) * 12))
    text = replace_surrogates(text).replace("x" * 3_000, "").replace("y" * 3_000, "")
    whole = RUST.encode(text, add_special_tokens=False)
    tokens = OURS.encode(text)
    assert len(text) > 20_000
    known = tokens.ids != OURS.unknown_id  # long unknown runs count as several tokens
    theirs = [(id, *range_) for id, range_ in zip(whole.ids, whole.offsets, strict=True) if id != OURS.unknown_id]
    assert [row for row, is_known in zip(rows(tokens), known, strict=True) if is_known] == theirs


PLAIN = "abz AZ09 .,'-\t\n\r\xa0éÉßøŠ“”’–…合同租"
TRICKY = "\xad\x0b\x85\x00\x7f\u0301İŉĲǅ\u2028\u200bがヴ가ก😀"


@given(st.lists(st.text(PLAIN) | st.text(PLAIN + TRICKY), max_size=4))
@settings(max_examples=300, deadline=None)
def test_offsets_that_are_counted_are_those_of_the_library(texts: list[str]) -> None:
    for text, tokens in zip(texts, OURS.encode_batch(texts), strict=True):
        theirs = RUST.encode(text, add_special_tokens=False)
        known = tokens.ids != OURS.unknown_id
        expected = [(id, *of) for id, of in zip(theirs.ids, theirs.offsets, strict=True) if id != OURS.unknown_id]
        assert [row for row, is_known in zip(rows(tokens), known, strict=True) if is_known] == expected


def test_no_texts_no_tokens() -> None:
    assert TINY.encode_batch([]) == []
    assert len(TINY.encode("")) == 0


def test_words_have_the_same_ids_in_every_tokenizer_and_decode() -> None:
    first, second = WordTokenizer(), WordTokenizer()
    second.encode("other words before")
    ids = first.encode("Ada signed the lease")
    assert np.array_equal(ids.ids, second.encode("Ada signed the lease").ids)
    assert first.decode(ids.ids) == "ada signed the lease"


def test_decoded_tokens_are_tokens_of_the_same_text() -> None:
    tokens = WordPieceTokenizer.from_file(embedded_folder() / "tokenizer.json")
    ids = tokens.encode(PROSE).ids
    assert np.array_equal(tokens.encode(tokens.decode(ids)).ids, ids)


def test_a_run_without_blanks_is_read_alike_wherever_it_stands() -> None:
    """However pieces happen to fall."""
    for run in ("x7" * 20_000, "租约。已签署，" * 4_000):
        alone = rows(TINY.encode(run))
        for before in ("a" * 5 + " ", PROSE * 150):
            shifted = rows(TINY.encode(f"{before}{run} lease"))
            begin = len(before)
            inside = [(id, a - begin, b - begin) for id, a, b in shifted if begin <= a < begin + len(run)]
            assert inside == alone
