"""Default thresholds from held-out windows: how high must a score be so that windows without evidence stay empty."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from cprs_core.critics.token_critic import TokenCritic
from cprs_core.scorer import LABELS, OUTSIDE
from cprs_core.selection import KEYWORD_OUTSIDE, decode_spans, surest_tokens
from cprs_core.training.corpus import Corpus
from cprs_core.training.sampling import Batch, WindowSampler
from cprs_core.training.tasks import NO_AUGMENTATION, Source, Vocabulary
from cprs_core.training.views import VIEWS, View

_log = logging.getLogger(__name__)

# Which views speak for which granularity.
_VIEWS: Mapping[str, tuple[str, ...]] = {
    "keyword": ("answer",),
    "sentence": ("fact", "claim"),
    "line": ("turn", "error", "code", "needle"),
    "paragraph": ("document", "passage"),
    "document": ("document",),
}

# Other paragraphs of the same article are about the question too, so fewer windows count as wrongly kept.
_TOPICAL_EMPTY = 0.8

# A threshold is raised up to _SAFE as long as no more than this share of the evidence is lost.
_SAFE, _LOST = 0.1, 0.02


@dataclass(frozen=True)
class Calibration:
    """A granularity's default threshold, and what it does on held-out windows."""

    threshold: float
    empty_kept_empty: float  # share of windows without evidence on which nothing is kept
    evidence_kept: float  # share of evidence kept on windows that hold it


