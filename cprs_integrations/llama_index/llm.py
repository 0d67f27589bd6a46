"""Any LlamaIndex LLM, with the context of every request shortened before it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self, TypeVar

from llama_index.core.base.llms.types import (
    CachePoint,
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    TextBlock,
)
from llama_index.core.llms import LLM
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.llms.loading import load_llm
from llama_index.core.tools import BaseTool
from pydantic import model_validator

from cprs_core import InputError
from cprs_integrations.adapting import PROVENANCE_KEY
from cprs_integrations.prompts import ChatOptions, MessageText, Request, Role

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "tool": "tool",
    "function": "tool",
}

# What `LLM.predict` and its kin read from the LLM they are called on.
_PROMPT_SETTINGS = (
    "system_prompt",
    "query_wrapper_prompt",
    "output_parser",
    "pydantic_program_mode",
    "messages_to_prompt",
    "completion_to_prompt",
    "callback_manager",
)


class CPRSLLM(ChatOptions, FunctionCallingLLM):
    """An LLM that reads less: long context in its requests is shortened under the last user question.

    For what neither a postprocessor nor a memory sees: tool results within an agent's turn, context that a chat engine
    puts into the system message, prompts of your own. What counts as context is said in `cprs_integrations.prompts`;
    assistant messages, tool calls, images, thinking blocks, unknown roles, short texts and everything up to the last
    cache point pass through untouched. The messages that you pass in stay as they were.

    Answers of `chat` and `complete` carry ``additional_kwargs["cprs"]`` where something was shortened. Events are those
    of the wrapped LLM, so they show what was sent.

    >>> from cprs_core import Compressor, KeywordScorer
    >>> from cprs_integrations.llama_index import CPRSLLM
    >>> from llama_index.core.llms import MockLLM
    >>> CPRSLLM(llm=MockLLM(), compressor=Compressor(KeywordScorer("lease"))).complete("Who signed?").text
    'Who signed?'
    """

    llm: LLM
    """The LLM that answers."""

    @model_validator(mode="after")
    def _take_over_prompt_settings(self) -> CPRSLLM:
        for name in _PROMPT_SETTINGS:
            if name not in self.model_fields_set:
                object.__setattr__(self, name, getattr(self.llm, name))
        return self

    @classmethod
    def class_name(cls) -> str:
        return "CPRSLLM"

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> Self:
        """The LLM that `to_dict` wrote down; ``kwargs`` replace what it says.

        Raises:
            InputError: LlamaIndex cannot rebuild the LLM inside, and no ``llm=`` is passed.
        """
        if "llm" not in kwargs:
            try:
                kwargs["llm"] = load_llm(dict(data.get("llm") or {}))  # it takes the dictionary apart
            except ValueError as error:
                raise InputError(
                    f"LlamaIndex cannot rebuild the LLM inside ({error}); pass it: CPRSLLM.from_dict(data, llm=...)"
                ) from error
        return super().from_dict(dict(data), **kwargs)

    @property
    def metadata(self) -> LLMMetadata:
        return self.llm.metadata

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """The wrapped LLM's answer to the shortened messages."""
        shortened, facts = self._shorten(messages)
        return _noted(self.llm.chat(shortened, **kwargs), facts)

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """`chat` without blocking the loop."""
        shortened, facts = await self._ashorten(messages)
        return _noted(await self.llm.achat(shortened, **kwargs), facts)

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """`chat`, in pieces: everything is shortened before the first."""
        return self.llm.stream_chat(self._shorten(messages)[0], **kwargs)

    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """`stream_chat` without blocking the loop."""
        return await self.llm.astream_chat((await self._ashorten(messages))[0], **kwargs)

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """The wrapped LLM's completion; the prompt is read like a user message."""
        shortened, facts = self._shorten_prompt(prompt)
        return _noted(self.llm.complete(shortened, formatted=formatted, **kwargs), facts)

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """`complete` without blocking the loop."""
        shortened, facts = await self._ashorten_prompt(prompt)
        return _noted(await self.llm.acomplete(shortened, formatted=formatted, **kwargs), facts)

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """`complete`, in pieces."""
        return self.llm.stream_complete(self._shorten_prompt(prompt)[0], formatted=formatted, **kwargs)

    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """`stream_complete` without blocking the loop."""
        return await self.llm.astream_complete((await self._ashorten_prompt(prompt))[0], formatted=formatted, **kwargs)

    def _prepare_chat_with_tools(self, tools: Sequence[BaseTool], *args: Any, **kwargs: Any) -> dict[str, Any]:
        return self._function_calling()._prepare_chat_with_tools_compat(tools, *args, **kwargs)

    def _prepare_chat_with_tools_compat(self, tools: Sequence[BaseTool], *args: Any, **kwargs: Any) -> dict[str, Any]:
        return self._function_calling()._prepare_chat_with_tools_compat(tools, *args, **kwargs)

    def _validate_chat_with_tools_response(
        self, response: ChatResponse, tools: Sequence[BaseTool], *args: Any, **kwargs: Any
    ) -> ChatResponse:
        return self._function_calling()._validate_chat_with_tools_response(response, tools, *args, **kwargs)

    def get_tool_calls_from_response(self, response: ChatResponse, *args: Any, **kwargs: Any) -> list[ToolSelection]:
        """As the wrapped LLM reads them."""
        return self._function_calling().get_tool_calls_from_response(response, *args, **kwargs)

    def _function_calling(self) -> FunctionCallingLLM:
        if not isinstance(self.llm, FunctionCallingLLM):
            raise InputError(f"{type(self.llm).__name__} calls no tools; wrap an LLM that does")
        return self.llm

    def _shorten(self, messages: Sequence[ChatMessage]) -> tuple[list[ChatMessage], dict[str, Any]]:
        places, texts = _texts(messages)
        replaced, facts = Request(self, texts).shorten()
        return _replace(messages, {places[index]: text for index, text in replaced.items()}), facts

    async def _ashorten(self, messages: Sequence[ChatMessage]) -> tuple[list[ChatMessage], dict[str, Any]]:
        places, texts = _texts(messages)
        replaced, facts = await Request(self, texts).ashorten()
        return _replace(messages, {places[index]: text for index, text in replaced.items()}), facts

    def _shorten_prompt(self, prompt: str) -> tuple[str, dict[str, Any]]:
        replaced, facts = Request(self, [MessageText("user", prompt)]).shorten()
        return replaced.get(0, prompt), facts

    async def _ashorten_prompt(self, prompt: str) -> tuple[str, dict[str, Any]]:
        replaced, facts = await Request(self, [MessageText("user", prompt)]).ashorten()
        return replaced.get(0, prompt), facts


