"""Compressors that people use already, behind the same door as ours: they rank segments, and all get equal tokens.

- LangChain's ``EmbeddingsFilter`` over pieces of up to 75 tokens (about the 300 characters of its documentation);
- LlamaIndex's ``SentenceEmbeddingOptimizer``, which keeps a share of every document's sentences;
- LLMLingua-2 (arXiv 2403.12968): a token classifier that never sees the query; a segment's score is the mean
  probability that its tokens are preserved;
- OpenProvence: its own sentence probabilities.

The first two run on all-MiniLM-L6-v2, as our embedding rows do. The weights of the last two are not ours to ship: they
are looked for in ``DIR/llmlingua-2`` and ``DIR/open-provence``.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cprs_core.errors import CheckpointError
from cprs_core.evaluation.corpus import Corpus, Request
from cprs_core.evaluation.progress import watched
from cprs_core.evaluation.systems import by_corpus

PIECE_TOKENS = 75
Embed = Callable[[Sequence[str]], NDArray[np.float32]]  # texts -> unit vectors (texts, d)


class EmbeddingsFilterSystem:
    """LangChain's ``EmbeddingsFilter``: the order in which it returns the pieces of a context."""

    def __init__(self, embed: Embed, name: str = "LangChain EmbeddingsFilter") -> None:
        self.name = name
        try:
            filters = importlib.import_module("langchain_classic.retrievers.document_compressors")
            importlib.import_module("langchain_community.document_transformers.embeddings_redundant_filter")
            embeddings = importlib.import_module("langchain_core.embeddings").Embeddings
            self._document = importlib.import_module("langchain_core.documents").Document
        except ImportError:
            raise CheckpointError(f"the row {name} needs: pip install langchain-classic langchain-community") from None

        class _Embeddings(embeddings):  # type: ignore[misc, valid-type]
            def embed_documents(self, texts: list[str]) -> list[list[float]]:
                return embed(texts).tolist()

            def embed_query(self, text: str) -> list[float]:
                return embed([text])[0].tolist()

        self._filter: Callable[[int], Any] = lambda k: filters.EmbeddingsFilter(embeddings=_Embeddings(), k=k)

    def rank(self, requests: Sequence[Request]) -> list[NDArray[np.float32]]:
        """See `System.rank`."""
        pieces = {id(corpus): corpus.chunks(PIECE_TOKENS) for corpus, _ in by_corpus(requests)}
        ranked = []
        for request in watched(requests, self.name):
            corpus, piece_of = pieces[id(request.corpus)]
            texts = corpus.segment_texts
            documents = [self._document(page_content=text, metadata={"at": at}) for at, text in enumerate(texts)]
            returned = self._filter(len(texts)).compress_documents(documents, request.query)
            order = [document.metadata["at"] for document in returned]
            ranked.append(_by_order(order, len(texts))[piece_of])
        return ranked


class SentenceOptimizerSystem:
    """LlamaIndex's ``SentenceEmbeddingOptimizer``: each document's sentences in the order in which it takes them."""

    _MARK = "\x1f"  # stands in no text that a tokenizer would read

    def __init__(self, embed: Embed, name: str = "LlamaIndex SentenceEmbeddingOptimizer") -> None:
        self.name = name
        try:
            module = importlib.import_module("llama_index.core.postprocessor")
            self._schema = importlib.import_module("llama_index.core.schema")
            base = importlib.import_module("llama_index.core.embeddings").BaseEmbedding
        except ImportError:
            raise CheckpointError(f"the row {name} needs llama-index-core") from None
        mark = self._MARK

        class _Embedding(base):  # type: ignore[misc, valid-type]
            def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
                return embed([text.rpartition(mark)[2] for text in texts]).tolist()

            def _get_text_embedding(self, text: str) -> list[float]:
                return self._get_text_embeddings([text])[0]

            def _get_query_embedding(self, query: str) -> list[float]:
                return embed([query])[0].tolist()

            async def _aget_query_embedding(self, query: str) -> list[float]:
                return self._get_query_embedding(query)

        self._make: Callable[[Any], Any] = lambda split: module.SentenceEmbeddingOptimizer(
            embed_model=_Embedding(), percentile_cutoff=1.0, tokenizer_fn=split, context_before=0, context_after=0
        )

    def rank(self, requests: Sequence[Request]) -> list[NDArray[np.float32]]:
        """See `System.rank`; a sentence scores by its place among its own document's sentences."""
        return [self._rank_one(request.corpus, request.query) for request in watched(requests, self.name)]

    def _rank_one(self, corpus: Corpus, query: str) -> NDArray[np.float32]:
        scores = np.zeros(len(corpus.segments), dtype=np.float32)
        document_of = corpus.context.document_of(corpus.segments[:, 0])
        for document in np.unique(document_of).tolist():
            indices = np.flatnonzero(document_of == document)
            # Every sentence carries its number, so that its place in the joined output can be told.
            marked = [f"{at}{self._MARK}{corpus.segment_texts[index]}" for at, index in enumerate(indices.tolist())]
            node = self._schema.NodeWithScore(node=self._schema.TextNode(text=corpus.texts[document]), score=1.0)
            optimizer = self._make(_always(marked))
            kept = optimizer.postprocess_nodes([node], query_bundle=self._schema.QueryBundle(query))
            order = [int(at) for at in re.findall(rf"(\d+){self._MARK}", kept[0].node.get_content())]
            scores[indices] = _by_order(order, len(indices))
        return scores


