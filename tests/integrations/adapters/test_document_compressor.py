"""`CPRSDocumentCompressor` on documents, in chains and in retrievers."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.language_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import ValidationError

from cprs_core import Compression, Compressor, InputError, KeywordScorer, PrefixTooLongError
from cprs_integrations.langchain import CPRSDocumentCompressor

from .conftest import LEASE, QUESTION, RENT, WEATHER


class Broken:
    """A compressor that always raises."""

    def compress(self, documents: Any, query: str = "", **options: Any) -> Compression:
        raise RuntimeError("the critic is gone")

    async def acompress(self, documents: Any, query: str = "", **options: Any) -> Compression:
        raise RuntimeError("the critic is gone")


class Recorder:
    """A compressor that notes what it was asked and passes the work on."""

    def __init__(self, compressor: Compressor) -> None:
        self.compressor = compressor
        self.calls: list[dict[str, Any]] = []

    def compress(self, documents: Any, query: str = "", **options: Any) -> Compression:
        self.calls.append({"documents": list(documents), "query": query, **options})
        return self.compressor.compress(documents, query, **options)

    async def acompress(self, documents: Any, query: str = "", **options: Any) -> Compression:
        self.calls.append({"documents": list(documents), "query": query, **options})
        return await self.compressor.acompress(documents, query, **options)


class Fixed(BaseRetriever):
    """A retriever that always returns the same, live, documents."""

    documents: list[Document]

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return self.documents


class Runs(BaseCallbackHandler):
    """Notes the runs it sees: name, parent, error."""

    def __init__(self) -> None:
        self.names: dict[Any, str] = {}
        self.parents: dict[str, str | None] = {}
        self.inputs: dict[str, Any] = {}
        self.errors: list[str] = []

    def _start(self, kwargs: dict[str, Any], inputs: Any) -> None:
        name = kwargs.get("name") or "?"
        self.names[kwargs["run_id"]] = name
        self.parents[name] = self.names.get(kwargs.get("parent_run_id"))
        self.inputs[name] = inputs

    def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
        self._start(kwargs, inputs)

    def on_retriever_start(self, serialized: Any, query: str, **kwargs: Any) -> None:
        self._start(kwargs, query)

    def on_chain_error(self, error: BaseException, **kwargs: Any) -> None:
        self.errors.append(str(error))


@pytest.fixture
def documents() -> list[Document]:
    return [
        Document(LEASE, id="lease", metadata={"page": 3, "tags": ["a"]}),
        Document(WEATHER, id="weather"),
        Document(RENT, id="rent", metadata={"page": 7}),
    ]


def test_documents_are_shortened_to_what_the_query_asks_for(compressor: Compressor, documents: list[Document]) -> None:
    adapter = CPRSDocumentCompressor(compressor=compressor, threshold=0.05)
    shortened = adapter.compress_documents(documents, QUESTION)
    assert [document.id for document in shortened] == ["lease", "rent"]
    assert shortened[0].page_content == "Ada signed the lease in May."
    assert shortened[1].page_content == "The lease ends in June, as the lease says."


async def test_async_gives_the_same_as_sync(compressor: Compressor, documents: list[Document]) -> None:
    adapter = CPRSDocumentCompressor(compressor=compressor, threshold=0.05)
    assert await adapter.acompress_documents(documents, QUESTION) == adapter.compress_documents(documents, QUESTION)


def test_input_documents_are_unchanged_and_share_nothing_that_can_change(
    compressor: Compressor, documents: list[Document]
) -> None:
    before = [document.model_copy(deep=True) for document in documents]
    shortened = CPRSDocumentCompressor(compressor=compressor, threshold=0.05).compress_documents(documents, QUESTION)
    shortened[0].metadata["tags"].append("b")
    assert documents == before


def test_provenance_points_at_the_original_text(compressor: Compressor, documents: list[Document]) -> None:
    shortened = CPRSDocumentCompressor(compressor=compressor, threshold=0.05).compress_documents(documents, QUESTION)
    for document in shortened:
        original = next(d for d in documents if d.id == document.id)
        facts = document.metadata["cprs"]
        pieces = [original.page_content[span["start"] : span["end"]] for span in facts["spans"]]
        assert "\n".join(pieces) == document.page_content
        assert facts["kept_tokens"] < facts["original_tokens"]
        assert facts["ratio"] == pytest.approx(facts["kept_tokens"] / facts["original_tokens"], abs=1e-4)
        assert document.metadata["relevance_score"] == facts["score"]
        assert document.metadata["page"] == original.metadata["page"]


def test_all_documents_take_one_call(compressor: Compressor, documents: list[Document]) -> None:
    recorder = Recorder(compressor)
    CPRSDocumentCompressor(compressor=recorder, threshold=0.05).compress_documents(documents, QUESTION)
    assert [len(call["documents"]) for call in recorder.calls] == [3]


def test_every_selection_option_reaches_the_compressor(compressor: Compressor, documents: list[Document]) -> None:
    recorder = Recorder(compressor)
    options = {
        "instruction": "errors",
        "granularity": "line",
        "max_tokens": 50,
        "ratio": 0.5,
        "threshold": 0.01,
        "count_tokens": len,
    }
    CPRSDocumentCompressor(compressor=recorder, **options).compress_documents(documents, QUESTION)
    assert {name: recorder.calls[0][name] for name in options} == options


def test_an_instruction_of_the_call_takes_precedence(compressor: Compressor, documents: list[Document]) -> None:
    recorder = Recorder(compressor)
    adapter = CPRSDocumentCompressor(compressor=recorder, instruction="Find dates.", threshold=0.05)
    adapter.compress_documents(documents, QUESTION, instruction="Find names.")
    adapter.compress_documents(documents, QUESTION)
    assert [call["instruction"] for call in recorder.calls] == ["Find names.", "Find dates."]


def test_top_n_keeps_the_best_documents_best_first(compressor: Compressor, documents: list[Document]) -> None:
    adapter = CPRSDocumentCompressor(compressor=compressor, threshold=0.05, top_n=1)
    assert [document.id for document in adapter.compress_documents(documents, QUESTION)] == ["rent"]
    both = CPRSDocumentCompressor(compressor=compressor, threshold=0.05, top_n=5).compress_documents(
        documents, QUESTION
    )
    assert [document.id for document in both] == ["rent", "lease"]


def test_when_nothing_reaches_the_threshold_the_best_segment_stays(
    compressor: Compressor, documents: list[Document]
) -> None:
    adapter = CPRSDocumentCompressor(compressor=compressor, threshold=0.9)
    (best,) = adapter.compress_documents(documents, QUESTION)
    assert best.page_content == "The lease ends in June, as the lease says."
    assert best.metadata["cprs"]["low_confidence"]
    assert best.metadata["cprs"]["kept_tokens"] == compressor.count_tokens(best.page_content)


def test_on_empty_can_return_nothing_or_everything(compressor: Compressor, documents: list[Document]) -> None:
    empty = CPRSDocumentCompressor(compressor=compressor, threshold=0.9, on_empty="empty")
    assert empty.compress_documents(documents, QUESTION) == []
    everything = CPRSDocumentCompressor(compressor=compressor, threshold=0.9, on_empty="passthrough")
    passed = everything.compress_documents(documents, QUESTION)
    assert [document.page_content for document in passed] == [LEASE, WEATHER, RENT]
    assert all(document.metadata["cprs"]["passed_through"] for document in passed)


async def test_an_error_is_raised_or_the_documents_pass_through(documents: list[Document]) -> None:
    with pytest.raises(RuntimeError, match="the critic is gone"):
        CPRSDocumentCompressor(compressor=Broken()).compress_documents(documents, QUESTION)
    open_adapter = CPRSDocumentCompressor(compressor=Broken(), on_error="passthrough")
    passed = open_adapter.compress_documents(documents, QUESTION)
    assert [document.page_content for document in passed] == [LEASE, WEATHER, RENT]
    assert "the critic is gone" in passed[0].metadata["cprs"]["error"]
    assert await open_adapter.acompress_documents(documents, QUESTION) == passed
    assert "cprs" not in documents[0].metadata


def test_a_query_of_fifty_thousand_words_is_an_error_that_says_what_to_do(
    compressor: Compressor, documents: list[Document]
) -> None:
    query = "lease " * 50_000
    with pytest.raises(PrefixTooLongError, match="shorten the instruction or query"):
        CPRSDocumentCompressor(compressor=compressor).compress_documents(documents, query)
    passed = CPRSDocumentCompressor(compressor=compressor, on_error="passthrough").compress_documents(documents, query)
    assert [document.page_content for document in passed] == [LEASE, WEATHER, RENT]


def test_no_query_needs_an_instruction(compressor: Compressor, documents: list[Document]) -> None:
    with pytest.raises(InputError, match="nothing to look for"):
        CPRSDocumentCompressor(compressor=compressor).compress_documents(documents, "")
    adapter = CPRSDocumentCompressor(compressor=compressor, instruction="Find leases.", threshold=0.05)
    assert len(adapter.compress_documents(documents, "")) == 2


@pytest.mark.parametrize("texts", [[], [""], ["", "  \n"]], ids=["none", "empty", "blank"])
def test_documents_without_text_are_left_out(compressor: Compressor, texts: list[str]) -> None:
    adapter = CPRSDocumentCompressor(compressor=compressor, threshold=0.05)
    assert adapter.compress_documents([Document(text) for text in texts], QUESTION) == []


def test_a_document_without_text_does_not_disturb_the_others(compressor: Compressor) -> None:
    adapter = CPRSDocumentCompressor(compressor=compressor, threshold=0.05)
    (kept,) = adapter.compress_documents([Document(""), Document(LEASE, id="lease")], QUESTION)
    assert kept.id == "lease"


def test_metadata_that_cannot_be_copied_or_serialised_is_carried_along(compressor: Compressor) -> None:
    lock = threading.Lock()
    adapter = CPRSDocumentCompressor(compressor=compressor, threshold=0.05)
    (kept,) = adapter.compress_documents([Document(LEASE, metadata={"lock": lock, "nested": [lock]})], QUESTION)
    assert kept.metadata["lock"] is lock
    assert kept.metadata["nested"] == [lock]


def test_mixed_languages_are_cut_between_characters(compressor: Compressor) -> None:
    text = "天气很好。Ada 签署了 lease 合同。大家回家了。 العقد lease هنا. 👩‍👩‍👧 went home."
    adapter = CPRSDocumentCompressor(compressor=compressor, threshold=0.01)
    (kept,) = adapter.compress_documents([Document(text)], QUESTION)
    assert all(piece in text for piece in kept.page_content.split("\n"))


def test_subclasses_of_document_stay_what_they_are(compressor: Compressor) -> None:
    class Page(Document):
        number: int = 0

    adapter = CPRSDocumentCompressor(compressor=compressor, threshold=0.05)
    (kept,) = adapter.compress_documents([Page(page_content=LEASE, number=4)], QUESTION)
    assert isinstance(kept, Page)
    assert kept.number == 4


@pytest.mark.parametrize(
    "options",
    [{"ratios": 0.5}, {"ratio": 1.5}, {"max_tokens": 0}, {"granularity": "word"}, {"on_empty": "maybe"}, {"top_n": 0}],
    ids=lambda options: next(iter(options)),
)
def test_unknown_and_impossible_options_are_rejected(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        CPRSDocumentCompressor(**options)


def test_something_that_cannot_compress_is_rejected_at_once() -> None:
    with pytest.raises(ValidationError, match="lacks compress or acompress"):
        CPRSDocumentCompressor(compressor="mini")


def test_one_adapter_serves_many_threads(compressor: Compressor) -> None:
    adapter = CPRSDocumentCompressor(compressor=compressor, threshold=0.05)

    def work(number: int) -> str:
        text = f"It rained {number} times. Ada signed lease {number}. They left."
        return adapter.compress_documents([Document(text)], QUESTION)[0].page_content

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(64)))
    assert results == [f"Ada signed lease {number}." for number in range(64)]


def test_contextual_compression_retriever_uses_it(compressor: Compressor, documents: list[Document]) -> None:
    retriever = ContextualCompressionRetriever(
        base_compressor=CPRSDocumentCompressor(compressor=compressor, threshold=0.05),
        base_retriever=Fixed(documents=documents),
    )
    assert [document.id for document in retriever.invoke(QUESTION)] == ["lease", "rent"]
    assert documents[0].page_content == LEASE


def test_a_compressor_pipeline_takes_it_as_a_step(compressor: Compressor, documents: list[Document]) -> None:
    pipeline = DocumentCompressorPipeline(
        transformers=[
            CPRSDocumentCompressor(compressor=compressor, threshold=0.05),
            CPRSDocumentCompressor(compressor=Compressor(KeywordScorer("June")), threshold=0.05),
        ]
    )
    (kept,) = pipeline.compress_documents(documents, QUESTION)
    assert kept.id == "rent"


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
async def test_compression_is_a_child_run_of_the_retriever(
    compressor: Compressor, documents: list[Document], asynchronous: bool
) -> None:
    runs = Runs()
    retriever = ContextualCompressionRetriever(
        base_compressor=CPRSDocumentCompressor(compressor=compressor, threshold=0.05),
        base_retriever=Fixed(documents=documents),
    )
    config = {"callbacks": [runs]}
    if asynchronous:
        await retriever.ainvoke(QUESTION, config=config)
    else:
        retriever.invoke(QUESTION, config=config)
    assert runs.parents["cprs_compress"] == "ContextualCompressionRetriever"
    assert runs.inputs["cprs_compress"]["query"] == QUESTION
    assert runs.inputs["cprs_compress"]["documents"] == 3


def test_a_failed_compression_is_an_error_in_the_trace_even_when_documents_pass_through(
    documents: list[Document],
) -> None:
    runs = Runs()
    adapter = CPRSDocumentCompressor(compressor=Broken(), on_error="passthrough")
    assert len(adapter.compress_documents(documents, QUESTION, callbacks=[runs])) == 3
    assert runs.errors == ["the critic is gone"]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
async def test_a_whole_rag_chain_runs_with_the_runnable(compressor: Compressor, asynchronous: bool) -> None:
    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=16))
    store.add_documents([Document(LEASE), Document(WEATHER), Document(RENT)])
    seen: list[str] = []

    def note(prompt: Any) -> Any:
        seen.append(prompt.to_string())
        return prompt

    chain = (
        {"context": store.as_retriever(search_kwargs={"k": 3}), "question": RunnablePassthrough()}
        | CPRSDocumentCompressor(compressor=compressor, threshold=0.05).as_runnable()
        | ChatPromptTemplate.from_template("{context}\n\nQuestion: {question}")
        | RunnableLambda(note)
        | FakeListChatModel(responses=["Ada"])
        | StrOutputParser()
    )
    answer = await chain.ainvoke(QUESTION) if asynchronous else chain.invoke(QUESTION)
    assert answer == "Ada"
    assert "Ada signed the lease in May." in seen[0]
    assert "It rained all day." not in seen[0]
    assert QUESTION in seen[0]


def test_the_runnable_reads_other_keys_and_an_instruction(compressor: Compressor, documents: list[Document]) -> None:
    recorder = Recorder(compressor)
    adapter = CPRSDocumentCompressor(compressor=recorder, threshold=0.05)
    runnable = adapter.as_runnable(documents_key="docs", query_key="ask", instruction_key="how")
    out = runnable.batch([{"docs": documents, "ask": QUESTION, "how": "Find names.", "other": 1}])
    assert [document.id for document in out[0]["docs"]] == ["lease", "rent"]
    assert out[0]["other"] == 1
    assert recorder.calls[0]["instruction"] == "Find names."


def test_metadata_may_hold_itself(compressor: Compressor) -> None:
    metadata: dict[str, Any] = {"twice": [1, 2]}
    metadata |= {"itself": metadata, "again": metadata["twice"]}
    (document,) = CPRSDocumentCompressor(compressor=compressor).compress_documents(
        [Document(LEASE, metadata=metadata)], QUESTION
    )
    inner = document.metadata["itself"]
    assert inner["itself"] is inner is not metadata
    assert inner["again"] is inner["twice"] is not metadata["twice"]