def calibrate(
    critic: TokenCritic,
    corpus: Corpus,
    vocabulary: Vocabulary,
    mixture: list[Source],
    *,
    device: torch.device,
    groups: int = 256,
    batch_groups: int = 32,
    length: int = 512,
    empty: float = 0.95,
    seed: int = 99,
    views: Mapping[str, View] = VIEWS,
) -> dict[str, Calibration]:
    """Thresholds per granularity.

    Args:
        length: tokens of each window.
        groups: queries per granularity, each with one window that holds the evidence and two that do not.
        empty: share of windows without evidence that must stay empty; the threshold is the least that reaches it.
            Held-out windows are full of look-alikes, harder than those of most texts.
    """
    results: dict[str, Calibration] = {}
    for granularity, names in _VIEWS.items():
        if granularity == "sentence":  # where tags of a user's own are kept
            names = (*names, *(name for name in views if name not in VIEWS))
        sources = [
            source
            for source in mixture
            if source.view in names
            and source.set_name not in ("sentences", "cipher")
            and not (source.few_shared or source.stated)
        ]
        if not sources:
            continue
        plain = replace(NO_AUGMENTATION, no_evidence=0.1)
        sampler = WindowSampler(corpus, vocabulary, sources, seed, plain, held_out=True, views=views)
        if not sampler.has_queries:
            continue
        best: list[float] = []
        right: list[float] = []
        for _ in range(max(1, groups // batch_groups)):
            batch = sampler.batch(length, min(groups, batch_groups), 3)
            scores = _score(critic, batch, device, vocabulary.unknown)
            top, found = _spans(scores, batch) if granularity == "keyword" else _sentences(scores, batch)
            best += top
            right += found
        share = empty if granularity not in ("paragraph", "document") else _TOPICAL_EMPTY
        threshold = float(np.clip(np.quantile(best, share), 0.01, 0.95)) if best else 0.5
        if right:  # where even a very low score tells, a higher one that keeps nearly all evidence is safer
            threshold = max(threshold, min(_SAFE, float(np.quantile(right, _LOST))))
        results[granularity] = Calibration(
            threshold,
            float(np.mean(np.array(best) < threshold)) if best else 1.0,
            float(np.mean(np.array(right) >= threshold)) if right else 0.0,
        )
        _log.info("%s: %s", granularity, results[granularity])
    return results


def score_difference(
    critic: TokenCritic,
    other: TokenCritic,
    corpus: Corpus,
    vocabulary: Vocabulary,
    mixture: list[Source],
    *,
    device: torch.device,
    windows: int,
    length: int = 512,
    seed: int = 98,
    views: Mapping[str, View] = VIEWS,
) -> float:
    """Mean absolute difference of two critics' label scores on held-out windows of the mixture, in 0..1."""
    sampler = WindowSampler(corpus, vocabulary, mixture, seed, NO_AUGMENTATION, held_out=True, views=views)
    if not sampler.has_queries:
        return 0.0
    batch = sampler.batch(length, max(1, windows // 3), 3)
    both = [_score(one.to(device).eval(), batch, device, vocabulary.unknown) for one in (critic, other)]
    return float(np.abs(both[0] - both[1])[batch.labels >= 0].mean())


@torch.inference_mode()
def _score(critic: TokenCritic, batch: Batch, device: torch.device, unknown: int) -> NDArray[np.float32]:
    """float32 (w, l, 4): label scores under the first tag word of each window."""
    w, length = batch.ids.shape
    ids = torch.from_numpy(batch.ids).long().to(device)
    parts = torch.from_numpy(batch.parts).long().to(device)
    matches = critic.match_rows(ids, parts, torch.from_numpy(batch.asked).long().to(device), unknown).flatten()
    positions = torch.arange(length, device=device).repeat(w)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
        hidden = critic.encoder(ids.flatten(), positions, parts.flatten(), matches, [(w, length)])
    hidden = hidden.float().view(w, length, -1)
    rows = critic.encoder.words.weight[torch.from_numpy(batch.tag_words[:, :2]).long().to(device)]
    scores = torch.stack([critic(hidden[i], rows[i]) for i in range(w)])
    return scores.cpu().numpy()


def _sentences(scores: NDArray[np.float32], batch: Batch) -> tuple[list[float], list[float]]:
    """Best sentence score of windows without evidence, and the score of every sentence that is evidence."""
    keep = (1.0 - scores[:, :, OUTSIDE]).ravel()
    numbers = batch.sentences.ravel()
    inside = numbers >= 0
    count = len(batch.sentence_windows)
    sums = np.bincount(numbers[inside], weights=keep[inside], minlength=count)
    means = sums / np.maximum(np.bincount(numbers[inside], minlength=count), 1)
    top = np.zeros(len(batch.ids))
    np.maximum.at(top, batch.sentence_windows, means)
    holds = np.zeros(len(batch.ids), dtype=bool)
    holds[batch.sentence_windows[batch.sentence_kept]] = True
    return top[~holds].tolist(), means[batch.sentence_kept].tolist()


def _spans(scores: NDArray[np.float32], batch: Batch) -> tuple[list[float], list[float]]:
    """The same for spans: best decoded span where there is no evidence; for each right span the best that meets it."""
    w, length = batch.ids.shape
    flat = scores.reshape(w * length, len(LABELS)).copy()
    outside = np.zeros(len(LABELS), dtype=np.float32)
    outside[OUTSIDE] = 1.0
    flat[batch.labels.ravel() < 0] = outside
    windows = np.stack([np.arange(w) * length, np.arange(1, w + 1) * length], axis=1)
    first, last = decode_spans(flat, windows, outside_weight=KEYWORD_OUTSIDE)
    sure = surest_tokens(1.0 - flat[:, OUTSIDE], first, last)
    top = np.zeros(w)
    np.maximum.at(top, first // length, sure)
    labels = batch.labels
    holds = (labels == LABELS.index("B")).any(axis=1)
    found = []
    flat_labels = labels.ravel()
    for begin in np.flatnonzero(flat_labels == LABELS.index("B")).tolist():
        end = begin + 1
        while end < len(flat_labels) and flat_labels[end] in (LABELS.index("I"), LABELS.index("E")):
            end += 1
        meets = (first < end) & (last >= begin)
        found.append(float(sure[meets].max()) if meets.any() else 0.0)
    return top[~holds].tolist(), found
