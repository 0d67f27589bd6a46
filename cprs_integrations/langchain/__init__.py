"""Compression for LangChain: retrieved documents, retrievers, chat models and agents.

Names are loaded on first use, so that importing this package imports no framework.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cprs_integrations.langchain.chat_model import CPRSChatModel
    from cprs_integrations.langchain.context_edit import CPRSContextEdit
    from cprs_integrations.langchain.document_compressor import CPRSDocumentCompressor
    from cprs_integrations.langchain.middleware import CPRSContextMiddleware
    from cprs_integrations.langchain.retriever import CPRSRetriever
    from cprs_integrations.langchain.summarizer import CPRSSummarizer
    from cprs_integrations.langchain.tools import expand_tool
    from cprs_integrations.langchain.trim import cprs_trim_messages

_HOME_OF = {
    "CPRSContextEdit": "context_edit",
    "CPRSContextMiddleware": "middleware",
    "CPRSSummarizer": "summarizer",
    "cprs_trim_messages": "trim",
    "expand_tool": "tools",
    "CPRSChatModel": "chat_model",
    "CPRSDocumentCompressor": "document_compressor",
    "CPRSRetriever": "retriever",
}

__all__ = [
    "CPRSChatModel",
    "CPRSContextEdit",
    "CPRSContextMiddleware",
    "CPRSDocumentCompressor",
    "CPRSRetriever",
    "CPRSSummarizer",
    "cprs_trim_messages",
    "expand_tool",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
