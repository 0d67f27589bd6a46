"""LangChain messages to the rules' view of them and back: only text changes, everything else is the same object."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, Literal

from langchain_core.messages import (
    AIMessage,
    AnyMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from cprs_integrations.adapting import PROVENANCE_KEY
from cprs_integrations.messages import Message, Role, ToolCall
from cprs_integrations.trimming import HistoryTrimmer, Trimmed

IsPinned = Callable[[BaseMessage], bool]

_BLOCK_TOKENS = 256  # an image, a sound, a file: what it costs depends on the provider
_ROLES: dict[str, Role] = {  # of a `ChatMessage`, in the words of the providers
    "system": "system",
    "developer": "system",
    "assistant": "assistant",
    "ai": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
}


def read_messages(messages: Sequence[BaseMessage], is_pinned: IsPinned | None = None) -> list[Message]:
    """The messages as the rules see them.

    Args:
        is_pinned: says which messages stay whole; those with a cache marker do anyway.
    """
    answered = {message.tool_call_id for message in messages if isinstance(message, ToolMessage)}
    return [_read(message, answered, is_pinned) for message in messages]


def write_messages(trimmed: Trimmed, messages: Sequence[BaseMessage]) -> list[AnyMessage]:
    """The trimmed history in the caller's messages: untouched ones themselves, changed ones as copies."""
    return [_write(message, messages) for message in trimmed.messages]


def trim_list(
    trimmer: HistoryTrimmer,
    messages: Sequence[BaseMessage],
    *,
    how: Literal["trim", "follow"],
    is_pinned: IsPinned | None = None,
) -> tuple[list[AnyMessage], Trimmed]:
    """Messages through the trimmer and back."""
    trimmed = getattr(trimmer, how)(read_messages(messages, is_pinned))
    return write_messages(trimmed, messages), trimmed


def _read(message: BaseMessage, answered: set[str], is_pinned: IsPinned | None) -> Message:
    blocks = _blocks(message)
    calls: list[ToolCall] = []
    if isinstance(message, AIMessage):
        calls = [
            ToolCall(str(call["id"]), call["name"], json.dumps(call["args"], default=str))
            for call in message.tool_calls
        ]
        # Malformed calls reach some providers' wire and not others': they count where they were answered.
        calls += [
            ToolCall(str(call["id"]), str(call["name"]), str(call["args"]))
            for call in message.invalid_tool_calls
            if call["id"] in answered
        ]
    remembered = message.response_metadata.get(PROVENANCE_KEY) or {}
    return Message(
        role=_role(message),
        texts=tuple(text for block in blocks if (text := _text(block)) is not None),
        calls=tuple(calls),
        answers=(message.tool_call_id,) if isinstance(message, ToolMessage) else _answers_inside(blocks),
        tool=message.name or "",
        other_tokens=sum(_other_tokens(block) for block in blocks),
        is_pinned=_has_cache_marker(message, blocks) or (is_pinned is not None and is_pinned(message)),
        original_tokens=remembered.get("original_tokens"),
    )


def _write(message: Message, messages: Sequence[BaseMessage]) -> Any:
    if message.index is None:
        return _new_message(message)
    original = messages[message.index]
    blocks = _blocks(original)
    if message.texts == tuple(text for block in blocks if (text := _text(block)) is not None):
        return original
    fresh = iter(message.texts)
    content: Any = [
        block if _text(block) is None else next(fresh) if isinstance(block, str) else {**block, "text": next(fresh)}
        for block in blocks
    ]
    if isinstance(original.content, str):
        content = content[0]
    provenance = {**(original.response_metadata.get(PROVENANCE_KEY) or {}), "shortened": True}
    if message.original_tokens is not None:
        provenance["original_tokens"] = message.original_tokens
    metadata = {**original.response_metadata, PROVENANCE_KEY: provenance}
    return original.model_copy(update={"content": content, "response_metadata": metadata})


def _new_message(message: Message) -> BaseMessage:
    """A note, or the missing result of a tool call; the id depends on the content, so that it repeats."""
    id = "cprs-" + hashlib.sha256(repr((message.texts, message.answers)).encode("utf-8", "replace")).hexdigest()[:16]
    if message.role == "tool":
        return ToolMessage(
            message.text, tool_call_id=message.answers[0], name=message.tool or None, status="error", id=id
        )
    return HumanMessage(message.text, id=id, additional_kwargs={"lc_source": PROVENANCE_KEY})


def _blocks(message: BaseMessage) -> list[Any]:
    return [message.content] if isinstance(message.content, str) else list(message.content)


def _text(block: Any) -> str | None:
    """The text of a block that may be edited; None for any other block."""
    if isinstance(block, str):
        return block
    if isinstance(block, dict) and block.get("type") == "text" and isinstance(block.get("text"), str):
        return block["text"]
    return None


def _answers_inside(blocks: Sequence[Any]) -> tuple[str, ...]:
    """Ids that an Anthropic user message answers with blocks of its own."""
    return tuple(
        str(block.get("tool_use_id"))
        for block in blocks
        if isinstance(block, dict) and block.get("type") == "tool_result"
    )


def _other_tokens(block: Any) -> int:
    """Tokens of a block that is not plain text: of its thinking or its results if it has any, else a flat estimate."""
    if _text(block) is not None or not isinstance(block, dict) or block.get("type") in ("tool_use", "tool_call"):
        return 0
    words = [block.get(name) for name in ("thinking", "reasoning", "text", "content")]
    said = [word if isinstance(word, str) else json.dumps(word, default=str) for word in words if word]
    return sum(len(text) for text in said) // 4 if said else _BLOCK_TOKENS


def _has_cache_marker(message: BaseMessage, blocks: Sequence[Any]) -> bool:
    marked = [message.additional_kwargs, *(block for block in blocks if isinstance(block, dict))]
    return any(data.get(name) is not None for data in marked for name in ("cache_control", "cachePoint"))


def _role(message: BaseMessage) -> Role:
    # By class: the type of a message that was streamed is "AIMessageChunk", not "ai".
    if isinstance(message, AIMessage):
        return "assistant"
    if isinstance(message, SystemMessage):
        return "system"
    if isinstance(message, HumanMessage):
        return "user"
    return _ROLES.get(message.role, "user") if isinstance(message, ChatMessage) else "tool"


def is_system(message: BaseMessage) -> bool:
    """Whether this is a system message."""
    return isinstance(message, SystemMessage)
