"""LangChain: middleware, context edit, summarizer and trimming, with a scripted model that shows what it was sent."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ClearToolUsesEdit, ContextEditingMiddleware
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    HumanMessageChunk,
    SystemMessage,
    SystemMessageChunk,
    ToolMessage,
)
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver

from cprs_core import Compressor, InputError, KeywordScorer
from cprs_integrations.langchain import (
    CPRSContextEdit,
    CPRSContextMiddleware,
    CPRSSummarizer,
    cprs_trim_messages,
)
from cprs_integrations.langchain.history import read_messages
from cprs_integrations.trimming import ToolRule

from .doubles import ScriptedChatModel, calls
from .histories import IMAGE

COMPRESSOR = Compressor(KeywordScorer())
QUESTION = "Which service lost its lease?"


@tool
def logs(service: str) -> str:
    """The log of a service."""
    return long_log(service)


def long_log(service: str) -> str:
    beats = "\n".join(f"2031-01-01 10:00:{n % 60:02d} INFO {service} beat {n}" for n in range(200))
    return f"{beats}\n2031-01-01 10:05:00 ERROR {service} lost its lease"


def tokens(text: str) -> int:
    return len(COMPRESSOR.scorer.tokenizer.encode(text))


def run(middleware: Any, script: list[AIMessage], *, is_async: bool = False, question: str = QUESTION, **options: Any):
    """What the model was sent, and the state at the end."""
    model = ScriptedChatModel(script=script)
    middlewares = middleware if isinstance(middleware, list) else [middleware]
    agent = create_agent(model, [logs], middleware=middlewares, system_prompt="You read logs.", **options)
    state = {"messages": [HumanMessage(question)]}
    config: dict[str, Any] = {"configurable": {"thread_id": "1"}, "recursion_limit": 400}
    out = asyncio.run(agent.ainvoke(state, config)) if is_async else agent.invoke(state, config)
    return model.requests, out


def middleware(**options: Any) -> CPRSContextMiddleware:
    return CPRSContextMiddleware(compressor=COMPRESSOR, **{"tool_tokens": 120, **options})


def script_of(steps: int) -> list[AIMessage]:
    return [*(calls("logs", {"service": f"s{n}"}, first=n) for n in range(steps)), AIMessage("done")]


def contents(messages: list[BaseMessage]) -> list[Any]:
    return [(message.type, message.content) for message in messages]


@pytest.mark.parametrize("is_async", [False, True])
def test_the_model_sees_shortened_results_and_the_state_keeps_them_whole(is_async):
    requests, out = run(middleware(), script_of(1), is_async=is_async)
    sent = requests[1][-1]
    assert isinstance(sent, ToolMessage)
    assert tokens(sent.content) <= 120
    assert "ERROR s0 lost its lease" in sent.content
    assert out["messages"][2].content == long_log("s0")
    assert sent.tool_call_id == out["messages"][2].tool_call_id
    assert sent.id == out["messages"][2].id


@pytest.mark.parametrize("is_async", [False, True])
def test_persistent_memory_never_lets_the_long_result_into_the_state(is_async):
    saver = InMemorySaver()
    requests, out = run(middleware(persistent=True), script_of(1), is_async=is_async, checkpointer=saver)
    assert tokens(out["messages"][2].content) <= 120
    assert requests[1][-1].content == out["messages"][2].content
    kept = [
        message
        for checkpoint in saver.list({"configurable": {"thread_id": "1"}})
        for message in checkpoint.checkpoint["channel_values"].get("messages", [])
    ]
    assert kept
    assert all(tokens(str(message.content)) <= 120 for message in kept)


@pytest.mark.parametrize("persistent", [False, True])
def test_requests_of_a_run_extend_each_other_except_at_compactions(persistent):
    requests, out = run(middleware(persistent=persistent, max_tokens=1_500), script_of(40))
    stats = out["cprs_stats"]
    broken = 0
    for before, now in itertools.pairwise(requests):
        broken += contents(now)[: len(before)] != contents(before)
    assert 1 <= broken <= 8
    assert broken == sum(turn["broken_tokens"] > 0 for turn in stats["turns"])
    assert stats["total"]["requests"] == 41
    assert stats["total"]["sent_tokens"] < stats["total"]["input_tokens"] / 5
    assert not any(turn["over_budget"] for turn in stats["turns"])
    assert len(out["messages"]) == (82 if not persistent else len(requests[-1]))


def test_persistent_and_ephemeral_memory_send_the_same_texts():
    ephemeral, _ = run(middleware(max_tokens=1_500), script_of(20))
    persistent, _ = run(middleware(max_tokens=1_500, persistent=True), script_of(20))
    assert contents(ephemeral[5]) == contents(persistent[5])


def test_the_agent_can_fetch_an_original_and_gets_it_whole():
    memory = middleware()
    key = memory.trimmer.store.put(long_log("s0"))
    script = [
        calls("expand", {"key": key, "search": "beat 117"}),
        calls("expand", {"key": key}, first=1),
        AIMessage("ok"),
    ]
    requests, out = run(memory, script)
    assert requests[1][-1].content == "118: 2031-01-01 10:00:57 INFO s0 beat 117"
    assert requests[2][-1].content == out["messages"][4].content
    assert tokens(requests[2][-1].content) > 120
    assert out["cprs_stats"]["total"]["expanded_tokens"] > 0


def test_rules_are_per_tool():
    requests, _ = run(middleware(tool_rules={"logs": None}), script_of(1))
    assert requests[1][-1].content == long_log("s0")
    requests, _ = run(middleware(tool_rules={"logs": ToolRule(max_tokens=80, kind="log")}), script_of(1))
    assert tokens(requests[1][-1].content) <= 80


def test_two_middlewares_need_two_names_and_then_work_together():
    with pytest.raises(AssertionError):
        run([middleware(), middleware()], script_of(1))
    requests, _ = run([middleware(name="first", tool_tokens=200), middleware(name="second")], script_of(1))
    assert tokens(requests[1][-1].content) <= 120


def test_pinned_messages_stay_through_every_compaction():
    pinned = middleware(max_tokens=1_000, is_pinned=lambda message: "s1 lost" in str(message.content))
    requests, _ = run(pinned, script_of(20))
    assert any("s1 lost" in str(message.content) for message in requests[-1])


def test_traces_show_what_was_done():
    class Runs(BaseCallbackHandler):
        def __init__(self) -> None:
            self.outputs: list[Any] = []
            self.names: dict[Any, Any] = {}

        def on_chain_start(self, serialized: Any, inputs: Any, *, run_id: Any, **kwargs: Any) -> None:
            self.names[run_id] = kwargs.get("name")

        def on_chain_end(self, outputs: Any, *, run_id: Any, **kwargs: Any) -> None:
            if self.names.get(run_id) == "cprs_context":
                self.outputs.append(outputs)

    runs = Runs()
    agent = create_agent(ScriptedChatModel(script=script_of(1)), [logs], middleware=[middleware()])
    agent.invoke({"messages": [HumanMessage(QUESTION)]}, {"callbacks": [runs]})
    assert [usage["shortened"] for usage in runs.outputs] == [0, 1]
    assert runs.outputs[1]["output_tokens"] < runs.outputs[1]["input_tokens"]


def test_accounts_go_on_over_the_turns_of_a_conversation():
    model = ScriptedChatModel(script=[*script_of(1), *script_of(1)])
    agent = create_agent(model, [logs], middleware=[middleware()], checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    agent.invoke({"messages": [HumanMessage(QUESTION)]}, config)
    out = agent.invoke({"messages": [HumanMessage("And now?")]}, config)
    assert out["cprs_stats"]["total"]["requests"] == 4
    assert out["cprs_stats"]["total"]["broken_tokens"] == 0


def test_the_history_that_a_crash_left_open_is_sent_whole():
    model = ScriptedChatModel(script=[AIMessage("ok")])
    agent = create_agent(model, [logs], middleware=[middleware()])
    history = [HumanMessage("go"), calls("logs", {"service": "a"}, {"service": "b"}), HumanMessage("go on")]
    agent.invoke({"messages": [*history[:2], ToolMessage("fine", tool_call_id="c1"), history[2]]})
    assert [message.type for message in model.requests[0]] == ["human", "ai", "tool", "tool", "human"]
    assert model.requests[0][3].status == "error"


def test_blocks_other_than_text_stay_where_they_are():
    thought = {"type": "thinking", "thinking": "hm", "signature": "c2lnbmVk"}
    marked = {"type": "text", "text": long_log("b"), "cache_control": {"type": "ephemeral"}}
    history = [
        HumanMessage([{"type": "text", "text": QUESTION}, IMAGE]),
        AIMessage([thought, {"type": "text", "text": "Looking."}], tool_calls=calls("logs", {}, {}).tool_calls),
        ToolMessage([{"type": "text", "text": long_log("a")}, IMAGE], tool_call_id="c0", artifact={"rows": 3}),
        ToolMessage([marked], tool_call_id="c1"),
    ]
    before = [message.model_copy(deep=True) for message in history]
    kept = cprs_trim_messages(history, max_tokens=10_000, compressor=COMPRESSOR, tool_tokens=100)
    assert history == before
    assert kept[0] is history[0]
    assert kept[1] is history[1]
    assert kept[3] is history[3]
    assert kept[2].content[1] == IMAGE
    assert kept[2].artifact == {"rows": 3}
    assert tokens(kept[2].content[0]["text"]) <= 100


def conversation(turns: int) -> list[BaseMessage]:
    history: list[BaseMessage] = [SystemMessage("Be brief.")]
    for n in range(turns):
        about = "the lease" if n == 5 else f"rain {n}"
        history += [HumanMessage(f"Tell me about {about}."), AIMessage(f"All is said about {about}. " + "Yes. " * 10)]
    return [*history, HumanMessage("What was it about the lease?")]


@pytest.mark.parametrize(
    "counter", [None, "approximate", count_tokens_approximately, lambda messages: 7 * len(messages)]
)
def test_trimming_holds_the_budget_of_any_counter(counter):
    count = count_tokens_approximately if counter in (None, "approximate") else counter
    kept = cprs_trim_messages(conversation(40), max_tokens=250, token_counter=counter, compressor=COMPRESSOR)
    assert len(kept) < 40
    if counter is not None:
        assert count(kept) <= 250
    assert any("All is said about the lease." in str(message.content) for message in kept)


def test_trimming_a_second_time_changes_nothing():
    kept = cprs_trim_messages(conversation(40), max_tokens=250, compressor=COMPRESSOR)
    assert cprs_trim_messages(kept, max_tokens=250, compressor=COMPRESSOR) == kept


def test_a_counter_of_lists_only_ever_sees_whole_histories():
    seen: list[list[str]] = []

    def counter(messages: list[BaseMessage]) -> int:
        seen.append([message.type for message in messages])
        return count_tokens_approximately(messages)

    history = [*conversation(20), calls("logs", {"service": "a"}), ToolMessage(long_log("a"), tool_call_id="c0")]
    cprs_trim_messages(history, max_tokens=200, token_counter=counter, compressor=COMPRESSOR)
    assert all(kinds in (["human"], ["human", "human"]) or kinds[0] in ("system", "human") for kinds in seen)
    assert all("tool" not in kinds or "ai" in kinds[: kinds.index("tool")] for kinds in seen)


def test_without_messages_trimming_is_a_runnable():
    chain = cprs_trim_messages(max_tokens=200, compressor=COMPRESSOR) | (lambda messages: len(messages))
    assert chain.invoke(conversation(40)) < 40
    assert cprs_trim_messages([("user", "Hello")], max_tokens=200, compressor=COMPRESSOR)[0].content == "Hello"


def test_counters_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="pass a function"):
        cprs_trim_messages([], max_tokens=10, token_counter=3)  # type: ignore[call-overload]
    with pytest.raises(InputError, match="both given"):
        cprs_trim_messages([], max_tokens=10, token_counter="approximate", count_tokens=len)
    with pytest.raises(InputError, match="token_counter= to ContextEditingMiddleware"):
        CPRSContextEdit(count_tokens=len)


@pytest.mark.parametrize("is_async", [False, True])
def test_the_edit_serves_the_stock_middleware(is_async):
    edit = CPRSContextEdit(trigger=800, compressor=COMPRESSOR, tool_tokens=100)
    requests, out = run(ContextEditingMiddleware(edits=[edit]), script_of(15), is_async=is_async)
    stock, _ = run(ContextEditingMiddleware(edits=[ClearToolUsesEdit(trigger=800)]), script_of(15))
    assert "lost its lease" in str(requests[4][3].content)
    assert "lost its lease" not in str(stock[4][3].content)
    sent = [count_tokens_approximately(request[1:]) for request in requests]
    assert max(sent) <= 800
    assert out["messages"][2].content == long_log("s0")


def test_the_summarizer_quotes_and_calls_no_model():
    summarizer = CPRSSummarizer(max_tokens=120, compressor=COMPRESSOR)
    model = ScriptedChatModel(script=[AIMessage("ok")])
    stock = summarizer.middleware(model, trigger=("messages", 10), keep=("messages", 4))
    agent = create_agent(model, [], middleware=[stock])
    history = conversation(30)
    agent.invoke({"messages": [*history[1:-4], HumanMessage("The lease again, please."), *history[-4:]]})
    assert len(model.requests) == 1
    summary = str(model.requests[0][0].content)
    assert "All is said about the lease." in summary
    assert tokens(summary) < 150
    key = summary.split("key ")[1].split(" ")[0]
    assert "All is said about rain 3." in summarizer.trimmer.store.get(key)


def test_empty_and_odd_messages_pass():
    odd = [HumanMessage(""), AIMessage(""), HumanMessage([]), HumanMessage([{"type": "unheard_of", "x": 1}])]
    assert cprs_trim_messages(odd, max_tokens=10_000, compressor=COMPRESSOR) == odd
    assert cprs_trim_messages([], max_tokens=10, compressor=COMPRESSOR) == []


class CountingModel(ScriptedChatModel):
    """Counts as providers do: the system prompt and the tools of the request every time."""

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Any = None) -> int:
        return count_tokens_approximately(messages) + 500 * len(tools or [])


def test_the_edit_takes_a_counter_that_counts_the_whole_request():
    model = CountingModel(script=script_of(15))
    edit = CPRSContextEdit(trigger=2_000, compressor=COMPRESSOR, tool_tokens=300)
    stock = ContextEditingMiddleware(edits=[edit], token_count_method="model")
    agent = create_agent(model, [logs], middleware=[stock], system_prompt="You read logs. " * 50)
    agent.invoke({"messages": [HumanMessage(QUESTION)]}, {"recursion_limit": 400})
    sent = [count_tokens_approximately(request) + 500 for request in model.requests]
    assert max(sent) <= 2_000
    assert "beat" in str(model.requests[1][-1].content)  # 300 tokens hold more than the line that was lost
    assert len(model.requests[3]) == 8


def test_messages_that_were_streamed_are_what_they_were():
    long = ("The rain came from the west. " * 200).strip()
    streamed = [
        SystemMessageChunk("s"),
        HumanMessageChunk("Why?"),
        AIMessageChunk(long),
        HumanMessageChunk("And the lease?"),
    ]
    assert [message.role for message in read_messages(streamed)] == ["system", "user", "assistant", "user"]
    assert cprs_trim_messages(streamed, max_tokens=5_000, compressor=COMPRESSOR, tool_tokens=100) == streamed


def test_roles_of_chat_messages_are_read_as_providers_write_them():
    roles = ["system", "developer", "assistant", "user", "tool", "critic"]
    messages = [ChatMessage("text", role=role) for role in roles]
    assert [m.role for m in read_messages(messages)] == ["system", "system", "assistant", "user", "tool", "user"]


@pytest.mark.parametrize(
    "marked",
    [
        HumanMessage([{"type": "text", "text": "a"}, {"cachePoint": {"type": "default"}}]),
        HumanMessage([{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]),
        HumanMessage("a", additional_kwargs={"cache_control": {"type": "ephemeral"}}),
    ],
)
def test_messages_with_a_cache_marker_are_pinned(marked):
    assert read_messages([marked])[0].is_pinned
