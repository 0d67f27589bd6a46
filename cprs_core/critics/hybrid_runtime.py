"""Runs a hybrid critic over windows: equal lengths together, no padding, the host always some batches ahead."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cprs_core.critics.chat_tokenizer import ChatTokenizer
from cprs_core.critics.hybrid import HybridCritic
from cprs_core.critics.in_flight import DeviceThread, Running, finished, on_device, to_device
from cprs_core.errors import DeviceError, NonFiniteScoresError
from cprs_core.scorer import LABELS, OnProgress, Prefix

_log = logging.getLogger(__name__)

# Tokens of one forward pass, prefixes included. A window of 8,192 tokens fills a GPU by itself.
_BATCH_TOKENS = {"cpu": 2_048, "cuda": 8_192, "mps": 8_192}

# torch compiles for one thread at a time, and refuses to run compiled layers in any other while it traces.
_IS_TRACING = "dynamo-optimized function"
_LONGEST_TRACE, _ASK_AGAIN = 600.0, 0.02  # seconds


@dataclass(frozen=True)
class Overhead:
    """Tokens run besides the useful ones: the prefix is repeated in every window. Nothing is ever padded."""

    context_tokens: int = 0
    prefix_tokens: int = 0


class HybridScorer:
    """A `Scorer` around a hybrid critic that already lies on its device. Calls from several threads take turns."""

    labels = LABELS

    def __init__(
        self,
        critic: HybridCritic,
        tokenizer: ChatTokenizer,
        *,
        name: str = "hybrid",
        window_tokens: int = 8_192,
        thresholds: Mapping[str, float] | None = None,
        dtype: str = "",
        batch_tokens: int | None = None,
        digest: str = "",
    ) -> None:
        """
        Args:
            dtype: what the weights are called; by default their own number format.
            digest: tells these weights from others, for caches; empty for no caching.
            batch_tokens: tokens of one forward pass, prefixes included.
        """
        self.name = name
        self.tokenizer = tokenizer
        self.window_tokens = window_tokens
        self.thresholds: Mapping[str, float] = dict(thresholds or {})
        weight = critic.cls_head.weight
        self.device = critic.model.embed_tokens.weight.device
        self.dtype = dtype or str(weight.dtype).removeprefix("torch.")
        self.batch_tokens = batch_tokens or max(window_tokens, _BATCH_TOKENS.get(self.device.type, 8_192))
        self.overhead = Overhead()
        self.digest = digest
        self._critic = critic
        self._turn = threading.Lock()
        self._thread = DeviceThread(self.device)

    @property
    def fingerprint(self) -> str:
        """The same only where scores are the same; empty where the weights have no digest."""
        return f"{self.digest} {self.window_tokens} {self.dtype} {self.device.type}" if self.digest else ""

    @property
    def overlaps(self) -> bool:
        """Whether the CPU is free for others while windows run; see `cprs_core.scorer.Scorer`."""
        return self.device.type == "cuda"

    def compile_layers(self, backend: str = "inductor") -> float:
        """Compiles every layer by itself and runs a few windows: seconds it took. Later calls are fast at once.

        Args:
            backend: of torch's compiler.
        """
        began = time.perf_counter()
        _log.info("compiling the %d layers of %s on %s", len(self._critic.layers), self.name, self.device)
        self._critic.compile_layers(dynamic=True, backend=backend)
        self._thread.run(self._warm_up)
        seconds = time.perf_counter() - began
        _log.info("compiled %s on %s in %.0f s", self.name, self.device, seconds)
        return seconds

    def _warm_up(self) -> None:
        with self._turn, torch.inference_mode(), on_device(self.device):
            for length in (self.window_tokens, max(2, self.window_tokens - 1)):  # a full one has fewer kernels
                self._forward(torch.zeros((1, length), dtype=torch.int64, device=self.device))
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)

    def score(
        self, prefix: Prefix, windows: Sequence[NDArray[np.int32]], on_progress: OnProgress | None = None
    ) -> list[NDArray[np.float32]]:
        """Label probabilities of every window token; see `cprs_core.scorer.Scorer.score`.

        Raises:
            NonFiniteScoresError: a window's scores are not numbers.
            DeviceError: a single window does not fit the device, or the device failed.
        """
        return self._thread.run(self._score, prefix, windows, on_progress)

    def _score(
        self, prefix: Prefix, windows: Sequence[NDArray[np.int32]], on_progress: OnProgress | None
    ) -> list[NDArray[np.float32]]:
        results: list[NDArray[np.float32]] = [np.empty((0, len(LABELS) * len(prefix.tags)), np.float32)] * len(windows)
        total = sum(len(window) for window in windows)
        done = 0
        with self._turn, torch.inference_mode(), on_device(self.device):
            try:
                for batch, scores in finished(self._sent(prefix, windows)):
                    for index, part in zip(batch, scores, strict=True):
                        if not np.isfinite(part).all():
                            raise NonFiniteScoresError(self.name, self.dtype, index, windows[index])
                        results[index] = part
                        done += len(part)
                    if on_progress is not None:
                        on_progress(done, total)
            except torch.cuda.OutOfMemoryError:
                raise
            except RuntimeError as error:
                if isinstance(error, DeviceError | NonFiniteScoresError) or self.device.type == "cpu":
                    raise
                reason = " ".join(str(error).split())[:300]
                raise DeviceError(
                    f"{self.device} failed while {self.name} ran on it ({reason}); load the critic again"
                ) from error
        self.overhead = Overhead(total, len(prefix) * len(windows))
        return results

    def _sent(self, prefix: Prefix, windows: Sequence[NDArray[np.int32]]) -> Iterator[Running]:
        """All batches, each queued when it is asked for; one that does not fit is halved."""
        rows = self._critic.tag_rows(to_device(self.device, *(self.tokenizer.word_ids(tag) for tag in prefix.tags)))
        waiting = deque(_batches([len(window) for window in windows], len(prefix), self.batch_tokens))
        while waiting:
            batch = waiting.popleft()
            try:
                yield self._send(prefix, windows, batch, rows)
            except torch.cuda.OutOfMemoryError as error:
                waiting.extendleft(reversed(self._halves(batch, len(prefix) + len(windows[batch[0]]), error)))

    def _send(
        self, prefix: Prefix, windows: Sequence[NDArray[np.int32]], batch: list[int], rows: Tensor | None
    ) -> Running:
        """Queues one forward pass over windows of one length, and the copy of its scores to the host."""
        p = len(prefix)
        (ids,) = to_device(self.device, np.concatenate([part for i in batch for part in (prefix.ids, windows[i])]))
        hidden = self._forward(ids.view(len(batch), -1))  # (w, p + n, hidden)
        context = hidden[:, p:].flatten(0, 1)
        scores = self._critic.scores(context, rows, len(prefix.tags)).view(len(batch), hidden.shape[1] - p, -1)
        return Running.of(batch, scores)

    def _forward(self, ids: Tensor) -> Tensor:
        """The critic's hidden states; waits while the thread of another GPU compiles for a new kind of window."""
        began = time.monotonic()
        while True:
            try:
                hidden: Tensor = self._critic(ids)
                return hidden
            except RuntimeError as error:
                if _IS_TRACING not in str(error) or time.monotonic() - began > _LONGEST_TRACE:
                    raise
            time.sleep(_ASK_AGAIN)

    def _halves(self, batch: list[int], length: int, error: Exception) -> list[list[int]]:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(batch) == 1:
            raise DeviceError(
                f"{self.device} has no memory left for one window of {length:,} tokens with {self.name} in "
                f"{self.dtype}; free some, load it with dtype='fp8' or spread it over more GPUs (device='auto')"
            ) from error
        half = len(batch) // 2
        self.batch_tokens = half * length
        _log.warning(
            "%s ran out of memory with %d windows of %d tokens at a time; going on with %d",
            *(self.device, len(batch), length, half),
        )
        return [batch[:half], batch[half:]]


def _batches(lengths: list[int], prefix: int, batch_tokens: int) -> list[list[int]]:
    """Window indices of each forward pass: windows of one length only, longest first."""
    of_length: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        of_length.setdefault(length, []).append(index)
    batches = []
    for length in sorted(of_length, reverse=True):
        rows = max(1, batch_tokens // max(1, length + prefix))
        batches += [of_length[length][i : i + rows] for i in range(0, len(of_length[length]), rows)]
    return batches
