"""Forms of a word are one word, so that a question is found in the words of its evidence."""

from __future__ import annotations

import numpy as np
import pytest

from cprs_core import Compressor
from cprs_core.critics.chat_tokenizer import ChatTokenizer
from cprs_core.forms import STOP_WEIGHT, WordForms, light_stem
from cprs_core.lexical import asked_ids, bm25
from tests.core.tiny_hybrid import tiny_chat_tokenizer


def test_english_endings_are_folded() -> None:
    assert [light_stem(word) for word in ("cities", "boxes", "signed", "signing", "glass", "it's")] == [
        "city",
        "box",
        "sign",
        "sign",
        "glass",
        "it",
    ]


def test_forms_are_the_first_token_of_their_word() -> None:
    forms = WordForms(lambda: ["sign", "Signed", "lease", "leased", "##ing", "signé", "契"])
    assert forms.words.tolist() == [0, 0, 2, 2, 4, 5, 6]


def test_words_without_meaning_count_little() -> None:
    forms = WordForms(lambda: ["Who", "signed", "the", "lease", "?"])
    assert forms.weights == pytest.approx([STOP_WEIGHT, 1.0, STOP_WEIGHT, 1.0, STOP_WEIGHT])


def test_evidence_in_other_forms_of_the_words_comes_first(embedded: Compressor) -> None:
    tokenizer = embedded.scorer.tokenizer
    prefix = tokenizer.encode_prefix("Extract facts.", "Who leases boats?", ("fact",))
    texts = [
        "They who went there saw it, and who did not.",
        "Ada was leasing a boat.",
        "It rained all day.",
    ]
    tokens = [tokenizer.encode(text).ids for text in texts]
    ends = np.cumsum([len(part) for part in tokens])
    ranges = np.stack([ends - [len(part) for part in tokens], ends], axis=1)
    scores = bm25(asked_ids(prefix), np.concatenate(tokens), ranges, prefix.forms)
    assert scores.argmax() == 1
    assert bm25(asked_ids(prefix), np.concatenate(tokens), ranges)[1] == 0.0


def test_a_byte_level_vocabulary_has_one_word_with_and_without_its_blank() -> None:
    tokenizer = ChatTokenizer(tiny_chat_tokenizer())
    prefix = tokenizer.encode_prefix("Extract.", "Who?", ("fact",))
    inside, alone = tokenizer.encode("on that day").ids[-1], tokenizer.encode("day").ids[0]
    assert prefix.forms is not None
    assert inside != alone
    assert prefix.forms.words[inside] == prefix.forms.words[alone]
    assert len(prefix.forms.words) == tokenizer.vocab_size
