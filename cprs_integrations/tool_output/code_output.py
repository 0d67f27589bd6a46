"""Source code and diffs: signatures, line numbers and headers stay around what is kept."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cprs_integrations.tool_output.log_output import line_numbers
from cprs_integrations.tool_output.task import LINE, Layout, Piece, Task, render_lines, shorten_layout

_NUMBER = re.compile(r"\s*\d+[\t|:→ ] ?")  # "  12\tdef f():", as `cat -n` and file-reading tools write
_MODIFIERS = r"(?:export |default |public |private |protected |static |abstract |final |async |unsafe |inline |pub )*"
_SIGNATURE = re.compile(
    rf"(?:@\w|{_MODIFIERS}"
    r"(?:def|class|func|fn|function|interface|struct|enum|impl|trait|module|namespace|type|object|sub|package)\b"
    r"|(?:[\w:<>*&\[\]]+ )+[\w:~]+\([^;]*\)\s*(?:const )?\{?$)"
)
_CONTROL = re.compile(r"(?:if|for|while|switch|return|else|catch|try|with|elif|except|case|match)\b")
_CODE_HINT = re.compile(
    r"\s*(?:import |from [\w.]+ import |#include|using |package |const |let |var |return\b|def |class |func |fn |"
    r"function |public |private |protected |@\w+|\}|\{|//|/\*|\*/?|if .*[:{]$|for .*[:{]$|else\b|elif |self\.|this\.|"
    r"[\w.\[\]\"']+ ?[-+*/]?= |[\w.]+\(.*\)[;:]?$)"
)
_FILE_HEADER = re.compile(
    r"diff --git |--- |\+\+\+ |index [0-9a-f]+\.\.|new file mode|deleted file|rename |similarity |Index: "
)
_HUNK = re.compile(r"@@ .*@@")

# Lines of a body that stay or go together, where no blank line ends them sooner.
_BLOCK_LINES = 8


def looks_like_code(text: str) -> bool:
    """Whether most of the first lines read like statements and at least one like a signature or an import."""
    lines = [_bare(match.group()) for match, _ in zip(LINE.finditer(text), range(200), strict=False)]
    if len(lines) < 5:
        return False
    hints = sum(bool(_CODE_HINT.match(line)) for line in lines)
    telling = any(
        _is_signature(line) or re.match(r"\s*(?:import |from [\w.]+ import|#include|use )", line) for line in lines
    )
    return telling and hints >= 0.4 * len(lines)


def looks_like_diff(text: str) -> bool:
    """Whether there is a hunk header below a file header."""
    match = _HUNK.search(text)
    return bool(match and re.search(r"^(?:diff --git |--- )", text[: match.start()], re.MULTILINE))


def shorten_code(text: str, task: Task) -> str | None:
    """Blocks that matter under the signatures that hold them; gaps name the line numbers that they cover."""
    pieces = code_pieces(text)
    if len(pieces) < 2:
        return None
    numbers = line_numbers(text, [(piece.start, piece.end) for piece in pieces])

    def gap(first: int, last: int) -> str:
        return f"[… lines {numbers[first] + 1:,}-{numbers[last + 1]:,}]"

    def render(kept: Sequence[int]) -> str:
        return render_lines(text, pieces, kept, task.note, unit="blocks", gap=gap)

    return shorten_layout(Layout(text, pieces, render), task)


def shorten_diff(text: str, task: Task) -> str | None:
    """Whole hunks under their file's header lines; the headers of other files stay too while there is room."""
    pieces = diff_pieces(text)
    if len(pieces) < 2:
        return None

    def render(kept: Sequence[int]) -> str:
        return render_lines(text, pieces, kept, task.note, unit="parts", gap=lambda first, last: "")

    return shorten_layout(Layout(text, pieces, render), task)


def code_pieces(text: str) -> list[Piece]:
    """Signatures as pieces of their own; bodies in blocks that need the signatures around them."""
    pieces: list[Piece] = []
    open_signatures: list[tuple[int, int]] = []  # (indent, index of the piece)
    block: tuple[int, int, int] | None = None  # start, end, lines
    previous_end = 0

    def close() -> None:
        nonlocal block
        if block is not None:
            needs = tuple(index for _, index in open_signatures)
            pieces.append(Piece(block[0], block[1], 0.0, needs))
            block = None

    for match in LINE.finditer(text):
        line = _bare(match.group())
        indent = len(line) - len(line.lstrip())
        is_after_blank = text.count("\n", previous_end, match.start()) > 1
        previous_end = match.end()
        dedents = (
            bool(open_signatures)
            and indent <= open_signatures[-1][0]
            and line.strip() not in ("}", ")", "{", "):", "]")
        )
        if is_after_blank or dedents or (block is not None and block[2] >= _BLOCK_LINES):
            close()
        if dedents:
            while open_signatures and indent <= open_signatures[-1][0]:
                open_signatures.pop()
        if _is_signature(line):
            close()
            needs = tuple(index for _, index in open_signatures)
            pieces.append(Piece(*match.span(), 0.35, needs))
            open_signatures.append((indent, len(pieces) - 1))
        elif block is None:
            block = (*match.span(), 1)
        else:
            block = (block[0], match.end(), block[2] + 1)
    close()
    return pieces


def diff_pieces(text: str) -> list[Piece]:
    """File headers, and hunks that need theirs."""
    pieces: list[Piece] = []
    header: int | None = None
    in_hunk = False
    for match in LINE.finditer(text):
        line = match.group()
        if _HUNK.match(line):
            in_hunk = True
            pieces.append(Piece(*match.span(), 0.0, () if header is None else (header,)))
        elif (
            line.startswith(("diff --git ", "Index: "))
            or (_FILE_HEADER.match(line) and not in_hunk and header is None)
            or (in_hunk and line.startswith("--- ") and text.startswith("+++ ", match.end() + 1))
        ):
            in_hunk = False
            header = len(pieces)
            pieces.append(Piece(*match.span(), 0.3))
        elif pieces:
            last = pieces[-1]
            pieces[-1] = Piece(last.start, match.end(), last.prior, last.needs)
        else:
            pieces.append(Piece(*match.span()))
    return pieces


def _bare(line: str) -> str:
    """The line without a number in front of it."""
    match = _NUMBER.match(line)
    return line[match.end() :] if match else line


def _is_signature(line: str) -> bool:
    bare = line.lstrip()
    return bool(_SIGNATURE.match(bare)) and not _CONTROL.match(bare)
