"""`CPRSChatModel`: what passes through, what callers see, and that it stands wherever the wrapped model stood."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel, FakeListChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import BaseModel, PrivateAttr, ValidationError

from cprs_core import Compressor
from cprs_integrations.langchain import CPRSChatModel

from .chat_cases import CONTEXT, EVIDENCE, FILLER, PROMPT, QUESTION, SYSTEM, compressor, read_contract
from .loopback import Loopback
from .test_document_compressor import Broken, Recorder

OPENAI = pytest.importorskip(
    "langchain_openai", reason="needs the package 'langchain_openai': pip install 'cprs-integrations[clients]'"
)


class Listener(BaseChatModel):
    """A chat model that notes the messages it gets and answers in two chunks."""

    _heard: list[list[BaseMessage]] = PrivateAttr(default_factory=list)

    @property
    def heard(self) -> list[list[BaseMessage]]:
        return self._heard

    @property
    def _llm_type(self) -> str:
        return "listener"

    def _generate(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
        self._heard.append(messages)
        return ChatResult(generations=[ChatGeneration(message=AIMessage("Ada"))])

    def _stream(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
        self._heard.append(messages)
        for text in ("A", "da"):
            yield ChatGenerationChunk(message=AIMessageChunk(text))


class BrokenOnSecondCall(Recorder):
    """A compressor that raises from its second call on."""

    def compress(self, documents: Any, query: str = "", **options: Any) -> Any:
        if self.calls:
            raise RuntimeError("the critic is gone")
        return super().compress(documents, query, **options)


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def model(listener: Listener) -> CPRSChatModel:
    return CPRSChatModel(model=listener, compressor=compressor(), threshold=0.05)


def openai(server: Loopback, **settings: Any) -> Any:
    return OPENAI.ChatOpenAI(model="gpt-4o", base_url=f"{server.url}/v1", api_key="k", max_retries=0, **settings)


async def test_every_way_to_call_sends_shortened_text(model: CPRSChatModel, listener: Listener) -> None:
    model.invoke(PROMPT)
    await model.ainvoke(PROMPT)
    assert [chunk.text for chunk in model.stream(PROMPT)][:2] == ["A", "da"]
    assert [chunk.text async for chunk in model.astream(PROMPT)][:2] == ["A", "da"]
    assert len(model.batch([PROMPT, PROMPT])) == 2
    assert len(await model.abatch([PROMPT])) == 1
    assert len(listener.heard) == 7
    for (message,) in listener.heard:
        assert EVIDENCE in message.text
        assert FILLER[:50] not in message.text
        assert message.text.endswith(f"Question: {QUESTION}")


def test_the_answer_says_what_was_saved(model: CPRSChatModel) -> None:
    facts = model.invoke(PROMPT).response_metadata["cprs"]
    assert facts["kept_tokens"] * 8 < facts["original_tokens"]
    assert facts["query"] == QUESTION
    streamed: Any = None
    for chunk in model.stream(PROMPT):
        streamed = chunk if streamed is None else streamed + chunk
    assert streamed.response_metadata["cprs"] == facts
    assert "cprs" not in model.invoke("Hello").response_metadata


def test_messages_of_the_caller_stay_as_they_were(model: CPRSChatModel, listener: Listener) -> None:
    messages = [HumanMessage([{"type": "text", "text": PROMPT}], id="1"), HumanMessage(PROMPT, name="ada", id="2")]
    before = [message.model_copy(deep=True) for message in messages]
    model.invoke(messages)
    assert messages == before
    assert [(message.id, message.name) for message in listener.heard[0]] == [("1", None), ("2", "ada")]


def test_all_else_passes_through_untouched(model: CPRSChatModel, listener: Listener) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
    thinking = {"type": "thinking", "thinking": CONTEXT, "signature": "s"}
    call = {"name": "read_contract", "args": {"city": CONTEXT}, "id": "call_1", "type": "tool_call"}
    messages = [
        SystemMessage(SYSTEM * 100),
        HumanMessage([image, {"type": "text", "text": QUESTION}]),
        AIMessage([thinking, {"type": "text", "text": CONTEXT}], tool_calls=[call]),
        ToolMessage("short", tool_call_id="call_1", artifact={"raw": 1}, status="success"),
        ChatMessage(CONTEXT, role="narrator"),
    ]
    model.invoke(messages)
    assert listener.heard[0] == messages


def test_a_long_tool_result_is_shortened_and_stays_a_tool_result(model: CPRSChatModel, listener: Listener) -> None:
    result = ToolMessage(CONTEXT, tool_call_id="call_1", artifact={"raw": 1}, status="error", name="read_contract")
    messages = [HumanMessage(QUESTION), AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "call_1"}]), result]
    model.invoke(messages)
    sent = listener.heard[0][2]
    assert sent.text == EVIDENCE
    assert sent.model_copy(update={"content": CONTEXT}) == result


def test_everything_up_to_the_last_cache_marker_stays(model: CPRSChatModel, listener: Listener) -> None:
    marked = [
        HumanMessage([{"type": "text", "text": PROMPT}]),
        AIMessage("Ada"),
        HumanMessage([{"type": "text", "text": PROMPT, "cache_control": {"type": "ephemeral"}}]),
    ]
    model.invoke([*marked, HumanMessage(PROMPT)])
    assert listener.heard[0][:3] == marked
    assert len(listener.heard[0][3].text) < 500


def test_two_settings_do_not_share_a_cache_entry() -> None:
    with Loopback() as server:
        cache = InMemoryCache()
        shared = compressor()
        models = [
            CPRSChatModel(model=openai(server), compressor=shared, threshold=0.05, cache=cache),
            CPRSChatModel(model=openai(server), compressor=shared, ratio=0.5, cache=cache),
            CPRSChatModel(model=openai(server, temperature=0.5), compressor=shared, ratio=0.5, cache=cache),
            CPRSChatModel(model=openai(server), compressor=compressor(), threshold=0.05, cache=cache),
            CPRSChatModel(model=openai(server), compressor=shared, threshold=0.05, min_chars=3_000, cache=cache),
        ]
        for model in [*models, *models]:
            model.invoke(PROMPT)
        assert len(server.received) == 5


def test_the_cache_of_the_wrapped_model_is_used() -> None:
    with Loopback() as server:
        model = CPRSChatModel(model=openai(server, cache=InMemoryCache()), compressor=compressor(), threshold=0.05)
        assert model.invoke(PROMPT).text == model.invoke(PROMPT).text
        assert len(server.received) == 1


def test_structured_output_is_the_wrapped_models_own() -> None:
    class Signer(BaseModel):
        """Who signed."""

        name: str

    with Loopback() as server:
        model = CPRSChatModel(model=openai(server), compressor=compressor(), threshold=0.05)
        assert model.with_structured_output(Signer).invoke(PROMPT) == Signer(name="Ada")
        assert "response_format" in server.received[0].body
        assert EVIDENCE in server.received[0].text
        assert FILLER[:50] not in server.received[0].text


async def test_fallbacks_work_on_either_side() -> None:
    with Loopback() as server:
        broken = CPRSChatModel(model=openai(server), compressor=Broken())
        works = CPRSChatModel(model=openai(server), compressor=compressor(), threshold=0.05)
        assert broken.with_fallbacks([works]).invoke(PROMPT).text == "Ada signed it."
        assert (await broken.with_fallbacks([works]).ainvoke(PROMPT)).text == "Ada signed it."
        assert len(server.received) == 2
        assert FILLER[:50] not in server.received[0].text


def test_a_request_that_is_too_long_fits_when_shortened() -> None:
    with Loopback(context_tokens=500) as server:
        with pytest.raises(Exception, match="maximum context length is 500 tokens"):
            openai(server).invoke(PROMPT)
        model = CPRSChatModel(model=openai(server), compressor=compressor(), threshold=0.05)
        assert model.invoke(PROMPT).text == "Ada signed it."


def test_an_error_of_the_compressor_is_raised_before_the_first_token_or_the_text_passes_through(
    listener: Listener,
) -> None:
    with pytest.raises(RuntimeError, match="the critic is gone"):
        next(iter(CPRSChatModel(model=listener, compressor=Broken()).stream(PROMPT)))
    assert listener.heard == []
    model = CPRSChatModel(model=listener, compressor=Broken(), on_error="passthrough")
    answer = model.invoke(PROMPT)
    assert listener.heard[0][0].text == PROMPT
    assert "the critic is gone" in answer.response_metadata["cprs"]["error"]


def test_a_compressor_that_breaks_in_the_middle_of_a_stream_of_requests(listener: Listener) -> None:
    def requests() -> Iterator[str]:
        yield PROMPT
        yield PROMPT

    strict = CPRSChatModel(model=listener, compressor=BrokenOnSecondCall(compressor()), threshold=0.05)
    answers = (strict.invoke(request) for request in requests())
    assert next(answers).text == "Ada"
    with pytest.raises(RuntimeError, match="the critic is gone"):
        next(answers)
    lenient = BrokenOnSecondCall(compressor())
    model = CPRSChatModel(model=listener, compressor=lenient, threshold=0.05, on_error="passthrough")
    assert [model.invoke(request).text for request in requests()] == ["Ada", "Ada"]
    assert listener.heard[-1][0].text == PROMPT


def test_tracing_shows_the_messages_as_they_came_and_the_provider_as_it_is() -> None:
    class Tracer(BaseCallbackHandler):
        seen: list[Any]

        def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
            self.seen = [messages[0][0].text, kwargs["metadata"]["ls_provider"], kwargs["metadata"]["ls_model_name"]]

    tracer = Tracer()
    with Loopback() as server:
        model = CPRSChatModel(model=openai(server), compressor=compressor(), threshold=0.05)
        model.invoke(PROMPT, config={"callbacks": [tracer]})
    assert tracer.seen == [PROMPT, "openai", "gpt-4o"]


def test_a_model_that_cannot_stream_answers_in_one_piece() -> None:
    class Whole(Listener):
        _stream = BaseChatModel._stream

    model = CPRSChatModel(model=Whole(), compressor=compressor(), threshold=0.05)
    assert "".join(chunk.text for chunk in model.stream(PROMPT)) == "Ada"


def test_tools_are_bound_to_the_wrapper_not_to_the_model_inside() -> None:
    with Loopback() as server, pytest.raises(ValidationError):
        CPRSChatModel(model=openai(server).bind_tools([read_contract]))


def test_unknown_options_are_rejected() -> None:
    with pytest.raises(ValidationError, match="min_char\n"):
        CPRSChatModel(model=FakeListChatModel(responses=["Ada"]), min_char=5)


def test_short_context_passes_through(listener: Listener) -> None:
    recorder = Recorder(Compressor(compressor().scorer))
    CPRSChatModel(model=listener, compressor=recorder, min_chars=100_000).invoke(PROMPT)
    assert recorder.calls == []
    assert listener.heard[0][0].text == PROMPT
