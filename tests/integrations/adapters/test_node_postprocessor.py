"""`CPRSNodePostprocessor` on nodes, in query engines and in chat engines."""

from __future__ import annotations

import pickle
import threading
from typing import Any

import pytest
from llama_index.core import Document, MockEmbedding, SummaryIndex, VectorStoreIndex
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.llms import ChatMessage, CompletionResponse, CustomLLM, LLMMetadata
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import (
    ImageNode,
    IndexNode,
    MediaResource,
    MetadataMode,
    Node,
    NodeRelationship,
    NodeWithScore,
    QueryBundle,
    RelatedNodeInfo,
    TextNode,
)
from pydantic import PrivateAttr, ValidationError

from cprs_core import Compressor, InputError
from cprs_integrations.llama_index import CPRSNodePostprocessor

from .conftest import LEASE, QUESTION, RENT, WEATHER
from .test_document_compressor import Broken, Recorder


class EchoLLM(CustomLLM):
    """An LLM that notes its prompts and answers Ada."""

    _prompts: list[str] = PrivateAttr(default_factory=list)

    @property
    def prompts(self) -> list[str]:
        return self._prompts

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(context_window=8_000)

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        self._prompts.append(prompt)
        return CompletionResponse(text="Ada")

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        self._prompts.append(prompt)
        return (CompletionResponse(text="Ada"[:end], delta="Ada"[end - 1 : end]) for end in (1, 2, 3))


class Live(BaseRetriever):
    """A retriever that hands out its own nodes."""

    def __init__(self, nodes: list[NodeWithScore]) -> None:
        self.nodes = nodes
        super().__init__()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return self.nodes


class Events(BaseEventHandler):
    """Notes the events it sees."""

    _seen: list[Any] = PrivateAttr(default_factory=list)

    @classmethod
    def class_name(cls) -> str:
        return "Events"

    @property
    def seen(self) -> list[Any]:
        return self._seen

    def handle(self, event: Any, **kwargs: Any) -> None:
        self._seen.append(event)


@pytest.fixture
def nodes() -> list[NodeWithScore]:
    lease = TextNode(text=LEASE, id_="lease", metadata={"page": 3}, embedding=[0.1, 0.2])
    lease.relationships = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id="book")}
    return [
        NodeWithScore(node=lease, score=0.9),
        NodeWithScore(node=TextNode(text=WEATHER, id_="weather"), score=0.8),
        NodeWithScore(node=TextNode(text=RENT, id_="rent"), score=0.7),
    ]


@pytest.fixture
def postprocessor(compressor: Compressor) -> CPRSNodePostprocessor:
    return CPRSNodePostprocessor(compressor=compressor, threshold=0.05)


def test_nodes_are_shortened_and_keep_who_they_are(
    postprocessor: CPRSNodePostprocessor, nodes: list[NodeWithScore]
) -> None:
    first, second = postprocessor.postprocess_nodes(nodes, query_str=QUESTION)
    assert first.text == "Ada signed the lease in May."
    assert (first.node.node_id, first.node.ref_doc_id, first.score) == ("lease", "book", 0.9)
    assert first.node.metadata["page"] == 3
    assert first.node.embedding == [0.1, 0.2]
    assert (second.node.node_id, second.score) == ("rent", 0.7)


async def test_async_gives_the_same_as_sync(postprocessor: CPRSNodePostprocessor, nodes: list[NodeWithScore]) -> None:
    expected = postprocessor.postprocess_nodes(nodes, query_str=QUESTION)
    assert await postprocessor.apostprocess_nodes(nodes, query_str=QUESTION) == expected


async def test_async_awaits_the_compressor_itself(compressor: Compressor, nodes: list[NodeWithScore]) -> None:
    class OnlyAsync(Recorder):
        def compress(self, documents: Any, query: str = "", **options: Any) -> Any:
            raise AssertionError("the async path called compress")

    postprocessor = CPRSNodePostprocessor(compressor=OnlyAsync(compressor), threshold=0.05)
    assert len(await postprocessor.apostprocess_nodes(nodes, query_str=QUESTION)) == 2


def test_input_nodes_are_unchanged(postprocessor: CPRSNodePostprocessor, nodes: list[NodeWithScore]) -> None:
    before = [node.model_copy(deep=True) for node in nodes]
    shortened = postprocessor.postprocess_nodes(nodes, query_str=QUESTION)
    shortened[0].node.metadata["page"] = 99
    shortened[0].node.relationships.clear()
    assert nodes == before


def test_metadata_is_not_baked_into_the_text_and_provenance_is_hidden(
    postprocessor: CPRSNodePostprocessor, nodes: list[NodeWithScore]
) -> None:
    first = postprocessor.postprocess_nodes(nodes, query_str=QUESTION)[0]
    for mode in (MetadataMode.LLM, MetadataMode.EMBED):
        content = first.node.get_content(metadata_mode=mode)
        assert content.count("page: 3") == 1
        assert "cprs" not in content
    facts = first.node.metadata["cprs"]
    assert [LEASE[span["start"] : span["end"]] for span in facts["spans"]] == [first.text]
    assert facts["kept_tokens"] < facts["original_tokens"]


