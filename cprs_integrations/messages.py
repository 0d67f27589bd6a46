"""Framework-free rules for chat histories: what a message is, which messages belong together, what may be touched.

Adapters turn their messages into `Message`, the rules say what stays, and adapters copy the answer back. Positions are
indices into the caller's list; nothing here is a caller's object.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

Role = Literal["system", "user", "assistant", "tool"]

EXPAND_TOOL = "expand"  # the tool whose results are exempt from compression

MISSING_RESULT = "[no result: the run ended before this tool call did]"

# The note about earlier messages is a message of its own; this is how it is known again when a history comes back.
NOTICE_START = "[cprs: earlier messages left out: "
_NUMBER = "([0-9][0-9,]{0,14})"  # bounded, as anybody may write what looks like a note
_NOTICE = re.compile(rf"{re.escape(NOTICE_START)}{_NUMBER} messages of {_NUMBER} tokens")

# Lines that are brought back for a request stand in a message of their own before it.
RECALL_START = "[cprs: recalled for the next request from what was shortened or left out]"

_MESSAGE_TOKENS = 4  # what a provider's format adds to every message, roughly


@dataclass(frozen=True)
class ToolCall:
    """A tool call that an assistant message asks for; ``arguments`` as text, for counting and for the goal."""

    id: str
    name: str
    arguments: str = ""


@dataclass(frozen=True)
class Message:
    """One message as the rules see it.

    Attributes:
        texts: its text parts in order: the only thing that may be replaced. Images, thinking, signatures and the like
            are not here; the adapter leaves them where they are.
        calls: tool calls that it makes.
        answers: ids of the tool calls that it answers; a tool message answers one, an Anthropic user message several.
        tool: the tool's name, where the message says it.
        other_tokens: tokens of the parts that are not in ``texts``, estimated.
        is_pinned: stays whole, whatever the budget (a cache marker, a pinned message).
        original_tokens: tokens of the message before it was shortened, where the adapter remembers.
        index: the message's place in the caller's list; None for a message that was added here.
    """

    role: Role
    texts: tuple[str, ...] = ()
    calls: tuple[ToolCall, ...] = ()
    answers: tuple[str, ...] = ()
    tool: str = ""
    other_tokens: int = 0
    is_pinned: bool = False
    original_tokens: int | None = None
    index: int | None = None

    @property
    def text(self) -> str:
        """All text parts, one line break between them."""
        return "\n".join(self.texts)

    @property
    def is_notice(self) -> bool:
        """Whether this is the note about earlier messages that were left out."""
        return self.role == "user" and len(self.texts) == 1 and bool(_NOTICE.match(self.texts[0]))

    @property
    def is_recall(self) -> bool:
        """Whether this message brings back lines for the request after it."""
        return self.role == "user" and len(self.texts) == 1 and self.texts[0].startswith(RECALL_START)

    @property
    def is_fetched(self) -> bool:
        """Whether this message is there only because an original was fetched back."""
        asks = bool(self.calls) and all(call.name == EXPAND_TOOL for call in self.calls) and not self.text.strip()
        return asks or (self.role == "tool" and self.tool == EXPAND_TOOL)

    @property
    def counted_text(self) -> str:
        """Everything in the message that costs tokens and is text."""
        asked = [f"{call.id} {call.name} {call.arguments}" for call in self.calls]
        return "\n".join([*self.texts, *asked, *self.answers])

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal characters that change with anything a provider would see of this message."""
        seen = [
            self.role,
            self.texts,
            [(c.id, c.name, c.arguments) for c in self.calls],
            self.answers,
            self.other_tokens,
        ]
        return hashlib.sha256(json.dumps(seen, ensure_ascii=True).encode("ascii")).hexdigest()[:16]


@dataclass(frozen=True)
class Turn:
    """What stays or goes as a whole: a user message, or an assistant message with the results of its tool calls.

    ``indices`` are positions in the history that was split; ``head`` is the index (among turns) of the user turn that
    it answers, None before the first one.
    """

    indices: tuple[int, ...]
    head: int | None = None
    is_protected: bool = False


@dataclass(frozen=True)
class Repair:
    """A history that every provider accepts, and what had to be done to it."""

    messages: list[Message]
    added: int = 0
    moved: int = 0
    removed: int = 0

    @property
    def is_needed(self) -> bool:
        return bool(self.added or self.moved or self.removed)


@dataclass
class _Pairing:
    """Bookkeeping while results are brought behind their calls."""

    result: list[Message] = field(default_factory=list)
    added: int = 0
    moved: int = 0
    removed: int = 0


def repair_pairs(messages: Sequence[Message]) -> Repair:
    """Every tool call followed at once by exactly one result, and no result without its call.

    A result that comes late is moved behind its call. A call without a result, as a crashed run leaves it, gets a
    result that says so. A result without a call, or a second one, is removed. Ids may repeat over the history: a result
    belongs to the nearest unanswered call before it.
    """
    owner = _owners(messages)
    results: dict[tuple[int, str], list[int]] = {}
    for index, calls in owner.items():
        for call in calls:
            results.setdefault(call, []).append(index)
    state = _Pairing()
    for index, message in enumerate(messages):
        if message.answers:
            if message.role == "tool" and not owner.get(index):
                state.removed += 1
            elif message.role != "tool":
                state.result.append(message)
            continue
        state.result.append(message)
        if message.calls:
            _answer(message, index, results, messages, state)
    return Repair(state.result, state.added, state.moved, state.removed)


