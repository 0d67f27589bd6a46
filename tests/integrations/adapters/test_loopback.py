"""The loopback server is as strict as the providers; otherwise the tests against it would prove nothing."""

from __future__ import annotations

from typing import Any

import pytest

from .loopback import Loopback
from .protocols import Chat, Gemini, Messages, Responses

USER = {"role": "user", "content": "hi"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "12"}


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([USER, RESULT], "must be a response to a preceding message"),
        ([USER, CALLING, USER], "must be followed by tool messages"),
        ([USER, CALLING], "not followed by a tool result"),
        ([{"role": "robot", "content": "hi"}], "is not one of"),
        ([{"role": "user", "content": None}], "content is required"),
        ([], "messages are required"),
    ],
)
def test_openai_chat_rejects(messages: list[Any], problem: str) -> None:
    assert problem in (Chat().problem({"model": "m", "messages": messages}) or "")


def test_openai_chat_takes_paired_tools_and_rejects_bad_schemas() -> None:
    body: dict[str, Any] = {"model": "m", "messages": [USER, CALLING, RESULT]}
    assert Chat().problem(body) is None
    body["tools"] = [{"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}}]
    assert "no object schema" in (Chat().problem(body) or "")
    body["tools"] = [{"type": "function", "function": {"name": "a b", "parameters": {"type": "object"}}}]
    assert "tool name" in (Chat().problem(body) or "")


def test_those_who_speak_like_openai_do_not_know_developers() -> None:
    body = {"model": "m", "messages": [{"role": "developer", "content": "rules"}, USER]}
    assert Chat().problem(body) is None
    assert "developer" in (Chat(("system", "user", "assistant", "tool")).problem(body) or "")


@pytest.mark.parametrize(
    ("items", "problem"),
    [
        ([{"type": "function_call_output", "call_id": "x", "output": "1"}], "no preceding tool call"),
        ([USER, {"type": "function_call", "call_id": "x", "name": "f", "arguments": "{}"}], "not followed by"),
        ([{"role": "tool", "content": "x"}], "is not supported"),
    ],
)
def test_openai_responses_rejects(items: list[Any], problem: str) -> None:
    assert problem in (Responses().problem({"model": "m", "input": items}) or "")


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([{"role": "assistant", "content": "hi"}], "first message must use the 'user' role"),
        ([USER, {"role": "system", "content": "x"}], "'user' or 'assistant'"),
        ([{"role": "user", "content": [{"type": "text", "text": " "}]}], "must be non-empty"),
        ([{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x"}]}], "unexpected tool_use_id"),
        ([USER, {"role": "assistant", "content": [{"type": "tool_use", "id": "x"}]}, USER], "without tool_result"),
    ],
)
def test_anthropic_rejects(messages: list[Any], problem: str) -> None:
    assert problem in (Messages().problem({"model": "m", "max_tokens": 5, "messages": messages}) or "")
    assert "max_tokens" in (Messages().problem({"model": "m", "messages": messages}) or "")


@pytest.mark.parametrize(
    ("contents", "problem"),
    [
        ([{"role": "assistant", "parts": [{"text": "x"}]}], "must be 'user' or 'model'"),
        ([{"role": "user", "parts": []}], "must not be empty"),
        ([{"role": "user", "parts": [{"functionResponse": {"name": "f"}}]}], "must equal"),
        ([{"role": "model", "parts": [{"functionCall": {"name": "f"}}]}], "must be followed"),
    ],
)
def test_gemini_rejects(contents: list[Any], problem: str) -> None:
    assert problem in (Gemini().problem({"contents": contents}) or "")


def test_a_rejection_reaches_the_client_as_400() -> None:
    openai = pytest.importorskip("openai")
    with Loopback(context_tokens=100) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="k", max_retries=0)
        with pytest.raises(openai.BadRequestError, match="preceding message"):
            client.chat.completions.create(model="m", messages=[USER, RESULT])
        with pytest.raises(openai.BadRequestError, match="maximum context length is 100 tokens"):
            client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x" * 500}])
        assert [request.status for request in server.received] == [400, 400]
