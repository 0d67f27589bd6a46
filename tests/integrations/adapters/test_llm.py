"""`CPRSLLM`: in agents, engines and completions, and what passes through."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from llama_index.core import MockEmbedding, SummaryIndex, VectorStoreIndex
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import CachePoint, ImageBlock, TextBlock, ThinkingBlock
from llama_index.core.llms import ChatMessage, MockLLM
from llama_index.core.prompts import PromptTemplate
from llama_index.core.schema import TextNode
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel, ValidationError

from cprs_core import InputError
from cprs_integrations.llama_index import CPRSLLM

from .chat_cases import CONTEXT, EVIDENCE, FILLER, PROMPT, QUESTION, SYSTEM, compressor, read_contract_of
from .loopback import Loopback
from .test_document_compressor import Broken
from .test_node_postprocessor import EchoLLM

OPENAI_LIKE = pytest.importorskip(
    "llama_index.llms.openai_like",
    reason="needs the package 'llama-index-llms-openai-like': pip install 'cprs-integrations[clients]'",
)


def wrapped(server: Loopback) -> CPRSLLM:
    llm = OPENAI_LIKE.OpenAILike(
        model="local",
        api_base=f"{server.url}/v1",
        api_key="k",
        is_chat_model=True,
        is_function_calling_model=True,
        context_window=128_000,
        max_retries=0,
        reuse_client=False,
    )
    return CPRSLLM(llm=llm, compressor=compressor(), threshold=0.05)


def assert_shortened(server: Loopback) -> None:
    assert {request.status for request in server.received} == {200}
    assert EVIDENCE in server.received[-1].text
    assert FILLER[:50] not in server.received[-1].text


async def test_an_agent_sees_shortened_tool_results_within_the_turn() -> None:
    with Loopback() as server:
        agent = FunctionAgent(tools=[FunctionTool.from_defaults(read_contract_of)], llm=wrapped(server))
        assert str(await agent.run(QUESTION)) == "Ada signed it."
        assert len(server.received) == 2
        assert_shortened(server)


def test_a_chat_engine_puts_context_into_the_system_message() -> None:
    with Loopback() as server:
        index = VectorStoreIndex([TextNode(text=CONTEXT)], embed_model=MockEmbedding(embed_dim=4))
        engine = index.as_chat_engine(chat_mode="context", llm=wrapped(server), system_prompt=SYSTEM)
        assert str(engine.chat(QUESTION)) == "Ada signed it."
        assert_shortened(server)
        assert SYSTEM in server.received[0].text


@pytest.mark.parametrize("response_mode", ["compact", "tree_summarize", "refine", "simple_summarize"])
async def test_query_engines_put_context_into_the_user_message(response_mode: str) -> None:
    with Loopback() as server:
        index = SummaryIndex([TextNode(text=CONTEXT)])
        engine = index.as_query_engine(llm=wrapped(server), response_mode=response_mode)
        assert str(await engine.aquery(QUESTION)) == "Ada signed it."
        assert_shortened(server)
        assert QUESTION in server.received[0].text


def test_structured_prediction_goes_through_it() -> None:
    class Signer(BaseModel):
        """Who signed."""

        name: str

    with Loopback() as server:
        answer = wrapped(server).structured_predict(Signer, PromptTemplate(PROMPT))
        assert answer == Signer(name="Ada")
        assert_shortened(server)


async def test_completions_are_read_like_user_messages() -> None:
    echo = EchoLLM()
    llm = CPRSLLM(llm=echo, compressor=compressor(), threshold=0.05)
    answer = llm.complete(PROMPT)
    assert (answer.text, answer.additional_kwargs["cprs"]["query"]) == ("Ada", QUESTION)
    await llm.acomplete(PROMPT)
    assert "".join(chunk.delta for chunk in llm.stream_complete(PROMPT)) == "Ada"
    assert [chunk.text async for chunk in await llm.astream_complete(PROMPT)][-1] == "Ada"
    assert len(echo.prompts) == 4
    for prompt in echo.prompts:
        assert EVIDENCE in prompt
        assert len(prompt) < 500


def test_all_else_passes_through_untouched_and_messages_stay() -> None:
    seen: list[Any] = []

    class Listener(MockLLM):
        def chat(self, messages: Any, **kwargs: Any) -> Any:
            seen.append(list(messages))
            return super().chat(messages, **kwargs)

    messages = [
        ChatMessage(role="system", content=SYSTEM * 100),
        ChatMessage(role="user", blocks=[ImageBlock(image=b"aGk="), TextBlock(text=PROMPT)]),
        ChatMessage(role="assistant", blocks=[ThinkingBlock(content=CONTEXT), TextBlock(text=CONTEXT)]),
        ChatMessage(role="user", blocks=[TextBlock(text=PROMPT), CachePoint(cache_control={"type": "ephemeral"})]),
        ChatMessage(role="model", content=CONTEXT),
        ChatMessage(role="user", content=PROMPT),
    ]
    before = [message.model_copy(deep=True) for message in messages]
    answer = CPRSLLM(llm=Listener(), compressor=compressor(), threshold=0.05).chat(messages)
    assert messages == before
    assert seen[0][:5] == messages[:5]
    assert len(str(seen[0][5].content)) < 500
    assert answer.additional_kwargs["cprs"]["query"] == QUESTION


def test_errors_are_raised_or_the_text_passes_through() -> None:
    echo = EchoLLM()
    with pytest.raises(RuntimeError, match="the critic is gone"):
        CPRSLLM(llm=echo, compressor=Broken()).complete(PROMPT)
    CPRSLLM(llm=echo, compressor=Broken(), on_error="passthrough").complete(PROMPT)
    assert echo.prompts == [PROMPT]


def test_it_takes_over_the_prompt_settings_of_the_llm_inside() -> None:
    echo = EchoLLM(system_prompt="Be brief.")
    llm = CPRSLLM(llm=echo, compressor=compressor(), threshold=0.05)
    llm.predict(PromptTemplate(PROMPT))
    assert echo.prompts[0].startswith("Be brief.")
    assert llm.metadata == echo.metadata
    assert llm.class_name() == "CPRSLLM"


def test_an_llm_without_tools_says_so_and_unknown_options_are_rejected() -> None:
    with pytest.raises(InputError, match="EchoLLM calls no tools"):
        CPRSLLM(llm=EchoLLM()).chat_with_tools([FunctionTool.from_defaults(read_contract_of)], "hi")
    with pytest.raises(ValidationError, match="min_char\n"):
        CPRSLLM(llm=EchoLLM(), min_char=3)


def test_it_comes_back_from_its_dictionary_with_its_settings() -> None:
    data = CPRSLLM(llm=MockLLM(max_tokens=7), max_tokens=90).to_dict()
    before = copy.deepcopy(data)
    again = CPRSLLM.from_dict(data)
    assert data == before
    assert again.to_dict() == before


def test_a_dictionary_of_an_unknown_llm_says_what_to_pass() -> None:
    data = {**CPRSLLM(llm=MockLLM()).to_dict(), "llm": {"class_name": "Oracle"}}
    with pytest.raises(InputError, match=r"Oracle.*pass it: CPRSLLM.from_dict\(data, llm="):
        CPRSLLM.from_dict(data)
    assert isinstance(CPRSLLM.from_dict(data, llm=MockLLM()).llm, MockLLM)