def _owners(messages: Sequence[Message]) -> dict[int, list[tuple[int, str]]]:
    """For every answering message the calls it answers, as (index of the assistant message, call id)."""
    waiting: dict[str, deque[int]] = {}
    owner: dict[int, list[tuple[int, str]]] = {}
    for index, message in enumerate(messages):
        for call in message.calls:
            waiting.setdefault(call.id, deque()).append(index)
        for id in message.answers:
            if waiting.get(id):
                owner.setdefault(index, []).append((waiting[id].pop(), id))
    return owner


def _answer(
    message: Message,
    index: int,
    results: dict[tuple[int, str], list[int]],
    messages: Sequence[Message],
    state: _Pairing,
) -> None:
    """Append the results of one assistant message, in the order in which they came, and those that are missing."""
    places: list[int] = []
    missing: list[ToolCall] = []
    for call in dict.fromkeys(message.calls):
        found = results.get((index, call.id))
        if found:
            places += found
        else:
            missing.append(call)
    expected = index + 1
    for place in sorted(dict.fromkeys(places)):
        if messages[place].role != "tool":
            continue  # it answers from inside a user message, which stays where it is
        state.moved += place != expected
        expected = place + 1
        state.result.append(messages[place])
    for call in missing:
        state.added += 1
        state.result.append(Message("tool", (MISSING_RESULT,), answers=(call.id,), tool=call.name))


def split_turns(messages: Sequence[Message]) -> list[Turn]:
    """A repaired history as turns, in order; system messages are in none, recalled lines in that of their request."""
    turns: list[Turn] = []
    head: int | None = None
    recalled: tuple[int, ...] = ()
    for index, message in enumerate(messages):
        if message.role == "system":
            continue
        if message.is_recall:
            recalled = (*recalled, index)
        elif message.answers and turns:
            turns[-1] = replace(turns[-1], indices=(*turns[-1].indices, index))
            head = len(turns) - 1 if is_request(message) else head
        elif message.role == "user":
            head = head if message.is_notice else len(turns)
            turns.append(Turn((*recalled, index)))
            recalled = ()
        else:
            turns.append(Turn((*recalled, index), head))
            recalled = ()
    return [*turns, Turn(recalled)] if recalled else turns


def protect_turns(turns: Sequence[Turn], messages: Sequence[Message], keep_last: int) -> list[Turn]:
    """The turns, with those marked that stay: the last ``keep_last``, the last request, and what is pinned.

    A protected turn protects the user turn that it answers.
    """
    said = [i for i, turn in enumerate(turns) if not messages[turn.indices[-1]].is_notice]
    last_request = max((i for i in said if _is_request(turns[i], messages)), default=None)
    protected = set(said[max(len(said) - keep_last, 0) :])
    if last_request is not None:
        protected.add(last_request)
    protected |= {i for i, turn in enumerate(turns) if any(messages[index].is_pinned for index in turn.indices)}
    protected |= {head for i in protected if (head := turns[i].head) is not None}
    return [replace(turn, is_protected=i in protected) for i, turn in enumerate(turns)]


def drop_recalls(turns: Sequence[Turn], messages: Sequence[Message], *, keep_newest: bool) -> list[Turn]:
    """The turns without what was recalled for old requests; without ``keep_newest``, without that for the last too."""
    newest = max((i for i, turn in enumerate(turns) if _is_request(turn, messages)), default=None)
    kept: list[Turn] = []
    for i, turn in enumerate(turns):
        is_kept = keep_newest and i == newest
        kept.append(replace(turn, indices=tuple(j for j in turn.indices if is_kept or not messages[j].is_recall)))
    return kept


def _is_request(turn: Turn, messages: Sequence[Message]) -> bool:
    return any(is_request(messages[index]) for index in turn.indices)


def is_request(message: Message) -> bool:
    """Whether a user says something in this message (a note of ours, or a bare tool result, is no request)."""
    is_ours = message.is_notice or message.is_recall
    return message.role == "user" and not is_ours and bool(message.text.strip())


def request_before(messages: Sequence[Message], position: int) -> str:
    """The last thing that a user said before this position; empty where no user said anything."""
    return next((message.text for message in reversed(messages[:position]) if is_request(message)), "")


def count_message(message: Message, count_text: Callable[[str], int]) -> int:
    """Tokens of one message: its text and calls by ``count_text``, its other parts as estimated."""
    text = message.counted_text
    return _MESSAGE_TOKENS + message.other_tokens + (count_text(text) if text else 0)


def read_notice(text: str) -> tuple[int, int] | None:
    """(messages, tokens) that a note about earlier messages speaks of."""
    match = _NOTICE.match(text)
    return (int(match[1].replace(",", "")), int(match[2].replace(",", ""))) if match else None


def write_notice(messages: int, tokens: int, key: str | None) -> str:
    """The note that stands for earlier messages; ``key`` is where their text can be had back."""
    how = f"; call {EXPAND_TOOL} with key {key} to read them" if key else ""
    return f"{NOTICE_START}{messages:,} messages of {tokens:,} tokens{how}]"


def transcript(messages: Iterable[Message]) -> str:
    """Messages as plain text, for the store and for reading: ``role: text``, calls as ``name(arguments)``."""
    lines = []
    for message in messages:
        said = [*message.texts, *(f"{call.name}({call.arguments})" for call in message.calls)]
        lines.append(f"{message.role}: " + "\n".join(said))
    return "\n".join(lines)
