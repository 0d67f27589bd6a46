"""Documents cut into parts that are tokenised one by one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from cprs_core.types import Document

# Documents longer than this are read in parts that end at blank lines, where no sentence goes on.
PART_CHARACTERS = 65_536
# A part ends after them. They begin where blanks begin and give nothing back, so a megabyte of blanks takes no longer
# than a megabyte of text.
_BLANK_LINES = re.compile(r"(?<!\s)[^\S\n]*+\n[^\S\n]*+\n\s*+(?=\S)")
_LINE_BREAK = re.compile(r"(?<!\s)[^\S\n]*+\n\s*+(?=\S)")
_BLANKS = re.compile(r"(?<!\s)\s++(?=\S)")
_BLANK_STEP = 64  # characters


@dataclass(frozen=True)
class Part:
    """A range of one document's characters that is tokenised as one text."""

    document: Document
    document_index: int
    start: int
    end: int

    @property
    def text(self) -> str:
        """Its characters; a whole document's text is not copied."""
        return self.document.text[self.start : self.end]


def cut(document: Document, index: int, *, whole: bool = False) -> Iterator[Part]:
    """The parts that a document is read in; ``whole`` for granularities that need all of it at once."""
    text, start = document.text, 0
    while not whole and len(text) - start > 2 * PART_CHARACTERS:
        low, high = start + PART_CHARACTERS, start + 2 * PART_CHARACTERS
        breaks = (pattern.search(text, low, high) for pattern in (_BLANK_LINES, _LINE_BREAK, _BLANKS))
        found = next((match for match in breaks if match), None)
        end = found.end() if found else low
        yield Part(document, index, start, end)
        start = end
    yield Part(document, index, start, len(text))


def digest(document: Document) -> str:
    """Tells a document from others by its id and text."""
    text = f"{len(document.id or '')} {document.id} {document.text}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def blanks_before(text: str, position: int) -> str:
    """The blank characters that end at a position."""
    begin = position
    while begin > 0 and not text[max(0, begin - _BLANK_STEP) : begin].strip():
        begin = max(0, begin - _BLANK_STEP)
    stretch = text[max(0, begin - _BLANK_STEP) : position]
    return stretch[len(stretch.rstrip()) :]
