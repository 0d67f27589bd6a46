"""What the adapters save in a RAG chain and in a query engine, what they cost, and whether they block an event loop.

    python -m benchmarks.adapters [--data DIR] [--device cpu] [--limit N] [--only rag engine overhead concurrency]

500 SQuAD dev paragraphs, 50 questions with known evidence sentences, the best 20 paragraphs by MiniLM embeddings.
Tokens are those of MiniLM's tokenizer, counted in what reaches the chat model, without the rest of the prompt.
"evidence" is the share of the questions whose evidence sentence was retrieved for which it still reaches the model,
verbatim. Timings need an idle machine.
Needs the extras classic, bench and train, langchain-community (which EmbeddingsFilter imports), and the data folder
(`--data` or the variable CPRS_DATA).
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from langchain_classic.retrievers.document_compressors import (
    DocumentCompressorPipeline,
    EmbeddingsFilter,
    LLMChainExtractor,
)
from langchain_core.documents import BaseDocumentTransformer
from langchain_core.documents import Document as LangChainDocument
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import SimpleChatModel
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
from llama_index.core.postprocessor import LongContextReorder, SentenceEmbeddingOptimizer
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from pydantic import PrivateAttr
from sentencex import segment
from transformers import AutoModel, AutoTokenizer

from cprs_core import Compressor, Document
from cprs_core.evaluation.baselines import packaged_minilm
from cprs_core.evaluation.data import data_folder, read_dataset
from cprs_integrations.langchain import CPRSDocumentCompressor
from cprs_integrations.llama_index import CPRSNodePostprocessor

DOCUMENTS, QUESTIONS, TOP_K, BUDGET = 500, 50, 20, 320


@dataclass(frozen=True)
class Question:
    """A question and its evidence sentence in one of the documents."""

    text: str
    document: int
    evidence: str


@dataclass
class Row:
    """One line of a table."""

    name: str
    tokens: list[int] = field(default_factory=list)
    present: list[bool] = field(default_factory=list)
    seconds: float = 0.0
    calls: int = 0


class MiniLM:
    """all-MiniLM-L6-v2 as an embedding function and as the counter of tokens."""

    def __init__(self, device: str) -> None:
        folder = str(packaged_minilm())
        self.device = device
        self.tokenizer = AutoTokenizer.from_pretrained(folder, model_max_length=10**9)
        self.model = AutoModel.from_pretrained(folder).to(device).eval()

    def count(self, text: str) -> int:
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        vectors: list[list[float]] = []
        for begin in range(0, len(texts), 64):
            batch = self.tokenizer(
                list(texts[begin : begin + 64]), padding=True, truncation=True, max_length=256, return_tensors="pt"
            ).to(self.device)
            hidden = self.model(**batch).last_hidden_state  # (texts, tokens, 384)
            mask = batch["attention_mask"][:, :, None]
            mean = (hidden * mask).sum(1) / mask.sum(1)
            vectors += torch.nn.functional.normalize(mean, dim=1).tolist()
        return vectors


class LangChainMiniLM(Embeddings):
    """MiniLM as LangChain embeddings."""

    def __init__(self, minilm: MiniLM) -> None:
        self.minilm = minilm

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.minilm.embed(texts)

    def embed_query(self, text: str) -> list[float]:
        return self.minilm.embed([text])[0]


class LlamaIndexMiniLM(BaseEmbedding):
    """MiniLM as a LlamaIndex embedding."""

    _minilm: MiniLM = PrivateAttr()

    def __init__(self, minilm: MiniLM) -> None:
        super().__init__(embed_batch_size=64)
        self._minilm = minilm

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._minilm.embed([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._minilm.embed(texts)

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._minilm.embed([query])[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)


class Recorder(SimpleChatModel):
    """A chat model that notes its prompts and answers with a fixed text."""

    answer: str = "NO_OUTPUT"
    _prompts: list[str] = PrivateAttr(default_factory=list)

    @property
    def prompts(self) -> list[str]:
        return self._prompts

    @property
    def _llm_type(self) -> str:
        return "recorder"

    def _call(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> str:
        self._prompts.append(messages[-1].text)
        return self.answer


class LlamaRecorder(CustomLLM):
    """An LLM that notes its prompts."""

    _prompts: list[str] = PrivateAttr(default_factory=list)

    @property
    def prompts(self) -> list[str]:
        return self._prompts

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(context_window=1_000_000)

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        self._prompts.append(prompt)
        return CompletionResponse(text="")

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise NotImplementedError


class SentenceSplitter(BaseDocumentTransformer):
    """Documents to one document per sentence."""

    def transform_documents(self, documents: Sequence[LangChainDocument], **kwargs: Any) -> list[LangChainDocument]:
        return [
            LangChainDocument(sentence)
            for document in documents
            for sentence in segment("en", document.page_content)
            if sentence.strip()
        ]


def read_corpus(folder: Path) -> tuple[list[str], list[Question]]:
    """500 paragraphs, and 50 questions about 50 of them, the same ones every time."""
    dataset = read_dataset(folder, "squad", "dev")
    records = [record for record in dataset.records if record.answerable and record.tagged("fact")]
    random.Random(0).shuffle(records)
    chosen: dict[str, Any] = {}
    for record in records:
        chosen.setdefault(record.document_ids[0], record)
        if len(chosen) == QUESTIONS:
            break
    others = sorted(id for id in dataset.documents if id not in chosen)
    random.Random(1).shuffle(others)
    ids = [*chosen, *others[: DOCUMENTS - QUESTIONS]]
    texts = [dataset.documents[id].text for id in ids]
    questions = []
    for number, record in enumerate(chosen.values()):
        fact = record.tagged("fact")[0]
        questions.append(Question(record.query, number, texts[number][fact.start : fact.end]))
    return texts, questions


def normal(text: str) -> str:
    return " ".join(text.split())


def rag_table(texts: list[str], questions: list[Question], minilm: MiniLM, compressor: Compressor) -> list[Row]:
    """A LangChain chain: retriever -> compressor -> prompt -> chat model."""
    store = InMemoryVectorStore(LangChainMiniLM(minilm))
    store.add_documents([LangChainDocument(text, metadata={"row": row}) for row, text in enumerate(texts)])
    retriever = store.as_retriever(search_kwargs={"k": TOP_K})
    found = {question: retriever.invoke(question.text) for question in questions}
    found = {q: documents for q, documents in found.items() if any(d.metadata["row"] == q.document for d in documents)}
    extractor_model = Recorder(answer="NO_OUTPUT")
    filters = LangChainMiniLM(minilm)
    per_document = statistics.mean(minilm.count(text) for text in texts)
    sentences = statistics.mean(len(list(segment("en", text))) for text in texts)
    whole = max(1, round(BUDGET / per_document))
    methods: dict[str, Any] = {
        f"top {TOP_K}, nothing else": None,
        "CPRSDocumentCompressor()": CPRSDocumentCompressor(compressor=compressor),
        f"CPRSDocumentCompressor(max_tokens={BUDGET})": CPRSDocumentCompressor(
            compressor=compressor, max_tokens=BUDGET, count_tokens=minilm.count
        ),
        f"top {whole} (same budget)": lambda documents, query: documents[:whole],
        f"EmbeddingsFilter(k={whole}) (same budget)": EmbeddingsFilter(embeddings=filters, k=whole),
        "sentences + EmbeddingsFilter (same budget)": DocumentCompressorPipeline(
            transformers=[
                SentenceSplitter(),
                EmbeddingsFilter(embeddings=filters, k=max(1, round(BUDGET / per_document * sentences))),
            ]
        ),
        "LLMChainExtractor (fake LLM)": LLMChainExtractor.from_llm(extractor_model),
    }
    rows = []
    for name, method in methods.items():
        row = Row(name)
        compress = method if method is None or not hasattr(method, "compress_documents") else method.compress_documents
        for question, documents in found.items():
            began = time.perf_counter()
            prompt = run_chain(question, documents, compress)
            row.seconds += time.perf_counter() - began
            row.tokens.append(minilm.count(prompt) - minilm.count(question.text))
            row.present.append(normal(question.evidence) in normal(prompt))
        row.calls = len(extractor_model.prompts) if "Extractor" in name else 0
        rows.append(row)
    return rows


def run_chain(question: Question, documents: list[LangChainDocument], compress: Callable[..., Any] | None) -> str:
    """One run of the chain; what the chat model got."""
    model = Recorder(answer="Ada")

    def step(inputs: dict[str, Any]) -> str:
        kept = compress(inputs["context"], inputs["question"]) if compress else inputs["context"]
        return "\n\n".join(document.page_content for document in kept)

    chain = (
        {"context": RunnableLambda(lambda _: documents), "question": RunnablePassthrough()}
        | RunnablePassthrough.assign(context=RunnableLambda(step))
        | ChatPromptTemplate.from_template("{context}\n{question}")
        | model
    )
    chain.invoke(question.text)
    return model.prompts[0]


def engine_table(texts: list[str], questions: list[Question], minilm: MiniLM, compressor: Compressor) -> list[Row]:
    """A LlamaIndex query engine with one postprocessor."""
    embedding = LlamaIndexMiniLM(minilm)
    index = VectorStoreIndex(
        [TextNode(text=text, id_=str(row)) for row, text in enumerate(texts)], embed_model=embedding
    )
    retriever = index.as_retriever(similarity_top_k=TOP_K)
    kept = [q for q in questions if any(n.node.node_id == str(q.document) for n in retriever.retrieve(q.text))]
    whole = max(1, round(BUDGET / statistics.mean(minilm.count(text) for text in texts)))
    share = BUDGET / (TOP_K * statistics.mean(minilm.count(text) for text in texts))
    split = {"tokenizer_fn": lambda text: list(segment("en", text)), "context_before": 0, "context_after": 0}
    methods: dict[str, tuple[int, list[Any]]] = {
        f"top {TOP_K}, nothing else": (TOP_K, []),
        "LongContextReorder": (TOP_K, [LongContextReorder()]),
        "CPRSNodePostprocessor()": (TOP_K, [CPRSNodePostprocessor(compressor=compressor)]),
        f"CPRSNodePostprocessor(max_tokens={BUDGET})": (
            TOP_K,
            [CPRSNodePostprocessor(compressor=compressor, max_tokens=BUDGET, count_tokens=minilm.count)],
        ),
        f"top {whole} (same budget)": (whole, []),
        "SentenceEmbeddingOptimizer(percentile_cutoff=0.5)": (
            TOP_K,
            [SentenceEmbeddingOptimizer(embed_model=embedding, percentile_cutoff=0.5, **split)],
        ),
        f"top {whole * 3} + SentenceEmbeddingOptimizer (same budget)": (
            whole * 3,
            [
                SentenceEmbeddingOptimizer(
                    embed_model=embedding, percentile_cutoff=min(1.0, share * TOP_K / whole / 3), **split
                )
            ],
        ),
    }
    empty = minilm.count(run_engine(index, "x", 0, []))
    rows = []
    for name, (top_k, postprocessors) in methods.items():
        row = Row(name)
        for question in kept:
            began = time.perf_counter()
            try:
                prompt = run_engine(index, question.text, top_k, postprocessors)
            except ValueError:  # SentenceEmbeddingOptimizer raises where it keeps no sentence of a node
                prompt = ""
            row.seconds += time.perf_counter() - began
            row.tokens.append(max(0, minilm.count(prompt) - empty - minilm.count(question.text)))
            row.present.append(normal(question.evidence) in normal(prompt))
        rows.append(row)
    return rows


def run_engine(index: VectorStoreIndex, query: str, top_k: int, postprocessors: list[Any]) -> str:
    """One query; what the LLM got."""
    llm = LlamaRecorder()
    engine = index.as_query_engine(
        llm=llm, similarity_top_k=max(top_k, 1), node_postprocessors=postprocessors, response_mode="compact"
    )
    if top_k == 0:
        return engine.get_prompts()["response_synthesizer:text_qa_template"].format(context_str="", query_str="")
    engine.query(query)
    return llm.prompts[0]


def overhead_table(
    texts: list[str], questions: list[Question], compressor: Compressor
) -> list[tuple[str, float, float]]:
    """(name, seconds, share above `Compressor.compress`) at 100 documents: medians of alternating runs."""
    chosen, query = texts[:100], questions[0].text
    plain = [Document(text, id=str(row)) for row, text in enumerate(chosen)]
    documents = [LangChainDocument(text, id=str(row), metadata={"row": row}) for row, text in enumerate(chosen)]
    nodes = [NodeWithScore(node=TextNode(text=text, id_=str(row)), score=0.5) for row, text in enumerate(chosen)]
    langchain = CPRSDocumentCompressor(compressor=compressor)
    llama_index = CPRSNodePostprocessor(compressor=compressor)
    runs: dict[str, Callable[[], Any]] = {
        "Compressor.compress": lambda: compressor.compress(plain, query),
        "CPRSDocumentCompressor": lambda: langchain.compress_documents(documents, query),
        "CPRSNodePostprocessor": lambda: llama_index.postprocess_nodes(nodes, QueryBundle(query)),
    }
    own: dict[str, list[float]] = {name: [] for name in runs}
    total: dict[str, list[float]] = {name: [] for name in runs}
    inside: list[float] = []
    compress = compressor.compress

    def timed(*arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return compress(*arguments, **options)
        finally:
            inside.append(time.perf_counter() - began)

    # Time inside `compress` is taken in the same run: two runs of a model differ by more than the adapter takes.
    compressor.compress = timed  # type: ignore[method-assign]
    for round in range(7):
        for name, run in runs.items():
            inside.clear()
            began = time.perf_counter()
            run()
            seconds = time.perf_counter() - began
            if round >= 2:
                total[name].append(seconds)
                own[name].append((seconds - sum(inside)) / sum(inside))
    del compressor.compress
    return [(name, statistics.median(total[name]), statistics.median(own[name])) for name in runs]


async def concurrency(texts: list[str], questions: list[Question], compressor: Compressor) -> dict[str, Any]:
    """200 concurrent calls on one loop: the longest time in which the loop ran nothing else, and wrong results.

    Beside the time by the clock, which other programs lengthen too, stands the loop thread's own processor time.
    """
    adapter = CPRSDocumentCompressor(compressor=compressor)
    jobs = [
        (
            [LangChainDocument(text) for text in texts[number % 400 : number % 400 + 5]],
            questions[number % len(questions)].text,
        )
        for number in range(200)
    ]
    expected = [[d.page_content for d in adapter.compress_documents(documents, query)] for documents, query in jobs]
    gaps: list[float] = []
    busy: list[float] = []
    running = True

    async def tick() -> None:
        last, last_own = time.perf_counter(), time.thread_time()
        while running:
            await asyncio.sleep(0.001)
            now, own = time.perf_counter(), time.thread_time()
            gaps.append(now - last)
            busy.append(own - last_own)
            last, last_own = now, own

    ticker = asyncio.create_task(tick())
    await asyncio.sleep(0.05)
    gaps.clear()
    busy.clear()
    began = time.perf_counter()
    results = await asyncio.gather(*(adapter.acompress_documents(documents, query) for documents, query in jobs))
    seconds = time.perf_counter() - began
    running = False
    await ticker
    wrong = sum([d.page_content for d in result] != want for result, want in zip(results, expected, strict=True))
    return {
        "calls": len(jobs),
        "seconds": seconds,
        "longest block (ms)": max(gaps) * 1_000,
        "longest block, the loop's own work (ms)": max(busy) * 1_000,
        "wrong results": wrong,
    }


def print_rows(title: str, rows: list[Row]) -> None:
    full = statistics.mean(rows[0].tokens)
    print(f"\n{title} ({len(rows[0].tokens)} questions whose evidence was retrieved)\n")
    print("| method | context tokens | fewer | evidence | ms per question | LLM calls per question |")
    print("|---|---:|---:|---:|---:|---:|", flush=True)
    for row in rows:
        count = len(row.tokens)
        tokens = statistics.mean(row.tokens)
        # What is left by a method that asks an LLM depends on that LLM; the fake one only counts the calls.
        kept = (
            "" if row.calls else f"{tokens:,.0f} | {full / tokens:.1f} x | {100 * statistics.mean(row.present):.0f} %"
        )
        print(f"| {row.name} | {kept or '- | - | -'} | {1_000 * row.seconds / count:,.0f} | {row.calls / count:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=None, help="data folder")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--limit", type=int, default=QUESTIONS, help="questions asked")
    parser.add_argument("--only", nargs="*", default=["rag", "engine", "overhead", "concurrency"])
    options = parser.parse_args()
    texts, questions = read_corpus(data_folder(options.data))
    asked = questions[: options.limit]
    minilm = MiniLM(options.device)
    compressor = Compressor.from_pretrained(device=options.device)
    compressor.compress(texts[:5], "warm up")
    if "rag" in options.only:
        print_rows("LangChain RAG chain", rag_table(texts, asked, minilm, compressor))
    if "engine" in options.only:
        print_rows("LlamaIndex query engine", engine_table(texts, asked, minilm, compressor))
    if "overhead" in options.only:
        print("\n| 100 documents | ms | own time above compress |\n|---|---:|---:|")
        for name, seconds, share in overhead_table(texts, questions, compressor):
            print(f"| {name} | {1_000 * seconds:,.0f} | {100 * share:.2f} % |")
    if "concurrency" in options.only:
        print("\n200 concurrent acompress_documents on one event loop")
        for name, value in asyncio.run(concurrency(texts, questions, compressor)).items():
            print(f"  {name}: {value:,.1f}" if isinstance(value, float) else f"  {name}: {value}")


if __name__ == "__main__":
    main()
