"""The standard suites of langchain-tests, for the chat model around a real client and for a retriever as a tool.

The retriever's own suite is in `test_retrievers`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.tools import BaseTool, create_retriever_tool
from langchain_tests.integration_tests import ChatModelIntegrationTests, ToolsIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests, ToolsUnitTests
from pydantic import model_validator

from cprs_core import Compressor, KeywordScorer
from cprs_integrations.langchain import CPRSChatModel, CPRSRetriever

from .loopback import Loopback

OPENAI = pytest.importorskip(
    "langchain_openai", reason="needs the package 'langchain_openai': pip install 'cprs-integrations[clients]'"
)

OF_THE_WRAPPER = {"model", "compressor", "threshold", "cache", "disable_streaming", "callbacks", "profile", "name"}


class OverOpenAI(CPRSChatModel):
    """The wrapper around `ChatOpenAI`, built from that client's arguments as the suites pass them."""

    @model_validator(mode="before")
    @classmethod
    def _build_client(cls, values: dict[str, Any]) -> dict[str, Any]:
        if isinstance(values.get("model"), BaseChatModel):
            return values
        inside = {name: value for name, value in values.items() if name not in OF_THE_WRAPPER - {"model"}}
        outside = {name: value for name, value in values.items() if name in OF_THE_WRAPPER}
        return {**outside, "model": OPENAI.ChatOpenAI(**inside)}


SETTINGS = {"model": "gpt-4o", "api_key": "k", "compressor": Compressor(KeywordScorer("lease")), "threshold": 0.05}


class TestStandardChatModelUnit(ChatModelUnitTests):
    """langchain's own unit suite."""

    @property
    def chat_model_class(self) -> type[OverOpenAI]:
        return OverOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return SETTINGS


class TestStandardChatModel(ChatModelIntegrationTests):
    """langchain's own integration suite, against the loopback server."""

    @pytest.fixture(autouse=True)
    def _server(self) -> Iterator[None]:
        with Loopback() as server:
            self.url = f"{server.url}/v1"
            yield

    @property
    def chat_model_class(self) -> type[OverOpenAI]:
        return OverOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {**SETTINGS, "base_url": getattr(self, "url", "http://127.0.0.1:9/v1"), "stream_usage": True}

    @pytest.mark.xfail(
        reason="wants a name from the prompt in the answer; the loopback server knows only Ada",
        raises=AssertionError,
        strict=True,
    )
    def test_unicode_tool_call_integration(self, model: BaseChatModel) -> None:
        super().test_unicode_tool_call_integration(model)


def search_tool() -> BaseTool:
    corpus = ["It rained. Ada signed the lease.", "Cats sleep."]
    retriever = CPRSRetriever(documents=corpus, compressor=Compressor(KeywordScorer("lease")), threshold=0.05)
    return create_retriever_tool(retriever, "search_contracts", "Search the contracts.")


class TestStandardToolUnit(ToolsUnitTests):
    """langchain's own unit suite for tools."""

    @property
    def tool_constructor(self) -> BaseTool:
        return search_tool()

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"query": "Who signed the lease?"}


class TestStandardTool(ToolsIntegrationTests):
    """langchain's own integration suite for tools."""

    @property
    def tool_constructor(self) -> BaseTool:
        return search_tool()

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"query": "Who signed the lease?"}
