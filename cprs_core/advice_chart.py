"""The advisor's chart: money and seconds per question against the length of the context, both ways."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np

from cprs_core.advice import Advice
from cprs_core.errors import InputError, MissingExtraError

_LENGTHS = np.unique(np.geomspace(1_000, 1_000_000, 60).astype(int)).tolist()
_SUFFIXES = (".png", ".svg", ".pdf")


def check_chart(path: Path) -> None:
    """Raises InputError where no chart can be drawn into such a file."""
    if path.suffix.lower() not in _SUFFIXES:
        raise InputError(f"cannot draw {path.name!r}; name a file that ends with {', '.join(_SUFFIXES)}")


def write_chart(advice: Advice, path: Path) -> None:
    """Draws into a PNG, SVG or PDF file.

    Raises:
        InputError: a file of another kind.
        MissingExtraError: matplotlib is not installed.
    """
    check_chart(path)
    rows = [advice.at(tokens) for tokens in _LENGTHS]
    panels = []
    if advice.direct_dollars > 0 or advice.compressed_dollars > 0:
        panels.append(("US dollars per question", "direct_dollars", "compressed_dollars", advice.dollars_from))
    if advice.direct_seconds is not None:
        panels.append(("seconds to the first token", "direct_seconds", "compressed_seconds", advice.seconds_from))
    if not panels:
        raise InputError("nothing to draw: the price is 0 and the chat model's time to its first token is unknown")
    try:
        figure_type = importlib.import_module("matplotlib.figure").Figure
    except ImportError:
        raise MissingExtraError("matplotlib", "bench", "a chart") from None
    figure = figure_type(figsize=(5.2 * len(panels), 3.6), layout="constrained")
    for axes, (label, direct, compressed, first) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        axes.plot(_LENGTHS, [getattr(row, direct) for row in rows], color="#5b6b7a", label="direct")
        axes.plot(_LENGTHS, [getattr(row, compressed) for row in rows], color="#1b6ca8", label="compressed")
        if first is not None and _LENGTHS[0] < first < _LENGTHS[-1]:
            axes.axvline(first, color="#c0562b", linestyle="--", label=f"pays from {first:,}")
        axes.axvline(advice.tokens, color="#dddddd", zorder=0)
        axes.set(xscale="log", yscale="log", xlabel="tokens of context", ylabel=label)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)
    figure.suptitle(f"{advice.price.model or 'chat model'}: {advice.speed.tokens_per_second:,.0f} tokens/s compressed")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
