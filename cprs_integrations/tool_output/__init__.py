"""Shortens what tools return without breaking its structure.

JSON stays valid JSON, logs keep times and whole stack traces, code keeps signatures and line numbers, diffs their
headers, tables their header row. The structure is detected, or told.

>>> from cprs_core import Compressor, KeywordScorer
>>> from cprs_integrations.tool_output import detect_kind
>>> detect_kind('[{"name": "Ada"}, {"name": "Grace"}]')
'json'
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from cprs_core import InputError
from cprs_integrations.adapting import Compresses
from cprs_integrations.ranking import CountTokens, Goal, counter_of, estimate_tokens
from cprs_integrations.tool_output.code_output import looks_like_code, looks_like_diff, shorten_code, shorten_diff
from cprs_integrations.tool_output.json_output import parse_json, shorten_json, shorten_json_lines
from cprs_integrations.tool_output.log_output import looks_like_log, looks_line_based, shorten_log
from cprs_integrations.tool_output.table_output import shorten_table, table_header_lines
from cprs_integrations.tool_output.task import Layout, Piece, Task, shorten_layout
from cprs_integrations.tool_output.text_output import looks_like_html, shorten_html, shorten_text

__all__ = [
    "KINDS",
    "MIN_TOOL_TOKENS",
    "Layout",
    "Piece",
    "Task",
    "detect_kind",
    "plain_note",
    "shorten_layout",
    "shorten_output",
]

logger = logging.getLogger(__name__)

Note = Callable[[str], str]  # from what was kept ("kept 12 of 40 lines") to the sentence that says so

# A note alone takes about 40 tokens, so no smaller budget can be promised.
MIN_TOOL_TOKENS = 64

# A text this short is left alone under any budget: it may be one of our own notes, and there is nothing to gain.
SHORT_CHARACTERS = 400


def _json_or_lines(text: str, task: Task) -> str | None:
    return shorten_json(text, task, _shorten_string) or shorten_json_lines(text, task)


KINDS: dict[str, Callable[[str, Task], str | None]] = {
    "json": _json_or_lines,
    "log": shorten_log,
    "code": shorten_code,
    "diff": shorten_diff,
    "table": shorten_table,
    "html": shorten_html,
    "text": shorten_text,
}


def detect_kind(text: str) -> str:
    """The structure of a tool's output: a name from `KINDS`; "text" where nothing else fits."""
    if parse_json(text) is not None or _is_json_lines(text):
        return "json"
    if looks_like_diff(text):
        return "diff"
    if looks_like_html(text):
        return "html"
    if table_header_lines(text) is not None:
        return "table"
    # A traceback quotes code, and a file of code may quote log lines: the log's marks stand at the start of lines.
    if looks_like_log(text):
        return "log"
    if looks_like_code(text):
        return "code"
    return "log" if looks_line_based(text) else "text"


def plain_note(tokens: int) -> Note:
    """A note that names no key, for a caller who keeps the original."""
    return lambda kept: f"cprs: {kept}; {tokens:,} tokens before"


def shorten_output(
    text: str,
    goal: Goal,
    *,
    compressor: Compresses,
    max_tokens: int,
    kind: str = "auto",
    count_tokens: CountTokens | None = None,
    note: Note | None = None,
) -> str:
    """``text`` within ``max_tokens``, with what matters for the goal; the same text where it is short enough.

    Deterministic: the same arguments give the same bytes.

    Args:
        goal: the request that the tool was called for.
        max_tokens: most tokens of the result, `MIN_TOOL_TOKENS` or more.
        kind: a name from `KINDS`, or "auto" to detect it. A text that is not of the kind told is read as plain text.
        count_tokens: tokens of a text; by default in the critic's tokenizer.
        note: from "kept 12 of 40 lines" to the sentence that stands at the end (in JSON: under the key ``_cprs``).

    Raises:
        InputError: the budget is too small, or the kind unknown.
    """
    if max_tokens < MIN_TOOL_TOKENS:
        raise InputError(
            f"max_tokens is {max_tokens}; a tool's output needs at least {MIN_TOOL_TOKENS} for the note alone"
        )
    if kind != "auto" and kind not in KINDS:
        raise InputError(f"kind is {kind!r}; it must be 'auto' or one of {', '.join(map(repr, KINDS))}")
    count = count_tokens or counter_of(compressor)
    if len(text) <= SHORT_CHARACTERS:
        return text
    tokens = estimate_tokens(text, count)
    if tokens <= max_tokens:
        return text
    task = Task(goal, compressor, count, max_tokens, note or plain_note(tokens))
    return _shorten_as(detect_kind(text) if kind == "auto" else kind, text, task)


def _shorten_as(kind: str, text: str, task: Task) -> str:
    shortened = KINDS[kind](text, task)
    if shortened is None and kind != "text":
        shortened = shorten_text(text, task)
    if shortened is None:
        shortened = f"[{task.note('kept 0 of 1 blocks')}]"
    logger.debug("shortened %s output: %d to %d characters", kind, len(text), len(shortened))
    return shortened if len(shortened) < len(text) else text


def _shorten_string(value: str, task: Task) -> str:
    """A long string inside JSON, by its own structure."""
    if task.count(value) <= task.max_tokens:
        return value
    return _shorten_as(detect_kind(value), value, task)


def _is_json_lines(text: str) -> bool:
    lines = [line for line in text.splitlines() if line.strip()][:20]
    return len(lines) > 1 and all(line.lstrip()[:1] in "{[" and parse_json(line) is not None for line in lines)
