"""From kept ranges to text: verbatim slices of the source, in source order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cprs_core.types import Document, Span

GAP = "\n"  # between kept texts of one document where something visible was left out
DOCUMENT_GAP = "\n\n"  # between documents


def join_spans(text: str, spans: Iterable[Span]) -> str:
    """The spans of one document as one text; blanks between neighbours are kept as they are in the source."""
    pieces: list[str] = []
    previous_end: int | None = None
    for span in spans:
        if previous_end is not None:
            between = text[previous_end : span.start]
            pieces.append(GAP if between.strip() else between)
        pieces.append(span.text)
        previous_end = span.end
    return "".join(pieces)


def assemble(documents: Sequence[Document], spans: Sequence[Span]) -> tuple[str, list[Document]]:
    """The kept text, and one shortened copy of every document.

    Args:
        spans: sorted by document and start, not overlapping.
    """
    of_document: list[list[Span]] = [[] for _ in documents]
    for span in spans:
        of_document[span.document_index].append(span)
    shortened = [
        document.model_copy(update={"text": join_spans(document.text, kept), "metadata": dict(document.metadata)})
        for document, kept in zip(documents, of_document, strict=True)
    ]
    text = DOCUMENT_GAP.join(document.text for document in shortened if document.text)
    return text, shortened
