"""`CPRSRetriever` of both frameworks: around another retriever, and on a whole corpus."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.document_loaders import BaseLoader
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from langchain_tests.integration_tests import RetrieversIntegrationTests
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from cprs_core import Compressor, InputError, KeywordScorer
from cprs_integrations.langchain import CPRSRetriever
from cprs_integrations.llama_index import CPRSRetriever as LlamaRetriever

from .conftest import LEASE, QUESTION, RENT, WEATHER
from .test_document_compressor import Fixed, Recorder, Runs
from .test_node_postprocessor import EchoLLM, Live


class Pages(BaseLoader):
    """A loader of three pages that counts how often it is read."""

    def __init__(self) -> None:
        self.reads = 0

    def lazy_load(self) -> Iterator[Document]:
        self.reads += 1
        yield from (Document(LEASE, id="lease"), Document(WEATHER, id="weather"), Document(RENT, id="rent"))


class Unlucky(BaseRetriever):
    """A retriever that raises."""

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        raise ConnectionError("the index is down")


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
async def test_what_another_retriever_finds_is_shortened(compressor: Compressor, asynchronous: bool) -> None:
    live = [Document(LEASE, id="lease"), Document(WEATHER)]
    runs = Runs()
    retriever = CPRSRetriever(retriever=Fixed(documents=live), compressor=compressor, threshold=0.05)
    config = {"callbacks": [runs]}
    found = await retriever.ainvoke(QUESTION, config) if asynchronous else retriever.invoke(QUESTION, config)
    assert [document.page_content for document in found] == ["Ada signed the lease in May."]
    assert live[0].page_content == LEASE
    assert runs.parents == {"CPRSRetriever": None, "Fixed": "CPRSRetriever", "cprs_compress": "CPRSRetriever"}


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
async def test_a_loader_is_a_corpus_that_is_read_once(compressor: Compressor, asynchronous: bool) -> None:
    loader = Pages()
    retriever = CPRSRetriever(documents=loader, compressor=compressor, threshold=0.05)
    for _ in range(2):
        found = await retriever.ainvoke(QUESTION) if asynchronous else retriever.invoke(QUESTION)
        assert [document.id for document in found] == ["lease", "rent"]
    assert loader.reads == 1


def test_documents_and_texts_are_a_corpus(compressor: Compressor) -> None:
    retriever = CPRSRetriever(documents=[LEASE, Document(RENT, id="rent")], compressor=compressor, threshold=0.05)
    assert [document.id for document in retriever.invoke(QUESTION)] == [None, "rent"]


def test_instruction_and_top_n_may_come_with_the_call(compressor: Compressor) -> None:
    recorder = Recorder(compressor)
    retriever = CPRSRetriever(documents=[LEASE, RENT], compressor=recorder, threshold=0.05)
    assert len(retriever.invoke(QUESTION, instruction="Find names.", top_n=1)) == 1
    assert recorder.calls[0]["instruction"] == "Find names."
    with pytest.raises(TypeError, match="top_k"):
        retriever.invoke(QUESTION, top_k=1)


def test_any_runnable_that_returns_documents_is_a_retriever(compressor: Compressor) -> None:
    retriever = CPRSRetriever(
        retriever=RunnableLambda(lambda query: [Document(LEASE)]), compressor=compressor, threshold=0.05
    )
    assert len(retriever.batch([QUESTION, QUESTION])) == 2


def test_a_retriever_that_finds_nothing_or_raises(compressor: Compressor) -> None:
    assert CPRSRetriever(retriever=Fixed(documents=[]), compressor=compressor).invoke(QUESTION) == []
    with pytest.raises(ConnectionError, match="the index is down"):
        CPRSRetriever(retriever=Unlucky(), compressor=compressor, on_error="passthrough").invoke(QUESTION)
    assert LlamaRetriever(Live([]), compressor=compressor).retrieve(QUESTION) == []


def test_exactly_one_source_is_needed(compressor: Compressor) -> None:
    with pytest.raises(ValueError, match="neither of retriever and documents"):
        CPRSRetriever(compressor=compressor)
    with pytest.raises(ValueError, match="both of retriever and documents"):
        CPRSRetriever(documents=[], retriever=Unlucky())
    with pytest.raises(ValueError, match="max_token\n"):
        CPRSRetriever(documents=[], max_token=3)
    with pytest.raises(InputError, match="neither of retriever and nodes"):
        LlamaRetriever()
    with pytest.raises(ValueError, match="max_token\n"):
        LlamaRetriever(nodes=[], max_token=3)


class TestStandardRetriever(RetrieversIntegrationTests):
    """langchain's own suite."""

    @property
    def retriever_constructor(self) -> type[CPRSRetriever]:
        return CPRSRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        corpus = [f"Lease {number} was signed. It rained." for number in range(5)]
        return {"documents": corpus, "compressor": Compressor(KeywordScorer("lease")), "threshold": 0.05}

    @property
    def retriever_query_example(self) -> str:
        return QUESTION

    @property
    def num_results_arg_name(self) -> str:
        return "top_n"


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
async def test_llama_index_nodes_are_shortened(compressor: Compressor, asynchronous: bool) -> None:
    nodes = [
        NodeWithScore(node=TextNode(text=LEASE, id_="lease"), score=0.9),
        NodeWithScore(node=TextNode(text=WEATHER), score=0.8),
    ]
    retriever = LlamaRetriever(Live(nodes), compressor=compressor, threshold=0.05)
    found = await retriever.aretrieve(QUESTION) if asynchronous else retriever.retrieve(QueryBundle(QUESTION))
    assert [(node.text, node.score) for node in found] == [("Ada signed the lease in May.", 0.9)]
    assert nodes[0].text == LEASE


def test_a_query_engine_needs_no_index(compressor: Compressor) -> None:
    llm = EchoLLM()
    retriever = LlamaRetriever(nodes=[LEASE, TextNode(text=WEATHER)], compressor=compressor, threshold=0.05)
    RetrieverQueryEngine.from_args(retriever, llm=llm).query(QUESTION)
    assert "Ada signed the lease in May." in llm.prompts[0]
    assert WEATHER not in llm.prompts[0]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))], ids=["copy", "pickle"])
def test_a_retriever_can_be_copied_and_sent_to_another_process(copied: Any) -> None:
    retriever = copied(CPRSRetriever(documents=[LEASE, WEATHER], max_tokens=5, threshold=0.1))
    assert retriever.max_tokens == 5
    assert [document.page_content for document in retriever._read_corpus()] == [LEASE, WEATHER]
