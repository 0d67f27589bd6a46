"""The real client of every model family, and what is checked of each: sync, async, streaming and with tools.

Every check sends the same conversation twice, once through the bare client and once through the wrapper, and compares
what the server received: the wrapper's request must be the bare one with the context replaced by its kept part, and
nothing else may differ.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool

from cprs_core import Compressor, KeywordScorer
from cprs_integrations.langchain import CPRSChatModel
from cprs_integrations.llama_index import CPRSLLM

from .loopback import Loopback
from .protocols import ANSWER

QUESTION = "Who signed the lease?"
EVIDENCE = "Ada signed the lease in May, as the clerk noted."
FILLER = "The sky was grey over the town and nobody went out. " * 80
CONTEXT = f"{FILLER.strip()}\n{EVIDENCE}\n{FILLER.strip()}"
RULE = "-" * 20
PROMPT = f"Context information is below.\n{RULE}\n{CONTEXT}\n{RULE}\nAnswer briefly.\nQuestion: {QUESTION}"
SYSTEM = "You answer questions about leases."


@dataclass(frozen=True)
class Client:
    """A client class of a framework as it is built for a server's url."""

    family: str
    framework: str
    module: str
    name: str
    path: str
    settings: Callable[[str], dict[str, Any]]
    note: str = ""

    @property
    def label(self) -> str:
        return f"{self.family} / {self.name}{f' ({self.note})' if self.note else ''}"

    def build(self, url: str) -> Any:
        return getattr(import_module(self.module), self.name)(**self.settings(url))


def _langchain(family: str, module: str, name: str, path: str, note: str = "", **settings: Any) -> Client:
    base = settings.pop("base", "")

    def build(url: str) -> dict[str, Any]:
        return {"base_url": url + base, "api_key": "k", "max_retries": 0, **settings}

    return Client(family, "LangChain", module, name, path, build, note)


def _llama_index(
    family: str, module: str, name: str, path: str, note: str = "", *, key: str = "api_base", **settings: Any
) -> Client:
    base = settings.pop("base", "")

    def build(url: str) -> dict[str, Any]:
        place = {"http_options": {"base_url": url}} if key == "http_options" else {key: url + base, "max_retries": 0}
        return {**place, "api_key": "k", **settings}

    return Client(family, "LlamaIndex", f"llama_index.llms.{module}", name, path, build, note)


_LIKE = {"is_chat_model": True, "is_function_calling_model": True, "context_window": 128_000, "reuse_client": False}

CLIENTS = [
    _langchain("GPT-4o", "langchain_openai", "ChatOpenAI", "/v1/chat/completions", base="/v1", model="gpt-4o"),
    _langchain(
        "GPT-4o",
        "langchain_openai",
        "ChatOpenAI",
        "/v1/responses",
        "responses API",
        base="/v1",
        model="gpt-4o",
        use_responses_api=True,
    ),
    _langchain(
        "Claude 3.7 Sonnet",
        "langchain_anthropic",
        "ChatAnthropic",
        "/v1/messages",
        model="claude-3-7-sonnet-latest",
        max_tokens=64,
    ),
    _langchain(
        "Gemini 2.0 Pro",
        "langchain_google_genai",
        "ChatGoogleGenerativeAI",
        "/v1beta/models/gemini-2.0-pro-exp",
        model="gemini-2.0-pro-exp",
    ),
    _langchain(
        "DeepSeek-V3",
        "langchain_deepseek",
        "ChatDeepSeek",
        "/deepseek/v1/chat/completions",
        base="/deepseek/v1",
        model="deepseek-chat",
    ),
    _langchain(
        "Qwen2.5-Max",
        "langchain_qwq",
        "ChatQwen",
        "/compatible-mode/v1/chat/completions",
        base="/compatible-mode/v1",
        model="qwen-max",
    ),
    _langchain(
        "Qwen2.5-Max",
        "langchain_openai",
        "ChatOpenAI",
        "/compatible-mode/v1/chat/completions",
        "DashScope-compatible",
        base="/compatible-mode/v1",
        model="qwen-max",
    ),
    _langchain(
        "Qwen2.5-32B-Instruct",
        "langchain_openai",
        "ChatOpenAI",
        "/local/v1/chat/completions",
        "local endpoint",
        base="/local/v1",
        model="Qwen/Qwen2.5-32B-Instruct",
    ),
    _llama_index("GPT-4o", "openai", "OpenAI", "/v1/chat/completions", base="/v1", model="gpt-4o", reuse_client=False),
    _llama_index(
        "GPT-4o",
        "openai",
        "OpenAIResponses",
        "/v1/responses",
        "responses API",
        base="/v1",
        model="gpt-4o",
        reuse_client=False,
    ),
    _llama_index(
        "Claude 3.7 Sonnet",
        "anthropic",
        "Anthropic",
        "/v1/messages",
        key="base_url",
        model="claude-3-7-sonnet-latest",
        max_tokens=64,
    ),
    _llama_index(
        "Gemini 2.0 Pro",
        "google_genai",
        "GoogleGenAI",
        "/v1beta/models/gemini-2.0-pro-exp",
        key="http_options",
        model="gemini-2.0-pro-exp",
        context_window=128_000,
        max_tokens=64,
    ),
    _llama_index(
        "DeepSeek-V3",
        "openai_like",
        "OpenAILike",
        "/deepseek/v1/chat/completions",
        base="/deepseek/v1",
        model="deepseek-chat",
        **_LIKE,
    ),
    _llama_index(
        "Qwen2.5-Max",
        "openai_like",
        "OpenAILike",
        "/compatible-mode/v1/chat/completions",
        "DashScope-compatible",
        base="/compatible-mode/v1",
        model="qwen-max",
        **_LIKE,
    ),
    _llama_index(
        "Qwen2.5-32B-Instruct",
        "openai_like",
        "OpenAILike",
        "/local/v1/chat/completions",
        "local endpoint",
        base="/local/v1",
        model="Qwen/Qwen2.5-32B-Instruct",
        **_LIKE,
    ),
]


