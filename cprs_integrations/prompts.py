"""Which text of a chat request is context, and what the question is. No framework here.

A request mixes instructions, questions and context. Only context may be shortened, and nothing marks it, so the rules
are cautious: long tool results as a whole; of long user messages the middle; of long system messages only what stands
between lines of dashes or between XML tags. The question comes from the last user message.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from cprs_core import Compression, Document
from cprs_integrations.adapting import CompressionOptions, Outcome, Step, take_turn

Role = Literal["system", "user", "tool"]

# What stands in for a text of which nothing was kept; providers reject empty messages.
OMITTED = "[nothing here concerns the question]"

# In a long user message this much at the beginning and at the end is left as it is: instructions and questions stand
# there, in front of the context, behind it, or both.
HEAD_CHARS = 300
TAIL_CHARS = 600

# A question longer than this is cut: a critic's window also has to hold some context.
MAX_QUESTION_CHARS = 1_000

# Ten or more: shorter rules are headings and breaks of Markdown inside the context.
_RULE = re.compile(r"^[ \t]*(([-=*_~])\2{9,})[ \t]*$", re.MULTILINE)
_OPENS = re.compile(r"<([A-Za-z][\w.:-]*)(?:\s[^<>]*)?>")
_CLOSES = re.compile(r"</([A-Za-z][\w.:-]*)>")
_BREAK = re.compile(r"\n|(?<=[.!?])\s|(?<=[。！？])")
_LABELLED = re.compile(
    r"(?:\b(?:question|query)\b[^:：\n]{0,30}|问题|問題|質問)[:：][ \t]*"
    r"(\S.*?)(?=\n\s*\n|\n[^\n:：]{0,40}\banswer[:：]|\Z)",
    re.IGNORECASE | re.DOTALL,
)
_ASKING = re.compile(r"[^.!?。！？\n]*[?？]")


@dataclass(frozen=True)
class MessageText:
    """One text of a message list, in the order of the messages.

    ``frozen`` texts are read for the question but never changed (they lie before a cache marker, say).
    """

    role: Role
    text: str
    frozen: bool = False


class ChatOptions(CompressionOptions):
    """Options of adapters that stand before a chat model."""

    min_chars: int = Field(default=2_000, ge=1)
    """Context shorter than this many characters passes through untouched."""

    query: Callable[[Sequence[MessageText]], str] | None = Field(default=None, repr=False)
    """Finds the question in a message list; None for the last user message."""

    @classmethod
    def option_names(cls) -> list[str]:
        return sorted(ChatOptions.model_fields)


@dataclass(frozen=True)
class Request:
    """A chat request as far as compression is concerned: its texts, and the ranges of them that are context."""

    options: ChatOptions
    texts: Sequence[MessageText]

    def shorten(self) -> tuple[dict[int, str], dict[str, Any]]:
        """New texts by index of the text, and what happened as plain data; both empty where nothing was to do."""
        pieces, step = self._plan()
        seen: list[Compression] = []

        def compress() -> Compression:
            seen.append(step.compress())
            return seen[0]

        outcomes = step.carry_out(compress) if pieces else []
        return self._replace(pieces, outcomes), _facts(seen, outcomes)

    async def ashorten(self) -> tuple[dict[int, str], dict[str, Any]]:
        """`shorten` without blocking the loop."""
        await take_turn()
        pieces, step = self._plan()
        seen: list[Compression] = []

        async def acompress() -> Compression:
            seen.append(await step.acompress())
            return seen[0]

        outcomes = await step.acarry_out(acompress) if pieces else []
        return self._replace(pieces, outcomes), _facts(seen, outcomes)

    def _plan(self) -> tuple[list[tuple[int, int, int]], Step]:
        """(text, start, end) of every piece of context, and the step that shortens them all."""
        query = (self.options.query or find_question)(self.texts)
        pieces = [
            (index, start, end)
            for index, text in enumerate(self.texts)
            if not text.frozen and len(text.text) >= self.options.min_chars
            for start, end in context_ranges(text.role, text.text, self.options.min_chars)
        ]
        if not query.strip() and self.options.instruction is None:
            pieces = []
        documents = [Document(self.texts[index].text[start:end]) for index, start, end in pieces]
        return pieces, Step(self.options, documents, query)

    def _replace(self, pieces: Sequence[tuple[int, int, int]], outcomes: Sequence[Outcome]) -> dict[int, str]:
        kept = {outcome.index: outcome.text for outcome in outcomes}
        parts: dict[int, list[str]] = {}  # of every text that changes, in order
        read: dict[int, int] = {}  # characters of it that the parts stand for
        for number, (index, start, end) in enumerate(pieces):
            text = self.texts[index].text
            piece = text[start:end]
            blank = piece[: len(piece) - len(piece.lstrip())], piece[len(piece.rstrip()) :]
            shortened = kept.get(number, OMITTED).strip()
            parts.setdefault(index, []).extend((text[read.get(index, 0) : start], blank[0], shortened, blank[1]))
            read[index] = end
        replaced = {index: "".join([*parts[index], self.texts[index].text[end:]]) for index, end in read.items()}
        return {index: text for index, text in replaced.items() if text != self.texts[index].text}


def context_ranges(role: Role, text: str, min_chars: int) -> list[tuple[int, int]]:
    """Ranges of a text that are context, in order, none shorter than ``min_chars``."""
    if role == "tool":
        return [(0, len(text))] if len(text) >= min_chars else []
    marked = [(start, end) for start, end in _marked_ranges(text) if end - start >= min_chars]
    if role == "system" or marked:
        return marked
    start, end = _middle(text)
    return [(start, end)] if end - start >= min_chars else []


def find_question(texts: Sequence[MessageText]) -> str:
    """The question of the last user message that has text; "" where there is none.

    Of a long message, which holds context as well, only the beginning and the end are searched: for a line that is
    labelled as question or query, for sentences that end in a question mark, else all of it counts.
    """
    last = next((text.text for text in reversed(texts) if text.role == "user" and text.text.strip()), "")
    if len(last) <= MAX_QUESTION_CHARS:
        return last.strip()
    start, end = _middle(last)
    around = f"{last[:start]}\n{last[end:]}"
    labelled = _LABELLED.findall(around)
    asking = _ASKING.findall(around)
    question = labelled[-1] if labelled else " ".join(asking[-3:]) if asking else around
    return str(question).strip()[-MAX_QUESTION_CHARS:]


def _marked_ranges(text: str) -> list[tuple[int, int]]:
    """What stands between two equal lines of dashes, or, where there are none, between XML tags."""
    ranges: list[tuple[int, int]] = []
    opened: re.Match[str] | None = None
    for match in _RULE.finditer(text):
        if opened is None:
            opened = match
        elif match.group(1) == opened.group(1):
            ranges.append((opened.end(), match.start()))
            opened = None
    return ranges or _tagged_ranges(text)


def _tagged_ranges(text: str) -> list[tuple[int, int]]:
    """What stands between a tag and the next closing one of its name; tags inside of others are text."""
    closing: dict[str, list[re.Match[str]]] = {}  # of each name, the last one first
    for match in _CLOSES.finditer(text):
        closing.setdefault(match[1], []).append(match)
    for matches in closing.values():
        matches.reverse()
    ranges: list[tuple[int, int]] = []
    after = 0
    for opened in _OPENS.finditer(text):
        candidates = closing.get(opened[1], [])
        while candidates and candidates[-1].start() < opened.end():
            candidates.pop()
        if opened.start() >= after and candidates:
            ranges.append((opened.end(), candidates[-1].start()))
            after = candidates[-1].end()
    return ranges


def _middle(text: str) -> tuple[int, int]:
    """What lies between the head and the tail: they end where a line or sentence does, else a word, else anywhere."""
    if len(text) <= HEAD_CHARS + TAIL_CHARS:
        return 0, 0
    last = len(text) - TAIL_CHARS
    heads = [match.end() for match in _BREAK.finditer(text, 0, HEAD_CHARS)]
    tail = _BREAK.search(text, last) or re.compile(r"\s").search(text, last)
    start = heads[-1] if heads else text.rfind(" ", 0, HEAD_CHARS) + 1 or HEAD_CHARS
    end = tail.end() if tail and text[tail.end() :].strip() else last
    return start, end


def _facts(seen: Sequence[Compression], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What happened to a request: tokens before and after, or why its text passed through."""
    if outcomes and outcomes[0].score is None:
        return dict(outcomes[0].provenance)
    if not seen:
        return {}
    read = seen[0].usage.input_tokens
    kept = seen[0].usage.output_tokens or sum(outcome.provenance.get("kept_tokens", 0) for outcome in outcomes)
    return {
        "original_tokens": read,
        "kept_tokens": kept,
        "ratio": round(kept / read, 4) if read else 0.0,
        "query": seen[0].query,
        "low_confidence": seen[0].low_confidence,
    }
