"""Any LangChain chat model, with the context of every request shortened before it leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LangSmithParams, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableBinding, RunnableLambda
from langchain_core.tools import BaseTool
from pydantic import ConfigDict, model_validator

from cprs_integrations.adapting import PROVENANCE_KEY
from cprs_integrations.prompts import ChatOptions, MessageText, Request, Role

_ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "human": "user", "tool": "tool"}


class CPRSChatModel(ChatOptions, BaseChatModel):
    """A chat model that reads less: long context in its requests is shortened under the last user question.

    Stands wherever the wrapped model stood: `invoke`, `stream`, `batch`, their async twins, `bind_tools`,
    `with_structured_output`, `with_fallbacks`. What counts as context is said in `cprs_integrations.prompts`; the
    model's own messages, tool calls, images, thinking blocks, unknown roles, short texts and everything up to the last
    cache marker pass through untouched. The messages that you pass in stay as they were.

    Every answer carries ``response_metadata["cprs"]`` where something was shortened: tokens of context before and
    after, and the question that was read. Tracing shows the messages as they came in; ``usage_metadata`` is the
    provider's count of what was sent.

    ``max_tokens`` and the other selection options speak of the context kept, not of the answer: set those of the
    answer on the wrapped model.

    >>> from cprs_core import Compressor, KeywordScorer
    >>> from cprs_integrations.langchain import CPRSChatModel
    >>> from langchain_core.language_models import FakeListChatModel
    >>> compressor = Compressor(KeywordScorer("lease"))
    >>> model = CPRSChatModel(model=FakeListChatModel(responses=["Ada"]), compressor=compressor, threshold=0.1)
    >>> model.invoke("Who signed?").content
    'Ada'
    """

    # langchain's own configuration, which ignores unknown arguments, would win.
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    model: BaseChatModel
    """The chat model that answers. Bind tools and settings to the wrapper, not to it."""

    @model_validator(mode="after")
    def _take_over_call_settings(self) -> CPRSChatModel:
        # The wrapped model's own cache and rate limiter stand outside `_generate`, which is all that is called of it.
        for name in ("cache", "rate_limiter", "output_version", "disable_streaming"):
            if name not in self.model_fields_set and hasattr(self.model, name):
                object.__setattr__(self, name, getattr(self.model, name))
        return self

    @property
    def _llm_type(self) -> str:
        return f"cprs-{self.model._llm_type}"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {**self.model._identifying_params, PROVENANCE_KEY: self.settings()}

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        # The key of LLM caches: another endpoint or another ratio gives another answer.
        return f"{self.model._get_llm_string(stop=stop, **kwargs)}---{PROVENANCE_KEY}:{self.settings()}"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return self.model._get_ls_params(stop=stop, **kwargs)

    def _resolve_model_profile(self) -> Any:
        return self.model.profile

    def get_token_ids(self, text: str) -> list[int]:
        """As the wrapped model counts."""
        return self.model.get_token_ids(text)

    def get_num_tokens(self, text: str) -> int:
        """As the wrapped model counts."""
        return self.model.get_num_tokens(text)

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> int:
        """As the wrapped model counts."""
        return self.model.get_num_tokens_from_messages(messages, *args, **kwargs)

    def _should_stream(self, *, async_api: bool, run_manager: Any = None, **kwargs: Any) -> bool:
        if not super()._should_stream(async_api=async_api, run_manager=run_manager, **{**kwargs, "stream": True}):
            return False  # disabled on the wrapper
        return self.model._should_stream(async_api=async_api, run_manager=run_manager, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        shortened, facts = self._shorten(messages)
        return _with_facts(self.model._generate(shortened, stop=stop, run_manager=run_manager, **kwargs), facts)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        shortened, facts = await self._ashorten(messages)
        return _with_facts(await self.model._agenerate(shortened, stop=stop, run_manager=run_manager, **kwargs), facts)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        shortened, facts = self._shorten(messages)
        for chunk in self.model._stream(shortened, stop=stop, run_manager=run_manager, **kwargs):
            yield _chunk_with_facts(chunk, facts)
            facts = {}

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        shortened, facts = await self._ashorten(messages)
        async for chunk in self.model._astream(shortened, stop=stop, run_manager=run_manager, **kwargs):
            yield _chunk_with_facts(chunk, facts)
            facts = {}

    def bind_tools(
        self, tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool], **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The wrapper with tools, in the wrapped model's own format."""
        bound = self.model.bind_tools(tools, **kwargs)
        if isinstance(bound, RunnableBinding) and bound.bound is self.model:
            return self.bind(**bound.kwargs)
        return self._shortener() | bound

    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, Any]:
        """The wrapped model's own structured output (native where it has one), behind the shortening step."""
        return self._shortener() | self.model.with_structured_output(schema, include_raw=include_raw, **kwargs)

    def _shortener(self) -> Runnable[LanguageModelInput, list[BaseMessage]]:
        def shorten(request: LanguageModelInput) -> list[BaseMessage]:
            return self._shorten(self._convert_input(request).to_messages())[0]

        async def ashorten(request: LanguageModelInput) -> list[BaseMessage]:
            return (await self._ashorten(self._convert_input(request).to_messages()))[0]

        return RunnableLambda(shorten, afunc=ashorten, name="cprs_compress")

    def _shorten(self, messages: list[BaseMessage]) -> tuple[list[BaseMessage], dict[str, Any]]:
        places, texts = _texts(messages)
        replaced, facts = Request(self, texts).shorten()
        return _replace(messages, {places[index]: text for index, text in replaced.items()}), facts

    async def _ashorten(self, messages: list[BaseMessage]) -> tuple[list[BaseMessage], dict[str, Any]]:
        places, texts = _texts(messages)
        replaced, facts = await Request(self, texts).ashorten()
        return _replace(messages, {places[index]: text for index, text in replaced.items()}), facts


