"""Memory for LlamaIndex agents: a history within a budget, and a block that recalls what left short-term memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Unpack

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.memory import BaseMemoryBlock
from llama_index.core.memory.types import DEFAULT_CHAT_STORE_KEY, BaseChatStoreMemory
from llama_index.core.storage.chat_store import BaseChatStore, SimpleChatStore
from llama_index.core.tools import AsyncBaseTool, BaseTool
from llama_index_instrumentation import get_dispatcher

from cprs_core import InputError
from cprs_integrations.accounting import Ledger
from cprs_integrations.llama_index.history import IsPinned, read_messages, write_messages
from cprs_integrations.llama_index.tools import cprs_tools
from cprs_integrations.messages import Message, request_before, transcript
from cprs_integrations.ranking import Goal
from cprs_integrations.recall import join_turns, recall_turns
from cprs_integrations.trimming import HistoryTrimmer, Trimmed, TrimOptions

dispatcher = get_dispatcher(__name__)


class CPRSMemoryEvent(BaseEvent):
    """A history was read through a `CPRSMemory`: what was done to it, as `TrimUsage.to_dict` and `Ledger.to_dict`."""

    usage: dict[str, Any]
    total: dict[str, Any]

    @classmethod
    def class_name(cls) -> str:
        return "CPRSMemoryEvent"


class CPRSMemory(BaseChatStoreMemory):
    """A chat history that reads as at most ``max_tokens``; the chat store keeps every message whole.

    For every agent and chat engine, also those that ask without input: the goal is the last user message. Within a turn
    an agent keeps tool results to itself, so give it the tools from `wrap_tools` too.

    >>> memory = CPRSMemory.from_defaults(max_tokens=8_000)
    >>> memory.put(ChatMessage("Hello"))
    >>> memory.get()[0].content
    'Hello'
    """

    _trimmer: HistoryTrimmer = PrivateAttr()
    _ledger: Ledger = PrivateAttr(default_factory=Ledger)
    _last_sent: list[str] = PrivateAttr(default_factory=list)
    _is_pinned: IsPinned | None = PrivateAttr(default=None)

    def __init__(
        self,
        *,
        max_tokens: int | None = None,
        is_pinned: IsPinned | None = None,
        chat_store: BaseChatStore | None = None,
        chat_store_key: str = DEFAULT_CHAT_STORE_KEY,
        **options: Unpack[TrimOptions],
    ) -> None:
        """A memory with its own trimmer.

        Args:
            max_tokens: most tokens of the history as it is read; None only shortens tool results.
            is_pinned: says which messages stay whole; those with a cache point do anyway.
            chat_store: where messages are kept; in memory by default.
            chat_store_key: the conversation's name in the chat store.
            options: see `TrimOptions`.
        """
        super().__init__(chat_store=chat_store or SimpleChatStore(), chat_store_key=chat_store_key)
        self._trimmer = HistoryTrimmer(max_tokens=max_tokens, **options)
        self._is_pinned = is_pinned

    def __setstate__(self, state: dict[str, Any]) -> None:
        # LlamaIndex calls the constructor with the fields, which knows nothing of a trimmer, its options and accounts.
        super().__setstate__(state)
        for name, value in (state.get("__pydantic_private__") or {}).items():
            setattr(self, name, value)

    @classmethod
    def class_name(cls) -> str:
        return "CPRSMemory"

    @classmethod
    def from_defaults(
        cls, chat_history: Sequence[ChatMessage] | None = None, llm: Any = None, **options: Any
    ) -> CPRSMemory:
        """A memory that begins with ``chat_history``; ``options`` are the constructor's. No ``llm`` is needed."""
        memory = cls(**options)
        if chat_history:
            memory.set(list(chat_history))
        return memory

    @property
    def trimmer(self) -> HistoryTrimmer:
        """What trims; its ``store`` holds the originals."""
        return self._trimmer

    @property
    def stats(self) -> dict[str, Any]:
        """The accounts of this conversation, as `Ledger.to_dict` writes them: one entry per history that was read."""
        return self._ledger.to_dict()

    def wrap_tools(self, tools: Iterable[BaseTool | Callable[..., Any]]) -> list[AsyncBaseTool]:
        """The tools with their results shortened as this memory does it, and the tool that fetches originals."""
        return cprs_tools(tools, trimmer=self._trimmer)

    def get(self, input: Any = None, **kwargs: Any) -> list[ChatMessage]:
        """The history within the budget, as copies. ``input`` is the user's next message, where it is not put yet."""
        return self._trim(self.chat_store.get_messages(self.chat_store_key), input)

    async def aget(self, input: Any = None, **kwargs: Any) -> list[ChatMessage]:
        """`get` without blocking the loop."""
        messages = await self.chat_store.aget_messages(self.chat_store_key)
        return await asyncio.to_thread(self._trim, messages, input)

    def _trim(self, messages: Sequence[ChatMessage], input: Any) -> list[ChatMessage]:
        history = read_messages(messages, self._is_pinned)
        asked = input.content or "" if isinstance(input, ChatMessage) else str(input or "")
        is_pending = bool(asked.strip()) and request_before(history, len(history)) != asked
        trimmed = self._trimmer.follow([*history, Message("user", (asked,))] if is_pending else history)
        if is_pending:
            trimmed = Trimmed(trimmed.messages[:-1], trimmed.usage)
        self._account(trimmed)
        return write_messages(trimmed, messages)

    def _account(self, trimmed: Trimmed) -> None:
        """One account per history: agents read the same one several times in a turn."""
        digests = [message.digest for message in trimmed.messages]
        if digests == self._last_sent:
            return
        self._last_sent = digests
        self._trimmer.record(self._ledger, trimmed)
        dispatcher.event(CPRSMemoryEvent(usage=trimmed.usage.to_dict(), total=self._ledger.total))


