"""Kept text is made of verbatim slices, in source order."""

from __future__ import annotations

from cprs_core import Document, Span
from cprs_core.assembly import assemble, join_spans


def span(document: Document, text: str, index: int = 0) -> Span:
    start = document.text.index(text)
    return Span(
        document_id=document.id,
        document_index=index,
        start=start,
        end=start + len(text),
        text=text,
        score=1.0,
        tag="fact",
    )


def test_blanks_between_neighbours_stay_as_they_are_in_the_source() -> None:
    document = Document("One.  Two.\n\n Three.")
    spans = [span(document, text) for text in ("One.", "Two.", "Three.")]
    assert join_spans(document.text, spans) == document.text


def test_a_line_break_stands_where_something_visible_was_left_out() -> None:
    document = Document("One. Two. Three.")
    assert join_spans(document.text, [span(document, "One."), span(document, "Three.")]) == "One.\nThree."


def test_documents_are_separated_by_a_blank_line_and_empty_ones_leave_no_trace() -> None:
    documents = [Document("One. Two."), Document("Nothing."), Document("Three.")]
    text, shortened = assemble(documents, [span(documents[0], "Two."), span(documents[2], "Three.", 2)])
    assert text == "Two.\n\nThree."
    assert [document.text for document in shortened] == ["Two.", "", "Three."]


def test_shortened_documents_are_copies_with_the_same_id_title_and_metadata() -> None:
    source = Document("One. Two.", id="d", title="t", metadata={"page": 3})
    _, (copy,) = assemble([source], [span(source, "Two.")])
    copy.metadata["page"] = 4
    assert (copy.id, copy.title, copy.text) == ("d", "t", "Two.")
    assert source.metadata == {"page": 3}
    assert source.text == "One. Two."


def test_no_spans_give_empty_text_and_empty_copies() -> None:
    text, shortened = assemble([Document("One.")], [])
    assert text == ""
    assert [document.text for document in shortened] == [""]
