"""The expand tool for LangChain agents."""

from __future__ import annotations

import asyncio

from langchain_core.tools import BaseTool, StructuredTool

from cprs_integrations.expand import EXPAND_DESCRIPTION, read_original
from cprs_integrations.messages import EXPAND_TOOL
from cprs_integrations.store import OriginalStore


def expand_tool(store: OriginalStore) -> BaseTool:
    """A tool with which an agent fetches an original that a note names, or searches in it."""

    def expand(key: str, search: str = "", page: int = 1) -> str:
        return read_original(store, key, search, page)

    async def aexpand(key: str, search: str = "", page: int = 1) -> str:
        return await asyncio.to_thread(read_original, store, key, search, page)

    return StructuredTool.from_function(
        func=expand, coroutine=aexpand, name=EXPAND_TOOL, description=EXPAND_DESCRIPTION
    )