def test_top_n_ranks_by_the_critic_and_keeps_the_retrieval_score(
    compressor: Compressor, nodes: list[NodeWithScore]
) -> None:
    postprocessor = CPRSNodePostprocessor(compressor=compressor, threshold=0.05, top_n=1)
    (best,) = postprocessor.postprocess_nodes(nodes, query_str=QUESTION)
    assert best.node.node_id == "rent"
    assert best.node.metadata["retrieval_score"] == 0.7
    assert best.score == best.node.metadata["cprs"]["score"]
    assert "retrieval_score" not in best.node.get_content(metadata_mode=MetadataMode.LLM)


@pytest.mark.parametrize(
    "node",
    [
        TextNode(text=LEASE),
        Document(text=LEASE),
        Node(text_resource=MediaResource(text=LEASE)),
        IndexNode(text=LEASE, index_id="x"),
        ImageNode(text=LEASE, image="aGk="),
    ],
    ids=lambda node: type(node).__name__,
)
def test_nodes_of_every_type_keep_their_type(postprocessor: CPRSNodePostprocessor, node: Any) -> None:
    (kept,) = postprocessor.postprocess_nodes([NodeWithScore(node=node, score=0.5)], query_str=QUESTION)
    assert type(kept.node) is type(node)
    assert kept.node.node_id == node.node_id
    assert kept.node.get_content(metadata_mode=MetadataMode.NONE) == "Ada signed the lease in May."
    assert node.get_content(metadata_mode=MetadataMode.NONE) == LEASE


def test_an_image_without_text_passes_through_in_its_place(
    postprocessor: CPRSNodePostprocessor, nodes: list[NodeWithScore]
) -> None:
    image = NodeWithScore(node=ImageNode(image="aGk=", id_="image"), score=0.5)
    kept = postprocessor.postprocess_nodes([nodes[0], image, nodes[2]], query_str=QUESTION)
    assert [node.node.node_id for node in kept] == ["lease", "image", "rent"]
    assert postprocessor.postprocess_nodes([image], query_str=QUESTION) == [image]


def test_nodes_without_id_score_or_text(postprocessor: CPRSNodePostprocessor) -> None:
    bare = NodeWithScore(node=TextNode(text=LEASE, id_=""))
    empty = NodeWithScore(node=TextNode(text=""))
    (kept,) = postprocessor.postprocess_nodes([empty, bare], query_str=QUESTION)
    assert kept.text == "Ada signed the lease in May."
    assert (kept.node.node_id, kept.score) == ("", None)


def test_metadata_that_cannot_be_copied_is_carried_along(postprocessor: CPRSNodePostprocessor) -> None:
    lock = threading.Lock()
    (kept,) = postprocessor.postprocess_nodes(
        [NodeWithScore(node=TextNode(text=LEASE, metadata={"lock": lock}))], query_str=QUESTION
    )
    assert kept.node.metadata["lock"] is lock


def test_without_a_query_an_instruction_is_needed(compressor: Compressor, nodes: list[NodeWithScore]) -> None:
    with pytest.raises(InputError, match="nothing to look for"):
        CPRSNodePostprocessor(compressor=compressor).postprocess_nodes(nodes)
    instructed = CPRSNodePostprocessor(compressor=compressor, instruction="Find leases.", threshold=0.05)
    assert len(instructed.postprocess_nodes(nodes)) == 2


def test_policies_hold_for_nodes_too(compressor: Compressor, nodes: list[NodeWithScore]) -> None:
    (best,) = CPRSNodePostprocessor(compressor=compressor, threshold=0.9).postprocess_nodes(nodes, query_str=QUESTION)
    assert best.node.node_id == "rent"
    empty = CPRSNodePostprocessor(compressor=compressor, threshold=0.9, on_empty="empty")
    assert empty.postprocess_nodes(nodes, query_str=QUESTION) == []
    passed = CPRSNodePostprocessor(compressor=Broken(), on_error="passthrough").postprocess_nodes(
        nodes, query_str=QUESTION
    )
    assert [node.text for node in passed] == [LEASE, WEATHER, RENT]
    with pytest.raises(RuntimeError, match="the critic is gone"):
        CPRSNodePostprocessor(compressor=Broken()).postprocess_nodes(nodes, query_str=QUESTION)


def test_options_survive_a_round_trip_and_the_compressor_is_passed_again(compressor: Compressor) -> None:
    postprocessor = CPRSNodePostprocessor(
        compressor=compressor, instruction="Find leases.", max_tokens=50, top_n=3, on_empty="empty"
    )
    data = postprocessor.to_dict()
    assert data["class_name"] == CPRSNodePostprocessor.class_name() == "CPRSNodePostprocessor"
    assert "compressor" not in data
    again = CPRSNodePostprocessor.from_dict(data, compressor=compressor)
    assert again.to_dict() == data
    assert again.compressor is compressor
    assert CPRSNodePostprocessor.from_json(postprocessor.to_json()).to_dict() == data
    assert pickle.loads(pickle.dumps(CPRSNodePostprocessor(max_tokens=7))).max_tokens == 7


