"""A retriever for LlamaIndex that returns shortened nodes, of another retriever or of a whole corpus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager
from llama_index.core.schema import BaseNode, NodeWithScore, QueryBundle, TextNode

from cprs_core import InputError
from cprs_integrations.llama_index.postprocessor import CPRSNodePostprocessor


class CPRSRetriever(BaseRetriever):
    """Retrieves nodes shortened to what the query asks for.

    Either another retriever finds the nodes (`as_retriever` ignores postprocessors, this does not), or all ``nodes``
    are read for every query. See `CPRSNodePostprocessor` for what happens to nodes.

    >>> from cprs_core import Compressor, KeywordScorer
    >>> from cprs_integrations.llama_index import CPRSRetriever
    >>> corpus = ["It rained. Ada signed the lease.", "Cats sleep."]
    >>> retriever = CPRSRetriever(nodes=corpus, compressor=Compressor(KeywordScorer("lease")), threshold=0.1)
    >>> [node.text for node in retriever.retrieve("Who signed?")]
    ['Ada signed the lease.']
    """

    def __init__(
        self,
        retriever: BaseRetriever | None = None,
        *,
        nodes: Sequence[BaseNode | str] | None = None,
        callback_manager: CallbackManager | None = None,
        **options: Any,
    ) -> None:
        """Wraps a retriever or a corpus.

        Args:
            retriever: finds the nodes to shorten; pass this or ``nodes``.
            nodes: the whole corpus: nodes, documents or texts.
            callback_manager: as in every retriever.
            options: those of `CPRSNodePostprocessor`.

        Raises:
            InputError: both or neither of ``retriever`` and ``nodes``.
            pydantic.ValidationError: an option is unknown or out of range.
        """
        if (retriever is None) == (nodes is None):
            raise InputError(f"{'neither' if nodes is None else 'both'} of retriever and nodes came; pass one of them")
        super().__init__(callback_manager=callback_manager)
        self._retriever = retriever
        self._nodes = [TextNode(text=node) if isinstance(node, str) else node for node in nodes or ()]
        self._postprocessor = CPRSNodePostprocessor(**options)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        nodes = self._corpus() if self._retriever is None else self._retriever.retrieve(query_bundle)
        self._postprocessor.callback_manager = self.callback_manager
        return self._postprocessor.postprocess_nodes(nodes, query_bundle) if nodes else []

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        nodes = self._corpus() if self._retriever is None else await self._retriever.aretrieve(query_bundle)
        self._postprocessor.callback_manager = self.callback_manager
        return await self._postprocessor.apostprocess_nodes(nodes, query_bundle) if nodes else []

    def _corpus(self) -> list[NodeWithScore]:
        return [NodeWithScore(node=node) for node in self._nodes]
