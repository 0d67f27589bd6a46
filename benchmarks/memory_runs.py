"""An agent run of about 60 model calls for `memory.py`, through both frameworks, with and without our memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, MessageRole, ToolCallBlock
from llama_index.core.memory import ChatMemoryBuffer

from benchmarks.memory_cases import Step, agent_script
from cprs_core import Compressor
from cprs_integrations.accounting import common_prefix_tokens
from cprs_integrations.langchain import CPRSContextMiddleware
from cprs_integrations.llama_index import CPRSMemory
from tests.integrations.memory.doubles import ScriptedChatModel, calls
from tests.integrations.memory.test_llama_index_memory import ScriptedLLM

MAX_TOKENS = 8_000
TOOL_TOKENS = 500


@dataclass(frozen=True)
class Sent:
    """The requests of a run, each as the texts of its messages, and the place of every step's last request."""

    requests: list[list[str]]
    last_of_step: list[int]


def print_runs(compressor: Compressor, requests: int, seed: int) -> dict[str, Any]:
    """Tokens sent, prefix shared with the request before, and evidence present, with memory and without."""
    steps = agent_script(requests, seed)
    print(f"\nan agent run of {len(steps)} requests")
    print(f"{'':24}{'calls':>7}{'tokens sent':>13}{'of them cached':>16}{'cached of reusable':>20}{'answerable':>12}")
    rows: dict[str, Any] = {}
    count = cache(compressor.count_tokens)  # every text is in many requests
    for name, run in (("create_agent", run_langchain), ("FunctionAgent", run_llama_index)):
        plain = _report(name, run(steps, None), steps, count)
        short = _report(f"{name}, cprs", run(steps, compressor), steps, count)
        times = round(plain["tokens"] / short["tokens"], 1)
        print(f"{'':24}{times} times fewer input tokens")
        rows[name] = {"without": plain, "with": short, "times fewer": times}
    return rows


def run_langchain(steps: Sequence[Step], compressor: Compressor | None) -> Sent:
    """The script through `create_agent`."""
    outputs = iter([step.output for step in steps if step.output is not None])

    @tool
    def look_up(what: str) -> str:
        """Look something up."""
        return str(next(outputs))

    script: list[AIMessage] = []
    for number, step in enumerate(steps):
        if step.output is not None:
            script.append(calls("look_up", {"what": "records"}, first=number))
        script.append(AIMessage(f"Done with request {number}."))
    model = ScriptedChatModel(script=script)
    options: Any = {"compressor": compressor, "max_tokens": MAX_TOKENS, "tool_tokens": TOOL_TOKENS}
    middleware = [CPRSContextMiddleware(**options)] if compressor else []
    agent = create_agent(model, [look_up], middleware=middleware, checkpointer=InMemorySaver())
    last = []
    for step in steps:
        agent.invoke({"messages": [HumanMessage(step.request)]}, {"configurable": {"thread_id": "1"}})
        last.append(len(model.requests) - 1)
    return Sent([[_langchain_text(message) for message in request] for request in model.requests], last)


def run_llama_index(steps: Sequence[Step], compressor: Compressor | None) -> Sent:
    """The script through `FunctionAgent`."""
    outputs = iter([step.output for step in steps if step.output is not None])

    def look_up(what: str) -> str:
        """Look something up."""
        return str(next(outputs))

    script: list[ChatMessage] = []
    for number, step in enumerate(steps):
        if step.output is not None:
            call = ToolCallBlock(tool_call_id=f"c{number}", tool_name="look_up", tool_kwargs={"what": "records"})
            script.append(ChatMessage(role=MessageRole.ASSISTANT, blocks=[call]))
        script.append(ChatMessage(f"Done with request {number}.", role=MessageRole.ASSISTANT))
    llm = ScriptedLLM(script=script)
    options: Any = {"compressor": compressor, "max_tokens": MAX_TOKENS, "tool_tokens": TOOL_TOKENS}
    memory: Any = CPRSMemory(**options) if compressor else ChatMemoryBuffer.from_defaults(token_limit=10**9)
    tools: Any = memory.wrap_tools([look_up]) if compressor else [look_up]
    agent = FunctionAgent(tools=tools, llm=llm, streaming=False)
    last = []

    async def converse() -> None:
        for step in steps:
            await agent.run(step.request, memory=memory)
            last.append(len(llm.requests) - 1)

    asyncio.run(converse())
    return Sent([[message.model_dump_json() for message in request] for request in llm.requests], last)


def _report(name: str, sent: Sent, steps: Sequence[Step], count: Callable[[str], int]) -> dict[str, Any]:
    counted = [[(text, count(text)) for text in request] for request in sent.requests]
    totals = [sum(tokens for _, tokens in request) for request in counted]
    cached = sum(common_prefix_tokens(a, b) for a, b in zip([[], *counted], counted, strict=False))
    answerable = 0
    for number, (step, place) in enumerate(zip(steps, sent.last_of_step, strict=True)):
        text = "\n".join(sent.requests[place]).replace('\\"', '"').replace("\\n", "\n")
        missing = [gold for gold in step.gold if gold not in text]
        answerable += not missing
        if missing:
            print(f"request {number} of {name} lacks {missing}: {step.request}")
    row = {
        "calls": len(totals),
        "tokens": sum(totals),
        "cached %": round(100 * cached / sum(totals), 1),
        "cached of reusable %": round(100 * cached / max(sum(totals[:-1]), 1), 1),
        "answerable": f"{answerable}/{len(steps)}",
    }
    print(
        f"{name:24}{row['calls']:7d}{row['tokens']:13,d}{row['cached %']:14.1f} %"
        f"{row['cached of reusable %']:18.1f} %{row['answerable']:>12}",
        flush=True,
    )
    return row


def _langchain_text(message: BaseMessage) -> str:
    return f"{message.type}: {message.content} {getattr(message, 'tool_calls', '')}"
