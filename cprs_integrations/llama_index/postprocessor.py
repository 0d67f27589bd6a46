"""A node postprocessor for LlamaIndex, and the step that its retriever shares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle
from llama_index_instrumentation import get_dispatcher

from cprs_core import Document, InputError
from cprs_integrations.adapting import PROVENANCE_KEY, DocumentOptions, Outcome, Step, copy_metadata, take_turn

RETRIEVAL_SCORE_KEY = "retrieval_score"

dispatcher = get_dispatcher(__name__)


class CPRSCompressionStartEvent(BaseEvent):
    """Nodes are about to be compressed: the query, the ids of the nodes and the options."""

    query: str
    node_ids: list[str]
    options: dict[str, Any]

    @classmethod
    def class_name(cls) -> str:
        return "CPRSCompressionStartEvent"


class CPRSCompressionEndEvent(BaseEvent):
    """Nodes were compressed: the nodes that are left, with provenance in their metadata."""

    nodes: list[NodeWithScore]

    @classmethod
    def class_name(cls) -> str:
        return "CPRSCompressionEndEvent"


class CPRSNodePostprocessor(DocumentOptions, BaseNodePostprocessor):
    """Shortens retrieved nodes to what the query asks for, verbatim.

    Nodes of which nothing is kept are left out; nodes without text (images) pass through, after the others where
    ``top_n`` ranks. Those that stay are copies with the id, relationships, score and metadata of the original, and
    ``metadata["cprs"]``: tokens before and after, and the kept spans in characters of the original text, hidden from
    LLM and embedding text. With ``top_n`` the score is the critic's and the retriever's own moves to
    ``metadata["retrieval_score"]``, hidden too. The caller's nodes stay as they were.

    >>> from cprs_core import Compressor, KeywordScorer
    >>> from cprs_integrations.llama_index import CPRSNodePostprocessor
    >>> from llama_index.core.schema import NodeWithScore, TextNode
    >>> postprocessor = CPRSNodePostprocessor(compressor=Compressor(KeywordScorer("lease")), threshold=0.1)
    >>> nodes = [NodeWithScore(node=TextNode(text="It rained. Ada signed the lease."))]
    >>> postprocessor.postprocess_nodes(nodes, query_str="Who signed?")[0].text
    'Ada signed the lease.'
    """

    @classmethod
    def class_name(cls) -> str:
        return "CPRSNodePostprocessor"

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """The options as plain data, without the compressor: pass it to `from_dict` again.

        Raises:
            InputError: an option is a function, which has no form as data.
        """
        functions = [name for name in ("granularity", "count_tokens") if callable(getattr(self, name))]
        if functions:
            raise InputError(
                f"{functions[0]} is a function, which cannot be stored; leave it out and pass it again later"
            )
        return super().to_dict(**kwargs)

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return compress_nodes(self, nodes, query_bundle, self.callback_manager, top_n=self.top_n)

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return await acompress_nodes(self, nodes, query_bundle, self.callback_manager, top_n=self.top_n)


def compress_nodes(
    options: DocumentOptions,
    nodes: Sequence[NodeWithScore],
    query_bundle: QueryBundle | None,
    callback_manager: CallbackManager,
    *,
    top_n: int | None = None,
) -> list[NodeWithScore]:
    """One call of the compressor for all nodes."""
    step = _step(options, nodes, query_bundle, top_n)
    with _reported(step, nodes, callback_manager) as shortened:
        shortened.extend(_assembled(nodes, step.carry_out(), top_n))
    return shortened


async def acompress_nodes(
    options: DocumentOptions,
    nodes: Sequence[NodeWithScore],
    query_bundle: QueryBundle | None,
    callback_manager: CallbackManager,
    *,
    top_n: int | None = None,
) -> list[NodeWithScore]:
    """`compress_nodes` without blocking the loop."""
    await take_turn()
    step = _step(options, nodes, query_bundle, top_n)
    with _reported(step, nodes, callback_manager) as shortened:
        shortened.extend(_assembled(nodes, await step.acarry_out(), top_n))
    return shortened


def _step(
    options: DocumentOptions, nodes: Sequence[NodeWithScore], query_bundle: QueryBundle | None, top_n: int | None
) -> Step:
    # Not MetadataMode.LLM: metadata headers would be compressed with the text and baked into it.
    inputs = [Document(_text(node), id=node.node.node_id) for node in nodes]
    return Step(options, inputs, query_bundle.query_str if query_bundle is not None else "", None, top_n)


def _text(node: NodeWithScore) -> str:
    return node.node.get_content(metadata_mode=MetadataMode.NONE)


@contextmanager
def _reported(
    step: Step, nodes: Sequence[NodeWithScore], callback_manager: CallbackManager
) -> Iterator[list[NodeWithScore]]:
    """Events around the step; the list is what the step returns."""
    shortened: list[NodeWithScore] = []
    node_ids = [node.node.node_id for node in nodes]
    dispatcher.event(CPRSCompressionStartEvent(query=step.query, node_ids=node_ids, options=step.options.settings()))
    if step.top_n is None:
        yield shortened
    else:
        # The older callback system knows no compression; ranking it knows.
        payload: dict[str, Any] = {
            EventPayload.NODES: list(nodes),
            EventPayload.QUERY_STR: step.query,
            EventPayload.TOP_K: step.top_n,
        }
        with callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            yield shortened
            event.on_end(payload={EventPayload.NODES: shortened})
    dispatcher.event(CPRSCompressionEndEvent(nodes=shortened))


def _assembled(nodes: Sequence[NodeWithScore], outcomes: Sequence[Outcome], top_n: int | None) -> list[NodeWithScore]:
    """Copies in the order of the outcomes, and the nodes that hold something else than text where they were."""
    ranked = top_n is not None
    rows = [(outcome.index, _shortened(nodes[outcome.index], outcome, ranked)) for outcome in outcomes]
    textless = [
        (index, node) for index, node in enumerate(nodes) if not _text(node).strip() and _holds_media(node.node)
    ]
    seen = {index for index, _ in rows}
    rows += [(index, node.model_copy()) for index, node in textless if index not in seen]
    if not ranked:
        rows.sort(key=lambda row: row[0])
    return [node for _, node in rows]


def _holds_media(node: BaseNode) -> bool:
    """Whether a node without text still says something to a model: an image, audio or video."""
    names = ("image", "image_path", "image_url", "image_resource", "audio_resource", "video_resource")
    return any(getattr(node, name, None) for name in names)


def _shortened(scored: NodeWithScore, outcome: Outcome, ranked: bool) -> NodeWithScore:
    metadata = copy_metadata(scored.node.metadata)
    metadata[PROVENANCE_KEY] = outcome.provenance
    hidden = [PROVENANCE_KEY]
    score = scored.score
    if ranked and outcome.score is not None:
        if score is not None:
            metadata[RETRIEVAL_SCORE_KEY] = score
            hidden.append(RETRIEVAL_SCORE_KEY)
        score = outcome.score
    # A deep copy would also copy the embedding and fail on metadata that cannot be copied; what is written to is new.
    node = scored.node.model_copy(
        update={
            "metadata": metadata,
            "relationships": dict(scored.node.relationships),
            "excluded_llm_metadata_keys": _with(scored.node.excluded_llm_metadata_keys, hidden),
            "excluded_embed_metadata_keys": _with(scored.node.excluded_embed_metadata_keys, hidden),
        }
    )
    if outcome.text != _text(scored):
        node.set_content(outcome.text)
    return scored.model_copy(update={"node": node, "score": score})


def _with(keys: Sequence[str], more: Sequence[str]) -> list[str]:
    return [*keys, *(key for key in more if key not in keys)]
