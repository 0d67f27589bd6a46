"""Text to segments: sentences, lines and paragraphs as character ranges, blanks around them left out."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from sentencex import get_sentence_boundaries

from cprs_core.types import replace_surrogates

Segments = NDArray[np.int64]  # (n, 2): start and end in characters, sorted, not overlapping

_LINE_BREAK = re.compile(r"\r\n|[\n\r\x0b\x0c\x85\u2028\u2029]")
_WIDE_BLANKS = (
    "\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)
_RARE_LINE_BREAKS = "\r\x0b\x0c\x85\u2028\u2029"
# It ends where the next line begins, before its indent: what follows reads the same with and without what came before.
_BLOCK_BREAK = re.compile(r"(?:\n|\r\n|\r(?!\n))[^\S\r\n]*(?:\n|\r\n|\r(?!\n))(?:\s*(?:\n|\r(?!\n)))?")
_OWN_LINE = re.compile(
    r"(?:[-*+]\s|[•‣◦>#|=~]|\d{1,3}[.)]\s|[A-Za-z][.)]\s|>>>|\.\. "  # list items, quotes, headings, tables, examples
    r"|\W?\d{1,4}[-/.:](?:\d{1,2}|[A-Z][a-z]{2})[-/.:]\d"  # dates, times and addresses of log lines
    r"|[A-Z][a-z]{2} {1,2}\d{1,2} \d{1,2}:)"
)

# Words that sentencex takes for abbreviations (of Maine, number, Illinois ...); before a capital they hardly ever are.
# The stop is looked for first: words are many, stops are few.
_WORD_STOP = re.compile(
    r"\.(?:(?<=\b[Mm]ay\.)|(?<=\b(?:me|[Nn]o|id|ID)\.)|(?<=\b(?:ill|art|ore|ark)\.)|(?<=\bmiss\.))"
    r"[\"')\]”’]*\s+(?=[\"'(\[“‘]*[A-ZÀ-ÖØ-Þ])"
)

# sentencex takes what stands between two marks for one sentence, from an apostrophe to the next or over a whole speech.
# Sentences of more bytes than this are read without their marks. In bytes, as a Chinese character is about a token.
_LONG_QUOTATION = 120
_MARK = re.compile(r"""["“”„‟‚‛‘«»‹›`(){}\[\]<>（）「」『』《》【】]|['’](?:(?<!\w['’])|(?!\w))""")
# What still belongs to a sentence behind its stop: all up to the last mark that can only close, then marks that may do
# either and stand close to it, then blanks.
_CLOSING = re.compile(r"(?:.*[”’›)}\]>）」』》】])?(?:[\"«»'`]|“(?=\s))*\s*", re.DOTALL)
_VISIBLE = re.compile(r"\S")

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
    readable = _with_narrow_blanks(replace_surrogates(text))
    lines = _with_plain_line_breaks(text)
    cuts = [0, len(text), *(match.end() for match in _WORD_STOP.finditer(text))]
    for start, end in _ranges_between(text, _BLOCK_BREAK):
        cuts.append(start)
        block = readable[start:end].rstrip()
        first = start + len(block) - len(block.lstrip())
        cuts += _sentence_ends(readable, first, start + len(block))
        cuts += _hard_line_breaks(lines, start, end)
    cuts.sort()
    return _cut_quotations(readable, _trim(text, itertools.pairwise(cuts)))


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


def _sentence_ends(text: str, first: int, last: int) -> list[int]:
    """Where sentencex sees sentences of one block end; it is asked about a stretch at a time."""
    ends: list[int] = []
    start, size, limit = first, _STRETCH, _LONGEST_STRETCH
    while start < last:
        stretch = text[start : min(start + size, last)]
        found = [boundary["end_index"] for boundary in get_sentence_boundaries("en", stretch)]
        if start + size >= last:
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


