"""Text to segments: sentences, lines and paragraphs as character ranges, blanks around them left out."""

from __future__ import annotations

import itertools
import re

import numpy as np
from numpy.typing import NDArray
from sentencex import get_sentence_boundaries

from cprs_core.types import replace_surrogates

Segments = NDArray[np.int64]  # (n, 2): start and end in characters, sorted, not overlapping

_LINE_BREAK = re.compile(r"\r\n|[\n\r\x0b\x0c\x85\u2028\u2029]")
_BLOCK_BREAK = re.compile(r"(?:\r\n|\n|\r)[^\S\r\n]*(?:\r\n|\n|\r)\s*")
_OWN_LINE = re.compile(
    r"\s*(?:[-*+]\s|[•‣◦>#|=~]|\d{1,3}[.)]\s|[A-Za-z][.)]\s|>>>|\.\. "  # list items, quotes, headings, tables, examples
    r"|\W?\d{1,4}[-/.:](?:\d{1,2}|[A-Z][a-z]{2})[-/.:]\d"  # dates, times and addresses of log lines
    r"|[A-Z][a-z]{2} {1,2}\d{1,2} \d{1,2}:)"
)

# Words that sentencex takes for abbreviations (of Maine, number, Illinois ...); before a capital they hardly ever are.
_WORD_STOP = re.compile(r"\b(?:[Mm]ay|me|[Nn]o|ill|miss|art|ore|ark|id|ID)\.[\"')\]”’]*\s+(?=[\"'(\[“‘]*[A-ZÀ-ÖØ-Þ])")

# Hard-wrapped prose is filled to one width; outside these bounds a block of lines is taken as it stands.
_WRAP_WIDTHS = range(40, 161)
_WRAP_SLACK = 2  # columns: programs that fill differ in whether the last column counts and how blanks after "." do

# sentencex takes quadratic time where a paragraph has many sentences without blanks between them (Chinese, Japanese),
# or many backticks or quotation marks. Where it sees no end in the longest stretch, reading goes on behind it.
_STRETCH, _LONGEST_STRETCH = 4_000, 16_000  # characters


def segment_sentences(text: str) -> Segments:
    """Sentences of ``text``, in any language that sentencex knows the full stops of.

    A line break ends a sentence too, unless the lines are one hard-wrapped paragraph.
    """
    if not text:
        return _empty()
    borders = {0, len(text)}
    borders.update(match.end() for match in _WORD_STOP.finditer(text))
    readable = replace_surrogates(text)
    for start, end in segment_paragraphs(text).tolist():
        borders.update((start, end))
        borders.update(start + position for position in _sentence_ends(readable[start:end]))
        borders.update(_hard_line_breaks(text, start, end))
    cuts = sorted(borders)
    return _trim(text, list(itertools.pairwise(cuts)))


def segment_lines(text: str) -> Segments:
    """Lines that hold anything visible."""
    return _between(text, _LINE_BREAK)


def segment_paragraphs(text: str) -> Segments:
    """Blocks of lines, separated by blank lines."""
    return _between(text, _BLOCK_BREAK)


def split_long(
    segments: Segments, token_starts: NDArray[np.int64], word_starts: NDArray[np.bool_], limit: int
) -> Segments:
    """``segments`` with those of more than ``limit`` tokens cut into pieces, at the starts of words where possible.

    Args:
        segments: (n, 2) character ranges.
        token_starts (int64, (t,)): where each token begins, in the same characters.
        word_starts (bool, (t,)): whether a token begins after a blank; a piece ends before such a token if its second
            half has one, else before any token.
        limit: tokens, at least 2.
    """
    first = np.searchsorted(token_starts, segments[:, 0], side="left")
    last = np.searchsorted(token_starts, segments[:, 1], side="left")
    if not len(segments) or int((last - first).max()) <= limit:
        return segments
    pieces: list[tuple[int, int]] = []
    for (start, end), low, high in zip(segments.tolist(), first.tolist(), last.tolist(), strict=True):
        while high - low > limit:
            half = low + limit // 2
            words = np.flatnonzero(word_starts[half : low + limit + 1])
            low = half + int(words[-1]) if len(words) else low + limit
            cut = int(token_starts[low])
            pieces.append((start, cut))
            start = cut
        pieces.append((start, end))
    return np.array(pieces, dtype=np.int64).reshape(-1, 2)


def _sentence_ends(block: str) -> list[int]:
    """Where sentencex sees sentences of one block end; it is asked about a stretch at a time."""
    ends: list[int] = []
    start, size, limit = 0, _STRETCH, _LONGEST_STRETCH
    while start < len(block):
        stretch = block[start : start + size]
        found = [boundary["end_index"] for boundary in get_sentence_boundaries("en", stretch)]
        if start + size >= len(block):
            return ends + [start + position for position in found]
        inner = [position for position in found if 0 < position < len(stretch)]
        if inner:
            ends += [start + position for position in inner]
            start, size, limit = ends[-1], _STRETCH, _LONGEST_STRETCH
        elif size < limit:  # one sentence is longer than the stretch
            size *= 2
        else:
            start += max(stretch.rfind(" "), size // 2)  # not inside an abbreviation, if blanks allow
            size = limit = _STRETCH
    return ends


def _hard_line_breaks(text: str, start: int, end: int) -> list[int]:
    """Where a line of one block is a unit of its own: in lists, logs, code and dialogues, not in hard-wrapped prose."""
    lines = segment_lines(text[start:end]) + start
    if len(lines) < 2:
        return []
    soft = _soft_breaks(text, lines)
    return [first for first, is_soft in zip(lines[1:, 0].tolist(), soft, strict=True) if not is_soft]


def _soft_breaks(text: str, lines: Segments) -> list[bool]:
    """Whether each line break but the last is one that filling words up to the block's width would have made.

    Where fewer than half of them are, the block is no hard-wrapped prose and none of them counts as one.
    """
    rows = lines.tolist()
    columns = []
    begin = text.rfind("\n", 0, rows[0][0]) + 1
    for start, end in rows:
        # Searched from line to line: where only "\r" ends lines, each search would go back to the text's beginning.
        begin = max(begin, text.rfind("\n", begin, start) + 1)
        columns.append(end - begin)  # indents count
    width = max(columns)
    if width not in _WRAP_WIDTHS:
        return [False] * (len(rows) - 1)
    own = [bool(_OWN_LINE.match(text, start, end)) for start, end in rows[1:]]
    first_words = [len(text[start:end].split(None, 1)[0]) for start, end in rows[1:]]
    filled = [column + 1 + word + _WRAP_SLACK > width for column, word in zip(columns[:-1], first_words, strict=True)]
    prose = sum(a or b for a, b in zip(filled, own, strict=True)) >= 0.5 * len(filled)
    return [prose and is_filled and not is_own for is_filled, is_own in zip(filled, own, strict=True)]


def _between(text: str, separator: re.Pattern[str]) -> Segments:
    cuts = [0]
    for match in separator.finditer(text):
        cuts += match.span()
    cuts.append(len(text))
    return _trim(text, list(zip(cuts[::2], cuts[1::2], strict=True)))


def _trim(text: str, ranges: list[tuple[int, int]]) -> Segments:
    """``ranges`` without blanks at either end; those that were all blank are gone."""
    kept = []
    for start, end in ranges:
        piece = text[start:end]
        stripped = piece.strip()
        if stripped:
            start += len(piece) - len(piece.lstrip())
            kept.append((start, start + len(stripped)))
    return np.array(kept, dtype=np.int64).reshape(-1, 2) if kept else _empty()


def _empty() -> Segments:
    return np.empty((0, 2), dtype=np.int64)
