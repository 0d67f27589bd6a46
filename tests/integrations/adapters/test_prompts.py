"""Which text of a chat request counts as context, and what the question is."""

from __future__ import annotations

import time

import pytest
from llama_index.core.chat_engine.context import DEFAULT_CONTEXT_TEMPLATE
from llama_index.core.prompts.default_prompts import (
    DEFAULT_REFINE_PROMPT_TMPL,
    DEFAULT_TEXT_QA_PROMPT_TMPL,
    DEFAULT_TREE_SUMMARIZE_TMPL,
)

from cprs_core import Compressor
from cprs_integrations.prompts import OMITTED, ChatOptions, MessageText, Request, context_ranges, find_question

QUESTION = "Who signed the lease?"
FILLER = "The sky was grey over the town. " * 120
CONTEXT = FILLER + "Ada signed the lease in May.\n" + FILLER


def pieces(role: str, text: str) -> list[str]:
    return [text[start:end].strip() for start, end in context_ranges(role, text, 2_000)]


@pytest.mark.parametrize("template", [DEFAULT_TEXT_QA_PROMPT_TMPL, DEFAULT_TREE_SUMMARIZE_TMPL])
def test_llama_index_prompts_are_read_as_they_are_built(template: str) -> None:
    prompt = template.format(context_str=CONTEXT, query_str=QUESTION)
    assert pieces("user", prompt) == [CONTEXT.strip()]
    assert find_question([MessageText("user", prompt)]) == QUESTION


def test_a_refine_prompt_is_read_as_it_is_built() -> None:
    prompt = DEFAULT_REFINE_PROMPT_TMPL.format(context_msg=CONTEXT, query_str=QUESTION, existing_answer="Nobody.")
    assert pieces("user", prompt) == [CONTEXT.strip()]
    assert find_question([MessageText("user", prompt)]) == QUESTION


def test_of_a_system_message_only_marked_context_is_context() -> None:
    rules = "You answer politely and in rhymes. " * 100
    assert pieces("system", rules) == []
    assert pieces("system", rules + DEFAULT_CONTEXT_TEMPLATE.format(context_str=CONTEXT)) == [CONTEXT.strip()]
    assert pieces("system", f"{rules}\n<context>\n{CONTEXT}</context>\nBe brief.") == [CONTEXT.strip()]


def test_breaks_of_markdown_are_no_borders_of_context() -> None:
    text = f"Look at this.\n---\n{CONTEXT}\n---\n{QUESTION}"
    (middle,) = pieces("user", text)
    assert "Ada signed the lease in May." in middle


@pytest.mark.parametrize(
    "text",
    [f"{CONTEXT}\n\n{QUESTION}", f"{QUESTION}\n\n{CONTEXT}", f"Context:\n{CONTEXT}\n\nQuestion: {QUESTION}\nAnswer:"],
    ids=["question last", "question first", "labelled"],
)
def test_the_beginning_and_the_end_of_a_user_message_stay(text: str) -> None:
    (middle,) = pieces("user", text)
    assert QUESTION not in middle
    assert "Ada signed the lease in May." in middle
    assert find_question([MessageText("user", text)]) == QUESTION


def test_a_tool_result_is_context_as_a_whole() -> None:
    assert pieces("tool", CONTEXT) == [CONTEXT.strip()]
    assert pieces("tool", "12 degrees") == []


def test_a_text_without_any_border_keeps_its_beginning_and_its_end() -> None:
    assert find_question([MessageText("user", "x" * 5_000)]) == "x" * 300 + "\n" + "x" * 600
    assert context_ranges("user", "x" * 5_000, 2_000) == [(300, 4_400)]


def test_the_question_is_the_last_user_message_that_has_text() -> None:
    texts = [
        MessageText("user", "first"),
        MessageText("user", "second"),
        MessageText("user", " "),
        MessageText("tool", CONTEXT),
    ]
    assert find_question(texts) == "second"
    assert find_question([MessageText("system", "rules")]) == ""


