"""`trim_messages` with a critic: the same manners, but what stays is what the last request needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, Unpack, cast, overload

from langchain_core.language_models import BaseLanguageModel
from langchain_core.messages import AnyMessage, BaseMessage, HumanMessage, convert_to_messages
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.runnables import Runnable, RunnableLambda

from cprs_core import InputError
from cprs_integrations.langchain.history import IsPinned, trim_list
from cprs_integrations.trimming import HistoryTrimmer, TrimOptions

CountMessages = Callable[[list[BaseMessage]], int]
TokenCounter = CountMessages | BaseLanguageModel | Literal["approximate"]

_ATTEMPTS = 6  # a counter of whole lists may count otherwise than the sum of its parts


@overload
def cprs_trim_messages(
    messages: None = None,
    *,
    max_tokens: int,
    token_counter: TokenCounter | None = None,
    is_pinned: IsPinned | None = None,
    **options: Unpack[TrimOptions],
) -> Runnable[Any, list[AnyMessage]]: ...


@overload
def cprs_trim_messages(
    messages: Iterable[Any],
    *,
    max_tokens: int,
    token_counter: TokenCounter | None = None,
    is_pinned: IsPinned | None = None,
    **options: Unpack[TrimOptions],
) -> list[AnyMessage]: ...


def cprs_trim_messages(
    messages: Iterable[Any] | None = None,
    *,
    max_tokens: int,
    token_counter: TokenCounter | None = None,
    is_pinned: IsPinned | None = None,
    **options: Any,
) -> list[AnyMessage] | Runnable[Any, list[AnyMessage]]:
    """The history within ``max_tokens``: tool results shortened, then the turns that matter least left out.

    Args:
        messages: messages, or anything that `convert_to_messages` reads; without them the result is a runnable.
        max_tokens: most tokens of the result. Where what must stay is more, so is the result, and a warning is logged.
        token_counter: as for `trim_messages`: a function of a list of messages, a model, or "approximate". By default
            the critic's tokenizer; nothing goes to a network unless your counter does.
        is_pinned: says which messages stay whole.
        options: see `TrimOptions`.

    >>> cprs_trim_messages([HumanMessage("Hello")], max_tokens=100, token_counter="approximate")[0].content
    'Hello'
    """
    count_list = _list_counter(token_counter)
    if count_list is not None and "count_tokens" in options:
        raise InputError("token_counter and count_tokens are both given; pass one of them")
    budget = _Budget(max_tokens, count_list, is_pinned, cast(TrimOptions, options))
    if messages is None:
        return RunnableLambda(budget.trim, name="cprs_trim_messages")
    return budget.trim(messages)


class _Budget:
    """A budget in the caller's counter, held by a trimmer that counts text by text."""

    def __init__(
        self, max_tokens: int, count_list: CountMessages | None, is_pinned: IsPinned | None, options: TrimOptions
    ) -> None:
        self._max_tokens = max_tokens
        self._count_list = count_list
        self._is_pinned = is_pinned
        if count_list is not None:
            # One lone user message is a history that every counter takes, a provider's own included.
            options = {**options, "count_tokens": lambda text: count_list([HumanMessage(text)])}
        self._trimmer = HistoryTrimmer(**options)

    def trim(self, messages: Iterable[Any]) -> list[AnyMessage]:
        history: Sequence[BaseMessage] = convert_to_messages(messages)
        target = self._max_tokens
        for _ in range(_ATTEMPTS):
            trimmer = self._trimmer.with_budget(target)
            kept, trimmed = trim_list(trimmer, history, how="trim", is_pinned=self._is_pinned)
            if self._count_list is None or trimmed.usage.over_budget:
                return kept
            excess = self._count_list(list(kept)) - self._max_tokens
            if excess <= 0:
                return kept
            target = max(min(target, trimmed.usage.output_tokens) - excess, 1)
        return kept


def _list_counter(counter: TokenCounter | None) -> CountMessages | None:
    if counter is None:
        return None
    if counter == "approximate":
        return count_tokens_approximately
    if isinstance(counter, BaseLanguageModel):
        return counter.get_num_tokens_from_messages
    if callable(counter):
        return counter
    raise InputError(f"token_counter is {counter!r}; pass a function of a list of messages, a model, or 'approximate'")
