"""Time to the first token against the length of the context, as QwenLong-CPRS draws it (arXiv 2505.18092, figure 7).

The reader is a Qwen2 of random weights in bfloat16 (float32 on a CPU): prefill takes the same time whatever the weights
are. Rows:

- direct: the reader's prefill of the whole context; beyond `LONGEST_DIRECT` tokens, or where memory ends, a fit of
  ``a * n + b * n**2`` to what was measured, in a row of its own;
- RAG, index ready: prefill of 16,384 tokens, however long the context is, as in the paper;
- RAG with its index: chunking and scoring all 600-token chunks of a context that was not seen before, and that prefill;
- every critic: `Compressor.compress` to 1,000 tokens, from text to text, and the prefill of what it kept.

Lengths are in the critic's tokens, and a reader is given as many of its own. Times are of the machine that ran them,
best of two. Published times stand in a table of their own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import numpy as np

from cprs_core.advice import fit_first_token
from cprs_core.compressor import Compressor
from cprs_core.errors import InputError
from cprs_core.evaluation.baselines import BM25System, EmbeddingSystem
from cprs_core.evaluation.corpus import Corpus, Request
from cprs_core.evaluation.metrics import Measure
from cprs_core.evaluation.options import Options
from cprs_core.evaluation.speed import prose
from cprs_core.evaluation.systems import ChunkSystem, CriticSystem, System
from cprs_core.instructions import PRESETS

_log = logging.getLogger(__name__)

TASK = "latency"
SHORTEST, LONGEST = 16_384, 1_048_576
LONGEST_DIRECT = 262_144  # the square of a million takes minutes per run
RETRIEVED = 16_384
KEPT = 1_000
RUNS = 2
QUERY = "Which object from the archive was described as useful?"

# Seconds to the first token on one A100 with vLLM (figure 7, read off, and its text).
PUBLISHED = {
    "Qwen2.5-7B, direct": {65_536: 8.35, 131_072: 26.76},
    "MInference (sparse attention)": {65_536: 10.42, 131_072: 18.8},
    "RAG to 16K": {131_072: 1.5},
    "QwenLong-CPRS + Qwen2.5-7B": {16_384: 1.5, 65_536: 3.7, 98_304: 5.4, 131_072: 7.71},
}

SHAPES: dict[str, dict[str, int]] = {
    "7b": {  # Qwen2.5-7B
        "hidden_size": 3_584,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "intermediate_size": 18_944,
        "vocab_size": 152_064,
    },
    "tiny": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 64,
        "vocab_size": 1_024,
    },
}


class RandomReader:
    """A decoder of random weights; ``seconds(n)`` is its prefill of ``n`` tokens up to the first token's logits.

    Attention runs without a mask, as in a critic without bidirectional layers.
    """

    def __init__(self, shape: str, device: str = "auto") -> None:
        import torch
        from transformers import Qwen2Config

        from cprs_core.critics.hybrid import HybridCritic
        from cprs_core.critics.runtime import resolve_device

        if shape not in SHAPES:
            raise InputError(f"there is no reader shape {shape!r}; choose from {', '.join(SHAPES)}")
        self.shape = shape
        self._device = resolve_device(device)
        base = Qwen2Config(**SHAPES[shape], max_position_embeddings=2 * LONGEST)  # type: ignore[arg-type]
        dtype = torch.float32 if self._device.type == "cpu" else torch.bfloat16
        with torch.device("meta"):
            model = HybridCritic(base, base.num_hidden_layers, tag_head="lm_head")
        model = model.to(dtype).to_empty(device=self._device).eval().requires_grad_(False)
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.fill_(1.0)
            else:
                parameter.normal_(std=0.02)
        model.rebuild_rotary(self._device)
        self._model = model

    def seconds(self, tokens: int) -> float:
        """One prefill.

        Raises:
            MemoryError: the device cannot hold it.
        """
        import torch

        ids = torch.randint(0, SHAPES[self.shape]["vocab_size"], (1, max(1, tokens)), device=self._device)  # (1, n)
        self._wait()
        began = time.perf_counter()
        try:
            with torch.inference_mode():
                # Only the last position's logits; keys and values need not be kept to know the first token.
                last = self._model(ids)[:, -1]
                (last @ self._model.words.T).argmax(dim=-1).item()
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            raise MemoryError(f"{tokens:,} tokens") from None
        return time.perf_counter() - began

    def _wait(self) -> None:
        import torch

        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def measure_latency(systems: Sequence[System], options: Options) -> list[Measure]:
    """Seconds to the first token of every way, per length, and the published ones beside them."""
    shape = options.shape or ("7b" if _on_gpu(options.device) else "tiny")
    reader = RandomReader(shape, options.device)
    lengths = list(_lengths(options.tokens or LONGEST))
    task = f"{TASK}, {shape}-shaped reader"
    direct = _direct(reader, lengths)
    rows: list[tuple[str, int, float]] = [("direct", length, seconds) for length, seconds in direct.items()]
    if len(direct) > 1:
        a, b = fit_first_token(list(direct.items()))
        rows += [("direct, fitted", n, a * n + b * n**2) for n in lengths if n not in direct]
    retrieved = min(RETRIEVED, lengths[-1])
    fixed = _best(lambda: reader.seconds(retrieved))
    rows += [(f"RAG to {retrieved:,} tokens, index ready", length, fixed) for length in lengths]
    critics = [system for system in systems if isinstance(system, CriticSystem)]
    retrievers = [system for system in systems if isinstance(system, BM25System | EmbeddingSystem)]
    for length in lengths:
        text = _text(length, options)
        for system in retrievers:
            name = f"RAG to {retrieved:,} tokens, {system.name}, index included"
            rows.append((name, length, _rank_seconds(system, text, options) + fixed))
        for critic in critics:
            rows.append((f"{critic.name} + reader", length, _compressed_seconds(critic, text, reader)))
        _log.info("%s tokens: done", f"{length:,}")
    measures = [Measure(task, f"seconds at {length:,}", name, value, n=RUNS) for name, length, value in rows]
    measures += [
        Measure(f"{TASK}, published (one A100)", f"seconds at {length:,}", name, seconds)
        for length, name, seconds in sorted(
            (length, name, seconds) for name, points in PUBLISHED.items() for length, seconds in points.items()
        )
    ]
    return measures


def _on_gpu(device: str) -> bool:
    from cprs_core.critics.runtime import resolve_device

    return resolve_device(device).type == "cuda"


def _lengths(longest: int) -> Sequence[int]:
    lengths = [SHORTEST]
    while 2 * lengths[-1] <= longest:
        lengths.append(2 * lengths[-1])
    return lengths if longest >= SHORTEST else [longest]


def _direct(reader: RandomReader, lengths: Sequence[int]) -> dict[int, float]:
    """Seconds per length, up to `LONGEST_DIRECT` or the end of memory; the first prefill of all warms up."""
    reader.seconds(lengths[0])
    seconds: dict[int, float] = {}
    for length in lengths:
        if length > LONGEST_DIRECT:
            break
        try:
            seconds[length] = _best(lambda length=length: reader.seconds(length))  # type: ignore[misc]
        except MemoryError as error:
            _log.warning("direct: no memory for %s", error)
            break
    return seconds


def _best(run: Callable[[], float]) -> float:
    return min(run() for _ in range(RUNS))


def _text(tokens: int, options: Options) -> str:
    """Made-up prose of about ``tokens`` tokens in the run's meter, cut exactly."""
    text = prose(6 * tokens, options.seed + tokens)  # another text per length: rows may remember what they have read
    starts = options.tokenizer.encode(text).starts
    return text[: int(starts[tokens])] if len(starts) > tokens else text


def _rank_seconds(system: System, text: str, options: Options) -> float:
    """Cutting a context that was not seen before into chunks and scoring all of them."""
    began = time.perf_counter()
    request = Request(Corpus([text], options.tokenizer), QUERY, PRESETS["supporting_facts"])
    ChunkSystem("RAG", system).rank([request])
    return time.perf_counter() - began


def _compressed_seconds(critic: CriticSystem, text: str, reader: RandomReader) -> float:
    compressor = Compressor(critic.scorer)
    compressor.compress(text[:20_000], QUERY, max_tokens=KEPT)  # first use allocates
    runs = []
    for _ in range(RUNS):
        began = time.perf_counter()
        kept = compressor.compress(text, QUERY, max_tokens=KEPT).usage.output_tokens
        reading = time.perf_counter() - began
        runs.append(reading + reader.seconds(kept))
    return float(np.min(runs))
