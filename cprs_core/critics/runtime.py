"""Runs a small critic over windows: batches by token count, on a GPU always some ahead, attention as the device likes.

A CPU attends to windows of one length at a time. On a GPU that would be hundreds of small steps a layer, so there
attention sees all windows of a batch at once; see `cprs_core.critics.encoder`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from cprs_core.critics.encoder import Padding
from cprs_core.critics.in_flight import Running, finished, on_device, to_device
from cprs_core.critics.int8 import is_supported as int8_is_supported
from cprs_core.critics.int8 import with_int8_layers
from cprs_core.critics.threads import bound_threads
from cprs_core.critics.token_critic import TokenCritic
from cprs_core.critics.wordpiece import WordPieceTokenizer
from cprs_core.errors import CPRSError, DeviceError
from cprs_core.scorer import LABELS, OnProgress, Prefix

_log = logging.getLogger(__name__)

# Tokens of one forward pass. On a CPU two windows a thread stay near the caches and share what is done once a batch.
_BATCH_TOKENS = {"cuda": 131_072, "mps": 16_384}
_WINDOWS_PER_THREAD, _LARGEST_CPU_BATCH = 2, 16_384
# Rows of padded attention are a multiple of this long: kernels that take masks want one of 8, and few shapes come up.
_ROW_STEP = 64
# A batch whose rows hold more than this share of filling ends before its shorter windows.
_MOST_FILLING = 0.25
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.int8}

# What sets the int8 steps of activations: prose, names, numbers, code and another script under one query.
_SAMPLE_QUERY = "Which team signed the contract, and when does it end?"
_SAMPLE = """\
Minutes of the meeting on 14 March 2019. Ada King signed the contract for the survey team; it runs for six years and
ends in 2025. The roof was repaired in May, at a cost of $12,480.50. "We could not have waited," said Mr Obermeier, who
had measured it twice. Nobody objected. The harbour office has since moved to Oslo (see appendix B, page 117).

The proteins of this family bind calcium and are found in most tissues; their role in memory is disputed. By 1871 the
town had 3,204 inhabitants, two mills and a railway, which the war interrupted for almost ten years.

def total(rows: list[dict[str, int]]) -> int:
    return sum(row["amount"] for row in rows if row.get("state") != "closed")

2024-05-01T10:22:31Z ERROR worker-7 connection to 10.0.3.18:5432 refused, retry 3 of 5 (id=f3a9-77c1)
租约由王女士于周五签署，为期六年。Вчера договор подписала Анна. El contrato termina en diciembre.
"""


class CriticScorer:
    """A `Scorer` around a small critic. Calls from several threads take turns."""

    labels = LABELS

    def __init__(
        self,
        critic: TokenCritic,
        tokenizer: WordPieceTokenizer,
        *,
        name: str = "critic",
        window_tokens: int = 512,
        thresholds: Mapping[str, float] | None = None,
        device: str = "auto",
        dtype: str = "auto",
        batch_tokens: int | None = None,
        digest: str = "",
        padded_attention: bool | None = None,
    ) -> None:
        """
        Args:
            batch_tokens: tokens of one forward pass, prefixes included; with padded attention, filling included.
            digest: tells these weights from others, for caches; empty for no caching.
            padded_attention: attend to all windows of a batch at once, in rows of one length; None: on CUDA alone.
        """
        self.name = name
        self.digest = digest
        self.tokenizer = tokenizer
        self.window_tokens = window_tokens
        self.thresholds: Mapping[str, float] = dict(thresholds or {})
        self.device = resolve_device(device)
        self.dtype = resolve_dtype(dtype, self.device)
        if self.device.type == "cpu":
            bound_threads()
            usual = min(_WINDOWS_PER_THREAD * window_tokens * torch.get_num_threads(), _LARGEST_CPU_BATCH)
        else:
            usual = _BATCH_TOKENS.get(self.device.type, 16_384)
        self.batch_tokens = batch_tokens or usual
        self._padded = self.device.type == "cuda" if padded_attention is None else padded_attention
        self._turn = threading.Lock()
        floating = torch.float32 if self.dtype == torch.int8 else self.dtype
        self._critic = critic.to(device=self.device, dtype=floating).eval()
        if self.dtype == torch.int8:
            self._critic = with_int8_layers(self._critic, self._read_sample)

    @property
    def fingerprint(self) -> str:
        """The checkpoint's content and the number format it runs in; empty for a critic that was never stored."""
        return f"{self.digest} {self.window_tokens} {self.dtype} {self.device.type}" if self.digest else ""

    @property
    def overlaps(self) -> bool:
        """Whether the CPU is free for others while windows run; see `cprs_core.scorer.Scorer`."""
        return self.device.type == "cuda"

    def score(
        self, prefix: Prefix, windows: Sequence[NDArray[np.int32]], on_progress: OnProgress | None = None
    ) -> list[NDArray[np.float32]]:
        """Label probabilities of every window token; see `cprs_core.scorer.Scorer.score`."""
        results: list[NDArray[np.float32]] = [np.empty((0, len(LABELS) * len(prefix.tags)), np.float32)] * len(windows)
        total = sum(len(window) for window in windows)
        done = 0
        plan = _padded_batches if self._padded else _batches
        batches = plan([len(window) for window in windows], len(prefix), self.batch_tokens)
        with self._turn, torch.inference_mode(), on_device(self.device):
            rows = self._tag_rows(prefix)
            sent = (
                Running.of(batch, self._forward(prefix, [windows[index] for index in batch], rows)) for batch in batches
            )
            for batch, scores in finished(sent):
                self._check(scores)
                lengths = [len(windows[index]) for index in batch]
                for index, part in zip(batch, np.split(scores, np.cumsum(lengths)[:-1]), strict=True):
                    results[index] = part
                done += sum(lengths)
                if on_progress is not None:
                    on_progress(done, total)
        return results

    def _read_sample(self, critic: TokenCritic) -> None:
        prefix = self.tokenizer.encode_prefix("Extract the sentences that answer it.", _SAMPLE_QUERY, ("fact",))
        half = self.window_tokens // 2
        begin, end = prefix.asked
        prefix = replace(prefix, ids=prefix.ids[:half], asked=(min(begin, half), min(end, half)))
        room = self.window_tokens - len(prefix)
        with torch.inference_mode():
            scores = self._forward(prefix, [self.tokenizer.encode(_SAMPLE).ids[:room]], self._tag_rows(prefix))
        self._check(scores.numpy())

    def _check(self, scores: NDArray[np.float32]) -> None:
        if np.isnan(scores).any():
            raise CPRSError(
                f"the critic {self.name!r} returned NaN scores in {self.dtype}; load it with dtype='float32'"
            )

    def _tag_rows(self, prefix: Prefix) -> torch.Tensor:
        return self._critic.tag_rows(to_device(self.device, *(self.tokenizer.word_ids(tag) for tag in prefix.tags)))

    def _forward(self, prefix: Prefix, windows: list[NDArray[np.int32]], rows: torch.Tensor) -> torch.Tensor:
        """float32, (sum of lengths, tags * 4), windows in the order given: equal lengths next to each other.

        Between the one copy to the device and what is returned nothing waits for the device.
        """
        p = len(prefix)
        full = np.array([len(window) for window in windows]) + p
        ids = np.concatenate([part for window in windows for part in (prefix.ids, window)])
        rows_of = np.repeat(np.arange(len(windows)), full)
        positions = np.arange(int(full.sum())) - np.repeat(np.cumsum(full) - full, full)
        length = _row_length(int(full.max())) if self._padded else int(full.max())
        packed, places, in_context, lengths = to_device(
            self.device, ids, rows_of * length + positions, np.flatnonzero(positions >= p), full
        )
        padding = Padding.of(lengths, places, length)
        column = places % length
        parts = (column >= p).long()
        # Matching wants rows of one length, whatever attention likes.
        padded_parts = torch.where(padding.is_token, padding.pad(parts), -1)
        asked = torch.tensor([prefix.asked], pin_memory=self.device.type == "cuda")
        matches = self._critic.match_rows(padding.pad(packed), padded_parts, asked, self.tokenizer.unknown_id)
        layout = padding if self._padded and full.min() < full.max() else _groups(full)
        hidden = self._critic.encoder(packed, column, parts, padding.pack(matches), layout)
        scores: torch.Tensor = self._critic(hidden.index_select(0, in_context), rows)
        return scores