Response = TypeVar("Response", ChatResponse, CompletionResponse)
Place = tuple[int, int]  # message, block


def _texts(messages: Sequence[ChatMessage]) -> tuple[list[Place], list[MessageText]]:
    """Every text that may matter, and where it is. Texts up to the last cache point are frozen."""
    places: list[Place] = []
    found: list[tuple[Role, str]] = []
    frozen = 0
    for number, message in enumerate(messages):
        role = _ROLES.get(message.role.value)
        for position, block in enumerate(message.blocks):
            if isinstance(block, TextBlock) and role is not None:
                places.append((number, position))
                found.append((role, block.text))
            if isinstance(block, CachePoint):
                frozen = len(found)
        if "cache_control" in message.additional_kwargs:
            frozen = len(found)
    return places, [MessageText(role, text, index < frozen) for index, (role, text) in enumerate(found)]


def _replace(messages: Sequence[ChatMessage], texts: dict[Place, str]) -> list[ChatMessage]:
    """The messages with new texts; copies where something is new, else the messages themselves."""
    result = list(messages)
    for (number, position), text in texts.items():
        blocks = list(result[number].blocks)
        blocks[position] = blocks[position].model_copy(update={"text": text})
        result[number] = result[number].model_copy(update={"blocks": blocks})
    return result


def _noted(response: Response, facts: dict[str, Any]) -> Response:
    if not facts:
        return response
    return response.model_copy(update={"additional_kwargs": {**response.additional_kwargs, PROVENANCE_KEY: facts}})
