"""The only rooms that import torch: encoders, the token-critic head, checkpoints, and what runs them."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from cprs_core.critics.runtime import CriticScorer

EMBEDDED = "cprs-mini"


def embedded_folder() -> Path:
    """Where the critic inside the package lives."""
    return Path(str(files("cprs_core"))) / "weights" / EMBEDDED


def load_scorer(path: Path | None = None, *, device: str = "auto", dtype: str = "auto") -> CriticScorer:
    """The scorer of a critic's folder, or of the embedded critic. See `Compressor.from_pretrained`."""
    from cprs_core.critics.checkpoint import digest, load_critic

    folder = embedded_folder() if path is None else path
    critic, config, tokenizer = load_critic(folder)
    return CriticScorer(
        critic,
        tokenizer,
        name=config.name,
        window_tokens=config.window_tokens,
        thresholds=config.thresholds,
        device=device,
        dtype=dtype,
        digest=digest(folder),
    )
