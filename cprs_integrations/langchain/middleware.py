"""Agent memory for `create_agent`: tool results shortened once, old turns left out when they must be, accounts kept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any, NotRequired, Unpack

try:
    from langchain.agents.middleware import AgentMiddleware, AgentState, ExtendedModelResponse, ModelRequest
    from langchain.agents.middleware.types import OmitFromInput
except ImportError as error:
    from cprs_core import MissingExtraError

    raise MissingExtraError("langchain", "langchain", "CPRSContextMiddleware") from error
from langchain_core.messages import AnyMessage, BaseMessage, RemoveMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langgraph.graph.message import REMOVE_ALL_MESSAGES
from langgraph.types import Command

from cprs_integrations.accounting import Ledger
from cprs_integrations.langchain.history import IsPinned, read_messages, write_messages
from cprs_integrations.langchain.tools import expand_tool
from cprs_integrations.trimming import HistoryTrimmer, TrimOptions

STATS_KEY = "cprs_stats"
TRACE_NAME = "cprs_context"


def _newest(before: dict[str, Any] | None, now: dict[str, Any]) -> dict[str, Any]:
    """Of two middlewares of one agent the outer one, which saw the whole history, keeps the accounts."""
    return now


class CPRSState(AgentState[Any]):
    """The agent's state with the accounts of this conversation, as `Ledger.to_dict` writes them."""

    cprs_stats: NotRequired[Annotated[dict[str, Any], OmitFromInput, _newest]]


class CPRSContextMiddleware(AgentMiddleware[CPRSState, Any, Any]):
    """Keeps an agent's requests small: tool results are shortened when they appear, old turns are left out when needed.

    Ephemeral by default: the model sees the shortened history, the state and its checkpoints keep every message.
    With ``persistent=True`` the state itself is shortened. Originals are in ``store`` either way, and the agent gets
    the tool `expand` to fetch them. Accounts are in the state under ``cprs_stats``, and in traces as the run
    ``cprs_context``.

    >>> from langchain.agents import create_agent
    >>> agent = create_agent(model, tools, middleware=[CPRSContextMiddleware(max_tokens=50_000)])  # doctest: +SKIP
    """

    state_schema = CPRSState

    def __init__(
        self,
        *,
        max_tokens: int | None = None,
        persistent: bool = False,
        is_pinned: IsPinned | None = None,
        name: str = "CPRSContextMiddleware",
        **options: Unpack[TrimOptions],
    ) -> None:
        """A middleware with its own trimmer.

        Args:
            max_tokens: most tokens of a request's messages, the system prompt included unless ``persistent``; None only
                shortens tool results and never leaves a turn out.
            persistent: write shortened results and compactions into the state, instead of only into requests.
            is_pinned: says which messages stay whole, whatever the budget.
            name: two middlewares of one agent need two names.
            options: see `TrimOptions`.

        Raises:
            InputError: an option is out of range.
        """
        super().__init__()
        self.trimmer = HistoryTrimmer(max_tokens=max_tokens, **options)
        self.persistent = persistent
        self.is_pinned = is_pinned
        self.tools = [expand_tool(self.trimmer.store)]
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    def wrap_model_call(self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Any]) -> Any:
        """Send the shortened history; the state's stays as it is."""
        prepared, update = self._traced(request.messages, request, None)
        return _with_update(handler(request.override(messages=prepared)), update)

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[Any]]
    ) -> Any:
        """`wrap_model_call` without blocking the loop."""
        prepared, update = await asyncio.to_thread(self._traced, request.messages, request, None)
        return _with_update(await handler(request.override(messages=prepared)), update)

    def before_model(self, state: CPRSState, runtime: Any) -> dict[str, Any] | None:
        """When persistent: write what a compaction leaves into the state."""
        if not self.persistent:
            return None
        messages = state["messages"]
        shorter, update = self._traced(messages, None, state)
        if len(shorter) == len(messages) and all(new is old for new, old in zip(shorter, messages, strict=True)):
            return update
        return {**update, "messages": [RemoveMessage(id=REMOVE_ALL_MESSAGES), *shorter]}

    async def abefore_model(self, state: CPRSState, runtime: Any) -> dict[str, Any] | None:
        """`before_model` without blocking the loop."""
        return await asyncio.to_thread(self.before_model, state, runtime) if self.persistent else None

    def wrap_tool_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        """When persistent: the state gets the shortened result, never the long one."""
        return self._shorten(handler(request), request)

    async def awrap_tool_call(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        """`wrap_tool_call` without blocking the loop."""
        result = await handler(request)
        return await asyncio.to_thread(self._shorten, result, request) if self.persistent else result

    def _shorten(self, result: Any, request: Any) -> Any:
        if not self.persistent or not isinstance(result, ToolMessage):
            return result
        history = [*_messages_of(request.state), result]
        if not any(call.get("id") == result.tool_call_id for message in history for call in _calls_of(message)):
            return result  # called outside an agent's history: `before_model` will see it
        trimmed = self.trimmer.shorten_last(read_messages(history, self.is_pinned))
        return write_messages(trimmed, history)[-1]

    def _traced(
        self, messages: Sequence[AnyMessage], request: ModelRequest[Any] | None, state: Mapping[str, Any] | None
    ) -> tuple[list[AnyMessage], dict[str, Any]]:
        """The messages to send and the state's update, computed inside a run of its own for the framework's traces."""
        if request is not None and self.persistent:
            return list(messages), {}  # `before_model` did it
        result: dict[str, Any] = {}

        def shorten(_: dict[str, int]) -> dict[str, Any]:
            system = [] if request is None or request.system_message is None else [request.system_message]
            history = [*system, *messages]
            trimmed = self.trimmer.follow(read_messages(history, self.is_pinned))
            result["messages"] = write_messages(trimmed, history)[len(system) :]
            kept_state: Any = state if request is None else request.state
            ledger = Ledger.from_dict((kept_state or {}).get(STATS_KEY))
            self.trimmer.record(ledger, trimmed)
            result["stats"] = ledger.to_dict()
            return trimmed.usage.to_dict()

        RunnableLambda(shorten, name=TRACE_NAME).invoke({"messages": len(messages)})
        return result["messages"], {STATS_KEY: result["stats"]}


def _with_update(response: Any, update: dict[str, Any]) -> Any:
    return ExtendedModelResponse(model_response=response, command=Command(update=update)) if update else response


def _messages_of(state: Any) -> list[BaseMessage]:
    messages = state.get("messages", []) if isinstance(state, dict) else state if isinstance(state, list) else []
    return list(messages)


def _calls_of(message: BaseMessage) -> list[dict[str, Any]]:
    return list(getattr(message, "tool_calls", None) or [])
