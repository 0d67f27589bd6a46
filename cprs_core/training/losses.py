"""What a critic is taught: borders, names, which sentences win, and what the backbone knew."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cprs_core.critics.token_critic import TokenCritic
from cprs_core.scorer import LABELS, OUTSIDE


@dataclass(frozen=True)
class LossWeights:
    """Shares of the loss. ``outside`` is the chance that an outside token counts (half in arXiv 2505.18092, 3.1)."""

    position: float = 1.0
    tag: float = 0.3
    sentence: float = 0.5
    competition: float = 0.5
    borders: float = 0.2
    teacher: float = 0.35
    outside: float = 0.5


class TrainingCritic(nn.Module):
    """A critic that returns its losses for a batch; one module, so that it can be wrapped for several GPUs."""

    def __init__(self, critic: TokenCritic, weights: LossWeights, unknown: int) -> None:
        """``unknown`` is the id of unknown words, which match nothing."""
        super().__init__()
        self.critic = critic
        self.unknown = unknown
        self.weights = weights

    def forward(self, batch: dict[str, Tensor], embeddings: Tensor | None) -> dict[str, Tensor]:
        """Losses by name, and "loss", their weighted sum.

        Args:
            batch: tensors named and shaped as in `cprs_core.training.sampling.Batch`.
            embeddings (float16, (queries + sentences, hidden)): the teacher's; None to leave it out.
        """
        ids, labels = batch["ids"], batch["labels"].long()
        w, length = ids.shape
        positions = torch.arange(length, device=ids.device).repeat(w)
        parts = batch["parts"].long()
        matches = self.critic.match_rows(ids.long(), parts, batch["asked"].long(), self.unknown)
        hidden = self.critic.encoder(ids.flatten(), positions, parts.flatten(), matches.flatten(), [(w, length)])
        logits = self.critic.position_head(hidden).float()  # (w * length, 4)
        flat = labels.flatten()
        counted = self._counted(flat)
        losses = {"position": F.cross_entropy(logits[counted], flat[counted])}
        losses["tag"] = self._tag_loss(
            hidden.view(w, length, -1), batch["tag_words"], batch["tags"], counted.view(w, length)
        )
        if bool((~batch["competing"]).any()):
            losses["borders"] = self._border_loss(logits, flat, batch)
        if len(batch["sentence_windows"]):
            losses |= self._sentence_losses(logits, batch, embeddings)
        total = torch.zeros((), device=ids.device)
        for name, value in losses.items():
            total = total + getattr(self.weights, name) * value
        losses["loss"] = total
        return losses

    def _counted(self, labels: Tensor) -> Tensor:
        """Tokens that count: all inside spans, a random share of those outside."""
        return (labels >= 0) & (
            (labels != OUTSIDE) | (torch.rand(labels.shape, device=labels.device) < self.weights.outside)
        )

    def _tag_loss(self, hidden: Tensor, tag_words: Tensor, tags: Tensor, counted: Tensor) -> Tensor:
        rows = self.critic.encoder.words.weight[tag_words.long()]  # (w, words, hidden)
        logits = self.critic.tag_logits(hidden, rows.to(hidden.dtype)).float()  # (w, length, words)
        return F.cross_entropy(logits[counted], tags[counted].long())

    def _border_loss(self, logits: Tensor, labels: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Where spans are shorter than sentences, first tokens compete over the whole group, and so do last ones."""
        length = batch["ids"].shape[1]
        inside = ((labels >= 0) & (~batch["competing"]).repeat_interleave(length)).nonzero().squeeze(1)
        logits, labels = logits[inside], labels[inside]
        groups = batch["groups"].long().repeat_interleave(length)[inside]
        everywhere = torch.ones_like(labels, dtype=torch.bool)
        losses = [
            competition(logits[:, label] - logits[:, OUTSIDE], labels == label, groups, everywhere)
            for label in (LABELS.index("B"), LABELS.index("E"))
        ]
        return torch.stack(losses).mean()

    def _sentence_losses(
        self, logits: Tensor, batch: dict[str, Tensor], embeddings: Tensor | None
    ) -> dict[str, Tensor]:
        keep = keep_logits(logits)
        numbers = batch["sentences"].flatten().long()
        count = len(batch["sentence_windows"])
        inside = numbers >= 0
        numbers = numbers.clamp_min(0)
        sums = torch.zeros(count, device=keep.device).index_add(0, numbers, keep * inside)
        sizes = torch.zeros(count, device=keep.device).index_add(0, numbers, inside.float())
        scores = sums / sizes.clamp_min(1.0)  # (s,)
        windows = batch["sentence_windows"].long()
        competing = batch["competing"][windows]
        kept = batch["sentence_kept"]
        share = competing.float()
        sentence = F.binary_cross_entropy_with_logits(scores, kept.float(), reduction="none")
        losses = {"sentence": (sentence * share).sum() / share.sum().clamp_min(1.0)}
        losses["competition"] = competition(scores, kept, batch["groups"].long()[windows], competing)
        if embeddings is not None:
            losses["teacher"] = self._teacher_loss(scores, windows, batch, embeddings)
        return losses

    def _teacher_loss(self, scores: Tensor, windows: Tensor, batch: dict[str, Tensor], embeddings: Tensor) -> Tensor:
        """Divergence of the critic's ranking inside each window from the teacher's similarities (temperature 0.05)."""
        queries = batch["teacher_queries"].long()
        taught = (queries >= 0)[windows]
        likeness = (
            (embeddings[queries.clamp_min(0)[windows]] * embeddings[batch["teacher_sentences"].long()]).float().sum(-1)
        )
        target = window_log_softmax(likeness / 0.05, windows, len(queries))
        ours = window_log_softmax(scores, windows, len(queries))
        divergence = target.exp() * (target - ours)
        return (divergence * taught).sum() / (queries >= 0).sum().clamp_min(1)


def keep_logits(logits: Tensor) -> Tensor:
    """Log-odds that a token is kept: (n, 4) label logits -> (n,)."""
    inside = torch.cat([logits[:, :OUTSIDE], logits[:, OUTSIDE + 1 :]], dim=1)
    return torch.logsumexp(inside, dim=1) - logits[:, OUTSIDE]


def competition(scores: Tensor, kept: Tensor, groups: Tensor, competing: Tensor) -> Tensor:
    """Every kept sentence against all dropped ones of its group and against "nothing", whose score is 0.

    A group without a kept sentence is won by "nothing".
    """
    count = int(groups.max()) + 1 if len(groups) else 0
    others = torch.zeros(count, device=scores.device).index_add(
        0, groups, scores.clamp(max=30.0).exp() * (competing & ~kept)
    )
    against = torch.log1p(others)  # (groups,)
    right = competing & kept
    wins = F.softplus(against[groups] - scores) * right
    has_right = torch.zeros(count, device=scores.device).index_add(0, groups, right.float())
    per_group = torch.zeros(count, device=scores.device).index_add(0, groups, wins) / has_right.clamp_min(1.0)
    present = torch.zeros(count, device=scores.device).index_add(0, groups, competing.float()) > 0
    return torch.where(has_right > 0, per_group, against)[present].sum() / present.sum().clamp_min(1)


def window_log_softmax(scores: Tensor, windows: Tensor, count: int) -> Tensor:
    """Log-softmax of sentence scores among those of the same window."""
    top = torch.full((count,), -1e30, device=scores.device).scatter_reduce(0, windows, scores.detach(), "amax")
    shifted = scores - top[windows]
    sums = torch.zeros(count, device=scores.device).index_add(0, windows, shifted.exp())
    return shifted - sums.clamp_min(1e-30).log()[windows]