def test_a_function_among_the_options_cannot_be_stored_silently() -> None:
    with pytest.raises(InputError, match="count_tokens is a function"):
        CPRSNodePostprocessor(count_tokens=len).to_dict()


def test_unknown_options_are_rejected() -> None:
    with pytest.raises(ValidationError, match="max_token\n"):
        CPRSNodePostprocessor(max_token=5)


def test_events_and_spans_are_emitted(postprocessor: CPRSNodePostprocessor, nodes: list[NodeWithScore]) -> None:
    events, spans = Events(), SimpleSpanHandler()
    root = get_dispatcher()
    root.add_event_handler(events)
    root.add_span_handler(spans)
    try:
        postprocessor.postprocess_nodes(nodes, query_str=QUESTION)
    finally:
        root.event_handlers.remove(events)
        root.span_handlers.remove(spans)
    start, end = events.seen
    assert start.class_name() == "CPRSCompressionStartEvent"
    assert (start.query, start.node_ids) == (QUESTION, ["lease", "weather", "rent"])
    assert [node.node.node_id for node in end.nodes] == ["lease", "rent"]
    assert any("CPRSNodePostprocessor._postprocess_nodes" in span.id_ for span in spans.completed_spans)


def test_ranking_is_reported_to_the_older_callbacks(compressor: Compressor, nodes: list[NodeWithScore]) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    postprocessor = CPRSNodePostprocessor(compressor=compressor, threshold=0.05, top_n=1)
    postprocessor.callback_manager = CallbackManager([debug])
    postprocessor.postprocess_nodes(nodes, query_str=QUESTION)
    assert len(debug.get_event_pairs(CBEventType.RERANKING)) == 1


@pytest.fixture
def index() -> VectorStoreIndex:
    return VectorStoreIndex(
        [TextNode(text=LEASE), TextNode(text=WEATHER), TextNode(text=RENT)], embed_model=MockEmbedding(embed_dim=8)
    )


def assert_compressed(prompt: str) -> None:
    assert "Ada signed the lease in May." in prompt
    assert "It rained all day." not in prompt
    assert WEATHER not in prompt


async def test_query_engines_send_the_shortened_nodes(
    postprocessor: CPRSNodePostprocessor, index: VectorStoreIndex
) -> None:
    llm = EchoLLM()
    engine = index.as_query_engine(llm=llm, similarity_top_k=3, node_postprocessors=[postprocessor])
    assert str(engine.query(QUESTION)) == "Ada"
    assert str(await engine.aquery(QUESTION)) == "Ada"
    streaming = index.as_query_engine(llm=llm, similarity_top_k=3, node_postprocessors=[postprocessor], streaming=True)
    assert "".join(streaming.query(QUESTION).response_gen) == "Ada"
    assert len(llm.prompts) == 3
    for prompt in llm.prompts:
        assert_compressed(prompt)


@pytest.mark.parametrize("chat_mode", ["context", "condense_plus_context"])
async def test_chat_engines_send_the_shortened_nodes(
    postprocessor: CPRSNodePostprocessor, index: VectorStoreIndex, chat_mode: str
) -> None:
    llm = EchoLLM()
    engine = index.as_chat_engine(llm=llm, chat_mode=chat_mode, similarity_top_k=3, node_postprocessors=[postprocessor])
    assert str(engine.chat(QUESTION, chat_history=[ChatMessage(role="user", content="hello")]))
    assert "".join(engine.stream_chat(QUESTION).response_gen) == "Ada"
    assert str(await engine.achat(QUESTION))
    contexts = [prompt for prompt in llm.prompts if "lease in May" in prompt]
    assert len(contexts) == 3
    for prompt in contexts:
        assert_compressed(prompt)


def test_a_retriever_that_hands_out_its_own_nodes_is_not_corrupted(
    postprocessor: CPRSNodePostprocessor, nodes: list[NodeWithScore]
) -> None:
    engine = RetrieverQueryEngine.from_args(Live(nodes), llm=EchoLLM(), node_postprocessors=[postprocessor])
    engine.query(QUESTION)
    engine.query(QUESTION)
    assert [node.text for node in nodes] == [LEASE, WEATHER, RENT]


def test_an_index_keeps_its_text_after_queries(postprocessor: CPRSNodePostprocessor) -> None:
    index = SummaryIndex([TextNode(text=LEASE, id_="lease")])
    engine = index.as_query_engine(llm=EchoLLM(), node_postprocessors=[postprocessor])
    engine.query(QUESTION)
    assert index.docstore.get_node("lease").get_content() == LEASE
