"""Chat histories of any shape, made from a random generator: parallel tool calls, blocks of all kinds, crashed runs."""

from __future__ import annotations

from random import Random
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from .outputs import CITIES, NOUNS, VERBS, any_output

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
IMAGE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}


def random_history(
    rng: Random, *, turns: int = 12, begins_with_user: bool = False, unique_ids: bool = False
) -> list[BaseMessage]:
    """A history as real runs leave it behind, whole or broken.

    Args:
        turns: most user requests in it.
        begins_with_user: what some providers insist on, whatever comes after.
        unique_ids: no tool call id occurs twice; Gemini's client looks up tools by id over the whole history.
    """
    messages: list[BaseMessage] = []
    if rng.random() < 0.7:
        messages.append(SystemMessage("You look things up. " + _talk(rng)))
    if begins_with_user or rng.random() < 0.9:
        messages.append(_user(rng))
    for _ in range(rng.randrange(turns)):
        if rng.random() < 0.5:
            messages.append(_user(rng))
        for _ in range(rng.choice([0, 1, 1, 2, 4])):
            messages += _step(rng, len(messages) if unique_ids else None)
        if rng.random() < 0.7:
            messages.append(AIMessage(_talk(rng), id=_id(rng)))
    if rng.random() < 0.3:
        _break(rng, messages)
    if not any(isinstance(message, HumanMessage | AIMessage) for message in messages):
        messages.append(_user(rng))
    return messages


def _user(rng: Random) -> HumanMessage:
    text = f"Which {rng.choice(NOUNS)} is in {rng.choice(CITIES)}? {_talk(rng)}"
    if rng.random() < 0.1:
        text += "\n" + any_output(rng, rng.randrange(8, 60)).text
    content: Any = text
    kind = rng.random()
    if kind < 0.1:
        content = [{"type": "text", "text": text}, IMAGE]
    elif kind < 0.15:
        content = [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}]
    return HumanMessage(content, id=_id(rng))


def _step(rng: Random, position: int | None) -> list[BaseMessage]:
    """An assistant message with tool calls, and their results in any order."""
    # Some providers number the calls of every message from 0, so ids repeat over a history unless positions tell them
    # apart: a random number alone is not unique where the generator is made to return small ones.
    count = range(rng.choice([1, 1, 1, 2, 3]))
    if position is not None:
        ids = [f"call_{position}_{n}" for n in count]
    else:
        ids = [f"call_{n if rng.random() < 0.3 else rng.randrange(10**9)}" for n in count]
    calls = [{"id": id, "name": rng.choice(VERBS), "args": {"of": rng.choice(NOUNS)}} for id in dict.fromkeys(ids)]
    content: Any = rng.choice(["", _talk(rng)])
    if rng.random() < 0.15:
        thought = {"type": "thinking", "thinking": _talk(rng), "signature": "c2lnbmVk"}
        content = [thought, {"type": "text", "text": _talk(rng)}]
    results = [_result(rng, call) for call in calls]
    rng.shuffle(results)
    return [AIMessage(content, tool_calls=calls, id=_id(rng)), *results]


def _result(rng: Random, call: dict[str, Any]) -> ToolMessage:
    text = any_output(rng, rng.choice([8, 8, 20, 60])).text if rng.random() < 0.8 else "ok"
    content: Any = [{"type": "text", "text": text}, IMAGE] if rng.random() < 0.05 else text
    return ToolMessage(content, tool_call_id=call["id"], name=rng.choice([call["name"], None]), id=_id(rng))


def _break(rng: Random, messages: list[BaseMessage]) -> None:
    """What crashes, restarts and careless edits leave behind."""
    tools = [index for index, message in enumerate(messages) if isinstance(message, ToolMessage)]
    for _ in range(rng.randrange(1, 3)):
        kind = rng.randrange(4)
        if kind == 0 and tools:
            del messages[rng.choice(tools)]  # a call without a result
        elif kind == 1:
            orphan = ToolMessage("nobody asked", tool_call_id=f"lost_{rng.randrange(99)}")
            messages.insert(rng.randrange(min(1, len(messages)), len(messages) + 1), orphan)
        elif kind == 2 and tools:
            messages.append(messages.pop(rng.choice(tools)))  # a result that comes late
        elif kind == 3 and tools:
            messages.append(messages[rng.choice(tools)].model_copy())  # a result that comes twice
        tools = [index for index, message in enumerate(messages) if isinstance(message, ToolMessage)]


def _talk(rng: Random) -> str:
    words = [rng.choice([*NOUNS, *VERBS, *CITIES]) for _ in range(rng.choice([3, 8, 20, 80]))]
    return " ".join(words).capitalize() + "."


def _id(rng: Random) -> str | None:
    return None if rng.random() < 0.1 else f"m{rng.randrange(10**12)}"
