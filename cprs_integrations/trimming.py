"""Keeps a chat history within a budget: what is shortened once and frozen, and what is left out when it must be.

Three moments, and nothing in between:

* **A tool result is shortened when it first appears**, under the request that it was produced for. The result depends
  on what stands before it only, so every later request repeats its bytes and the provider's prompt cache keeps hitting.
* **A new request** may need lines that were shortened or left out before it was made. They are brought back verbatim,
  in a message of their own before it: added at the end, so that nothing which was sent changes.
* **A compaction** happens when the history outgrows ``max_tokens``: the turns that have least to do with the current
  request are left out, at once far enough that the next compaction is many turns away.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cprs_core import InputError, Preset
from cprs_integrations.accounting import Ledger, TrimUsage
from cprs_integrations.adapting import Compresses
from cprs_integrations.messages import (
    EXPAND_TOOL,
    RECALL_START,
    Message,
    ToolCall,
    Turn,
    count_message,
    drop_recalls,
    is_request,
    protect_turns,
    read_notice,
    repair_pairs,
    request_before,
    split_turns,
    transcript,
    write_notice,
)
from cprs_integrations.ranking import CountTokens, Goal, score_pieces
from cprs_integrations.recall import recall_lines
from cprs_integrations.shortening import NOTHING, ResultShortener, ToolRule, TrimOptions
from cprs_integrations.store import KEY_CHARACTERS, OriginalStore, key_of
from cprs_integrations.tool_output import MIN_TOOL_TOKENS

__all__ = ["HistoryTrimmer", "ToolRule", "TrimOptions", "TrimUsage", "Trimmed"]

logger = logging.getLogger(__name__)

# A running agent is compacted to this share of the budget, so that the next time, which breaks a cache, is far away.
COMPACT_TO = 0.5

_TURNS = "turns"  # the preset for conversation turns
_RECENCY = 0.1  # how much the newest turn gains over the oldest, beside scores of about 0 to 1.5
_PART_CHARACTERS = 2_000  # a longer turn is scored in parts
# Bounded, as tools may return anything: a note says within 100 characters how many tokens there were.
_WRITTEN_BEFORE = re.compile(r"cprs: kept [^\"\n\]]{0,100}?, ([0-9][0-9,]{0,14}) tokens before")
_KEY = re.compile(rf"call {EXPAND_TOOL} with key ([0-9a-f]{{{KEY_CHARACTERS}}})")
_NOTE = re.compile(r"cprs: kept [^\"\n\]]*")

# Notes of texts that a compaction cut say so: the requests before that compaction saw the text whole, and what a tool
# result lost at its first appearance was missing for every request after it.
_WHEN_CUT = " in a compaction"
_CUT = re.compile(rf"cprs: kept [^\"\n\]]{{0,100}}?{_WHEN_CUT}, \d")


@dataclass(frozen=True)
class Trimmed:
    """A history after trimming: the caller's messages by ``index``, with ``texts`` that may be new."""

    messages: list[Message]
    usage: TrimUsage