def compressor() -> Compressor:
    return Compressor(KeywordScorer("clerk"))


def wrap(client: Client, model: Any) -> Any:
    if client.framework == "LangChain":
        return CPRSChatModel(model=model, compressor=compressor(), threshold=0.05)
    return CPRSLLM(llm=model, compressor=compressor(), threshold=0.05)


@tool
def read_contract(city: str) -> str:
    """Read the contract of a city."""
    return CONTEXT


def read_contract_of(city: str) -> str:
    """Read the contract of a city."""
    return CONTEXT


async def send_langchain(model: Any, mode: str) -> str:
    """One conversation in one mode; the text of the last answer."""
    messages: list[Any] = [SystemMessage(SYSTEM), HumanMessage(PROMPT)]
    if mode == "sync":
        return str(model.invoke(messages).text)
    if mode == "async":
        return str((await model.ainvoke(messages)).text)
    if mode == "stream":
        first = "".join([chunk.text for chunk in model.stream(messages)])
        second = "".join([chunk.text async for chunk in model.astream(messages)])
        assert first == second
        return first
    bound = model.bind_tools([read_contract])
    messages = [SystemMessage(SYSTEM), HumanMessage(QUESTION)]
    asked = bound.invoke(messages)
    (call,) = asked.tool_calls
    assert (call["name"], call["args"]) == ("read_contract", {"city": "Ada"})
    messages += [asked, ToolMessage(CONTEXT, tool_call_id=call["id"], name=call["name"])]
    return str((await bound.ainvoke(messages)).text)


# Sync calls run on a thread of their own: some clients start an event loop inside, which a running one forbids.
in_thread = asyncio.to_thread


async def send_llama_index(llm: Any, mode: str) -> str:
    """One conversation in one mode; the text of the last answer."""
    messages = [ChatMessage(role="system", content=SYSTEM), ChatMessage(role="user", content=PROMPT)]
    if mode == "sync":
        return str((await in_thread(llm.chat, messages)).message.content)
    if mode == "async":
        return str((await llm.achat(messages)).message.content)
    if mode == "stream":
        first = await in_thread(lambda: "".join([chunk.delta or "" for chunk in llm.stream_chat(messages)]))
        second = "".join([chunk.delta or "" async for chunk in await llm.astream_chat(messages)])
        assert first == second
        return first
    tools = [FunctionTool.from_defaults(read_contract_of)]
    messages = [ChatMessage(role="system", content=SYSTEM), ChatMessage(role="user", content=QUESTION)]
    asked = await in_thread(llm.chat_with_tools, tools, chat_history=messages)
    (call,) = llm.get_tool_calls_from_response(asked)
    assert (call.tool_name, call.tool_kwargs) == ("read_contract_of", {"city": "Ada"})
    told = {"tool_call_id": call.tool_id, "name": call.tool_name}
    messages += [asked.message, ChatMessage(role="tool", content=CONTEXT, additional_kwargs=told)]
    return str((await llm.achat_with_tools(tools, chat_history=messages)).message.content)


MODES = ("sync", "async", "stream", "tools")


async def check(client: Client, mode: str) -> tuple[int, int]:
    """Characters that reached the server through the bare client and through the wrapper.

    Raises:
        AssertionError: something else than the context differs, or the evidence is gone.
    """
    send = send_langchain if client.framework == "LangChain" else send_llama_index
    with Loopback() as bare, Loopback() as wrapped:
        answers = [
            await send(client.build(bare.url), mode),
            await send(wrap(client, client.build(wrapped.url)), mode),
        ]
    assert answers == [ANSWER, ANSWER]
    assert len(bare.received) == len(wrapped.received)
    for full, short in zip(bare.received, wrapped.received, strict=True):
        assert (full.status, short.status) == (200, 200)
        assert full.path == short.path
        assert short.path.startswith(client.path)
        context, evidence = (json.dumps(text)[1:-1] for text in (CONTEXT, EVIDENCE))
        assert short.text == full.text.replace(context, evidence)
    assert EVIDENCE in wrapped.received[-1].text
    assert FILLER[:50] not in wrapped.received[-1].text
    return sum(len(r.text) for r in bare.received), sum(len(r.text) for r in wrapped.received)
