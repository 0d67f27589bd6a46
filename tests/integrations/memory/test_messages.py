"""The rules about which messages belong together."""

from __future__ import annotations

from cprs_integrations.messages import (
    MISSING_RESULT,
    Message,
    ToolCall,
    protect_turns,
    read_notice,
    repair_pairs,
    request_before,
    split_turns,
    write_notice,
)


def user(text: str) -> Message:
    return Message("user", (text,))


def ask(*ids: str) -> Message:
    return Message("assistant", (), tuple(ToolCall(id, "look", "{}") for id in ids))


def answer(id: str, text: str = "found") -> Message:
    return Message("tool", (text,), answers=(id,))


def test_a_whole_history_needs_no_repair():
    history = [user("go"), ask("a", "b"), answer("b"), answer("a"), Message("assistant", ("done",))]
    repair = repair_pairs(history)
    assert repair.messages == history
    assert not repair.is_needed


def test_a_call_that_a_crash_left_open_gets_a_result_that_says_so():
    repair = repair_pairs([user("go"), ask("a", "b"), answer("b"), user("go on")])
    assert [message.texts for message in repair.messages if message.role == "tool"] == [("found",), (MISSING_RESULT,)]
    assert repair.messages[3].answers == ("a",)
    assert repair.added == 1


def test_a_result_without_a_call_is_removed():
    repair = repair_pairs([user("go"), answer("lost"), Message("assistant", ("done",))])
    assert [message.role for message in repair.messages] == ["user", "assistant"]
    assert repair.removed == 1


def test_a_late_result_moves_behind_its_call():
    repair = repair_pairs([ask("a"), user("well?"), answer("a", "late")])
    assert [message.role for message in repair.messages] == ["assistant", "tool", "user"]
    assert repair.moved == 1


def test_of_two_results_for_one_call_one_stays():
    repair = repair_pairs([ask("a"), answer("a", "first"), answer("a", "second")])
    assert [message.text for message in repair.messages if message.answers] == ["first"]


def test_ids_that_repeat_belong_to_the_nearest_call():
    history = [ask("call_0"), answer("call_0", "one"), ask("call_0"), answer("call_0", "two")]
    assert repair_pairs(history).messages == history


def test_an_open_call_does_not_take_the_result_of_a_later_one_with_the_same_id():
    repair = repair_pairs([ask("call_0"), user("again"), ask("call_0"), answer("call_0", "two")])
    assert [message.text for message in repair.messages if message.role == "tool"] == [MISSING_RESULT, "two"]


def test_a_turn_is_a_request_or_an_answer_with_its_results():
    history = [Message("system", ("be kind",)), user("go"), ask("a"), answer("a"), Message("assistant", ("done",))]
    turns = split_turns(history)
    assert [turn.indices for turn in turns] == [(1,), (2, 3), (4,)]
    assert [turn.head for turn in turns] == [None, 0, 0]


def test_the_last_request_and_the_last_turns_are_protected():
    history = [user("one"), ask("a"), answer("a"), user("two"), ask("b"), answer("b"), ask("c"), answer("c")]
    protected = [turn.is_protected for turn in protect_turns(split_turns(history), history, keep_last=1)]
    assert protected == [False, False, True, False, True]


def test_a_pinned_answer_protects_the_request_that_it_answers():
    history = [user("one"), Message("assistant", ("yes",), is_pinned=True), user("two"), user("three")]
    protected = [turn.is_protected for turn in protect_turns(split_turns(history), history, keep_last=0)]
    assert protected == [True, True, False, True]


def test_a_note_is_no_request():
    notice = user(write_notice(12, 3_456, "0123456789ab"))
    assert notice.is_notice
    assert request_before([user("go"), notice], 2) == "go"
    assert read_notice(notice.text) == (12, 3_456)
