"""JSON: whole records and keys stay or go, long strings are shortened inside, and the result is JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from cprs_integrations.tool_output.task import LINE, Layout, Piece, Task, shorten_layout

NOTE_KEY = "_cprs"

# A value of at most this many characters, or of half the budget, is kept or dropped whole; a larger one is opened.
_RECORD_CHARACTERS = 600
_HALF_BUDGET_CHARACTERS = 1.5  # for each token of the budget: JSON has about three characters a token
# A string beyond this is shortened inside: the output of a command, a page, a file.
_STRING_CHARACTERS = 1_200
# A plain value of at most this many characters says which record it stands in (an id, a name, a status).
_SCALAR_CHARACTERS = 80
_IDENTIFYING_SCALARS = 4
# What lies deeper is kept or dropped whole: opening a value reads it again, and Python's stack is finite.
_MOST_LEVELS = 40

_DECODER = json.JSONDecoder()
_BLANK = re.compile(r"[ \t\r\n]*")
_TELLING_KEY = re.compile(r'\s*"(?:error|errors|message|status|code|reason|total|count|next|summary)"', re.IGNORECASE)


@dataclass(eq=False)
class _Node:
    """A value; ``start`` is its key's start where it has a key, ``value`` where the value itself begins."""

    start: int
    value: int
    end: int
    children: list[_Node] = field(default_factory=list)
    piece: int | None = None


def parse_json(text: str) -> int | None:
    """Where the JSON value that makes up the whole text begins; None where the text is something else."""
    start = _skip(text, 0)
    if text[start : start + 1] not in ("{", "["):
        return None
    try:
        _, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    return start if _skip(text, end) == len(text) else None


def shorten_json(text: str, task: Task, shorten_string: Callable[[str, Task], str]) -> str | None:
    """The records and keys that matter, as valid JSON; None where the text is not a JSON object or list."""
    root = _parse_tree(text, max(_RECORD_CHARACTERS, int(_HALF_BUDGET_CHARACTERS * task.max_tokens)))
    if root is None:
        return None
    pieces: list[Piece] = []
    _collect(text, root, pieces, (), None, task, shorten_string)
    is_list = text[root.value] == "["
    unit = "records" if is_list else "values"

    def render(kept: Sequence[int]) -> str:
        note = task.note(f"kept {len(kept):,} of {len(pieces):,} {unit}") if len(kept) < len(pieces) else None
        return _render(text, root, pieces, frozenset(kept), note)

    return shorten_layout(Layout(text, pieces, render), task)


def shorten_json_lines(text: str, task: Task) -> str | None:
    """JSON values, one a line: whole lines stay or go, and the note is one more JSON line."""
    pieces = [Piece(*match.span()) for match in LINE.finditer(text)]
    if len(pieces) < 2 or not all(_is_json(text[piece.start : piece.end]) for piece in pieces):
        return None

    def render(kept: Sequence[int]) -> str:
        lines = [text[pieces[index].start : pieces[index].end] for index in kept]
        note = {NOTE_KEY: task.note(f"kept {len(kept):,} of {len(pieces):,} lines")}
        return "\n".join([*lines, json.dumps(note, ensure_ascii=False)])

    return shorten_layout(Layout(text, pieces, render), task)


def json_records(text: str) -> list[str] | None:
    """Records and plain members, verbatim; of a long string inside, its lines. None for what is no object or list."""
    root = _parse_tree(text, _RECORD_CHARACTERS)
    if root is None:
        return None
    records: list[str] = []
    open_nodes = [root]
    while open_nodes:
        node = open_nodes.pop()
        if node.children:
            open_nodes += reversed(node.children)
        elif text[node.value] == '"' and node.end - node.value > _RECORD_CHARACTERS:
            records += str(json.loads(text[node.value : node.end])).splitlines()
        else:
            records.append(text[node.start : node.end])
    return records


def _is_json(line: str) -> bool:
    return line.lstrip()[:1] in "{[" and parse_json(line) is not None


def _skip(text: str, position: int) -> int:
    match = _BLANK.match(text, position)
    return match.end() if match else position


def _parse_tree(text: str, limit: int) -> _Node | None:
    """The tree of the JSON value that makes up the whole text, or None, opened where it is longer than ``limit``."""
    start = parse_json(text)
    if start is None:
        return None
    try:
        return _read(text, (start, start, len(text.rstrip(" \t\r\n"))), limit, level=0)
    except RecursionError:  # nested nearly as deep as Python's stack: `parse_json` just managed
        return None