class HistoryTrimmer(ResultShortener):
    """Trims histories under one set of options; safe to share between threads and conversations.

    >>> from cprs_core import Compressor, KeywordScorer
    >>> trimmer = HistoryTrimmer(Compressor(KeywordScorer()), max_tokens=1_000)
    >>> trimmer.trim([Message("user", ("Hello",))]).usage.over_budget
    False
    """

    def __init__(
        self,
        compressor: Compresses | None = None,
        *,
        max_tokens: int | None = None,
        tool_tokens: int = 1_000,
        tool_rules: Mapping[str, ToolRule | None] | None = None,
        keep_last: int = 4,
        recall_tokens: int = 500,
        instruction: str | Preset | None = None,
        count_tokens: CountTokens | None = None,
        store: OriginalStore | None = None,
    ) -> None:
        """A trimmer; see `TrimOptions` for the other options.

        Args:
            max_tokens: most tokens of a history; None only shortens tool results and never leaves a turn out.

        Raises:
            InputError: an option is out of range.
        """
        if keep_last < 0:
            raise InputError(f"keep_last is {keep_last}; it must be 0 or more turns")
        if recall_tokens < 0:
            raise InputError(f"recall_tokens is {recall_tokens}; it must be 0 or more")
        super().__init__(
            compressor,
            tool_tokens=tool_tokens,
            tool_rules=tool_rules,
            instruction=instruction,
            count_tokens=count_tokens,
            store=store,
        )
        self.max_tokens = _checked_budget(max_tokens)
        self.keep_last = keep_last
        self.recall_tokens = recall_tokens

    def trim(self, messages: Sequence[Message]) -> Trimmed:
        """The history within ``max_tokens``, once: for a history that is sent now and not continued from here.

        Over budget is reported, never raised. Applying it to its own output changes nothing.
        """
        return self._run(messages, self._trim_once)

    def follow(self, messages: Sequence[Message]) -> Trimmed:
        """The history as a running agent sends it: every answer extends the one before, except after a compaction.

        It is read from its start, so the same history gives the same bytes in every process, with nothing to remember.
        """
        return self._run(messages, self._replay)

    def with_budget(self, max_tokens: int | None) -> HistoryTrimmer:
        """The same trimmer, with what it remembers, under another budget."""
        other = copy.copy(self)
        other.max_tokens = _checked_budget(max_tokens)
        return other

    def with_counter(self, count_tokens: CountTokens) -> HistoryTrimmer:
        """The same trimmer, with its store and the results it remembers, under another counter."""
        other = copy.copy(self)
        other._count_with(count_tokens)
        return other

    def shorten_last(self, messages: Sequence[Message]) -> Trimmed:
        """The history with its last message, a tool result, as `follow` will send it from now on."""
        numbered = [replace(message, index=index) for index, message in enumerate(messages)]
        before = count_message(numbered[-1], self.count_text)
        last = self._shorten_results(numbered)[-1]
        after = count_message(last, self.count_text)
        return Trimmed([*numbered[:-1], last], TrimUsage(before, after, shortened=int(after < before)))

    def record(self, ledger: Ledger, trimmed: Trimmed) -> None:
        """Account for a request with this history."""
        count = self.count_text
        fetched = [count_message(message, count) for message in trimmed.messages if message.is_fetched]
        ledger.record(
            [(message.digest, count_message(message, count)) for message in trimmed.messages],
            input_tokens=trimmed.usage.input_tokens - trimmed.usage.fetched_tokens,
            note_tokens=trimmed.usage.note_tokens,
            expanded_tokens=sum(fetched),
            over_budget=trimmed.usage.over_budget,
        )

    def _run(
        self, messages: Sequence[Message], keep: Callable[[list[Message], list[Message]], tuple[list[Message], int]]
    ) -> Trimmed:
        began = time.perf_counter()
        repair = repair_pairs([replace(message, index=index) for index, message in enumerate(messages)])
        if repair.is_needed:
            logger.warning(
                "history repaired: %d missing tool results added, %d moved, %d without a call removed",
                *(repair.added, repair.moved, repair.removed),
            )
        written = self._shorten_results(repair.messages)
        kept, compactions = keep(written, repair.messages)
        tokens = self.count(kept)
        before = [self._original_tokens(message) for message in repair.messages]
        usage = TrimUsage(
            input_tokens=sum(before),
            fetched_tokens=sum(n for n, message in zip(before, written, strict=True) if message.is_fetched),
            output_tokens=tokens,
            note_tokens=sum(self._note_tokens(message) for message in kept),
            shortened=sum(_is_changed(message, messages) for message in kept),
            left_out=_left_out(kept),
            compactions=compactions,
            repaired=repair.added + repair.moved + repair.removed,
            over_budget=self.max_tokens is not None and tokens > self.max_tokens,
            store_failures=self.store.failures,
            seconds=time.perf_counter() - began,
        )
        if usage.over_budget:
            logger.warning("history holds %d tokens that must stay; the budget is %d", tokens, self.max_tokens)
        return Trimmed(kept, usage)

    def _shorten_results(self, messages: Sequence[Message]) -> list[Message]:
        """Every tool result as `shorten_result` writes it, under the request before it."""
        calls: dict[str, ToolCall] = {}
        request = ""
        written: list[Message] = []
        for message in messages:
            calls.update((call.id, call) for call in message.calls)
            if is_request(message):
                request = message.text
            if message.role == "tool" and not message.is_pinned and message.texts:
                call = calls.get(message.answers[0]) if message.answers else None
                call = call or ToolCall("", message.tool)
                texts = tuple(self.shorten_texts(message.texts, request, call))
                short = replace(message, tool=call.name, texts=texts)
                if short.texts != message.texts and message.original_tokens is None:
                    short = replace(short, original_tokens=count_message(message, self.count_text))
                message = short
            written.append(message)
        return written

    def _trim_once(self, messages: list[Message], originals: list[Message]) -> tuple[list[Message], int]:
        if self.max_tokens is None or self.count(messages) <= self.max_tokens:
            return messages, 0
        return self._compact(messages, self.max_tokens), 1

    def _replay(self, messages: list[Message], originals: list[Message]) -> tuple[list[Message], int]:
        """Messages in order: before a request what it needs of earlier text, before a model call any due compaction."""
        view: list[Message] = []
        hidden: dict[str, str] = {}  # texts that are not in the view, or not whole, by content key
        # In a history that was trimmed before, what earlier requests needed is there already.
        is_ours = any(message.is_notice or message.is_recall or _is_cut(message) for message in messages)
        last_call = max((i for i, message in enumerate(messages) if message.role == "assistant"), default=-1)
        tokens = compactions = 0
        for place, (message, original) in enumerate([*zip(messages, originals, strict=True), (None, None)]):
            is_call = message is None or message.role == "assistant"
            if self.max_tokens is not None and tokens > self.max_tokens and is_call:
                shorter = self._compact(view, int(COMPACT_TO * self.max_tokens))
                compactions += len(shorter) < len(view)
                hidden |= _missing_texts(view, shorter)
                view, tokens = shorter, self.count(shorter)
            if message is None or original is None:
                break
            may_recall = is_request(message) and not (is_ours and place < last_call)
            recalled = self._recall(message, hidden, view) if may_recall else []
            hidden |= self._hidden_texts(message, original)
            view += [*recalled, message]
            tokens += self.count([*recalled, message])
        for place in range(len(view) - 1, -1, -1):
            if view[place].role == "assistant":
                break
            if is_request(view[place]):  # asked and answered, also when this output comes back
                self._results.put(_prefix_key(view[: place + 1]), NOTHING)
        return view, compactions

    def _recall(self, message: Message, hidden: dict[str, str], view: list[Message]) -> list[Message]:
        """The message that brings back what a request needs; none where nothing does, or where it is there."""
        if not hidden or not self.recall_tokens or (view and view[-1].is_recall):
            return []
        if self._results.get(_prefix_key([*view, message])) is not None:
            return []

        budget = min(self.recall_tokens, (self.max_tokens or self.recall_tokens * 10) // 10)
        # An old message of this kind may go in the next compaction, so what it says may have to be said again.
        in_sight = [m for i, m in enumerate(view) if not m.is_recall or i >= len(view) - self.keep_last]

        def write() -> str:
            lines = recall_lines(
                list(hidden.values()),
                Goal(message.text, self.instruction),
                compressor=self.compressor,
                max_tokens=budget,
                count_tokens=self.count_text,
                seen={line for earlier in in_sight for line in earlier.text.splitlines()},
            )
            return f"{RECALL_START}\n{lines}" if lines else NOTHING

        recalled = self.once(["recall", list(hidden), message.text, str(self.instruction), budget], write)
        return [] if recalled == NOTHING else [Message("user", (recalled,))]

    def _hidden_texts(self, message: Message, original: Message) -> dict[str, str]:
        """The whole of a message that stands shortened in the history, from the history itself or from the store."""
        if message.texts != original.texts:
            return {key_of(original.text): original.text}
        if message.is_recall:
            return {}
        keys = [match[1] for text in message.texts for match in _KEY.finditer(text)]
        return {key: text for key in keys if (text := self.store.get(key)) is not None}

    def _compact(self, view: list[Message], target: int) -> list[Message]:
        """The history with turns left out until ``target`` tokens, most relevant turns kept; remembered for good."""
        turns = protect_turns(split_turns(view), view, self.keep_last)
        optional = [i for i, turn in enumerate(turns) if not turn.is_protected and not _is_notice(turn, view)]
        if not optional and not any(message.is_recall for message in view):
            return view
        goal = Goal(request_before(view, len(view)), self.instruction or _TURNS)
        digests = [message.digest for message in view]
        made_from = ["plan", digests, goal.query, str(goal.instruction), target, self.keep_last]
        plan = self.once(made_from, lambda: json.dumps(self._plan(view, turns, optional, goal, target)))
        return _carry_out(json.loads(plan), view)

    def _plan(
        self, view: list[Message], turns: list[Turn], optional: list[int], goal: Goal, target: int
    ) -> dict[str, Any]:
        """What a compaction keeps: positions in the view, new texts by position, and the notice."""
        fixed = self.count([message for message in view if message.role == "system"])
        fixed += self.count([view[i] for turn in turns if turn.is_protected for i in turn.indices])
        turns = drop_recalls(turns, view, keep_newest=fixed <= (self.max_tokens or fixed))
        cost = [self.count([view[index] for index in turn.indices]) for turn in turns]
        fixed = self.count([message for message in view if message.role == "system"])
        fixed += sum(cost[i] for i, turn in enumerate(turns) if turn.is_protected)
        room = target - fixed - self.count([Message("user", (write_notice(99_999, 9_999_999, "0" * 12),))])
        kept, texts = self._choose(view, turns, optional, cost, goal, room)
        held = {i for i, turn in enumerate(turns) if turn.is_protected} | kept
        positions = [index for i, turn in enumerate(turns) if i in held for index in turn.indices]
        positions += [index for index, message in enumerate(view) if message.role == "system"]
        held_positions = set(positions)
        gone = [message for index, message in enumerate(view) if index not in held_positions]
        left = [message for message in gone if not message.is_notice and not message.is_recall]
        if not left:
            return {"keep": list(range(len(view))), "texts": texts, "notice": None}
        notices = [message.texts[0] for message in gone if message.is_notice]
        earlier = [counts for counts in map(read_notice, notices) if counts is not None]
        key = self.store.put("\n".join([*notices, transcript(left)]))
        notice = write_notice(
            len(left) + sum(messages for messages, _ in earlier),
            sum(self._original_tokens(message) for message in left if not message.is_fetched)
            + sum(tokens for _, tokens in earlier),
            key,
        )
        return {"keep": sorted(positions), "texts": texts, "notice": notice}

    def _choose(
        self, view: list[Message], turns: list[Turn], optional: list[int], cost: list[int], goal: Goal, room: int
    ) -> tuple[set[int], dict[str, list[str]]]:
        """Optional turns that stay, best first, each with the user turn it answers; and texts cut so as to fit."""
        texts_of = [transcript(view[index] for index in turns[i].indices) + "\n" for i in optional]
        scores = self._turn_scores(texts_of, goal)
        kept: set[int] = set()
        texts: dict[str, list[str]] = {}
        for place in np.argsort(-scores, kind="stable").tolist():
            i = optional[place]
            head = turns[i].head
            new = {j for j in (i, head) if j is not None and j in optional and j not in kept}
            price = sum(cost[j] for j in new)
            if price > room >= 4 * MIN_TOOL_TOKENS:
                cut = self._cut_turns(view, [turns[j] for j in sorted(new)], goal, room // 2)
                price = self._price_with(view, [turns[j] for j in new], cut)
                texts |= cut if price <= room else {}
            if price <= room:
                room -= price
                kept |= new
        return kept, texts

    def _turn_scores(self, turns: Sequence[str], goal: Goal) -> NDArray[np.float32]:
        """float32, (n,): how much each turn has to do with the goal: as much as its best part, and newer ones more."""
        parts = [
            (turn, text[at : at + _PART_CHARACTERS])
            for turn, text in enumerate(turns)
            for at in range(0, max(len(text), 1), _PART_CHARACTERS)
        ]
        scores = np.full(len(turns), -np.inf, dtype=np.float32)
        of_parts = score_pieces([text for _, text in parts], goal, self.compressor)
        np.maximum.at(scores, [turn for turn, _ in parts], of_parts)
        return scores + np.linspace(0.0, _RECENCY, len(turns), dtype=np.float32)

    def _cut_turns(self, view: list[Message], turns: list[Turn], goal: Goal, budget: int) -> dict[str, list[str]]:
        """The long texts of turns that matter but do not fit, shortened to share a budget."""
        indices = [index for turn in turns for index in turn.indices]
        total = self.count([view[index] for index in indices])
        cut: dict[str, list[str]] = {}
        for index in indices:
            if view[index].role == "tool" and view[index].tool == EXPAND_TOOL:
                continue
            share = budget * count_message(view[index], self.count_text) // max(total, 1)
            rule = ToolRule(max(share, MIN_TOOL_TOKENS))
            texts = [self._shorten(text, goal, rule, when=_WHEN_CUT) for text in view[index].texts]
            if tuple(texts) != view[index].texts:
                cut[str(index)] = texts
        return cut

    def _price_with(self, view: list[Message], turns: list[Turn], cut: dict[str, list[str]]) -> int:
        indices = [index for turn in turns for index in turn.indices]
        return self.count([replace(view[i], texts=tuple(cut.get(str(i), view[i].texts))) for i in indices])

    def _original_tokens(self, message: Message) -> int:
        """Tokens of a message as it was first written."""
        counts = read_notice(message.text) if message.is_notice else None
        if counts is not None:
            return counts[1]
        if message.is_recall:
            return 0
        if message.original_tokens is not None:
            return message.original_tokens
        tokens = count_message(message, self.count_text)
        if message.role != "tool":
            return tokens
        # A tool may have shortened its result before it came into the history; its note then says what it was.
        written = [_WRITTEN_BEFORE.findall(text) for text in message.texts]
        return max(tokens, sum(max(int(n.replace(",", "")) for n in found) for found in written if found))

    def _note_tokens(self, message: Message) -> int:
        if message.is_notice or message.is_recall:
            return count_message(message, self.count_text)
        notes = [match.group() for text in message.texts for match in _NOTE.finditer(text)]
        return sum(map(self.count_text, notes))


def _checked_budget(max_tokens: int | None) -> int | None:
    if max_tokens is not None and max_tokens < 1:
        raise InputError(f"max_tokens is {max_tokens}; it must be at least 1 (leave it out for no budget)")
    return max_tokens


def _prefix_key(view: Sequence[Message]) -> str:
    return "prefix " + hashlib.sha256("".join(message.digest for message in view).encode("ascii")).hexdigest()[:32]


def _missing_texts(before: Sequence[Message], after: Sequence[Message]) -> dict[str, str]:
    """What a compaction took out of the history, message by message."""
    kept = {id(text) for message in after for text in message.texts}
    gone = [m for m in before if not m.is_notice and not m.is_recall and not all(id(text) in kept for text in m.texts)]
    return {key_of(text): text for text in (transcript([message]) for message in gone)}


def _carry_out(plan: dict[str, Any], view: list[Message]) -> list[Message]:
    kept = [
        replace(view[index], texts=tuple(plan["texts"].get(str(index), view[index].texts))) for index in plan["keep"]
    ]
    if plan["notice"] is None:
        return kept
    first = next((i for i, message in enumerate(kept) if message.role != "system"), len(kept))
    return [*kept[:first], Message("user", (plan["notice"],)), *kept[first:]]


def _is_notice(turn: Turn, view: Sequence[Message]) -> bool:
    return any(view[index].is_notice for index in turn.indices)


def _is_cut(message: Message) -> bool:
    """Whether a compaction cut a text of this message; what was fetched back only quotes such a text."""
    return not message.is_fetched and any(_CUT.search(text) for text in message.texts)


def _is_changed(message: Message, originals: Sequence[Message]) -> bool:
    return message.index is not None and message.texts != originals[message.index].texts


def _left_out(messages: Sequence[Message]) -> int:
    notices = [read_notice(message.text) for message in messages if message.is_notice]
    return sum(counts[0] for counts in notices if counts is not None)
