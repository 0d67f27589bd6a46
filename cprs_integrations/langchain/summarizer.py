"""A summary that costs no model call: the lines of the old messages that the request needs, verbatim."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack

from langchain_core.messages import BaseMessage

from cprs_core import MissingExtraError
from cprs_integrations.langchain.history import read_messages
from cprs_integrations.messages import EXPAND_TOOL, request_before, transcript
from cprs_integrations.ranking import Goal
from cprs_integrations.tool_output import shorten_output
from cprs_integrations.trimming import HistoryTrimmer, TrimOptions

if TYPE_CHECKING:
    from langchain.agents.middleware import SummarizationMiddleware


class CPRSSummarizer:
    """From messages to a text of at most ``max_tokens``: for ``summarizer=`` of the stock `SummarizationMiddleware`.

    >>> CPRSSummarizer(max_tokens=2_000).middleware(model, trigger=("tokens", 50_000))  # doctest: +SKIP
    """

    def __init__(self, *, max_tokens: int = 2_000, **options: Unpack[TrimOptions]) -> None:
        """A summarizer.

        Args:
            max_tokens: most tokens of the summary.
            options: ``compressor``, ``instruction``, ``count_tokens`` and ``store`` of `TrimOptions`.
        """
        self.max_tokens = max_tokens
        self.trimmer = HistoryTrimmer(**options)

    def __call__(self, messages: Sequence[BaseMessage]) -> str:
        """The lines that matter for the last request among the messages; the whole goes to the store."""
        history = read_messages(messages)
        text = transcript(history)
        goal = Goal(request_before(history, len(history)), self.trimmer.instruction or "turns")
        key = self.trimmer.store.put(text)
        how = f"; call {EXPAND_TOOL} with key {key} for the rest" if key else ""
        return shorten_output(
            text,
            goal,
            compressor=self.trimmer.compressor,
            max_tokens=self.max_tokens,
            kind="text",
            count_tokens=self.trimmer.count_text,
            note=lambda kept: f"cprs: {kept} of the earlier conversation{how}",
        )

    def middleware(self, model: Any, **options: Any) -> SummarizationMiddleware:
        """The stock middleware with this summarizer, which sees all that is summarised and not the last 4,000 tokens.

        Args:
            model: the agent's model; it is asked for its limits only.
            options: of `SummarizationMiddleware`: ``trigger``, ``keep``, ``token_counter``.

        Raises:
            MissingExtraError: langchain is not installed, or older than 1.4.5, which ignores ``summarizer=`` and would
                call the model instead.
        """
        try:
            from langchain.agents.middleware import SummarizationMiddleware
        except ImportError as error:
            raise MissingExtraError("langchain", "langchain", "CPRSSummarizer.middleware") from error
        if "summarizer" not in inspect.signature(SummarizationMiddleware.__init__).parameters:
            raise MissingExtraError("langchain>=1.4.5", "langchain", "a summarizer without model calls")
        return SummarizationMiddleware(model, summarizer=self, trim_tokens_to_summarize=None, **options)
