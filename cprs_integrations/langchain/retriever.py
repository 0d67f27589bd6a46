"""A retriever for LangChain that returns shortened documents, of another retriever or of a whole corpus."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.document_loaders import BaseLoader
from langchain_core.documents import Document as LangChainDocument
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable
from pydantic import ConfigDict, Field, PrivateAttr, model_validator

from cprs_core import InputError, Preset
from cprs_integrations.adapting import DocumentOptions
from cprs_integrations.langchain.document_compressor import acompress_documents, compress_documents
from cprs_integrations.shared import CopyableLock


class CPRSRetriever(DocumentOptions, BaseRetriever):
    """Retrieves documents shortened to what the query asks for.

    Either another retriever finds the documents, or all ``documents`` are read for every query: for a corpus that a
    critic reads in a second or two, no index and no embeddings are needed. See `CPRSDocumentCompressor` for what
    happens to documents, and for the options.

    >>> from cprs_core import Compressor, KeywordScorer
    >>> from cprs_integrations.langchain import CPRSRetriever
    >>> corpus = ["It rained. Ada signed the lease.", "Cats sleep."]
    >>> retriever = CPRSRetriever(documents=corpus, compressor=Compressor(KeywordScorer("lease")), threshold=0.1)
    >>> [document.page_content for document in retriever.invoke("Who signed?")]
    ['Ada signed the lease.']
    """

    # langchain's own configuration, which ignores unknown arguments, would win.
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    retriever: Runnable[str, list[LangChainDocument]] | None = None
    """Finds the documents to shorten. Pass this or ``documents``."""

    documents: Sequence[LangChainDocument | str] | BaseLoader | None = Field(default=None, repr=False)
    """The whole corpus: documents, texts, or a loader, which is read on the first query and then kept."""

    _corpus: list[LangChainDocument] | None = PrivateAttr(default=None)
    _lock: CopyableLock = PrivateAttr(default_factory=CopyableLock)

    @model_validator(mode="after")
    def _has_one_source(self) -> CPRSRetriever:
        if (self.retriever is None) == (self.documents is None):
            count = "neither" if self.retriever is None else "both"
            raise InputError(f"{count} of retriever and documents came; pass one of them")
        return self

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        instruction: str | Preset | None = None,
        top_n: int | None = None,
    ) -> list[LangChainDocument]:
        callbacks = run_manager.get_child()
        if self.retriever is not None:
            documents = self.retriever.invoke(query, config={"callbacks": callbacks})
        else:
            documents = self._read_corpus()
        return compress_documents(
            self, documents, query, callbacks, instruction=instruction, top_n=self.top_n if top_n is None else top_n
        )

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        instruction: str | Preset | None = None,
        top_n: int | None = None,
    ) -> list[LangChainDocument]:
        callbacks = run_manager.get_child()
        if self.retriever is not None:
            documents = await self.retriever.ainvoke(query, config={"callbacks": callbacks})
        else:
            documents = await asyncio.to_thread(self._read_corpus)
        return await acompress_documents(
            self, documents, query, callbacks, instruction=instruction, top_n=self.top_n if top_n is None else top_n
        )

    def _read_corpus(self) -> list[LangChainDocument]:
        with self._lock:
            if self._corpus is None:
                source: Any = self.documents.lazy_load() if isinstance(self.documents, BaseLoader) else self.documents
                self._corpus = [LangChainDocument(item) if isinstance(item, str) else item for item in source]
            return self._corpus