def _cut_quotations(text: str, sentences: Segments) -> Segments:
    """``sentences`` with the long ones cut where, without quotation marks and brackets, sentences inside them end."""
    lengths = sentences[:, 1] - sentences[:, 0]
    gaps: list[tuple[int, int]] = []
    for start, end in sentences[lengths > _LONG_QUOTATION // 4].tolist():  # a character has at most four bytes
        sentence = text[start:end]
        if len(sentence.encode()) > _LONG_QUOTATION:
            gaps += [(start + left, start + right) for left, right in _gaps_inside(sentence)]
    if not gaps:
        return sentences
    ends, starts = np.array(gaps, dtype=np.int64).T
    return np.column_stack([np.sort(np.append(sentences[:, 0], starts)), np.sort(np.append(sentences[:, 1], ends))])


def _gaps_inside(sentence: str) -> list[tuple[int, int]]:
    """Where a sentence inside ``sentence`` ends and the next begins, when marks do not count."""
    plain = _MARK.sub(" ", sentence)
    gaps = []
    after = 0
    for border in _sentence_ends(plain, 0, len(plain)):
        before, visible = after, _VISIBLE.search(plain, border)
        if visible is None:
            break
        after = visible.start()
        stop = before + len(plain[before:border].rstrip())
        between = sentence[stop:after]
        goes_on = bool(between.strip()) and (plain[after].islower() or plain[after] in ",;:…—–-")  # "Stop!" he said
        is_inside_word = plain[stop - 1] in ".!?" and not any(map(str.isspace, between))  # x.Y("z"), unlike 。 and ।
        if stop > before and not goes_on and not is_inside_word:
            closing = _CLOSING.match(between)
            assert closing is not None  # it matches nothing too
            right = stop + closing.end()
            gaps.append((stop + len(sentence[stop:right].rstrip()), right))
    return gaps


def _hard_line_breaks(text: str, start: int, end: int) -> list[int]:
    """Where a line of one block is a unit of its own: in lists, logs, code and dialogues, not in hard-wrapped prose."""
    block = text[start:end]
    if "\n" not in block:
        return []
    lines, starts = [], []
    for line in block.split("\n"):
        visible = line.rstrip()
        if visible:
            lines.append(visible)
            starts.append(start)
        start += len(line) + 1
    if len(lines) < 2:
        return []
    soft = _soft_breaks(lines)
    return [first for first, is_soft in zip(starts[1:], soft, strict=True) if not is_soft]


def _soft_breaks(lines: list[str]) -> list[bool]:
    """Whether each line break but the last is one that filling words up to the block's width would have made.

    Where fewer than half of them are, the block is no hard-wrapped prose and none of them counts as one.
    """
    columns = [len(line) for line in lines]  # indents count
    width = max(columns)
    if width not in _WRAP_WIDTHS:
        return [False] * (len(lines) - 1)
    words = [line.split(None, 1)[0] for line in lines[1:]]
    own = [bool(_OWN_LINE.match(line.lstrip())) for line in lines[1:]]
    filled = [column + 1 + len(word) + _WRAP_SLACK > width for column, word in zip(columns[:-1], words, strict=True)]
    prose = sum(a or b for a, b in zip(filled, own, strict=True)) >= 0.5 * len(filled)
    return [prose and is_filled and not is_own for is_filled, is_own in zip(filled, own, strict=True)]


def _with_narrow_blanks(text: str) -> str:
    """``text`` without the blanks of several bytes, at which sentencex panics between a capital and a full stop."""
    if not text.isascii():
        for blank in _WIDE_BLANKS:
            text = text.replace(blank, " ")
    return text


def _with_plain_line_breaks(text: str) -> str:
    """``text`` with every line break as one newline, all characters in their places."""
    if any(line_break in text for line_break in _RARE_LINE_BREAKS):
        text = text.replace("\r\n", " \n")
        for line_break in _RARE_LINE_BREAKS:
            text = text.replace(line_break, "\n")
    return text


def _between(text: str, separator: re.Pattern[str]) -> Segments:
    return _trim(text, _ranges_between(text, separator))


def _ranges_between(text: str, separator: re.Pattern[str]) -> list[tuple[int, int]]:
    cuts = [0]
    for match in separator.finditer(text):
        cuts += match.span()
    cuts.append(len(text))
    return list(zip(cuts[::2], cuts[1::2], strict=True))


def _trim(text: str, ranges: Iterable[tuple[int, int]]) -> Segments:
    """``ranges`` without blanks at either end; those that were all blank are gone."""
    starts, ends = [], []
    for start, end in ranges:
        piece = text[start:end].rstrip()
        if piece:
            if piece[0].isspace():
                start += len(piece) - len(piece.lstrip())
                piece = text[start:end].rstrip()
            starts.append(start)
            ends.append(start + len(piece))
    return np.array([starts, ends], dtype=np.int64).T.copy() if starts else _empty()


def _empty() -> Segments:
    return np.empty((0, 2), dtype=np.int64)
