"""Logs, test and build output, search hits: whole records (a line and what continues it) stay or go."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from cprs_integrations.tool_output.task import LINE, Layout, Piece, Task, render_lines, shorten_layout

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
    r"\b(?:error|errors|fatal|critical|panic|exception|traceback|failed|failure|fail|denied|refused|timed out|killed|"
    r"abort(?:ed)?|undefined|cannot|unable|segfault|assert(?:ion)?(?:error)?)\b|\w(?:Error|Exception)\b|^E  ",
    re.IGNORECASE,
)
# What every serious record has in it, in lower case: finding these is much faster than the expression above.
_SERIOUS_PARTS = (
    *("error", "fatal", "critical", "panic", "exception", "traceback", "fail", "denied", "refused", "timed out"),
    *("killed", "abort", "undefined", "cannot", "unable", "segfault", "assert", "e  "),
)
_NO_TROUBLE = re.compile(
    r"\b(?:0|no|without) (?:errors?|failures?|failed)\b|\b(?:errors?|fail(?:ed|ures?))[=:] ?0\b", re.I
)
_WARNING = re.compile(r"\bwarn(?:ing)?\b|\bdeprecated\b", re.IGNORECASE)
_VARYING = re.compile(r"0x[0-9a-f]+|\b[0-9a-f]{7,}\b|\d+", re.IGNORECASE)

# A stack trace stays whole; other runs of indented lines are cut into records of at most this many lines.
_RECORD_LINES = 12
_PART_LINES = 4  # of a trace that is longer than the whole budget
_LONG_LINE = 2_000
_TROUBLE = 0.5
_MANY = 50_000  # records; above it, what varies in a line is masked in a faster and cruder way
_DIGITS = str.maketrans("0123456789", "##########")


def looks_like_log(text: str) -> bool:
    """Whether most of the first lines have a time, a level, or a file and a line number."""
    lines = [match.group() for match, _ in zip(LINE.finditer(text), range(200), strict=False)]
    if len(lines) < 5:
        return False
    marked = sum(
        bool(_TIMESTAMP.match(line) or _LEVEL.search(line) or _SEARCH_HIT.match(line) or _FRAME.match(line))
        for line in lines
    )
    return marked >= 0.4 * len(lines)


def looks_line_based(text: str) -> bool:
    """Whether lines and not sentences carry the text: many short ones, close together, few of which end in a stop."""
    rows = text[:40_000].splitlines()[:200]
    lines = [row.strip() for row in rows if row.strip()]
    if len(lines) < 12 or len(lines) < 0.8 * len(rows):
        return False
    stops = sum(line.endswith((".", "!", "?", "。")) for line in lines)
    return stops <= 0.3 * len(lines) and sum(map(len, lines)) <= 200 * len(lines)


def shorten_log(text: str, task: Task) -> str | None:
    """The records that matter, verbatim and in order, times and stack traces whole."""
    room = task.max_tokens - task.count(task.note("kept 100 of 1,000 records")) - 16
    records = [part for record in log_records(text) for part in _within(text, record, task, room)]
    if len(records) < 2:
        return None
    numbers = line_numbers(text, records)
    alike = _shapes(text, records)
    priors = _priors(text, records, alike)
    pieces = [Piece(start, end, prior) for (start, end), prior in zip(records, priors, strict=True)]

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
    for match in LINE.finditer(text):
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


def _within(text: str, record: tuple[int, int], task: Task, room: int) -> list[tuple[int, int]]:
    """The record; one that could never fit in parts of a few lines, so that the error of an endless trace stays."""
    start, end = record
    if text.count("\n", start, end) < _RECORD_LINES or task.count(text[start:end]) <= room:
        return [record]
    lines = [match.span() for match in LINE.finditer(text, start, end)]
    groups = [lines[at : at + _PART_LINES] for at in range(0, len(lines), _PART_LINES)]
    return [(group[0][0], group[-1][1]) for group in groups] or [record]


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


def _shapes(text: str, records: Sequence[tuple[int, int]]) -> list[int]:
    """For every record the number of its shape: its first line without what varies."""
    shapes: dict[str, int] = {}
    alike = []
    for start, end in records:
        line = text[start : min(end, start + 200)].split("\n", 1)[0]
        shape = line.translate(_DIGITS) if len(records) > _MANY else _VARYING.sub("#", line)
        alike.append(shapes.setdefault(shape[:160], len(shapes)))
    return alike


def _priors(text: str, records: Sequence[tuple[int, int]], alike: Sequence[int]) -> list[float]:
    """What can be said of a record without the goal: whether it tells of trouble, is unlike others, or is at an end."""
    trouble = [_seriousness(text[start:end]) for start, end in records]
    share = sum(value >= _TROUBLE for value in trouble) / len(records)
    # Where every fifth record tells of trouble, or has the word in a path, trouble tells little.
    scale = min(1.0, 0.2 / share) if share else 1.0
    sizes = Counter(alike)
    has_routine = len(sizes) < 0.5 * len(records)
    priors = [
        scale * value + (0.15 if has_routine and sizes[shape] == 1 else 0.0)
        for value, shape in zip(trouble, alike, strict=True)
    ]
    for edge in {0, len(records) - 2, len(records) - 1}:
        priors[edge] += 0.1
    return priors


def _seriousness(record: str) -> float:
    lowered = record.lower()
    if any(part in lowered for part in _SERIOUS_PARTS) and _SERIOUS.search(record) and not _NO_TROUBLE.search(record):
        return _TROUBLE
    return 0.15 if ("warn" in lowered or "deprecated" in lowered) and _WARNING.search(record) else 0.0