def _read(text: str, bounds: tuple[int, int, int], limit: int, level: int) -> _Node:
    """The value's tree, opened where it is too large to be one piece; ``bounds`` as `_members` gives them."""
    node = _Node(*bounds)
    if text[node.value] in "[{" and (level == 0 or (node.end - node.value > limit and level < _MOST_LEVELS)):
        node.children = [_read(text, inner, limit, level + 1) for inner in _members(text, node.value)]
    return node


def _members(text: str, opening: int) -> Iterator[tuple[int, int, int]]:
    """(member start, value start, end) of a container's elements."""
    is_object = text[opening] == "{"
    at = _skip(text, opening + 1)
    while text[at] not in "]}":
        start = value = at
        if is_object:
            _, key_end = _DECODER.raw_decode(text, at)
            value = _skip(text, _skip(text, key_end) + 1)  # the colon
        _, end = _DECODER.raw_decode(text, value)
        yield start, value, end
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)


def _collect(
    text: str,
    node: _Node,
    pieces: list[Piece],
    context: tuple[int, ...],
    record: int | None,
    task: Task,
    shorten_string: Callable[[str, Task], str],
) -> None:
    """Leaves become pieces; those deeper down need the plain values that say which record they belong to."""
    leaves = [child for child in node.children if not child.children]
    for child in sorted(leaves, key=lambda leaf: leaf.end - leaf.start):
        child.piece = -1  # a leaf; its number follows below, in source order
    naming: list[int] = []
    for child in node.children:
        if child.piece is None:
            continue
        child.piece = len(pieces)
        is_keyed = child.value > child.start
        is_plain = is_keyed and text[child.value] not in "[{" and child.end - child.value <= _SCALAR_CHARACTERS
        if is_plain and len(naming) < _IDENTIFYING_SCALARS:
            naming.append(child.piece)
        prior = 0.3 if is_keyed and _TELLING_KEY.match(text, child.start) else 0.05 if is_plain else 0.0
        inside = _inside(text, child, task, shorten_string)
        pieces.append(Piece(child.start, child.end, prior, context, inside, record))
    for child in node.children:
        if child.children:
            is_record = text[node.value] == "["
            _collect(
                text, child, pieces, (*context, *naming), child.value if is_record else record, task, shorten_string
            )


def _inside(text: str, node: _Node, task: Task, shorten_string: Callable[[str, Task], str]) -> str | None:
    """A member whose value is a long string, with that string shortened to its share of the budget."""
    if text[node.value] != '"' or node.end - node.value <= _STRING_CHARACTERS:
        return None
    room = task.max_tokens - task.count(task.note("kept 100 of 1,000 values")) - 16
    budget = int(0.9 * room * (node.end - node.value) / len(text))
    value = json.loads(text[node.value : node.end])
    if budget < 48 or not isinstance(value, str):
        return None
    return text[node.start : node.value] + json.dumps(shorten_string(value, task.within(budget)), ensure_ascii=False)


def _render(text: str, root: _Node, pieces: Sequence[Piece], kept: frozenset[int], note: str | None) -> str:
    def written(node: _Node) -> str | None:
        if node.piece is not None:
            if node.piece not in kept:
                return None
            inside = pieces[node.piece].text
            return text[node.start : node.end] if inside is None else inside
        parts = [part for part in map(written, node.children) if part is not None]
        if node is root and note is not None:
            parts.append(_note_member(text, root, note))
        if not parts:
            return None if node is not root else text[node.value] + text[node.end - 1]
        first, last = node.children[0], node.children[-1]
        separator = text[first.end : node.children[1].start] if len(node.children) > 1 else ", "
        return text[node.start : first.start] + separator.join(parts) + text[last.end : node.end]

    return written(root) or ""


def _note_member(text: str, root: _Node, note: str) -> str:
    if text[root.value] == "{":
        return f"{json.dumps(NOTE_KEY)}: {json.dumps(note, ensure_ascii=False)}"
    if any(text[child.value] == "{" for child in root.children):
        return json.dumps({NOTE_KEY: note}, ensure_ascii=False)
    return json.dumps(note, ensure_ascii=False)
