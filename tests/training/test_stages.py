"""The recipe's runs and their average, with a tiny critic."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cprs_core import Compressor, InputError
from cprs_core.critics.checkpoint import load_critic, save_critic
from cprs_core.training.average import average_critics
from cprs_core.training.stages import STAGES, train_stages
from cprs_core.training.train import TrainingConfig
from tests.core.tiny import tiny_critic, tiny_tokenizer

TINY = TrainingConfig(name="tiny", batch_tokens=640, lengths=((128, 1.0),), held_out=3)


def save_with(folder: Path, value: float, layers: int = 2) -> Path:
    critic, config = tiny_critic()
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.fill_(value)
    encoder = replace(config.encoder, layers=layers)
    save_critic(folder, critic, replace(config, encoder=encoder), tiny_tokenizer().to_str(), small=False)
    return folder


def test_an_average_weighs_each_critic_by_its_share(tmp_path: Path) -> None:
    shares = {save_with(tmp_path / "a", 1.0): 3.0, save_with(tmp_path / "b", 5.0): 1.0}
    critic, config = average_critics(shares, "both")
    assert all(torch.allclose(parameter, torch.tensor(2.0)) for parameter in critic.parameters())
    assert config.name == "both"


@pytest.mark.parametrize("share", [0.0, -1.0])
def test_a_share_that_is_not_positive_is_refused(tmp_path: Path, share: float) -> None:
    with pytest.raises(InputError, match="shares above 0"):
        average_critics({save_with(tmp_path / "a", 1.0): share}, "none")


def test_the_shares_of_the_recipe_are_those_of_the_model_card() -> None:
    assert {stage.name: stage.share for stage in STAGES if stage.share} == {"e": 3.0, "f": 1.0, "g": 1.0}
    names = [stage.name for stage in STAGES]
    assert all(stage.after is None or stage.after in names[: names.index(stage.name)] for stage in STAGES)


def test_stages_are_trained_in_turn_and_finished_ones_are_kept(prepared: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    train_stages(prepared, out, TINY, steps=1)
    told = json.loads((out / "training.json").read_text(encoding="utf-8"))
    assert told["stages"] == {"c": 0.0, "e": 3.0, "f": 1.0, "g": 1.0}
    assert told["storage_difference"] >= 0
    before = {stage.name: (prepared / stage.name / "model.safetensors").stat().st_mtime_ns for stage in STAGES}
    train_stages(prepared, out, TINY, steps=1)
    assert before == {stage.name: (prepared / stage.name / "model.safetensors").stat().st_mtime_ns for stage in STAGES}
    assert load_critic(out)[1].name == "tiny"
    assert Compressor.from_pretrained(out, device="cpu").score("Ada signed the lease.", "Who signed?")
