"""Tools whose results are shortened as they are produced: memory does not see them before the turn is over."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from typing import Any, Unpack

from llama_index.core.base.llms.types import TextBlock
from llama_index.core.tools import AsyncBaseTool, BaseTool, FunctionTool, ToolMetadata, ToolOutput, adapt_to_async_tool

from cprs_integrations.expand import EXPAND_DESCRIPTION, read_original
from cprs_integrations.messages import EXPAND_TOOL, ToolCall
from cprs_integrations.store import OriginalStore
from cprs_integrations.trimming import HistoryTrimmer, TrimOptions

_CONTEXT = "cprs_context"  # the argument in which an agent hands its context to a tool that asks for it
_REQUEST = "user_msg_str"  # where LlamaIndex agents keep the request of the run


class CPRSTool(FunctionTool):
    """Another tool, whose long results come shortened under the request that the agent is working on.

    It looks like the other tool to the agent and to the model. ``raw_output`` stays as it was; only the text that the
    model reads is shortened, once, and the original goes to the store.
    """

    def __init__(self, tool: BaseTool, trimmer: HistoryTrimmer) -> None:
        """``tool`` with results shortened as ``trimmer`` does it."""
        inner = adapt_to_async_tool(tool)
        super().__init__(fn=inner.real_fn if isinstance(inner, FunctionTool) else inner.call, metadata=tool.metadata)
        self.tool = inner
        self.trimmer = trimmer
        self.requires_context = True
        self.ctx_param_name = _CONTEXT

    @property
    def metadata(self) -> ToolMetadata:
        return self.tool.metadata

    def __call__(self, *args: Any, **kwargs: Any) -> ToolOutput:
        return self.call(*args, **kwargs)

    def call(self, *args: Any, **kwargs: Any) -> ToolOutput:
        """Call the tool; outside an agent its arguments are all that is known of the request."""
        context = kwargs.pop(_CONTEXT, None)
        return self._shorten(self.tool.call(*args, **self._with_context(kwargs, context)), "", kwargs)

    async def acall(self, *args: Any, **kwargs: Any) -> ToolOutput:
        """Call the tool and shorten what it returns, without blocking the loop."""
        context = kwargs.pop(_CONTEXT, None)
        output = await self.tool.acall(*args, **self._with_context(kwargs, context))
        request = str(await context.store.get(_REQUEST, default="") or "") if context is not None else ""
        return await asyncio.to_thread(self._shorten, output, request, kwargs)

    def _with_context(self, kwargs: dict[str, Any], context: Any) -> dict[str, Any]:
        """The arguments of the tool inside, which may ask for the context itself."""
        if isinstance(self.tool, FunctionTool) and self.tool.ctx_param_name is not None:
            return {**kwargs, self.tool.ctx_param_name: context}
        return kwargs

    def _shorten(self, output: ToolOutput, request: str, kwargs: dict[str, Any]) -> ToolOutput:
        call = ToolCall("", self.metadata.get_name(), json.dumps(kwargs, default=str))
        texts = [block.text for block in output.blocks if isinstance(block, TextBlock)]
        fresh = iter(self.trimmer.shorten_texts(texts, request, call))
        blocks = [
            block.model_copy(update={"text": next(fresh)}) if isinstance(block, TextBlock) else block
            for block in output.blocks
        ]
        return output.model_copy(update={"blocks": blocks})


def cprs_tools(
    tools: Iterable[BaseTool | Callable[..., Any]],
    *,
    trimmer: HistoryTrimmer | None = None,
    **options: Unpack[TrimOptions],
) -> list[AsyncBaseTool]:
    """The tools with shortened results, and the tool with which an agent fetches originals.

    Args:
        tools: tools or plain functions.
        trimmer: shares its store and rules (a memory's: see `CPRSMemory.wrap_tools`); otherwise ``options`` make one.
        options: see `TrimOptions`.

    >>> def read_log(service: str) -> str:
    ...     "The log of a service."
    ...     return "..."
    >>> [tool.metadata.name for tool in cprs_tools([read_log])]
    ['read_log', 'expand']
    """
    trimmer = trimmer or HistoryTrimmer(**options)
    wrapped: list[AsyncBaseTool] = []
    for tool in tools:
        wrapped.append(CPRSTool(tool if isinstance(tool, BaseTool) else FunctionTool.from_defaults(tool), trimmer))
    return [*wrapped, expand_tool(trimmer.store)]


def expand_tool(store: OriginalStore) -> FunctionTool:
    """A tool with which an agent fetches an original that a note names, or searches in it."""

    def expand(key: str, search: str = "", page: int = 1) -> str:
        return read_original(store, key, search, page)

    return FunctionTool.from_defaults(expand, name=EXPAND_TOOL, description=EXPAND_DESCRIPTION)
