"""A document compressor for LangChain, and the step that its retriever shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor
from langchain_core.documents import Document as LangChainDocument
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough

from cprs_core import Compression, Document, Preset
from cprs_integrations.adapting import PROVENANCE_KEY, DocumentOptions, Outcome, Step, copy_metadata, take_turn

RUN_NAME = "cprs_compress"


class CPRSDocumentCompressor(DocumentOptions, BaseDocumentCompressor):
    """Shortens retrieved documents to what the query asks for, verbatim.

    Documents of which nothing is kept are left out. Those that stay are copies with the id and metadata of the
    original, ``metadata["relevance_score"]`` (the best kept span's score, 0..1) and ``metadata["cprs"]``: tokens before
    and after, and the kept spans in characters of the original text. The caller's documents stay as they were.

    Safe to use from several threads.

    >>> from cprs_core import Compressor, KeywordScorer
    >>> from cprs_integrations.langchain import CPRSDocumentCompressor
    >>> from langchain_core.documents import Document
    >>> compressor = CPRSDocumentCompressor(compressor=Compressor(KeywordScorer("lease")), threshold=0.1)
    >>> compressor.compress_documents([Document("It rained. Ada signed the lease.")], "Who signed?")[0].page_content
    'Ada signed the lease.'
    """

    def compress_documents(
        self,
        documents: Sequence[LangChainDocument],
        query: str,
        callbacks: Callbacks | None = None,
        *,
        instruction: str | Preset | None = None,
    ) -> list[LangChainDocument]:
        """Shortened copies, in the order given, or best first with ``top_n``.

        Args:
            documents: as a retriever returned them.
            query: the user's question; may be empty when there is an instruction.
            callbacks: of the surrounding run; the compression becomes its child run ``cprs_compress``.
            instruction: takes precedence over the adapter's own for this call.

        Raises:
            InputError: neither query nor instruction, or a query too long for a window (unless ``on_error`` says
                otherwise, as for every error of the compressor).
        """
        return compress_documents(self, documents, query, callbacks, instruction=instruction, top_n=self.top_n)

    async def acompress_documents(
        self,
        documents: Sequence[LangChainDocument],
        query: str,
        callbacks: Callbacks | None = None,
        *,
        instruction: str | Preset | None = None,
    ) -> list[LangChainDocument]:
        """`compress_documents` without blocking the loop."""
        return await acompress_documents(self, documents, query, callbacks, instruction=instruction, top_n=self.top_n)

    def as_runnable(
        self, *, documents_key: str = "context", query_key: str = "question", instruction_key: str | None = None
    ) -> Runnable[dict[str, Any], dict[str, Any]]:
        """A step of an LCEL chain: a mapping in, the same mapping with shortened documents out.

        Args:
            documents_key: where the documents are in the mapping.
            query_key: where the question is.
            instruction_key: where an instruction for this call is, if the mapping brings one.
        """

        def read(inputs: dict[str, Any]) -> tuple[Sequence[LangChainDocument], str, str | None]:
            return inputs[documents_key], inputs[query_key], inputs[instruction_key] if instruction_key else None

        def run(inputs: dict[str, Any]) -> list[LangChainDocument]:
            documents, query, instruction = read(inputs)
            return self.compress_documents(documents, query, instruction=instruction)

        async def arun(inputs: dict[str, Any]) -> list[LangChainDocument]:
            documents, query, instruction = read(inputs)
            return await self.acompress_documents(documents, query, instruction=instruction)

        return RunnablePassthrough.assign(**{documents_key: RunnableLambda(run, afunc=arun)})


def compress_documents(
    options: DocumentOptions,
    documents: Sequence[LangChainDocument],
    query: str,
    callbacks: Callbacks | None,
    *,
    instruction: str | Preset | None = None,
    top_n: int | None = None,
) -> list[LangChainDocument]:
    """One call of the compressor for all documents, as a child run of ``callbacks``."""
    step = _step(options, documents, query, instruction, top_n)
    outcomes = step.carry_out(lambda: _in_child_run(step, callbacks))
    return [_shortened(documents[outcome.index], outcome) for outcome in outcomes]


async def acompress_documents(
    options: DocumentOptions,
    documents: Sequence[LangChainDocument],
    query: str,
    callbacks: Callbacks | None,
    *,
    instruction: str | Preset | None = None,
    top_n: int | None = None,
) -> list[LangChainDocument]:
    """`compress_documents` without blocking the loop."""
    await take_turn()
    step = _step(options, documents, query, instruction, top_n)
    outcomes = await step.acarry_out(lambda: _ain_child_run(step, callbacks))
    return [_shortened(documents[outcome.index], outcome) for outcome in outcomes]


def _step(
    options: DocumentOptions,
    documents: Sequence[LangChainDocument],
    query: str,
    instruction: str | Preset | None,
    top_n: int | None,
) -> Step:
    inputs = [Document(document.page_content, id=document.id) for document in documents]
    return Step(options, inputs, query, instruction, top_n)


def _shortened(document: LangChainDocument, outcome: Outcome) -> LangChainDocument:
    metadata = copy_metadata(document.metadata)
    metadata[PROVENANCE_KEY] = outcome.provenance
    if outcome.score is not None:
        metadata["relevance_score"] = outcome.score
    # model_copy keeps subclasses and their fields; the constructor would not.
    return document.model_copy(update={"page_content": outcome.text, "metadata": metadata})


def _in_child_run(step: Step, callbacks: Callbacks | None) -> Compression:
    """`Step.compress` as a run of its own, which records the query, the tokens and the error if there is one.

    The run holds figures, not texts: the documents are in the runs around it already.
    """
    results: list[Compression] = []

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        results.append(step.compress())
        return _facts(results[0])

    RunnableLambda(run, name=RUN_NAME).invoke(_inputs(step), config={"callbacks": callbacks})
    return results[0]


async def _ain_child_run(step: Step, callbacks: Callbacks | None) -> Compression:
    results: list[Compression] = []

    async def run(inputs: dict[str, Any]) -> dict[str, Any]:
        results.append(await step.acompress())
        return _facts(results[0])

    await RunnableLambda(run, name=RUN_NAME).ainvoke(_inputs(step), config={"callbacks": callbacks})
    return results[0]


def _inputs(step: Step) -> dict[str, Any]:
    settings = step.options.settings()
    if step.instruction is not None:
        settings["instruction"] = step.instruction
    return {**settings, "query": step.query, "documents": len(step.documents)}


def _facts(compression: Compression) -> dict[str, Any]:
    usage = compression.usage.model_dump(exclude={"documents", "stage_seconds"})
    return {**usage, "spans": len(compression.spans), "low_confidence": compression.low_confidence}
