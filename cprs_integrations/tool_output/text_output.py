"""Prose and web pages: sentences stay or go, with the heading they stand under."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cprs_core.segmentation import segment_sentences
from cprs_integrations.tool_output.task import Layout, Piece, Task, shorten_layout

_HEADING = re.compile(r"#{1,6} \S|[^\n]{1,80}\n(?:={3,}|-{3,})\s*$")
_HTML = re.compile(r"\s*(?:<!doctype html|<html|<head|<body|<div|<section|<article|<main|<table|<p\b)", re.IGNORECASE)
_HIDES = re.compile(r"<(script|style|noscript|svg|template)\b|<!--", re.IGNORECASE)
_SHOWS = {
    name: re.compile(rf"</{name}\s*>", re.IGNORECASE) for name in ("script", "style", "noscript", "svg", "template")
} | {"": re.compile("-->")}
_BLOCK_TAG = re.compile(
    r"</?(?:p|div|section|article|main|header|footer|nav|aside|h[1-6]|ul|ol|li|dl|dt|dd|table|thead|tbody|tr|td|th|br|hr|"
    r"pre|blockquote|figure|figcaption|form|label|option|select|button|html|head|body|title|meta|link|input|img)\b[^<>]*>",
    re.IGNORECASE,
)
_TAG = re.compile(r"<[^<>]{1,400}>")
_HEADING_TAG = re.compile(r"<h[1-6]\b[^>]*>\s*$", re.IGNORECASE)
_LONG = 1_200  # characters; a longer piece is cut, at blanks where it has any


def looks_like_html(text: str) -> bool:
    """Whether the text begins like a page or a fragment of one."""
    return bool(_HTML.match(text))


def shorten_text(text: str, task: Task) -> str | None:
    """The sentences that matter; always applicable where there is more than one piece to choose from."""
    return _shorten(text, text_pieces(text), task, unit="sentences")


def shorten_html(text: str, task: Task) -> str | None:
    """The visible runs of text that matter; markup between them is left out."""
    return _shorten(text, html_pieces(text), task, unit="text blocks")


def text_pieces(text: str) -> list[Piece]:
    """Sentences and lines; those under a heading need it."""
    pieces: list[Piece] = []
    heading: int | None = None
    for start, end in segment_sentences(text).tolist():
        if _HEADING.match(text[start:end]):
            heading = len(pieces)
            pieces.append(Piece(start, end, 0.05))
            continue
        needs = () if heading is None else (heading,)
        pieces += [Piece(a, b, 0.0, needs) for a, b in _cut(text, start, end)]
    return pieces


def html_pieces(text: str) -> list[Piece]:
    """Runs of visible text between block tags; those under a heading need it."""
    cuts = sorted([*_hidden_ranges(text), *(match.span() for match in _BLOCK_TAG.finditer(text))])
    pieces: list[Piece] = []
    heading: int | None = None
    at = 0
    for start, end in [*cuts, (len(text), len(text))]:
        if start > at:
            inside = text[at:start]
            if _TAG.sub("", inside).strip():
                begin = at + len(inside) - len(inside.lstrip())
                stop = begin + len(inside.strip())
                is_heading = bool(_HEADING_TAG.search(text[max(0, at - 200) : at]))
                needs = () if heading is None or is_heading else (heading,)
                if is_heading:
                    heading = len(pieces)
                pieces += [Piece(a, b, 0.0, needs) for a, b in _cut(text, begin, stop)]
        at = max(at, end)
    return pieces


def _hidden_ranges(text: str) -> list[tuple[int, int]]:
    """Scripts, styles and comments from tag to closing tag; one that is never closed hides nothing."""
    ranges: list[tuple[int, int]] = []
    unclosed: set[str] = set()  # looked for once, in vain: a page may have thousands of them
    after = 0
    for match in _HIDES.finditer(text):
        name = (match[1] or "").lower()
        if match.start() < after or name in unclosed:
            continue
        closing = _SHOWS[name].search(text, match.end())
        if closing is None:
            unclosed.add(name)
        else:
            after = closing.end()
            ranges.append((match.start(), after))
    return ranges


def _shorten(text: str, pieces: list[Piece], task: Task, *, unit: str) -> str | None:
    if len(pieces) < 2:
        return None

    def render(kept: Sequence[int]) -> str:
        written: list[str] = []
        after = -1
        for index in kept:
            if written:
                between = text[pieces[after].end : pieces[index].start]
                is_neighbour = index == after + 1 and not between.strip()
                written.append((between or " ") if is_neighbour else "\n[…]\n")
            written.append(text[pieces[index].start : pieces[index].end])
            after = index
        note = f"[{task.note(f'kept {len(kept):,} of {len(pieces):,} {unit}')}]"
        return "".join([*written, "\n", note] if written else [note])

    return shorten_layout(Layout(text, pieces, render), task)


def _cut(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """The range, or pieces of it of at most `_LONG` characters."""
    ranges = []
    while end - start > _LONG:
        blank = text.rfind(" ", start + _LONG // 2, start + _LONG)
        stop = blank if blank > start else start + _LONG
        ranges.append((start, stop))
        start = stop
    return [*ranges, (start, end)]
