"""LlamaIndex: memory, memory block and tools, under a function agent with a scripted model."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Sequence
from typing import Any

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import (
    CachePoint,
    ChatMessage,
    ChatResponse,
    ImageBlock,
    LLMMetadata,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.llms import MockLLM
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.memory import InsertMethod, Memory
from llama_index.core.tools import FunctionTool
from llama_index.core.workflow import Context
from llama_index_instrumentation import get_dispatcher
from pydantic import Field

from cprs_core import Compressor, InputError, KeywordScorer
from cprs_integrations.llama_index import CPRSMemory, CPRSMemoryBlock, CPRSTool, cprs_tools

COMPRESSOR = Compressor(KeywordScorer())
QUESTION = "Which service lost its lease?"


class ScriptedLLM(FunctionCallingLLM):
    """Answers with the messages of a script, one a call; ``requests`` are the histories that it was sent."""

    script: list[ChatMessage]
    requests: list[list[ChatMessage]] = Field(default_factory=list)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(is_function_calling_model=True, is_chat_model=True)

    def _prepare_chat_with_tools(
        self, tools: Any, user_msg: Any = None, chat_history: Any = None, **kwargs: Any
    ) -> Any:
        return {"messages": list(chat_history or [])}

    def get_tool_calls_from_response(self, response: Any, error_on_no_tool_call: bool = True, **kwargs: Any) -> Any:
        blocks = [block for block in response.message.blocks if isinstance(block, ToolCallBlock)]
        return [ToolSelection(tool_id=b.tool_call_id, tool_name=b.tool_name, tool_kwargs=b.tool_kwargs) for b in blocks]

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        self.requests.append([message.model_copy(deep=True) for message in messages])
        return ChatResponse(message=self.script[len(self.requests) - 1])

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return self.chat(messages, **kwargs)

    def complete(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    acomplete = stream_complete = astream_complete = stream_chat = astream_chat = complete  # type: ignore[assignment]


def logs(service: str) -> str:
    """The log of a service."""
    beats = "\n".join(f"2031-01-01 10:00:{n % 60:02d} INFO {service} beat {n}" for n in range(200))
    return f"{beats}\n2031-01-01 10:05:00 ERROR {service} lost its lease"


def call(n: int, name: str = "logs", **arguments: Any) -> ChatMessage:
    block = ToolCallBlock(tool_call_id=f"c{n}", tool_name=name, tool_kwargs=arguments or {"service": f"s{n}"})
    return ChatMessage(role=MessageRole.ASSISTANT, blocks=[block])


def said(text: str) -> ChatMessage:
    return ChatMessage(text, role=MessageRole.ASSISTANT)


def tokens(text: str) -> int:
    return len(COMPRESSOR.scorer.tokenizer.encode(text))


def memory(**options: Any) -> CPRSMemory:
    return CPRSMemory.from_defaults(compressor=COMPRESSOR, **{"tool_tokens": 120, **options})


async def converse(agent: FunctionAgent, kept: Any, questions: list[str]) -> None:
    for question in questions:
        await agent.run(question, memory=kept)


async def test_tool_results_are_shortened_within_the_turn_and_stay_so():
    kept = memory()
    llm = ScriptedLLM(script=[call(0), said("s0 did."), said("Still s0.")])
    agent = FunctionAgent(tools=kept.wrap_tools([logs]), llm=llm, streaming=False)
    await converse(agent, kept, [QUESTION, "And now?"])
    result = llm.requests[1][-1]
    assert tokens(result.content) <= 120
    assert "ERROR s0 lost its lease" in result.content
    assert llm.requests[2][2].content == result.content
    assert [m.content for m in llm.requests[1]] == [m.content for m in llm.requests[2][:3]]


async def test_memory_alone_does_not_see_results_within_a_turn_but_after_it():
    kept = memory()
    llm = ScriptedLLM(script=[call(0), said("s0 did."), said("Still s0.")])
    agent = FunctionAgent(tools=[logs], llm=llm, streaming=False)
    await converse(agent, kept, [QUESTION, "And now?"])
    assert llm.requests[1][-1].content == logs("s0")
    assert tokens(llm.requests[2][2].content) <= 120


async def test_the_agent_can_fetch_an_original():
    kept = memory()
    key = kept.trimmer.store.put(logs("s0"))
    llm = ScriptedLLM(script=[call(0, "expand", key=key, search="beat 117"), said("ok")])
    await FunctionAgent(tools=kept.wrap_tools([logs]), llm=llm, streaming=False).run(QUESTION, memory=kept)
    assert llm.requests[1][-1].content == "118: 2031-01-01 10:00:57 INFO s0 beat 117"


async def test_a_long_conversation_stays_within_its_budget_and_the_store_keeps_it_whole():
    kept = memory(max_tokens=900)
    questions = [f"What is wrong with s{n}?" for n in range(15)]
    script = [message for n in range(15) for message in (call(n), said(f"s{n} lost its lease."))]
    llm = ScriptedLLM(script=script)
    await converse(FunctionAgent(tools=kept.wrap_tools([logs]), llm=llm, streaming=False), kept, questions)
    first_of_turn = llm.requests[::2]
    assert all(sum(tokens(m.content or "") for m in request) <= 900 for request in first_of_turn)
    assert len(kept.get_all()) == 60
    assert kept.stats["total"]["saved_tokens"] > 5 * kept.stats["total"]["sent_tokens"]


def test_get_gives_copies_that_agents_may_write_into():
    kept = memory()
    kept.put(ChatMessage("Hello"))
    kept.get()[0].blocks[0].text = "overwritten"
    assert kept.get()[0].content == "Hello"


async def test_sync_and_async_reading_agree():
    kept = memory(max_tokens=300)
    for n in range(40):
        await kept.aput(ChatMessage(f"Tell me about rain {n}."))
        kept.put(said(f"It rained {n}."))
    assert [m.content for m in kept.get()] == [m.content for m in await kept.aget()]
    assert len(kept.get()) < 80


def test_the_question_may_come_as_input_before_it_is_put():
    kept = memory(max_tokens=250, keep_last=1)
    for n in range(40):
        about = "the lease" if n == 5 else f"rain {n}"
        kept.put(ChatMessage(f"Tell me about {about}."))
        kept.put(said(f"All is said about {about}."))
    read = "\n".join(str(message.content) for message in kept.get(input="What about the lease?"))
    assert "All is said about the lease." in read
    assert "What about the lease?" not in read
    assert "All is said about the lease." not in "\n".join(str(m.content) for m in kept.get(input="And rain 33?"))


def test_chat_engines_take_it():
    engine = SimpleChatEngine.from_defaults(llm=MockLLM(), memory=memory(max_tokens=500))
    for n in range(5):
        assert engine.chat(f"question {n}").response
    assert len(engine.chat_history) >= 5


def test_blocks_other_than_text_stay_where_they_are():
    kept = memory(max_tokens=5_000)
    thought = ThinkingBlock(content="hm", additional_information={"signature": "s"})
    asked = [thought, TextBlock(text="Looking."), *call(0).blocks]
    result = ChatMessage(
        role=MessageRole.TOOL,
        blocks=[TextBlock(text=logs("a")), ImageBlock(image=b"iVBORw0KGgo=", image_mimetype="image/png")],
        additional_kwargs={"tool_call_id": "c0"},
    )
    marked = ChatMessage(blocks=[TextBlock(text="Note this."), CachePoint(cache_control={"type": "ephemeral"})])
    kept.set([ChatMessage(QUESTION), ChatMessage(role=MessageRole.ASSISTANT, blocks=asked), result, marked])
    read = kept.get()
    assert [[b.block_type for b in m.blocks] for m in read] == [
        [b.block_type for b in m.blocks] for m in kept.get_all()
    ]
    assert read[1].blocks[0] == thought
    assert tokens(read[2].blocks[0].text) <= 120
    assert read[2].additional_kwargs == {"tool_call_id": "c0"}


def test_calls_in_the_form_of_older_integrations_are_paired_too():
    kept = memory()
    old = {"id": "c7", "type": "function", "function": {"name": "logs", "arguments": "{}"}}
    kept.set(
        [ChatMessage("go"), ChatMessage(role="assistant", additional_kwargs={"tool_calls": [old]}), ChatMessage("?")]
    )
    roles = [message.role for message in kept.get()]
    assert roles == [MessageRole.USER, MessageRole.ASSISTANT, MessageRole.TOOL, MessageRole.USER]


def test_events_tell_what_was_done():
    class Events(BaseEventHandler):
        seen: list[Any] = Field(default_factory=list)

        def handle(self, event: Any, **kwargs: Any) -> None:
            if event.class_name() == "CPRSMemoryEvent":
                self.seen.append(event)

    events = Events()
    root = get_dispatcher()
    root.add_event_handler(events)
    try:
        kept = memory()
        kept.put(ChatMessage("Hello"))
        kept.get()
        kept.get()
    finally:
        root.event_handlers.remove(events)
    assert len(events.seen) == 1  # the same history read twice is one request
    assert events.seen[0].total["requests"] == 1


def block(**fields: Any) -> CPRSMemoryBlock:
    return CPRSMemoryBlock(compressor=COMPRESSOR, **fields)


@pytest.mark.parametrize("insert", [InsertMethod.SYSTEM, InsertMethod.USER])
async def test_turns_that_left_short_term_memory_are_recalled_under_the_current_question(insert):
    kept = Memory.from_defaults(
        session_id="1", token_limit=200, token_flush_size=50, memory_blocks=[block(max_tokens=60)], insert_method=insert
    )
    for n in range(60):
        about = "the lease of Ada" if n == 5 else f"rain {n}"
        await kept.aput(ChatMessage(f"Tell me about {about}."))
        await kept.aput(said(f"All is said about {about}."))
    await kept.aput(ChatMessage("What was it about the lease?"))
    read = "\n".join(message.content or "" for message in await kept.aget())
    assert "assistant: All is said about the lease of Ada." in read
    assert "rain 10." not in read


def test_recall_holds_its_budget_keeps_order_and_marks_gaps():
    memory_block = block(max_tokens=40)
    asyncio.run(
        memory_block.aput(
            [ChatMessage(f"Fact {n} about the {'lease' if n % 20 == 7 else 'rain'}.") for n in range(100)]
        )
    )
    recalled = memory_block.recall("What about the lease?")
    assert tokens(recalled) <= 40 + recalled.count("[…]") * 3
    lines = [line for line in recalled.splitlines() if line != "[…]"]
    assert lines == sorted(lines, key=lambda line: int(line.split()[2]))
    assert all("lease" in line for line in lines)
    assert memory_block.recall("") == ""


async def test_a_block_gives_up_its_oldest_lines_and_not_all_of_them():
    memory_block = block()
    content = "user: one\nuser: two\nuser: three"
    assert await memory_block.atruncate(content, 4) == "user: two\nuser: three"
    assert await memory_block.atruncate(content, 1_000) is None


def test_a_block_goes_through_json():
    memory_block = block(max_tokens=77)
    asyncio.run(memory_block.aput([ChatMessage("The lease is signed.")]))
    again = CPRSMemoryBlock(compressor=COMPRESSOR, **memory_block.model_dump())
    assert again.recall("Is the lease signed?") == "user: The lease is signed."


def test_an_unknown_option_is_refused():
    with pytest.raises(InputError, match="unknown option 'max_token'"):
        block(max_token=5)


async def test_a_wrapped_tool_looks_like_the_tool_inside():
    async def with_context(ctx: Context, service: str) -> str:
        """The log of a service."""
        await ctx.store.set("seen", service)
        return logs(service)

    with_context.__annotations__["ctx"] = Context  # LlamaIndex looks for the class, not for its name
    inner = FunctionTool.from_defaults(with_context, name="logs")
    kept = memory()
    tools = kept.wrap_tools([inner])
    assert tools[0].metadata is inner.metadata
    llm = ScriptedLLM(script=[call(0), said("ok")])
    agent = FunctionAgent(tools=tools, llm=llm, streaming=False)
    handler = agent.run(QUESTION, memory=kept)
    await handler
    assert await handler.ctx.store.get("seen") == "s0"
    assert tokens(llm.requests[1][-1].content) <= 120


def test_a_wrapped_tool_works_outside_an_agent():
    tool = cprs_tools([logs], compressor=COMPRESSOR, tool_tokens=100)[0]
    assert isinstance(tool, CPRSTool)
    output = tool(service="s9")
    assert tokens(output.content) <= 100
    assert output.raw_output == logs("s9")


async def test_a_tool_that_fails_says_why_as_before():
    def broken(service: str) -> str:
        """Fails."""
        raise ValueError(f"no such service: {service}")

    kept = memory()
    llm = ScriptedLLM(script=[call(0, "broken", service="x"), said("ok")])
    await FunctionAgent(tools=kept.wrap_tools([broken]), llm=llm, streaming=False).run("go", memory=kept)
    assert "no such service: x" in llm.requests[1][-1].content


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))], ids=["copy", "pickle"])
def test_a_copied_memory_has_the_same_options(copied):
    memory = CPRSMemory.from_defaults([ChatMessage("Hello")], max_tokens=500, tool_tokens=100, keep_last=2)
    again = copied(memory)
    assert (again.trimmer.max_tokens, again.trimmer.keep_last) == (500, 2)
    assert again.chat_store.get_messages(again.chat_store_key)[0].content == "Hello"
