"""Several critics as one: the average of their weights, with thresholds of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from cprs_core.critics.checkpoint import CriticConfig, load_critic
from cprs_core.critics.token_critic import TokenCritic
from cprs_core.errors import InputError


def average_critics(shares: Mapping[Path, float], name: str) -> tuple[TokenCritic, CriticConfig]:
    """The weighted average of critics that were trained from the same one (arXiv 2203.05482).

    Args:
        shares: a critic's folder, and how much it weighs; any positive numbers.
        name: the result's name. Its other settings, thresholds too, are those of the first critic.

    Raises:
        InputError: no critics, a share that is not positive, or critics of different shapes.
    """
    if not shares or min(shares.values()) <= 0:
        raise InputError(f"shares are {list(shares.values())}; pass at least one critic, and shares above 0")
    loaded = [load_critic(folder)[:2] for folder in shares]
    critic, config = loaded[0]
    for folder, (_, other) in zip(shares, loaded, strict=True):
        if other.encoder != config.encoder:
            raise InputError(f"{folder} has another shape than {next(iter(shares))}; only siblings can be averaged")
    total = sum(shares.values())
    states = [(share / total, other.state_dict()) for share, (other, _) in zip(shares.values(), loaded, strict=True)]
    averaged = {
        key: sum((share * state[key].float() for share, state in states), torch.zeros(())).to(value.dtype)
        if value.is_floating_point()
        else value
        for key, value in critic.state_dict().items()
    }
    critic.load_state_dict(averaged)
    return critic, replace(config, name=name)
