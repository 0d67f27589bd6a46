"""The only rooms that import torch: encoders, the token-critic head, checkpoints, and what runs them."""

from __future__ import annotations

import json
import os
from importlib.resources import files
from pathlib import Path

from cprs_core.critics.runtime import CriticScorer
from cprs_core.scorer import Scorer

EMBEDDED = "cprs-mini"


def embedded_folder() -> Path:
    """Where the critic inside the package lives."""
    return Path(str(files("cprs_core"))) / "weights" / EMBEDDED


def load_scorer(path: str | os.PathLike[str] | None = None, *, device: str = "auto", dtype: str = "auto") -> Scorer:
    """The scorer of a critic's folder, of one on the hub, or of the embedded critic.

    Which kind of critic a folder holds is read from its ``config.json``. See `Compressor.from_pretrained`.
    """
    folder = critic_folder(path)
    if _is_hybrid(folder):
        from cprs_core.critics.hybrid_loading import load_hybrid_scorer

        return load_hybrid_scorer(folder, device=device, dtype=dtype)
    from cprs_core.critics.checkpoint import digest, load_critic

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


def critic_folder(path: str | os.PathLike[str] | None = None) -> Path:
    """The folder that `load_scorer` reads: the embedded critic's, the one given, or where one of the hub lies here."""
    folder = embedded_folder() if path is None else Path(path)
    if not folder.exists() and path is not None:
        from cprs_core.critics.hybrid_checkpoint import find_folder

        return find_folder(os.fspath(path))
    return folder


def _is_hybrid(folder: Path) -> bool:
    """Whether ``config.json`` is one of transformers; asked without importing it, since the small critic needs none."""
    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False  # the small critic's loader says what is wrong
    return isinstance(settings, dict) and "model_type" in settings and "kind" not in settings
