"""What a tool returns is shortened once, and then stands as it was written for good."""

from __future__ import annotations

import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypedDict, TypeVar

from cprs_core import InputError, Preset
from cprs_integrations.adapting import Compresses
from cprs_integrations.messages import EXPAND_TOOL, Message, ToolCall, count_message
from cprs_integrations.ranking import CountTokens, Goal, counter_of, estimate_tokens
from cprs_integrations.shared import CopyableLock, shared_compressor
from cprs_integrations.store import OriginalStore, key_of
from cprs_integrations.tool_output import KINDS, MIN_TOOL_TOKENS, SHORT_CHARACTERS, shorten_output

T = TypeVar("T")

# What `once` was asked and answered with nothing to write.
NOTHING = "-"

FORMAT = "1"  # part of every frozen key: a change in how results are written makes new keys

_REMEMBERED = 4_096  # results and counts kept at hand in the process
_ARGUMENT_CHARACTERS = 2_000  # of a call's arguments that are looked at: a file to write may be among them
_ARGUMENT = re.compile(r'"(?:[^"\\]|\\.)*"\s*:\s*|[{}\[\]",]')


@dataclass(frozen=True)
class ToolRule:
    """How the results of one tool are treated.

    Attributes:
        max_tokens: results above it are shortened to at most it.
        kind: the structure of its output, a name from `tool_output.KINDS`; "auto" detects it.
        instruction: what to extract, in words, or a preset or its name.
    """

    max_tokens: int = 1_000
    kind: str = "auto"
    instruction: str | Preset | None = None

    def __post_init__(self) -> None:
        if self.max_tokens < MIN_TOOL_TOKENS:
            raise InputError(f"max_tokens of a tool is {self.max_tokens}; it must be at least {MIN_TOOL_TOKENS}")
        if self.kind != "auto" and self.kind not in KINDS:
            raise InputError(f"kind is {self.kind!r}; it must be 'auto' or one of {', '.join(map(repr, KINDS))}")


class TrimOptions(TypedDict, total=False):
    """Options that everything which trims a history takes; each may be left out.

    Attributes:
        compressor: a `cprs_core.Compressor` or a remote client; the process's shared one by default.
        tool_tokens: most tokens of one tool result (default 1,000), for tools without a rule of their own.
        tool_rules: a `ToolRule` per tool name; None as a rule leaves that tool's results alone.
        keep_last: turns at the end that a compaction never touches (default 4).
        recall_tokens: most tokens of earlier lines that are brought back for a new request (default 500); 0 for none.
        instruction: what matters beside the last request, in words.
        count_tokens: tokens of a text; the critic's tokenizer by default. Nothing goes to a network.
        store: where originals go; in memory by default.
    """

    compressor: Compresses | None
    tool_tokens: int
    tool_rules: Mapping[str, ToolRule | None] | None
    keep_last: int
    recall_tokens: int
    instruction: str | Preset | None
    count_tokens: CountTokens | None
    store: OriginalStore | None


