"""Teaching a hybrid critic: a Qwen decoder learns borders, and which word names what a token belongs to.

Losses as in QwenLong-CPRS (arXiv 2505.18092, 3.1): positions and tag word 1:1, half of the outside tokens left out.
Windows of a batch have one length, because a padding mask would make every layer causal.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

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
    learning_rate: float = 2e-3
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
    not count; ``tags`` (int64, (w,)): row of ``tag_ids``, the ids of the tag words, of each window.
    """

    ids: Tensor
    labels: Tensor
    tags: Tensor


OnStep = Callable[[int, float, dict[str, float]], None]  # step, progress in 0..1, losses


def hybrid_losses(
    critic: HybridCritic, batch: HybridBatch, tag_ids: list[Tensor], config: HybridTraining
) -> dict[str, Tensor]:
    """Losses by name, and "loss", their weighted sum.

    Args:
        tag_ids: int64 (pieces,) ids of every tag word that the batch may name.
    """
    hidden = critic(batch.ids)  # (w, n, hidden)
    labels = batch.labels
    counts = (labels != OUTSIDE) | (torch.rand(labels.shape, device=labels.device) < config.outside)
    counts &= labels >= 0
    chosen = hidden[counts]  # (tokens, hidden)
    target = labels[counts]
    logits = critic.cls_head(chosen).float()
    if config.focal:
        logs = logits.log_softmax(-1)
        right = logs.gather(1, target[:, None]).squeeze(1)
        losses = {"position": (-((1.0 - right.exp()) ** config.focal) * right).mean()}
    else:
        losses = {"position": F.cross_entropy(logits, target)}
    total = losses["position"]
    if critic.tag_head is not None and critic.outside_ids:
        outside = critic.words[list(critic.outside_ids)].mean(dim=0)
        words = torch.stack([critic.words[ids].mean(dim=0) for ids in tag_ids])  # (tags, hidden)
        of_token = batch.tags[:, None].expand_as(labels)[counts]
        named = (chosen * words[of_token].to(chosen.dtype)).sum(-1).float()
        against = (chosen @ outside.to(chosen.dtype)).float()
        losses["tag"] = F.binary_cross_entropy_with_logits(named - against, (target != OUTSIDE).float())
        total = total + config.tag * losses["tag"]
    return losses | {"loss": total}


def fit(
    critic: HybridCritic,
    batches: Iterable[HybridBatch],
    tag_ids: list[Tensor],
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
        for layer in critic.layers:
            layer.compile(dynamic=False)
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
            losses = hybrid_losses(critic, batch, tag_ids, config)
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