def _always(sentences: list[str]) -> Callable[[str], list[str]]:
    """A sentence splitter that knows the answer."""
    return lambda _: sentences


def _by_order(order: Sequence[int], count: int) -> NDArray[np.float32]:
    """float32, (count,) in 0..1: higher the earlier an index stands in ``order``; 0 for those that are not in it."""
    scores = np.zeros(count, dtype=np.float32)
    scores[list(order)] = 1.0 - np.arange(len(order), dtype=np.float32) / max(1, count)
    return scores


class LLMLingua2System:
    """LLMLingua-2's token classifier over 512-token chunks; the same ranking whatever is asked."""

    CHUNK_TOKENS = 510
    BATCH = 32

    def __init__(self, folder: Path, *, device: str = "auto", name: str = "LLMLingua-2") -> None:
        self.name = name
        require_weights(folder)
        from transformers import AutoModelForTokenClassification, AutoTokenizer

        from cprs_core.critics.runtime import resolve_device

        self._device = resolve_device(device)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(str(folder))
        self._model = AutoModelForTokenClassification.from_pretrained(str(folder)).to(self._device).eval()

    def rank(self, requests: Sequence[Request]) -> list[NDArray[np.float32]]:
        """See `System.rank`."""
        scored = {id(corpus): self._scores(corpus) for corpus, _ in by_corpus(requests)}
        return [scored[id(request.corpus)] for request in requests]

    def _scores(self, corpus: Corpus) -> NDArray[np.float32]:
        """float32, (s,): mean probability of "preserve" over each segment's tokens."""
        ids: list[int] = []
        starts: list[int] = []
        for base, text in zip(corpus.context.document_bounds.tolist(), corpus.texts, strict=False):
            read = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            ids += read["input_ids"]
            starts += [base + start for start, _ in read["offset_mapping"]]
        chunks = [ids[at : at + self.CHUNK_TOKENS] for at in range(0, len(ids), self.CHUNK_TOKENS)]
        batches = [chunks[at : at + self.BATCH] for at in range(0, len(chunks), self.BATCH)]
        kept = np.concatenate([row for batch in batches for row in self._preserved(batch)] or [np.zeros(0)])
        sums = np.concatenate([[0.0], np.cumsum(kept)])
        first = np.searchsorted(starts, corpus.segments[:, 0])
        last = np.searchsorted(starts, corpus.segments[:, 1])
        return ((sums[last] - sums[first]) / np.maximum(1, last - first)).astype(np.float32)

    def _preserved(self, chunks: Sequence[list[int]]) -> list[NDArray[np.float64]]:
        import torch

        first, last = self._tokenizer.cls_token_id, self._tokenizer.sep_token_id
        longest = max(map(len, chunks)) + 2
        ids = torch.full((len(chunks), longest), self._tokenizer.pad_token_id)  # (b, t)
        mask = torch.zeros_like(ids)
        for row, chunk in enumerate(chunks):
            ids[row, : len(chunk) + 2] = torch.tensor([first, *chunk, last])
            mask[row, : len(chunk) + 2] = 1
        with torch.inference_mode():
            logits = self._model(input_ids=ids.to(self._device), attention_mask=mask.to(self._device)).logits
            keep = logits.float().softmax(dim=-1)[..., 1].double().cpu().numpy()  # (b, t)
        return [keep[row, 1 : len(chunk) + 1] for row, chunk in enumerate(chunks)]


class OpenProvenceSystem:
    """OpenProvence's sentence probabilities, through the ``process`` of the model's own code."""

    def __init__(self, model: Any, name: str = "OpenProvence") -> None:
        self.name = name
        self._model = model

    @classmethod
    def from_folder(cls, folder: Path, *, device: str = "auto", name: str = "OpenProvence") -> OpenProvenceSystem:
        """Loads the model with the code that lies beside its weights."""
        require_weights(folder)
        from transformers import AutoModel

        from cprs_core.critics.runtime import resolve_device

        model = AutoModel.from_pretrained(str(folder), trust_remote_code=True)
        return cls(model.to(resolve_device(device)).eval(), name)

    def rank(self, requests: Sequence[Request]) -> list[NDArray[np.float32]]:
        """See `System.rank`."""
        empty = np.zeros(0, np.float32)
        return [np.concatenate([empty, *self._scores(request)]) for request in watched(requests, self.name)]

    def _scores(self, request: Request) -> list[NDArray[np.float32]]:
        corpus = request.corpus
        document_of = corpus.context.document_of(corpus.segments[:, 0])
        rows = []
        for document in np.unique(document_of).tolist():
            sentences = [corpus.segment_texts[i] for i in np.flatnonzero(document_of == document).tolist()]
            result = self._model.process(
                question=request.query,
                context=corpus.texts[document],
                title=None,
                threshold=0.0,
                sentence_splitter=_always(sentences),
                return_sentence_metrics=True,
                show_progress=False,
            )
            row = np.asarray(result["sentence_probabilities"], dtype=np.float32).ravel()
            if len(row) != len(sentences):
                raise CheckpointError(f"OpenProvence scored {len(row)} of {len(sentences)} sentences; cannot compare")
            rows.append(row)
        return rows


def require_weights(folder: Path) -> None:
    """Raises CheckpointError where a folder holds no model."""
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"weights not found: put them at {folder}")