def resolve_device(device: str) -> torch.device:
    """The device that a name means here; "auto" is a GPU where there is one.

    Raises:
        DeviceError: no such device here; the message lists those that exist.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    available = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        available.append("mps")
    try:
        resolved = torch.device(device)
    except RuntimeError:
        resolved = None
    name = (
        ""
        if resolved is None
        else f"{resolved.type}:{resolved.index or 0}"
        if resolved.type == "cuda"
        else str(resolved)
    )
    if resolved is None or name not in available:
        raise DeviceError(f"there is no device {device!r} here; choose 'auto' or one of: {', '.join(available)}")
    return resolved


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The number format of the weights; "auto" is bfloat16 on a GPU and int8 on a CPU that has it, else float32.

    "int8" is that of the encoder's linear layers; see `cprs_core.critics.int8`.

    Raises:
        DeviceError: an unknown name, or int8 where the device has no instructions for it.
    """
    if dtype == "auto":
        if device.type == "cpu":
            return torch.int8 if int8_is_supported() else torch.float32
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    if dtype not in _DTYPES:
        raise DeviceError(f"there is no dtype {dtype!r}; choose 'auto' or one of: {', '.join(_DTYPES)}")
    if dtype == "int8" and not (device.type == "cpu" and int8_is_supported()):
        raise DeviceError(f"{device} has no int8 instructions that this torch uses; choose 'auto' or 'float32'")
    return _DTYPES[dtype]


def _batches(lengths: list[int], prefix: int, batch_tokens: int) -> list[list[int]]:
    """Window indices of each forward pass: longest first, at most ``batch_tokens`` tokens together."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    batches: list[list[int]] = []
    room = 0
    for index in order:
        need = lengths[index] + prefix
        if not batches or need > room:
            batches.append([])
            room = batch_tokens
        batches[-1].append(index)
        room -= need
    return batches


def _padded_batches(lengths: list[int], prefix: int, batch_tokens: int) -> list[list[int]]:
    """Window indices of each forward pass: longest first, at most ``batch_tokens`` places of rows together.

    So full batches of one row length have one shape.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    batches: list[list[int]] = []
    row, filling = 0, 0
    for index in order:
        need = lengths[index] + prefix
        filling += row - need
        if not batches or (len(batches[-1]) + 1) * row > batch_tokens or filling > _MOST_FILLING * batch_tokens:
            batches.append([])
            row = _row_length(need)
            filling = row - need
        batches[-1].append(index)
    return batches


def _row_length(tokens: int) -> int:
    return -(-tokens // _ROW_STEP) * _ROW_STEP


def _groups(lengths: NDArray[np.int64]) -> list[tuple[int, int]]:
    """(windows, length) of each run of equal neighbours."""
    starts = np.append(0, np.flatnonzero(np.diff(lengths)) + 1)
    counts = np.diff(np.append(starts, len(lengths)))
    return list(zip(counts.tolist(), lengths[starts].tolist(), strict=True))
