"""Logs, test and build output, search hits: whole records (a line and what continues it) stay or go."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cprs_integrations.tool_output.task import Layout, Piece, Task, render_lines, shorten_layout

_LINE = re.compile(r"[^\r\n]*\S[^\r\n]*")
_TIMESTAMP = re.compile(r"\s*\[?\(?(?:\d{4}[-/]\d\d[-/]\d\d|\d\d:\d\d:\d\d|\w{3} +\d{1,2} \d\d:\d\d:\d\d|\d{10,13}\b)")
_LEVEL = re.compile(r"\b(?:TRACE|DEBUG|INFO|NOTICE|WARN(?:ING)?|ERROR|FATAL|CRITICAL|PASSED|FAILED|ok|PASS|FAIL)\b")
_SEARCH_HIT = re.compile(r"[\w./\\-]+[:\-]\d+[:\-]")
_TRACE_HEAD = re.compile(
    r"\s*(?:Traceback \(most recent call last\)|Exception in thread|goroutine \d+ \[|panic: |thread '.*' panicked|"
    r"Caused by: |During handling of the above|The above exception was)"
)
_TRACE_LINE = re.compile(r"\s+at |\s+File \"|\s*\.\.\. \d+ more|Caused by: |\s+\d+: |\t|\s{2,}\S|stack backtrace:")
_FRAME = re.compile(r"\s+at [\w.$<(/]|\s+File \"|Caused by: |E  ")
_TRACE_TAIL = re.compile(r"\s*[\w.]+(?:Error|Exception|Interrupt|Exit|Warning|Failure)\b")
_SERIOUS = re.compile(
    r"\b(?:error|errors|fatal|critical|panic|exception|traceback|failed|failure|fail|denied|refused|timed? ?out|killed|"
    r"abort(?:ed)?|undefined|cannot|unable|segfault|assert(?:ion)?(?:error)?)\b|\w(?:Error|Exception)\b|^E  ",
    re.IGNORECASE,
)
_NO_TROUBLE = re.compile(
    r"\b(?:0|no|without) (?:errors?|failures?|failed)\b|\b(?:errors?|fail(?:ed|ures?))[=:] ?0\b", re.I
)
_WARNING = re.compile(r"\bwarn(?:ing)?\b|\bdeprecated\b", re.IGNORECASE)
_VARYING = re.compile(r"0x[0-9a-f]+|\b[0-9a-f]{7,}\b|\d+", re.IGNORECASE)

# A stack trace stays whole; other runs of indented lines are cut into records of at most this many lines.
_RECORD_LINES = 12
_LONG_LINE = 2_000


def looks_like_log(text: str) -> bool:
    """Whether most of the first lines have a time, a level, or a file and a line number."""
    lines = [match.group() for match, _ in zip(_LINE.finditer(text), range(200), strict=False)]
    if len(lines) < 5:
        return False
    marked = sum(
        bool(_TIMESTAMP.match(line) or _LEVEL.search(line) or _SEARCH_HIT.match(line) or _FRAME.match(line))
        for line in lines
    )
    return marked >= 0.4 * len(lines)


def shorten_log(text: str, task: Task) -> str | None:
    """The records that matter, verbatim and in order, times and stack traces whole."""
    records = log_records(text)
    if len(records) < 2:
        return None
    shapes: dict[str, int] = {}
    alike, pieces = [], []
    numbers = line_numbers(text, records)
    for start, end in records:
        line = text[start : text.find("\n", start, end) if "\n" in text[start:end] else end]
        alike.append(shapes.setdefault(_VARYING.sub("#", line)[:160], len(shapes)))
    sizes = [0] * len(shapes)
    for shape in alike:
        sizes[shape] += 1
    for index, (start, end) in enumerate(records):
        rare = 0.15 if sizes[alike[index]] == 1 and len(shapes) < 0.5 * len(records) else 0.0
        edge = 0.1 if index == 0 or index >= len(records) - 2 else 0.0
        pieces.append(Piece(start, end, _seriousness(text[start:end]) + rare + edge))

    def gap(first: int, last: int) -> str:
        return f"[… {numbers[last + 1] - numbers[first]:,} lines]"

    def render(kept: Sequence[int]) -> str:
        return render_lines(text, pieces, kept, task.note, unit="records", gap=gap)

    return shorten_layout(Layout(text, pieces, render, alike), task)


def log_records(text: str) -> list[tuple[int, int]]:
    """Character ranges of records: a line with the indented lines after it, or a whole stack trace."""
    records: list[tuple[int, int]] = []
    lines = 0
    in_trace = False
    for match in _LINE.finditer(text):
        line = match.group()
        start, end = match.span()
        if in_trace and (_TRACE_LINE.match(line) or _TRACE_HEAD.match(line)):
            records[-1] = (records[-1][0], end)
            continue
        if in_trace and _TRACE_TAIL.match(line):
            records[-1] = (records[-1][0], end)
            in_trace = bool(_TRACE_LINE.match(text, match.end() + 1)) or line.startswith("Caused by")
            continue
        in_trace = bool(_TRACE_HEAD.match(line)) or _opens_trace(text, end)
        continues = line[:1] in " \t" and records and lines < _RECORD_LINES and not _TIMESTAMP.match(line)
        if continues and not in_trace:
            records[-1] = (records[-1][0], end)
            lines += 1
        elif in_trace and records and _introduces(text[records[-1][0] : records[-1][1]]) and _TRACE_HEAD.match(line):
            records[-1] = (records[-1][0], end)  # "ERROR request failed" and the trace under it are one record
        else:
            records += _cut_long(start, end)
            lines = 1
    return records


def line_numbers(text: str, ranges: Sequence[tuple[int, int]]) -> list[int]:
    """The line, from 0, on which each range begins; at the end the number of lines in all."""
    numbers, line, at = [], 0, 0
    for start, _ in ranges:
        line += text.count("\n", at, start)
        at = start
        numbers.append(line)
    return [*numbers, line + text.count("\n", at) + 1]


def _opens_trace(text: str, line_end: int) -> bool:
    """Whether the line that ends here is followed by stack frames (Java, JavaScript)."""
    return re.match(r"\r?\n\s+at [\w.$<(/]", text[line_end : line_end + 80]) is not None


def _introduces(record: str) -> bool:
    return "\n" not in record and bool(_SERIOUS.search(record))


def _cut_long(start: int, end: int) -> list[tuple[int, int]]:
    """One range, or several where a line is so long that no budget could hold it."""
    return [(at, min(at + _LONG_LINE, end)) for at in range(start, end, _LONG_LINE)]


def _seriousness(record: str) -> float:
    if _SERIOUS.search(record) and not _NO_TROUBLE.search(record):
        return 0.5
    return 0.15 if _WARNING.search(record) else 0.0
