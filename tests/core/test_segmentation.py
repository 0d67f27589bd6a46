"""Sentences, lines and paragraphs as character ranges."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cprs_core.segmentation import _BLOCK_BREAK, segment_lines, segment_paragraphs, segment_sentences, split_long
from tests.core.texts import NASTY, any_text


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in segment_sentences(text).tolist()]


def test_sentences_of_plain_prose() -> None:
    assert sentences("It rained. Ada signed the lease! Did Bob leave? Yes.") == [
        "It rained.",
        "Ada signed the lease!",
        "Did Bob leave?",
        "Yes.",
    ]


def test_abbreviations_and_numbers_do_not_end_a_sentence() -> None:
    assert sentences("Dr. Ada King paid 3.5 percent, i.e. too much. Mr. Smith left.") == [
        "Dr. Ada King paid 3.5 percent, i.e. too much.",
        "Mr. Smith left.",
    ]


def test_ordinary_words_that_look_like_abbreviations_end_a_sentence() -> None:
    assert sentences(
        "The roof was repaired in May. Ada signed. Bob told me. “Ada said no.” Carl fell ill. Dora left."
    ) == [
        "The roof was repaired in May.",
        "Ada signed.",
        "Bob told me.",
        "“Ada said no.”",
        "Carl fell ill.",
        "Dora left.",
    ]
    assert sentences("See no. 5 by Prof. Ada King.") == ["See no. 5 by Prof. Ada King."]


WALK = "She walked through the old town and looked at every house that still had a garden and trees of its own"


@pytest.mark.parametrize(
    "text",
    [
        f"“{WALK}. |{WALK}! |{WALK}? |The lease was signed. |{WALK}.” |He left.",
        f"“{WALK}. |{WALK}. |{WALK}. |The lease was signed. |“It was, {WALK}.” |He left.",
        f"‘{WALK}. |{WALK}. |{WALK}. |I can’t wait. |The lease was signed.’ |He left.",
        f"'{WALK}. |{WALK}. |{WALK}. |The lease isn't signed.' |He left.",
        f"({WALK}. |{WALK}. |{WALK}. |See p. 5. |Mr. King signed the lease.) |He left.",
        f"He said: “Stop!” she cried. |“{WALK}. |{WALK}. |{WALK}. |It is.” |“Go!” he said, “{WALK}.” |He left.",
        f'{{"text": "{WALK}. |{WALK}. |{WALK}. |The lease was signed.", "next": "{WALK}"}}',
        "«" + "Она ходила по старому городу. |" * 7 + "Договор подписан» — сказал он.",
        "他说：“" + "她在老城里走了好几个小时，看了每一座有花园的房子。|" * 5 + "合同签了！|谁签的？”|他走了。",
        "「" + "彼女は古い町を何時間も歩いた。|" * 8 + "契約は署名された」と言った。",
        "यह “" + "वह पुराने शहर में घंटों चलती रही। |" * 5 + "पट्टा हो गया।” |दूसरा है।",
        '"' + "Er ging nach Hause und sah sich um. |" * 9 + '„Ja.“ |Dann ging er. |»Nein.« |Sie blieb."',
    ],
)
def test_long_quotations_are_cut_at_the_ends_of_the_sentences_inside(text: str) -> None:
    assert sentences(text.replace("|", "")) == [sentence.strip() for sentence in text.split("|")]


def test_quotation_mark_that_never_closes_does_not_join_what_follows() -> None:
    paragraph = f"He wrote: 'Tis late. {WALK}. {WALK}. {WALK}. The lease was signed. The tenants' cat slept."
    assert "The lease was signed." in sentences(paragraph)
    assert "The lease was signed." in sentences(f'"{WALK}. {WALK}. The lease was signed. {WALK}. "So" it was.')
    assert "The lease was signed." in sentences(f"“{WALK}. {WALK}. {WALK}. The lease was signed.\n\n“{WALK}.”")


def test_long_quotation_that_a_line_break_cuts_is_cut_at_its_sentences_too() -> None:
    assert "The lease was signed." in sentences(f"text: '\n- {WALK}. {WALK}. {WALK}. The lease was signed. {WALK}.\n'")


def test_remarks_of_a_few_sentences_are_cut_too() -> None:
    remark = (
        "“It rained all night on the roof of the old mill. |The lease was signed. "
        "|Ask the miller himself, if you don't trust me.”"
    )
    assert sentences(remark.replace("|", "")) == [sentence.strip() for sentence in remark.split("|")]


def test_short_quotations_stay_whole() -> None:
    assert sentences("“Stop. Now,” he said. (See p. 3. It rained.) He left.") == [
        "“Stop. Now,” he said.",
        "(See p. 3. It rained.) He left.",
    ]
    assert sentences("他说「停。快点」就走了。") == ["他说「停。快点」就走了。"]


def test_stops_inside_words_do_not_cut_long_brackets() -> None:
    text = "call(" + '"module.Name", ' * 40 + '"end")'
    assert sentences(text) == [text]


@pytest.mark.parametrize("blank", ["\x85", "\xa0", "\u2003", "\u3000"])
def test_wide_blanks_may_stand_anywhere(blank: str) -> None:
    """sentencex panics at some of them, between a capital and a full stop."""
    text = f"Take vitamin B{blank}. It{blank}helps."
    assert "".join("".join(sentence.split()) for sentence in sentences(text)) == "".join(text.split())


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r"])
def test_hard_wrapped_prose_reads_the_same_with_every_line_break(line_break: str) -> None:
    text = (
        "The lease was signed by Ada King on the third of May. She paid\n"
        "in cash and left the building before noon that same day, which\n"
        "nobody in the office noticed until the end of the month.\n"
    )
    assert [" ".join(sentence.split()) for sentence in sentences(text.replace("\n", line_break))] == [
        "The lease was signed by Ada King on the third of May.",
        "She paid in cash and left the building before noon that same day, "
        "which nobody in the office noticed until the end of the month.",
    ]


def test_hard_wrapped_prose_keeps_sentences_whole_over_line_breaks() -> None:
    text = (
        "The lease was signed by Ada King on the third of May. She paid\n"
        "in cash and left the building before noon that same day, which\n"
        "nobody in the office noticed until the end of the month. It was\n"
        "too late by then.\n"
    )
    assert sentences(text) == [
        "The lease was signed by Ada King on the third of May.",
        "She paid\nin cash and left the building before noon that same day, which\n"
        "nobody in the office noticed until the end of the month.",
        "It was\ntoo late by then.",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "2024-01-01 12:00:0{} INFO request served in 12 ms by worker",
        "[01/Jan/2024:12:00:0{}] GET /index.html 200 1234 Mozilla/5.0",
        "Jan  3 12:00:0{} host kernel: usb 1-1: new high-speed device",
        "10.0.0.{} - - GET /index.html HTTP/1.1 200 1234 Mozilla/5.0",
    ],
)
def test_log_lines_of_equal_length_are_not_taken_for_hard_wrapped_prose(line: str) -> None:
    lines = [line.format(i) for i in range(8)]
    assert sentences("\n".join(lines)) == lines


def test_hard_wrapped_prose_may_be_indented_and_hang() -> None:
    text = (
        "   Ada King, who had signed the lease on the third of May, came\n"
        "   back a month later.  Nobody had expected her to, so the\n"
        "   whole office stood up.\n"
        "\n"
        "[1] The exception is passed on to the caller of the function\n"
        "    unless there is another one. Then that is passed on.\n"
    )
    assert [" ".join(sentence.split()) for sentence in sentences(text)] == [
        "Ada King, who had signed the lease on the third of May, came back a month later.",
        "Nobody had expected her to, so the whole office stood up.",
        "[1] The exception is passed on to the caller of the function unless there is another one.",
        "Then that is passed on.",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- milk and\n- eggs\n- bread", ["- milk and", "- eggs", "- bread"]),
        ("1. milk\n2. eggs\n10) bread", ["1. milk", "2. eggs", "10) bread"]),
        (
            "2024-01-01 12:00:00 INFO started\n2024-01-01 12:00:01 ERROR no space left\n",
            ["2024-01-01 12:00:00 INFO started", "2024-01-01 12:00:01 ERROR no space left"],
        ),
        ("def f(x):\n    return x + 1\n", ["def f(x):", "return x + 1"]),
        ("Ada: did you sign\nBob: not yet\nAda: please do", ["Ada: did you sign", "Bob: not yet", "Ada: please do"]),
        ("A heading\n\nA paragraph", ["A heading", "A paragraph"]),
    ],
    ids=["bullets", "numbers", "log", "code", "dialogue", "heading"],
)
def test_lines_that_are_units_of_their_own_are_not_joined(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("我买了一本书。它很好看！你呢？", ["我买了一本书。", "它很好看！", "你呢？"]),
        ("Él vino. ¿Por qué? No sé.", ["Él vino.", "¿Por qué?", "No sé."]),
        ("مرحبا بالعالم. كيف حالك؟ أنا بخير.", ["مرحبا بالعالم.", "كيف حالك؟", "أنا بخير."]),
        ("यह एक वाक्य है। यह दूसरा है।", ["यह एक वाक्य है।", "यह दूसरा है।"]),
        ("Он ушёл. Она осталась.", ["Он ушёл.", "Она осталась."]),
    ],
    ids=["Chinese", "Spanish", "Arabic", "Hindi", "Russian"],
)
def test_full_stops_of_other_scripts_end_sentences(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def test_long_paragraph_reads_like_its_parts() -> None:
    """sentencex is asked about a stretch at a time; the stretch must not show."""
    one = "Dr. Ada King signed the lease on 3.5. acres (cf. p. 12). “Was it late?” she asked. "
    assert sentences(one * 400) == sentences(one.strip()) * 400


def test_sentence_longer_than_a_stretch_stays_whole() -> None:
    long = "word " * 5_000 + "end."
    assert sentences(f"First. {long} Last.") == ["First.", long, "Last."]


def test_chinese_paragraph_of_a_million_characters_is_segmented() -> None:
    """One call of sentencex would take minutes here, quadratic in the sentences of a paragraph without blanks."""
    assert len(segment_sentences("我买了一本书。" * 150_000)) == 150_000


@pytest.mark.parametrize("unit", ["```\n", "`", "“", "«", '"', "'", '. "', "“ab. ", ".”", "。「", '"\n', "( "])
def test_marks_without_sentences_take_time_in_proportion(unit: str) -> None:
    """One call of sentencex for all of them would take minutes: what it takes for quotations is quadratic."""
    began = time.perf_counter()
    assert sentences(unit * (200_000 // len(unit)) + " One. Two.")[-1] == "Two."
    assert time.perf_counter() - began < 10


def test_long_line_without_any_end_takes_time_in_proportion() -> None:
    began = time.perf_counter()
    assert len(sentences('he said "so and ' * 200_000)) == 1
    assert time.perf_counter() - began < 10


def test_lines_of_carriage_returns_take_time_in_proportion() -> None:
    began = time.perf_counter()
    assert len(sentences("ab\r" * 200_000)) == 200_000
    assert time.perf_counter() - began < 5


def test_lines_know_every_kind_of_line_break() -> None:
    text = "a\nb\r\nc\rd\x0be\x0cf\x85g\u2028h\u2029i"
    assert [text[start:end] for start, end in segment_lines(text).tolist()] == list("abcdefghi")


def test_paragraphs_are_separated_by_blank_lines() -> None:
    text = "one\ntwo\n\nthree\n \t\n\r\nfour\r\n\r\nfive\n"
    assert [text[start:end] for start, end in segment_paragraphs(text).tolist()] == [
        "one\ntwo",
        "three",
        "four",
        "five",
    ]


def test_lines_with_carriage_returns_are_one_paragraph() -> None:
    text = "one\r\ntwo\r\n\r\nthree\r\n  \r\n  four"
    assert [text[start:end] for start, end in segment_paragraphs(text).tolist()] == ["one\r\ntwo", "three", "four"]


@pytest.mark.parametrize("segment", [segment_sentences, segment_lines, segment_paragraphs])
@pytest.mark.parametrize("text", ["", " ", "\n\n \t\r\n"])
def test_blank_text_has_no_segments(segment, text: str) -> None:  # type: ignore[no-untyped-def]
    assert segment(text).shape == (0, 2)


@pytest.mark.parametrize("segment", [segment_sentences, segment_lines, segment_paragraphs])
@given(text=any_text)
@settings(max_examples=60, deadline=None)
def test_segments_hold_everything_visible_once_and_in_order(segment, text: str) -> None:  # type: ignore[no-untyped-def]
    ranges = segment(text)
    assert (ranges[:, 0] < ranges[:, 1]).all()
    assert (ranges[:-1, 1] <= ranges[1:, 0]).all()
    pieces = [text[start:end] for start, end in ranges.tolist()]
    assert all(piece == piece.strip() for piece in pieces)
    assert "".join("".join(piece.split()) for piece in pieces) == "".join(text.split())


wrapped_lines = st.lists(
    st.sampled_from(
        [
            *("\n", "\n", "\r", "\r\n", "\x0c", "\u2028", "\n\n", "\n \n", "  ", "- ", " me. “Who” "),
            "The lease was signed by Ada on the third of May. She",
            "paid in cash and left the building before it was",
            f"“{WALK}. {WALK}. {WALK}! ",
        ]
    ),
    max_size=20,
).map("".join)


@given(text=st.lists(st.one_of(wrapped_lines, any_text), max_size=4).map("\n\n   ".join))
@settings(max_examples=200, deadline=None)
def test_sentences_of_a_text_are_those_of_its_blocks(text: str) -> None:
    """Whoever reads a long text in parts, cut where blank lines end, gets the same sentences."""
    cuts = [0, *(match.end() for match in _BLOCK_BREAK.finditer(text)), len(text)]
    parts = [segment_sentences(text[start:end]) + start for start, end in itertools.pairwise(cuts)]
    assert segment_sentences(text).tolist() == np.concatenate(parts).tolist()


@pytest.mark.parametrize("name", NASTY)
def test_nasty_text_is_segmented_without_loss(name: str) -> None:
    text = NASTY[name]
    assert "".join("".join(piece.split()) for piece in sentences(text)) == "".join(text.split())


def words_of(text: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    starts = [i for i, character in enumerate(text) if not character.isspace()]
    return np.array(starts), np.array([i == 0 or text[i - 1].isspace() for i in starts])


def test_long_segments_are_cut_at_words() -> None:
    text = "abcd efgh ijkl mnop"
    pieces = split_long(np.array([[0, len(text)]]), *words_of(text), limit=8)
    assert [text[start:end] for start, end in pieces.tolist()] == ["abcd efgh ", "ijkl mnop"]


def test_long_word_is_cut_anywhere_rather_than_kept_whole() -> None:
    text = "x" * 25
    pieces = split_long(np.array([[0, 25]]), *words_of(text), limit=10)
    assert pieces.tolist() == [[0, 10], [10, 20], [20, 25]]


def test_short_segments_are_left_alone() -> None:
    segments = np.array([[0, 4], [5, 9]])
    assert split_long(segments, *words_of("abcd efgh"), limit=4) is segments
