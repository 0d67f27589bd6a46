"""An edit for the stock `ContextEditingMiddleware`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Unpack

from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.messages.utils import count_tokens_approximately

from cprs_core import InputError
from cprs_integrations.langchain.history import IsPinned, trim_list
from cprs_integrations.trimming import HistoryTrimmer, TrimOptions

CountMessages = Callable[[Sequence[BaseMessage]], int]


class CPRSContextEdit:
    """Shortens tool results and, above ``trigger`` tokens, leaves old turns out: in place of `ClearToolUsesEdit`.

    Its async path runs on the event loop, as the stock middleware calls edits there: an agent that runs async with a
    large critic wants `CPRSContextMiddleware`.

    >>> from langchain.agents.middleware import ContextEditingMiddleware
    >>> middleware = ContextEditingMiddleware(edits=[CPRSContextEdit(trigger=50_000)])
    """

    def __init__(
        self, *, trigger: int = 100_000, is_pinned: IsPinned | None = None, **options: Unpack[TrimOptions]
    ) -> None:
        """An edit with its own trimmer.

        Args:
            trigger: tokens, by the middleware's counter, above which turns are left out.
            is_pinned: says which messages stay whole.
            options: see `TrimOptions`; ``count_tokens`` is the middleware's to give.
        """
        if "count_tokens" in options:
            raise InputError("count_tokens does not fit here: pass token_counter= to ContextEditingMiddleware")
        self.trigger = trigger
        self.is_pinned = is_pinned
        self._trimmer = HistoryTrimmer(max_tokens=trigger, **options)
        self._last: tuple[CountMessages | None, HistoryTrimmer] = (None, self._trimmer)

    def apply(self, messages: list[Any], *, count_tokens: CountMessages) -> None:
        """Edit the list in place; the middleware hands in a copy."""
        known, trimmer = self._last
        if known is not count_tokens:
            trimmer = self._trimmer_for(count_tokens)
            self._last = count_tokens, trimmer
        messages[:], _ = trim_list(trimmer, messages, how="follow", is_pinned=self.is_pinned)

    def _trimmer_for(self, count_tokens: CountMessages) -> HistoryTrimmer:
        # A lone user message is a history that every counter takes, a provider's own included. The counter of a model
        # is made for one request, and counts its system prompt and its tools every time.
        alone = [HumanMessage("-")]
        always = max(count_tokens(alone) - count_tokens_approximately(alone), 0)
        trimmer = self._trimmer.with_counter(lambda text: count_tokens([HumanMessage(text)]) - always)
        return trimmer.with_budget(max(self.trigger - always, 1))
