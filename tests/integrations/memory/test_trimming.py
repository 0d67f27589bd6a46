"""Histories within a budget: what stays, what goes, and that bytes once sent stay as they were."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cprs_core import Compressor, InputError, KeywordScorer
from cprs_integrations.accounting import Ledger
from cprs_integrations.langchain.history import read_messages
from cprs_integrations.messages import EXPAND_TOOL, Message, ToolCall, repair_pairs, split_turns
from cprs_integrations.store import OriginalStore
from cprs_integrations.trimming import HistoryTrimmer, ToolRule

from .histories import random_history
from .outputs import service_log

COMPRESSOR = Compressor(KeywordScorer())
LONG = "\n".join(f"2031-01-01 10:00:00 INFO beat {n}" for n in range(300))
LOG = f"{LONG}\n2031-01-01 10:05:00 ERROR the lease was lost"
RNGS = st.integers(0, 2**32).map(Random)


def trimmer(**options) -> HistoryTrimmer:
    return HistoryTrimmer(COMPRESSOR, **options)


def exchange(n: int, about: str = "rain", result: str | None = None) -> list[Message]:
    """A request about something, a tool call, its result, and an answer."""
    return [
        Message("user", (f"Tell me about {about} number {n}.",)),
        Message("assistant", (), (ToolCall(f"c{n}", "look", json.dumps({"at": about})),)),
        Message("tool", (result or f"It is {about} number {n}, " + "as always " * 20,), answers=(f"c{n}",)),
        Message("assistant", (f"It was {about} number {n}.",)),
    ]


def conversation(turns: int, **special: str) -> list[Message]:
    history = [Message("system", ("You look things up.",))]
    for n in range(turns):
        history += exchange(n, special.get(f"at_{n}", "rain"))
    return history


def wire(messages) -> list[str]:
    """One text per message with everything in it that a provider sees."""
    return [repr((m.role, m.texts, m.calls, m.answers, m.other_tokens)) for m in messages]


def test_without_a_budget_only_tool_results_are_shortened():
    history = [*exchange(0, result=LOG), Message("user", ("Was the lease lost?",))]
    trimmed = trimmer(tool_tokens=200).follow(history)
    assert [m.texts for i, m in enumerate(trimmed.messages) if i != 2] == [
        m.texts for i, m in enumerate(history) if i != 2
    ]
    assert trimmed.usage.shortened == 1
    assert trimmer().count_text(trimmed.messages[2].text) <= 200


def test_a_result_is_shortened_under_the_request_that_caused_it():
    history = [Message("user", ("Was the lease lost?",)), *exchange(0, result=LOG)[1:]]
    later = [*history, Message("user", ("What is beat 123?",))]
    first = trimmer(tool_tokens=100).follow(history).messages[2]
    assert "ERROR the lease was lost" in first.text
    assert trimmer(tool_tokens=100).follow(later).messages[2].texts == first.texts


def test_the_note_names_a_key_under_which_the_original_is_found():
    trims = trimmer(tool_tokens=100)
    text = trims.follow(exchange(0, result=LOG)).messages[2].text
    key = text.split("key ")[1].split(" ")[0]
    assert trims.store.get(key) == LOG


def test_what_expand_returns_is_never_shortened():
    history = [
        Message("user", ("Show me all.",)),
        Message("assistant", (), (ToolCall("c", EXPAND_TOOL, "{}"),)),
        Message("tool", (LOG,), answers=("c",)),
    ]
    assert trimmer(tool_tokens=64).follow(history).messages[2].text == LOG


def test_rules_are_per_tool():
    rules = {"look": None, "read": ToolRule(max_tokens=64)}
    assert trimmer(tool_rules=rules).shorten_result(LOG, "lease?", ToolCall("", "look")) == LOG
    short = trimmer(tool_rules=rules).shorten_result(LOG, "lease?", ToolCall("", "read"))
    assert trimmer().count_text(short) <= 64


def test_turns_that_have_to_do_with_the_request_outlive_others():
    history = [*conversation(30, at_7="lease"), Message("user", ("What about the lease?",))]
    trims = trimmer(max_tokens=500)
    trimmed = trims.trim(history)
    assert trims.count(trimmed.messages) <= 500
    assert any("It was lease number 7." in message.text for message in trimmed.messages)
    assert not trimmed.usage.over_budget


def test_a_kept_answer_keeps_the_request_before_it():
    history = [*conversation(30, at_7="lease"), Message("user", ("What about the lease?",))]
    kept = trimmer(max_tokens=500).trim(history).messages
    texts = [message.text for message in kept]
    if "It was lease number 7." in texts:
        assert "Tell me about lease number 7." in texts
    for turn in split_turns(kept):
        assert turn.head is not None or kept[turn.indices[0]].role == "user"


def test_system_messages_pinned_messages_and_the_last_turns_stay_whole():
    history = conversation(30)
    history[10] = replace(history[10], is_pinned=True)
    kept = trimmer(max_tokens=400, keep_last=3).trim(history).messages
    assert {m.index for m in kept} >= {0, 10, len(history) - 1, len(history) - 2, len(history) - 3}
    assert all(m.texts == history[m.index].texts for m in kept if m.index is not None)


def test_what_is_left_out_is_said_and_can_be_read_back():
    trims = trimmer(max_tokens=400)
    history = conversation(30)
    kept = trims.trim(history).messages
    notice = next(message for message in kept if message.is_notice)
    original = trims.store.get(notice.text.split("key ")[1].split(" ")[0])
    left_out = [m for i, m in enumerate(history) if i not in {k.index for k in kept}]
    assert all(text in original for message in left_out for text in message.texts)
    assert f"{len(left_out)} messages" in notice.text


def test_an_old_text_that_matters_but_is_too_long_is_shortened_instead_of_lost():
    report = "\n".join(f"Item {n} of the report is about the weather." for n in range(400))
    history = [
        Message("user", (f"Keep this report.\n{report}\nThe lease of Ada ends in May.\n{report}",)),
        *conversation(8)[1:],
        Message("user", ("When does the lease of Ada end?",)),
    ]
    trims = trimmer(max_tokens=1_500)
    trimmed = trims.trim(history)
    assert trimmed.usage.output_tokens <= 1_500
    assert any("The lease of Ada ends in May." in message.text for message in trimmed.messages)
    assert trimmed.messages[-1].text == "When does the lease of Ada end?"


def test_more_than_the_budget_that_must_stay_is_reported_and_not_raised(caplog):
    history = [replace(message, is_pinned=True) for message in conversation(20)]
    trimmed = trimmer(max_tokens=100).trim(history)
    assert trimmed.usage.over_budget
    assert wire(trimmed.messages) == wire(history)
    assert "the budget is 100" in caplog.text


def test_a_history_without_a_user_message_is_trimmed_too():
    history = [message for message in conversation(20) if message.role != "user"]
    trimmed = trimmer(max_tokens=400).trim(history)
    assert trimmed.usage.output_tokens <= 400
    assert trimmed.messages[0].role == "system"


def test_an_empty_history_stays_empty():
    assert trimmer(max_tokens=10).trim([]).messages == []
    assert trimmer(max_tokens=10).follow([]).messages == []


@pytest.mark.parametrize("how", ["trim", "follow"])
@given(rng=RNGS, budget=st.integers(60, 3_000), keep_last=st.integers(0, 5))
@settings(max_examples=15, deadline=None)
def test_any_history_is_paired_within_budget_and_stable(how, rng, budget, keep_last):
    history = read_messages(random_history(rng))
    trims = trimmer(max_tokens=budget, tool_tokens=200, keep_last=keep_last)
    trimmed = getattr(trims, how)(history)
    assert not repair_pairs(trimmed.messages).is_needed
    assert trims.count(trimmed.messages) == trimmed.usage.output_tokens
    assert trimmed.usage.over_budget == (trimmed.usage.output_tokens > budget)
    kept = [message.index for message in trimmed.messages if message.index is not None and message.role != "tool"]
    assert kept == sorted(kept)
    again = getattr(trims, how)([replace(message, original_tokens=None) for message in trimmed.messages])
    assert wire(again.messages) == wire(trimmed.messages)


@pytest.mark.parametrize("role", ["user", "tool"])
def test_a_text_cut_after_a_request_is_not_recalled_for_it_when_the_output_comes_back(role):
    history = [
        *([Message("user", (LOG,))] if role == "user" else []),
        *exchange(0, result=LOG if role == "tool" else None),
        Message("user", ("What about beat 123?",)),
        Message("assistant", ("It beat.",)),
        Message("user", ("Was the lease lost?",)),
        *exchange(1)[1:3],
    ]
    budget = trimmer().count(history) - 1
    trims = trimmer(max_tokens=budget, tool_tokens=budget, keep_last=1)
    trimmed = trims.follow(history)
    # Only the log was cut, and only after the request that is about another line of it.
    assert [message.index for message in trimmed.messages] == list(range(len(history)))
    assert trimmed.usage.shortened == 1
    assert not any("INFO beat 123" in message.text for message in trimmed.messages)
    again = trims.follow([replace(message, original_tokens=None) for message in trimmed.messages])
    assert wire(again.messages) == wire(trimmed.messages)
    # A new request is another matter.
    asked = trims.follow([*trimmed.messages, Message("user", ("And what about beat 124?",))])
    assert wire(asked.messages)[: len(history)] == wire(trimmed.messages)
    assert asked.messages[-2].is_recall
    assert "INFO beat 124" in asked.messages[-2].text


def test_a_fetched_text_that_quotes_such_a_note_changes_nothing_that_was_sent():
    history = [Message("user", ("Was the lease lost?",)), *exchange(0, result=LOG)[1:]]
    asked = [*history, Message("user", ("What about beat 123?",))]
    trims = trimmer(tool_tokens=100)
    sent = trims.follow(asked)
    assert sent.messages[-2].is_recall
    quoted = "[cprs: kept 1 of 9 records in a compaction, 3,915 tokens before; call expand with key 0e797873e58b]"
    fetched = [
        Message("assistant", (), (ToolCall("e", EXPAND_TOOL, "{}"),)),
        Message("tool", (quoted,), answers=("e",)),
        Message("assistant", ("It beat.",)),
    ]
    later = trimmer(tool_tokens=100).follow([*asked, *fetched])
    assert wire(later.messages)[: len(sent.messages)] == wire(sent.messages)


def test_a_note_says_whether_a_compaction_cut_the_text():
    history = [*exchange(0, result=LOG), Message("user", ("Was the lease lost?",)), *exchange(1)[1:]]
    budget = trimmer().count(history) - 1
    cut = trimmer(max_tokens=budget, tool_tokens=budget, keep_last=1).follow(history).messages[2]
    first = trimmer(tool_tokens=100).follow(history).messages[2]
    assert " in a compaction, 3,915 tokens before; call expand with key " in cut.text
    assert "compaction" not in first.text


@given(rng=RNGS)
@settings(max_examples=15, deadline=None)
def test_everything_but_text_stays_as_it_was(rng):
    history = read_messages(random_history(rng))
    for message in trimmer(max_tokens=800, tool_tokens=100).trim(history).messages:
        if message.index is not None:
            assert replace(message, texts=(), tool="", original_tokens=None) == replace(
                history[message.index], texts=(), tool="", index=message.index
            )


def test_a_new_request_gets_back_the_lines_it_needs_of_a_shortened_result():
    history = [Message("user", ("Was the lease lost?",)), *exchange(0, result=LOG)[1:]]
    trims = trimmer(tool_tokens=100)
    before = trims.follow(history)
    assert "beat 123" not in wire(before.messages)[2]
    after = trims.follow([*history, Message("user", ("What about beat 123?",))])
    assert wire(after.messages)[: len(history)] == wire(before.messages)
    recalled, request = after.messages[-2:]
    assert recalled.is_recall
    assert recalled.text.splitlines()[1:] == ["2031-01-01 10:00:00 INFO beat 123"]
    assert request.text == "What about beat 123?"
    later = [*history, Message("user", ("What about beat 123?",)), Message("assistant", ("It beat.",))]
    assert wire(trims.follow(later).messages)[:-1] == wire(after.messages)


def test_a_new_request_gets_back_turns_that_a_compaction_left_out():
    history = conversation(30, at_2="lease")
    trims = trimmer(max_tokens=600)
    answer = next(i for i, message in enumerate(history) if message.text == "It was lease number 2.")
    assert answer not in {message.index for message in trims.follow(history).messages}
    asked = trims.follow([*history, Message("user", ("What was it about the lease?",))])
    assert "assistant: It was lease number 2." in asked.messages[-2].text
    assert asked.usage.output_tokens <= 600


def test_nothing_is_brought_back_for_a_request_that_needs_nothing():
    history = [*conversation(30, at_2="lease"), Message("user", ("Thank you!",))]
    assert not trimmer(max_tokens=600).follow(history).messages[-2].is_recall


def test_recall_can_be_switched_off():
    history = [Message("user", ("Was the lease lost?",)), *exchange(0, result=LOG)[1:]]
    asked = [*history, Message("user", ("What about beat 123?",))]
    assert len(trimmer(tool_tokens=100, recall_tokens=0).follow(asked).messages) == len(asked)


def test_what_was_shortened_before_it_came_into_the_history_is_recalled_from_the_store():
    trims = trimmer(tool_tokens=100)
    short = trims.shorten_result(LOG, "Was the lease lost?")
    history = [*exchange(0, result=short), Message("user", ("What about beat 123?",))]
    assert "beat 123" in trims.follow(history).messages[-2].text


def run_of(turns: int) -> list[list[Message]]:
    """The histories that a model sees in a run of so many tool calls, the last request every ten."""
    rng = Random(5)
    history = [Message("system", ("You find out why things fail.",))]
    requests = []
    for n in range(turns):
        output = service_log(rng, 30)
        if n % 10 == 0:
            history.append(Message("user", (output.request,)))
        requests.append(list(history))
        history.append(Message("assistant", (), (ToolCall(f"c{n}", "logs", json.dumps({"n": n})),)))
        history.append(Message("tool", (output.text,), answers=(f"c{n}",)))
    return [*requests, history]


def test_every_request_of_a_run_extends_the_one_before_except_at_compactions():
    trims = trimmer(max_tokens=4_000, tool_tokens=200)
    before: list[str] = []
    compactions = 0
    broken = []
    for number, history in enumerate(run_of(60)):
        trimmed = trims.follow(history)
        now = wire(trimmed.messages)
        if trimmed.usage.compactions == compactions:
            assert now[: len(before)] == before
        else:
            broken.append(number)
        before, compactions = now, trimmed.usage.compactions
        assert trimmed.usage.output_tokens <= 4_000
    assert 1 <= len(broken) <= 8
    assert compactions == len(broken)


def test_another_process_sends_the_same_bytes(tmp_path):
    history = run_of(30)[-1]
    here = trimmer(max_tokens=3_000, tool_tokens=200, store=OriginalStore(tmp_path / "store.db"))
    fresh = HistoryTrimmer(Compressor(KeywordScorer()), max_tokens=3_000, tool_tokens=200)
    shared = HistoryTrimmer(
        Compressor(KeywordScorer("beat")), max_tokens=3_000, tool_tokens=200, store=OriginalStore(tmp_path / "store.db")
    )
    first = wire(here.follow(history).messages)
    assert wire(fresh.follow(history).messages) == first
    # Even a critic that would choose otherwise repeats what was written.
    assert wire(shared.follow(history).messages) == first


def test_a_store_that_fails_does_not_stop_memory(tmp_path, caplog):
    path = tmp_path / "store.db"
    path.write_bytes(b"this is no database, " * 100)
    trims = trimmer(tool_tokens=100, store=OriginalStore(path))
    trimmed = trims.follow(exchange(0, result=LOG))
    assert "call expand" not in trimmed.messages[2].text
    assert trimmed.usage.store_failures > 0
    assert "memory goes on without it" in caplog.text


def test_options_out_of_range_say_what_fits():
    with pytest.raises(InputError, match="max_tokens is 0"):
        trimmer(max_tokens=0)
    with pytest.raises(InputError, match="keep_last is -1"):
        trimmer(keep_last=-1)
    with pytest.raises(InputError, match="at least 64"):
        trimmer(tool_tokens=10)
    with pytest.raises(InputError, match="kind is 'poem'"):
        ToolRule(kind="poem")


def test_a_counter_of_the_caller_is_the_one_that_counts():
    trims = HistoryTrimmer(COMPRESSOR, max_tokens=2_000, count_tokens=len)
    trimmed = trims.trim(conversation(30))
    assert sum(len(message.text) for message in trimmed.messages) <= 2_000


class NotesInstructions:
    """A compressor that only has `compress`, as a client of a server, and notes what it was asked to extract."""

    def __init__(self) -> None:
        self.instructions: list[object] = []

    def compress(self, documents, query="", **options):
        self.instructions.append(options["instruction"])
        return COMPRESSOR.compress(documents, query, **options)

    async def acompress(self, documents, query="", **options):
        return self.compress(documents, query, **options)


def test_an_instruction_is_part_of_the_goal_of_results_and_of_compactions():
    notes = NotesInstructions()
    trims = HistoryTrimmer(notes, max_tokens=600, tool_tokens=100, instruction="Find what was lost.")
    trims.follow([*exchange(0, result=LOG), *conversation(20), *exchange(21)])
    assert len(notes.instructions) >= 2
    assert set(notes.instructions) == {"Find what was lost."}


def test_a_rule_of_a_tool_may_bring_an_instruction_of_its_own():
    notes = NotesInstructions()
    rules = {"look": ToolRule(max_tokens=100, instruction="Find errors.")}
    HistoryTrimmer(notes, tool_rules=rules, instruction="Find what was lost.").follow(exchange(0, result=LOG))
    assert notes.instructions == ["Find errors."]


FILE = json.dumps({"path": "main.py", "content": 'print("a", "b")\n' * 6_000})


@pytest.mark.parametrize(
    ("arguments", "result"),
    [
        (FILE, LOG),
        ("{}", "cprs: kept " * 30_000),
        ("{}", f"cprs: kept 1 of 2 lines, {'9' * 5_000} tokens before " * 20),
    ],
    ids=["a file as an argument", "notes that never end", "a number of 5,000 digits"],
)
def test_whatever_tools_take_and_return_costs_no_more_than_its_length(arguments, result):
    call = Message("assistant", (), (ToolCall("c", "write", arguments),))
    history = [Message("user", ("Is it done?",)), call, Message("tool", (result,), answers=("c",))]
    began = time.perf_counter()
    trimmed = trimmer().trim(history)
    assert trimmed.usage.output_tokens <= trimmed.usage.input_tokens
    assert time.perf_counter() - began < 8  # the square takes minutes


def test_what_looks_like_a_note_is_counted_as_a_message():
    forged = Message("user", (f"[cprs: earlier messages left out: {'9' * 5_000} messages of 3 tokens]",))
    assert trimmer().trim([forged]).messages[0].texts == forged.texts


@given(
    st.lists(st.sampled_from(["Yes. ", "A short part of some words. ", "A sentence. ", LOG[:4_000]]), max_size=40), RNGS
)
@settings(max_examples=15, deadline=None)
def test_the_parts_of_one_result_are_shortened_once(parts, rng):
    texts = [part * rng.choice((1, 5, 40)) for part in parts]
    history = [*exchange(0)[:2], Message("tool", tuple(texts), answers=("c0",))]
    trim = trimmer(tool_tokens=rng.choice((64, 300, 1_000))).trim
    once = trim(history)
    assert wire(trim(once.messages).messages) == wire(once.messages)


def test_what_was_fetched_back_is_no_part_of_what_would_have_been_sent():
    fetched = [
        Message("assistant", (), (ToolCall("e", EXPAND_TOOL, '{"key": "0123456789ab"}'),)),
        Message("tool", ("It rained, " + "as always " * 300,), answers=("e",)),
    ]
    without = [*conversation(1), *(message for n in range(1, 9) for message in exchange(n))]
    history = [*conversation(1), *fetched, *(message for n in range(1, 9) for message in exchange(n))]
    trimming = trimmer(max_tokens=300)
    accounts = []
    for messages in (without, history):
        ledger = Ledger()
        trimmed = trimming.trim(messages)
        assert not any(message.is_fetched for message in trimmed.messages)
        trimming.record(ledger, trimmed)
        accounts.append(ledger.turns[0].input_tokens)
    assert accounts[0] == accounts[1]


def test_a_budget_is_checked_wherever_it_comes_from():
    with pytest.raises(InputError, match="max_tokens is 0"):
        trimmer().with_budget(0)
