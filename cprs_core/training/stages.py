"""The runs that `cprs-mini` is the average of, one after another."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from cprs_core.critics.checkpoint import load_critic
from cprs_core.training.average import average_critics
from cprs_core.training.corpus import Corpus
from cprs_core.training.losses import LossWeights
from cprs_core.training.recipe import MIXTURE, TEACHER_SETS
from cprs_core.training.tasks import Augmentation, Source
from cprs_core.training.train import OnStep, TrainingConfig, prepare_vocabulary, train, write_calibrated
from cprs_core.training.views import VIEWS

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """One run of the recipe.

    Attributes:
        after: the stage whose critic it starts from; None for the untrained base.
        scale: factors of the shares of sources, by set and view.
        share: its weight in the average that is the result; 0 for a stage that others only start from.
    """

    name: str
    after: str | None
    steps: int
    learning_rate: float = 2.5e-4
    losses: LossWeights = field(default_factory=LossWeights)
    augmentation: Augmentation = field(default_factory=lambda: Augmentation(likeness=0.0))
    scale: Mapping[tuple[str, str], float] = field(default_factory=dict)
    share: float = 0.0

    def mixture(self) -> list[Source]:
        """`MIXTURE` with this stage's factors."""
        factors = [self.scale.get((source.set_name, source.view), 1.0) for source in MIXTURE]
        return [replace(source, weight=source.weight * by) for source, by in zip(MIXTURE, factors, strict=True)]


# What the log in docs/critic.md calls C, E, F and G. C was trained before half of the tasks were there.
STAGES = (
    Stage("c", None, 6_000),
    Stage("e", "c", 5_800, share=3.0),
    Stage(
        "f",
        "c",
        5_800,
        losses=LossWeights(teacher=1.0, borders=0.4),
        augmentation=Augmentation(likeness=0.0, lone_evidence=0.35, cut_evidence=0.1),
        share=1.0,
    ),
    Stage(
        "g",
        "e",
        5_100,
        learning_rate=2.2e-4,
        losses=LossWeights(teacher=0.5),
        augmentation=Augmentation(likeness=0.18, joined=0.06),
        scale={("synthetic", view): 1.4 for view in ("needle", "profile")},
        share=1.0,
    ),
)


def train_stages(
    prepared: Path,
    out: Path,
    config: TrainingConfig,
    stages: Sequence[Stage] = STAGES,
    *,
    steps: int | None = None,
    learning_rate: float | None = None,
    on_step: OnStep | None = None,
) -> Path:
    """Train the stages one after another and write their average to ``out``.

    Stages that are finished are not trained again, and one that was killed goes on from its last saved state.

    Args:
        prepared: what `prepare` wrote; each stage gets a folder in it.
        config: settings that all stages share.
        steps, learning_rate: of every stage, in place of its own.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    corpus, base = Corpus.load(prepared / "corpus.xz"), prepared / "base"
    untrained, _, tokenizer = load_critic(base)
    vocabulary = prepare_vocabulary(corpus, untrained, tokenizer, device, untrained.encoder, VIEWS, TEACHER_SETS)
    folders = {stage.name: prepared / stage.name for stage in stages}
    for stage in stages:
        if (folders[stage.name] / "training.json").exists():
            _log.info("stage %s is finished", stage.name)
            continue
        settings = replace(
            config,
            name=stage.name,
            steps=steps or stage.steps,
            learning_rate=learning_rate or stage.learning_rate,
            losses=stage.losses,
            augmentation=stage.augmentation,
        )
        _log.info("stage %s: %d steps", stage.name, settings.steps)
        start = folders[stage.after] if stage.after else base
        train(
            corpus,
            start,
            folders[stage.name],
            stage.mixture(),
            settings,
            teacher=base,
            teacher_sets=TEACHER_SETS,
            prepared=vocabulary,
            resume=True,
            on_step=on_step,
        )
    critic, averaged = average_critics({folders[one.name]: one.share for one in stages if one.share}, config.name)
    words = (base / "tokenizer.json").read_text(encoding="utf-8")
    write_calibrated(
        critic.to(device),
        averaged,
        out,
        words,
        corpus,
        vocabulary[0],
        MIXTURE,
        config,
        device=device,
        summary={"stages": {one.name: one.share for one in stages}},
    )
    return out