def test_a_long_question_is_cut() -> None:
    assert len(find_question([MessageText("user", "what if " * 50_000 + "?")])) <= 1_000


def test_all_context_of_a_request_is_shortened_at_once_and_the_rest_stays(compressor: Compressor) -> None:
    options = ChatOptions(compressor=compressor, threshold=0.05)
    prompt = f"Context:\n{CONTEXT}\n\n{CONTEXT}\n\nQuestion: {QUESTION}"
    texts = [MessageText("tool", CONTEXT), MessageText("user", prompt), MessageText("tool", FILLER)]
    replaced, facts = Request(options, texts).shorten()
    assert replaced[0].strip() == "Ada signed the lease in May."
    assert replaced[1].startswith("Context:\n")
    assert replaced[1].endswith(f"Question: {QUESTION}")
    assert replaced[1].count("Ada signed the lease in May.") == 2
    assert replaced[2].strip() == OMITTED
    assert facts["kept_tokens"] < facts["original_tokens"] / 8
    assert facts["query"] == QUESTION


async def test_async_gives_the_same(compressor: Compressor) -> None:
    request = Request(
        ChatOptions(compressor=compressor, threshold=0.05), [MessageText("user", f"{CONTEXT}\n\n{QUESTION}")]
    )
    assert await request.ashorten() == request.shorten()


def test_without_a_question_nothing_is_touched(compressor: Compressor) -> None:
    options = ChatOptions(compressor=compressor, threshold=0.05)
    assert Request(options, [MessageText("tool", CONTEXT)]).shorten() == ({}, {})
    instructed = ChatOptions(compressor=compressor, threshold=0.05, instruction="Find leases.")
    assert 0 in Request(instructed, [MessageText("tool", CONTEXT)]).shorten()[0]


def test_frozen_texts_are_read_for_the_question_and_stay(compressor: Compressor) -> None:
    options = ChatOptions(compressor=compressor, threshold=0.05)
    texts = [MessageText("user", f"{CONTEXT}\n{QUESTION}", frozen=True), MessageText("tool", CONTEXT)]
    replaced, facts = Request(options, texts).shorten()
    assert list(replaced) == [1]
    assert facts["query"] == QUESTION


def test_the_question_can_come_from_a_function_of_your_own(compressor: Compressor) -> None:
    options = ChatOptions(compressor=compressor, threshold=0.05, query=lambda texts: f"{len(texts)} texts")
    _, facts = Request(options, [MessageText("tool", CONTEXT)]).shorten()
    assert facts["query"] == "1 texts"


def test_a_page_with_thousands_of_open_tags_is_read_in_one_pass() -> None:
    page = "".join(f'<li>item {n}<br><img src="{n}.png"><x{n}>' for n in range(20_000))
    began = time.perf_counter()
    assert len(context_ranges("user", page, 2_000)) == 1
    assert pieces("system", f"{page}<docs>{CONTEXT}</docs>") == [CONTEXT.strip()]
    assert time.perf_counter() - began < 5  # the square takes minutes


def test_tags_inside_of_tags_are_text() -> None:
    inside = f"<a>{FILLER}</a> <b> {FILLER}"
    assert pieces("user", f"<br> <b>{inside}</b> </b> <c>{FILLER}</d>") == [inside.strip()]


def test_thousands_of_marked_pieces_are_put_back_in_one_pass(compressor: Compressor) -> None:
    text = "".join(f"<doc>{n} {FILLER[:2_000]}</doc>\n" for n in range(3_000)) + QUESTION
    options = ChatOptions(compressor=compressor, threshold=0.5)
    began = time.perf_counter()
    replaced, _ = Request(options, [MessageText("user", text)]).shorten()
    assert time.perf_counter() - began < 8
    assert replaced[0].count(f"<doc>{OMITTED}</doc>\n") == 2_999  # of all that scored nothing the best one stays
    assert replaced[0].endswith(f"</doc>\n{QUESTION}")
