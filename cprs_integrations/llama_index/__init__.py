"""Compression for LlamaIndex: retrieved nodes, retrievers, LLMs and memory.

Names are loaded on first use, so that importing this package imports no framework.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cprs_integrations.llama_index.llm import CPRSLLM
    from cprs_integrations.llama_index.memory import CPRSMemory, CPRSMemoryBlock
    from cprs_integrations.llama_index.postprocessor import CPRSNodePostprocessor
    from cprs_integrations.llama_index.retriever import CPRSRetriever
    from cprs_integrations.llama_index.tools import CPRSTool, cprs_tools, expand_tool

_HOME_OF = {
    "CPRSMemory": "memory",
    "CPRSMemoryBlock": "memory",
    "CPRSTool": "tools",
    "cprs_tools": "tools",
    "expand_tool": "tools",
    "CPRSLLM": "llm",
    "CPRSNodePostprocessor": "postprocessor",
    "CPRSRetriever": "retriever",
}

__all__ = [
    "CPRSLLM",
    "CPRSMemory",
    "CPRSMemoryBlock",
    "CPRSNodePostprocessor",
    "CPRSRetriever",
    "CPRSTool",
    "cprs_tools",
    "expand_tool",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