class CPRSMemoryBlock(BaseMemoryBlock[str]):
    """Turns that left short-term memory, recalled verbatim as far as the current question needs them.

    For ``memory_blocks=`` of LlamaIndex's `Memory`. What is recalled changes with the question, so insert it into the
    user message (``insert_method="user"``), where it does not break the provider's cache of what stands before.
    """

    name: str = Field(default="cprs", description="The name of the block in the prompt.")
    max_tokens: int = Field(default=1_000, ge=1, description="Most tokens of what is recalled.")
    turns: list[ChatMessage] = Field(default_factory=list, description="Messages that left short-term memory.")
    _trimmer: HistoryTrimmer = PrivateAttr()

    def __init__(self, *, options: TrimOptions | None = None, **fields: Any) -> None:
        """A block; ``options`` holds ``compressor``, ``instruction`` and ``count_tokens`` of `TrimOptions`."""
        unknown = sorted(set(fields) - set(type(self).model_fields) - {"compressor"})
        if unknown:
            known = ", ".join(sorted({*type(self).model_fields, "compressor", "options"}))
            raise InputError(f"unknown option {unknown[0]!r}; a CPRSMemoryBlock takes {known}")
        chosen: TrimOptions = {**(options or {})}
        if "compressor" in fields:
            chosen["compressor"] = fields.pop("compressor")
        super().__init__(**fields)
        self._trimmer = HistoryTrimmer(**chosen)

    async def _aget(self, messages: list[ChatMessage] | None = None, **block_kwargs: Any) -> str:
        history = read_messages(messages or [])
        question = request_before(history, len(history))
        return await asyncio.to_thread(self.recall, question)

    async def _aput(self, messages: list[ChatMessage]) -> None:
        self.turns.extend(message.model_copy(deep=True) for message in messages)

    async def atruncate(self, content: str, tokens_to_truncate: int) -> str | None:
        """Less of what was recalled, oldest first, instead of nothing."""
        lines = content.split("\n")
        dropped = 0
        while lines and dropped < tokens_to_truncate:
            dropped += self._trimmer.count_text(lines.pop(0)) + 1
        return "\n".join(lines) or None

    def recall(self, question: str) -> str:
        """The turns that the question needs, in order, as ``role: text`` lines; empty where there is no question."""
        if not self.turns or not question.strip():
            return ""
        texts = [transcript([message]) for message in read_messages(self.turns)]
        kept = recall_turns(
            texts,
            Goal(question, self._trimmer.instruction or "turns"),
            compressor=self._trimmer.compressor,
            max_tokens=self.max_tokens,
            count_tokens=self._trimmer.count_text,
        )
        return join_turns(texts, kept)
