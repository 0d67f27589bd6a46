"""Teaching a hybrid critic: a Qwen decoder learns borders, and which word names what a token belongs to.

Losses as in QwenLong-CPRS (arXiv 2505.18092, 3.1): positions and tag word 1:1, half of the outside tokens left out.
Windows of a batch have one length, because a padding mask would make every layer causal.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cprs_core.critics.chat_tokenizer import ChatTokenizer
from cprs_core.critics.hybrid import HybridCritic
from cprs_core.scorer import OUTSIDE

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HybridTraining:
    """What a run can be told.

    Attributes:
        steps: optimizer steps; with ``seconds`` whichever ends first, the learning rate falling to 0 with it.
        focal: exponent of the focal position loss; 0 for cross-entropy.
        outside: the chance that an outside token counts.
        tag: weight of the tag word's loss.
    """

    steps: int = 2_500
    seconds: float | None = None
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.05
    focal: float = 0.0
    outside: float = 0.5
    tag: float = 1.0
    seed: int = 1
    compile_layers: bool = False
    checkpointing: bool = False
    log_steps: int = 100


@dataclass(frozen=True)
class HybridBatch:
    """Windows of one length on the critic's device.

    ``ids`` (int64, (w, n)); ``labels`` (int64, (w, n)): index into `cprs_core.scorer.LABELS`, -1 for positions that do
    not count; ``tags`` (int64, (w,)): index into `TagWords.tags`.
    """

    ids: Tensor
    labels: Tensor
    tags: Tensor


@dataclass(frozen=True)
class TagWords:
    """Ids of the words that tokens are named by: int64 (pieces,) for each tag, and for "nothing of the kind"."""

    tags: list[Tensor]
    outside: Tensor | None

    @classmethod
    def of(cls, tokenizer: ChatTokenizer, tags: Sequence[str], critic: HybridCritic) -> TagWords:
        """The ids of ``tags`` and of the critic's own outside word, on the critic's device."""
        device = critic.model.embed_tokens.weight.device
        outside = torch.tensor(critic.outside_ids, device=device) if critic.outside_ids else None
        return cls([torch.from_numpy(tokenizer.word_ids(tag)).long().to(device) for tag in tags], outside)


OnStep = Callable[[int, float, dict[str, float]], None]  # step, progress in 0..1, losses


def hybrid_losses(
    critic: HybridCritic, batch: HybridBatch, words: TagWords, config: HybridTraining
) -> dict[str, Tensor]:
    """Losses by name, and "loss", their weighted sum. Nothing here makes the host wait for the device."""
    hidden = critic(batch.ids)  # (w, n, hidden)
    drawn = torch.rand(batch.labels.shape, device=hidden.device) < config.outside
    counts = ((batch.labels != OUTSIDE) | drawn) & (batch.labels >= 0)
    share = counts.float() / counts.sum().clamp_min(1)  # (w, n)
    target = batch.labels.clamp_min(0)
    logs = critic.cls_head(hidden).float().log_softmax(-1)  # (w, n, 4)
    right = logs.gather(-1, target[..., None]).squeeze(-1)
    hard = (1.0 - right.exp()) ** config.focal if config.focal else 1.0
    losses = {"position": -(hard * right * share).sum()}
    total = losses["position"]
    if critic.tag_head is not None and words.outside is not None:
        outside = critic.words[words.outside].mean(dim=0)  # (hidden,)
        rows = torch.stack([critic.words[ids].mean(dim=0) for ids in words.tags])  # (tags, hidden)
        named = torch.einsum("wnh,wh->wn", hidden, rows[batch.tags].to(hidden.dtype)).float()
        against = (hidden @ outside.to(hidden.dtype)).float()
        inside = (target != OUTSIDE).float()
        tag = F.binary_cross_entropy_with_logits(named - against, inside, reduction="none")
        losses["tag"] = (tag * share).sum()
        total = total + config.tag * losses["tag"]
    return losses | {"loss": total}


def fit(
    critic: HybridCritic,
    batches: Iterable[HybridBatch],
    words: TagWords,
    config: HybridTraining,
    on_step: OnStep | None = None,
) -> int:
    """Trains a critic where it lies and returns the steps done; weights stay in their own number format."""
    torch.manual_seed(config.seed)
    device = critic.model.embed_tokens.weight.device
    critic.train().requires_grad_(True)
    if config.checkpointing:
        critic.model.gradient_checkpointing_enable({"use_reentrant": False})
    if config.compile_layers:
        critic.compile_layers(dynamic=False)
    matrices = [p for p in critic.parameters() if p.dim() > 1]
    others = [p for p in critic.parameters() if p.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    on_gpu = device.type == "cuda"
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98), fused=on_gpu)
    began = time.monotonic()
    step = 0
    for batch in batches:
        elapsed = time.monotonic() - began
        progress = max(step / config.steps, elapsed / config.seconds if config.seconds else 0.0)
        if progress >= 1.0:
            break
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * _schedule(progress, config.warmup)
        with torch.autocast(device.type, torch.bfloat16, enabled=on_gpu):
            losses = hybrid_losses(critic, batch, words, config)
        losses["loss"].backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(critic.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        if on_step is not None and step % config.log_steps == 0:
            on_step(step, progress, {name: float(value.detach()) for name, value in losses.items()})
    critic.eval().requires_grad_(False)
    _log.info("%d steps in %.0f s", step, time.monotonic() - began)
    return step


def init_matching(critic: HybridCritic, seed: int) -> None:
    """New weights with which equal tokens attend to each other from the first step on.

    Queries and keys begin as the same projection, so finding a key of the question in the text need not be discovered
    (after mimetic initialisation, Trockman and Kolter, arXiv 2305.09828). Training from scratch is much shorter so.
    """
    generator = torch.Generator().manual_seed(seed)
    hidden = critic.model.config.hidden_size
    depth = len(critic.layers)
    with torch.no_grad():
        for name, parameter in critic.named_parameters():
            if parameter.dim() <= 1:
                parameter.fill_(1.0 if "norm" in name else 0.0)
                continue
            std = hidden**-0.5
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                std = parameter.shape[1] ** -0.5 / math.sqrt(2 * depth)
            elif name.startswith("cls_head"):
                std = 0.02
            elif "embed_tokens" in name or "lm_head" in name:
                std = 0.05
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
        for layer in critic.layers:
            attention: Any = layer.self_attn
            if attention.k_proj.weight.shape == attention.q_proj.weight.shape:
                attention.k_proj.weight.copy_(attention.q_proj.weight)


def _schedule(progress: float, warmup: float) -> float:
    """Linear rise, then a cosine fall to 0."""
    if progress < warmup:
        return max(progress, 1e-3) / warmup
    return 0.5 * (1.0 + math.cos(math.pi * (progress - warmup) / (1.0 - warmup)))
