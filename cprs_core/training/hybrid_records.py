"""Fine-tuning a Qwen base, or a hybrid critic, on evidence records."""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cprs_core.critics.chat_tokenizer import ChatTokenizer
from cprs_core.critics.hybrid_checkpoint import load_hybrid, save_hybrid
from cprs_core.critics.memory import WeightFormat
from cprs_core.errors import InputError
from cprs_core.instructions import PRESETS
from cprs_core.scorer import LABELS, OUTSIDE, Tokens
from cprs_core.training.hybrid import HybridBatch, HybridTraining, OnStep, TagWords, fit
from cprs_core.training.records import EvidenceSet, Record

_log = logging.getLogger(__name__)

UNCOUNTED = -1
# Weights of a base this large are trained in bfloat16; smaller ones in float32, with bfloat16 arithmetic on a GPU.
_LARGE = 2_000_000_000


def train_hybrid(
    sets: list[EvidenceSet],
    base: Path,
    out: Path,
    config: HybridTraining,
    *,
    batch_tokens: int = 32_768,
    length: int = 2_048,
    on_step: OnStep | None = None,
) -> Path:
    """Fine-tune the Qwen model in ``base`` into a hybrid critic and write it to ``out``.

    Args:
        base: a Qwen2 or Qwen3 model's folder, or a hybrid critic's. Where its ``config.json`` does not say where the
            bidirectional layers begin, the top quarter is.
        length: tokens of a training window, prefix included.

    Returns:
        ``out``, which `Compressor.from_pretrained` loads.

    Raises:
        InputError: there is too little text, or an instruction leaves no room in a window.
        CheckpointError: the base is damaged or of another kind.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(config.seed)
    size = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    form = WeightFormat(torch.bfloat16 if size > 2 * _LARGE else torch.float32)
    critic, critic_config, tokenizer = load_hybrid(base, device, form, new_head=True)
    length = min(length, critic_config.window_tokens)
    tags = sorted({tag for one in sets for record in one.records for tag in _tags(record)})
    words = TagWords.of(tokenizer, tags, critic)
    windows = RecordWindows(sets, tokenizer, tags, length, config.seed)
    rows = max(1, batch_tokens // length)
    began = time.monotonic()
    steps = fit(critic, (windows.batch(rows, device) for _ in iter(int, 1)), words, config, on_step)
    final = replace(critic_config, name=out.name)
    save_hybrid(out, critic, final, tokenizer.to_json())
    summary = {"steps": steps, "seconds": time.monotonic() - began, "settings": asdict(config), "tags": tags}
    (out / "training.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return out


class RecordWindows:
    """Windows of one length drawn from records without end, filled up with other documents instead of padding."""

    def __init__(
        self, sets: list[EvidenceSet], tokenizer: ChatTokenizer, tags: list[str], length: int, seed: int
    ) -> None:
        self._tokenizer = tokenizer
        self._tags = tags
        self._length = length
        self._rng = random.Random(seed)
        self._texts = [tokenizer.encode(text + "\n") for one in sets for text in one.texts]
        self._filler = [index for index, tokens in enumerate(self._texts) if len(tokens)]
        bases = np.cumsum([0, *(len(one.texts) for one in sets)]).tolist()
        self._records = [(record, base) for one, base in zip(sets, bases, strict=False) for record in one.records]
        self._order: list[int] = []
        if not self._filler or not self._records:
            raise InputError("there is nothing to train on: no record, or no text in the documents")

    def batch(self, rows: int, device: torch.device) -> HybridBatch:
        """The next ``rows`` windows."""
        ids, labels, tags = zip(*(next(self._windows()) for _ in range(rows)), strict=True)
        return HybridBatch(
            torch.from_numpy(np.stack(ids)).long().to(device),
            torch.from_numpy(np.stack(labels)).long().to(device),
            torch.tensor(tags, device=device),
        )

    def _windows(self) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int64], int]]:
        while True:
            if not self._order:
                self._order = list(range(len(self._records)))
                self._rng.shuffle(self._order)
            record, base = self._records[self._order.pop()]
            tag = self._rng.choice(_tags(record))
            yield *self._window(record, base, tag), self._tags.index(tag)

    def _window(self, record: Record, base: int, tag: str) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        prefix = self._tokenizer.encode_prefix(_instruction(record, tag), record.query, (tag,)).ids
        room = self._length - len(prefix)
        if room < 32:
            raise InputError(
                f"instruction and query of a record take {len(prefix):,} tokens, a training window holds "
                f"{self._length:,}; shorten the query {record.query[:40]!r}"
            )
        parts = [self._labelled(record, base, document, tag, room) for document in record.documents]
        parts = [part for part in parts if len(part[0])]
        while sum(len(ids) for ids, _ in parts) < room:
            other = self._texts[self._rng.choice(self._filler)].ids
            place = self._rng.randint(0, len(parts))
            parts.insert(place, (other, np.full(len(other), OUTSIDE, dtype=np.int64)))
        ids = np.concatenate([part[0] for part in parts])
        labels = np.concatenate([part[1] for part in parts])
        start = self._start(labels, room)
        ids, labels = ids[start : start + room], labels[start : start + room]
        hidden = np.full(len(prefix), UNCOUNTED, dtype=np.int64)
        return np.concatenate([prefix, ids]), np.concatenate([hidden, labels])

    def _start(self, labels: NDArray[np.int64], room: int) -> int:
        """Where a window begins, so that it holds evidence wherever there is some."""
        latest = len(labels) - room
        begins = np.flatnonzero(labels == LABELS.index("B"))
        if not len(begins):
            return self._rng.randint(0, latest)
        first = int(begins[self._rng.randrange(len(begins))])
        return self._rng.randint(max(0, min(first - room // 2, latest)), min(first, latest))

    def _labelled(
        self, record: Record, base: int, document: int, tag: str, room: int
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Ids and labels of a document of the record."""
        tokens: Tokens = self._texts[base + document]
        labels = np.full(len(tokens), OUTSIDE, dtype=np.int64)
        for item in record.evidence:
            if item.document == document and item.tag.split(":")[0] == tag:
                first, last = np.searchsorted(tokens.starts, [item.start, item.end]).tolist()
                if last > first:
                    labels[first:last] = LABELS.index("I")
                    labels[last - 1] = LABELS.index("E")
                    labels[first] = LABELS.index("B")
        return tokens.ids, labels


def _tags(record: Record) -> list[str]:
    found = {item.tag.split(":")[0] for item in record.evidence} or {record.tag or "fact"}
    return sorted(found)


def _instruction(record: Record, tag: str) -> str:
    """The record's own wording; else the one that a call without an instruction uses, or one that names the tag."""
    if record.instruction:
        return record.instruction
    preset = next((one for one in PRESETS.values() if one.tags == (tag,)), None)
    return preset.text if preset is not None else f"Extract what answers the query; tag it with '{tag}'."
