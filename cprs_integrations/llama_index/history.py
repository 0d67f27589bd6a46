"""LlamaIndex messages to the rules' view of them and back, as copies: agents write into the messages that they get."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    CachePoint,
    ChatMessage,
    ContentBlock,
    DocumentBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from cprs_integrations.messages import Message, Role, ToolCall
from cprs_integrations.trimming import Trimmed

IsPinned = Callable[[ChatMessage], bool]

_DOCUMENT_TOKENS = 2_048  # LlamaIndex's own estimates
_BLOCK_TOKENS = 256
_ROLES: dict[MessageRole, Role] = {
    MessageRole.SYSTEM: "system",
    MessageRole.DEVELOPER: "system",
    MessageRole.USER: "user",
    MessageRole.TOOL: "tool",
    MessageRole.FUNCTION: "tool",
}


def read_messages(messages: Sequence[ChatMessage], is_pinned: IsPinned | None = None) -> list[Message]:
    """The messages as the rules see them; those with a cache point are pinned."""
    return [
        Message(
            role=_ROLES.get(message.role, "assistant"),
            texts=tuple(block.text for block in message.blocks if isinstance(block, TextBlock)),
            calls=_calls(message),
            answers=_answers(message),
            tool=str(message.additional_kwargs.get("name") or ""),
            other_tokens=sum(map(_other_tokens, message.blocks)),
            is_pinned=any(isinstance(block, CachePoint) for block in message.blocks)
            or (is_pinned is not None and is_pinned(message)),
        )
        for message in messages
    ]


def write_messages(trimmed: Trimmed, messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """The trimmed history as copies of the caller's messages, with the texts that are left."""
    return [_write(message, messages) for message in trimmed.messages]


def _write(message: Message, messages: Sequence[ChatMessage]) -> ChatMessage:
    if message.index is None:
        role = MessageRole.TOOL if message.role == "tool" else MessageRole.USER
        marks = {"tool_call_id": message.answers[0]} if message.answers else {}
        return ChatMessage(role=role, content=message.text, additional_kwargs=marks)
    original = messages[message.index]
    fresh = iter(message.texts)
    blocks: list[ContentBlock] = [
        block.model_copy(update={"text": next(fresh)}) if isinstance(block, TextBlock) else block.model_copy()
        for block in original.blocks
    ]
    return original.model_copy(update={"blocks": blocks, "additional_kwargs": dict(original.additional_kwargs)})


def _calls(message: ChatMessage) -> tuple[ToolCall, ...]:
    blocks = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    if blocks:
        return tuple(ToolCall(str(b.tool_call_id), b.tool_name, _as_text(b.tool_kwargs)) for b in blocks)
    return tuple(map(_openai_call, message.additional_kwargs.get("tool_calls") or []))


def _openai_call(call: Any) -> ToolCall:
    """A tool call as older integrations keep it in ``additional_kwargs``: an object of OpenAI's client, or its dict."""
    data = call if isinstance(call, Mapping) else call.model_dump()
    function = data.get("function") or {}
    return ToolCall(str(data.get("id")), str(function.get("name", "")), _as_text(function.get("arguments", "")))


def _answers(message: ChatMessage) -> tuple[str, ...]:
    if _ROLES.get(message.role) != "tool":
        return ()
    id = message.additional_kwargs.get("tool_call_id")
    return () if id is None else (str(id),)


def _as_text(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, default=str)


def _other_tokens(block: Any) -> int:
    if isinstance(block, TextBlock | ToolCallBlock | CachePoint):
        return 0
    if isinstance(block, ThinkingBlock):
        return block.num_tokens or len(block.content or "") // 4
    return _DOCUMENT_TOKENS if isinstance(block, DocumentBlock) else _BLOCK_TOKENS