class ResultShortener:
    """Shortens tool results under one set of options; safe to share between threads and conversations.

    >>> from cprs_core import Compressor, KeywordScorer
    >>> ResultShortener(Compressor(KeywordScorer())).shorten_result("All is well.", "How is it?")
    'All is well.'
    """

    def __init__(
        self,
        compressor: Compresses | None = None,
        *,
        tool_tokens: int = 1_000,
        tool_rules: Mapping[str, ToolRule | None] | None = None,
        instruction: str | Preset | None = None,
        count_tokens: CountTokens | None = None,
        store: OriginalStore | None = None,
    ) -> None:
        """See `TrimOptions`.

        Raises:
            InputError: an option is out of range.
        """
        self.instruction = instruction
        self.store = store if store is not None else OriginalStore()
        self._rule = ToolRule(tool_tokens)
        self._rules = dict(tool_rules or {})
        self._given = compressor
        self._count_given = count_tokens
        self._results: Remembered[str] = Remembered(_REMEMBERED)
        self._counts: Remembered[int] = Remembered(_REMEMBERED)

    @property
    def compressor(self) -> Compresses:
        """The compressor: the given one, or the process's shared one, which is loaded now if it was not yet."""
        return self._given if self._given is not None else shared_compressor()

    def count_text(self, text: str) -> int:
        """Tokens of a text; of a huge one, extrapolated."""
        return self._count_as(text, "")

    def _count_as(self, text: str, key: str) -> int:
        """`count_text` of a text whose content key is known, or empty."""
        if len(text) < SHORT_CHARACTERS:
            return self._counter(text)
        key = key or key_of(text)
        known = self._counts.get(key)
        if known is None:
            known = estimate_tokens(text, self._counter)
            self._counts.put(key, known)
        return known

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens of a history."""
        return sum(count_message(message, self.count_text) for message in messages)

    def shorten_result(self, text: str, request: str, call: ToolCall | None = None) -> str:
        """A tool result as it stands in the history from now on; the original goes to the store.

        Args:
            request: the request that the tool was called for.
            call: the tool call, for the tool's rule and what it asked for.
        """
        name = call.name if call is not None else ""
        rule = self._rules.get(name, self._rule)
        if rule is None or name == EXPAND_TOOL:
            return text
        goal = Goal(f"{request} {_argument_values(call)}".strip(), rule.instruction or self.instruction)
        return self._shorten(text, goal, rule)

    def shorten_texts(self, texts: Sequence[str], request: str, call: ToolCall) -> list[str]:
        """The text parts of one tool result as they stand in the history from now on; they share one budget."""
        if len(texts) == 1:
            return [self.shorten_result(texts[0], request, call)]
        rule = self._rules.get(call.name, self._rule)
        tokens = [self.count_text(text) for text in texts]
        if rule is None or call.name == EXPAND_TOOL or sum(tokens) <= rule.max_tokens:
            return list(texts)
        goal = Goal(f"{request} {_argument_values(call)}".strip(), rule.instruction or self.instruction)
        shares = _shares(texts, tokens, rule.max_tokens)
        return [
            self._shorten(text, goal, replace(rule, max_tokens=share))
            for text, share in zip(texts, shares, strict=True)
        ]

    @property
    def _counter(self) -> CountTokens:
        return self._count_given or counter_of(self.compressor)

    def _count_with(self, count_tokens: CountTokens) -> None:
        self._count_given = count_tokens
        self._counts = Remembered(_REMEMBERED)

    def _shorten(self, text: str, goal: Goal, rule: ToolRule, *, when: str = "") -> str:
        """Written once: the first answer for a text and a goal is the answer for good; the note says ``when``."""
        if len(text) <= SHORT_CHARACTERS:
            return text
        key = key_of(text)
        tokens = self._count_as(text, key)
        if tokens <= rule.max_tokens:
            return text

        def write() -> str:
            stored = self.store.put(text)
            how = f"; call {EXPAND_TOOL} with key {stored} for the rest" if stored else ""
            return shorten_output(
                text,
                goal,
                compressor=self.compressor,
                max_tokens=rule.max_tokens,
                kind=rule.kind,
                count_tokens=self._counter,
                note=lambda kept: f"cprs: {kept}{when}, {tokens:,} tokens before{how}",
            )

        made_from = ["result", key, len(text), goal.query, str(goal.instruction), rule.max_tokens, rule.kind]
        return self.once([*made_from, when] if when else made_from, write)

    def once(self, made_from: Sequence[object], write: Callable[[], str]) -> str:
        """What was written for these inputs the first time, by whichever thread or process that was."""
        key = hashlib.sha256(json.dumps([FORMAT, *made_from]).encode("ascii")).hexdigest()[:32]
        known = self._results.get(key) or self.store.frozen(key)
        if known is None:
            written = write()
            self.store.freeze(key, written)
            known = self.store.frozen(key) or written
        self._results.put(key, known)
        return known


class Remembered(Generic[T]):
    """The values used last, by key; safe between threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[str, T] = OrderedDict()
        self._lock = CopyableLock()

    def get(self, key: str) -> T | None:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: str, value: T) -> None:
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            if len(self._values) > self._most:
                self._values.popitem(last=False)


def _argument_values(call: ToolCall | None) -> str:
    """What a tool call asked for, in words: the values of its arguments."""
    if call is None:
        return ""
    return " ".join(_ARGUMENT.sub(" ", call.arguments[:_ARGUMENT_CHARACTERS]).split())[:200]


def _shares(texts: Sequence[str], tokens: Sequence[int], max_tokens: int) -> list[int]:
    """Tokens that each of several texts may hold, by its length; together ``max_tokens`` as far as that is possible.

    Some texts get a fixed part: those too short to be shortened, and those whose share is below what a note needs. The
    others share what is left, so that texts which were shortened once are within their shares the next time.
    """
    fixed = {i: tokens[i] for i, text in enumerate(texts) if len(text) <= SHORT_CHARACTERS}
    while True:
        room = max_tokens - sum(fixed.values())
        total = sum(count for i, count in enumerate(tokens) if i not in fixed)
        shares = [fixed.get(i, room * count // max(total, 1)) for i, count in enumerate(tokens)]
        small = [i for i, share in enumerate(shares) if i not in fixed and share < MIN_TOOL_TOKENS]
        if not small:
            return [max(share, MIN_TOOL_TOKENS) for share in shares]
        fixed |= dict.fromkeys(small, MIN_TOOL_TOKENS)
