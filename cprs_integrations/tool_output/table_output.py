"""Tables (Markdown, comma or tab separated, columns in blanks): rows stay or go, the header row stays."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence

from cprs_integrations.tool_output.task import LINE, Layout, Piece, Task, render_lines, shorten_layout

_RULE = re.compile(r"[\s|+:=-]+$")
_COLUMN_GAP = re.compile(r" {2,}|\t")
_MIN_ROWS = 4


def table_header_lines(text: str) -> int | None:
    """How many of the first lines are the header of a table that makes up the text; None where it is no table."""
    lines = [match.group() for match, _ in zip(LINE.finditer(text), range(200), strict=False)]
    if len(lines) < _MIN_ROWS:
        return None
    if sum(line.lstrip().startswith("|") for line in lines) >= 0.9 * len(lines):
        rules = [index for index, line in enumerate(lines[:4]) if _RULE.match(line)]
        return rules[-1] + 1 if rules else 1
    for delimiter in "\t,;":
        try:
            widths = [len(row) for row in csv.reader(lines, delimiter=delimiter)]
        except csv.Error:  # a field of more than 131,072 characters: no table that anyone reads
            return None
        if widths and widths[0] > 1 and sum(width == widths[0] for width in widths) >= 0.95 * len(widths):
            return 1
    return _aligned_header(lines)


def shorten_table(text: str, task: Task) -> str | None:
    """The rows that matter under their header."""
    header_lines = table_header_lines(text)
    if header_lines is None:
        return None
    spans = [match.span() for match in LINE.finditer(text)]
    pieces = [Piece(spans[0][0], spans[header_lines - 1][1], prior=10.0)]  # the header: before any row
    pieces += [Piece(start, end, 0.0, (0,)) for start, end in spans[header_lines:]]

    def render(kept: Sequence[int]) -> str:
        return render_lines(text, pieces, kept, task.note, unit="rows", gap=lambda first, last: "")

    return shorten_layout(Layout(text, pieces, render), task)


def _aligned_header(lines: list[str]) -> int | None:
    """1 where columns stand under upper-case names, as `ps`, `docker ps` and `kubectl get` print them."""
    names = [name for name in _COLUMN_GAP.split(lines[0].strip()) if name]
    if len(names) < 2 or not all(name.isupper() or re.fullmatch(r"[A-Z%][\w%+/ ()-]*", name) for name in names):
        return None
    rows = [len(_COLUMN_GAP.split(line.strip())) for line in lines[1:]]
    return 1 if sum(width >= 2 for width in rows) >= 0.9 * len(rows) else None