Place = tuple[int, int | None]  # message, and block of its content where that is a list


def _texts(messages: Sequence[BaseMessage]) -> tuple[list[Place], list[MessageText]]:
    """Every text that may matter, and where it is. Texts up to the last cache marker are frozen."""
    places: list[Place] = []
    found: list[tuple[Role, str]] = []
    frozen = 0
    for number, message in enumerate(messages):
        role = _role(message)
        blocks = [message.content] if isinstance(message.content, str) else message.content
        for position, block in enumerate(blocks):
            text = block if isinstance(block, str) else _block_text(block)
            if role is not None and text is not None:
                places.append((number, None if isinstance(message.content, str) else position))
                found.append((role, text))
            if isinstance(block, dict) and ("cache_control" in block or "cachePoint" in block):
                frozen = len(found)
        if "cache_control" in message.additional_kwargs:
            frozen = len(found)
    return places, [MessageText(role, text, index < frozen) for index, (role, text) in enumerate(found)]


def _role(message: BaseMessage) -> Role | None:
    if isinstance(message, SystemMessage):
        return "system"
    if isinstance(message, HumanMessage):
        return "user"
    if isinstance(message, ToolMessage):
        return "tool"
    return _ROLES.get(message.role) if isinstance(message, ChatMessage) else None


def _block_text(block: Any) -> str | None:
    """The text of a plain text block; None for every other kind of block."""
    if isinstance(block, dict) and block.get("type") == "text" and isinstance(block.get("text"), str):
        return str(block["text"])
    return None


def _replace(messages: list[BaseMessage], texts: dict[Place, str]) -> list[BaseMessage]:
    """The messages with new texts; copies where something is new, else the messages themselves."""
    result = list(messages)
    for (number, position), text in texts.items():
        content: Any = text
        if position is not None:
            block = result[number].content[position]
            content = list(result[number].content)
            content[position] = {**block, "text": text} if isinstance(block, dict) else text
        # Not a new message: id, name, tool_call_id, artifact and status stay.
        result[number] = result[number].model_copy(update={"content": content})
    return result


def _with_facts(result: ChatResult, facts: dict[str, Any]) -> ChatResult:
    if not facts:
        return result
    generations = [
        ChatGeneration(message=_noted(generation.message, facts), generation_info=generation.generation_info)
        for generation in result.generations
    ]
    return ChatResult(generations=generations, llm_output=result.llm_output)


def _chunk_with_facts(chunk: ChatGenerationChunk, facts: dict[str, Any]) -> ChatGenerationChunk:
    if not facts:
        return chunk
    return chunk.model_copy(update={"message": _noted(chunk.message, facts)})


def _noted(message: Any, facts: dict[str, Any]) -> Any:
    return message.model_copy(update={"response_metadata": {**message.response_metadata, PROVENANCE_KEY: facts}})
