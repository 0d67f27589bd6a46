"""Context compression: keep the text that an instruction and a query ask for, verbatim.

Names are loaded on first use, so that ``import cprs_core`` costs nothing and never imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cprs_core.advice import Advice, ChatPrice, Speed
    from cprs_core.cache import ScoreCache
    from cprs_core.cascade import CascadeScorer, LexicalRanker
    from cprs_core.compressor import Compressor
    from cprs_core.context import Context, ScoredContext
    from cprs_core.deadline import Deadline
    from cprs_core.errors import (
        CheckpointError,
        CPRSError,
        DeadlineError,
        DeviceError,
        InputError,
        MissingExtraError,
        PrefixTooLongError,
        StreamError,
    )
    from cprs_core.instructions import PRESETS, Preset
    from cprs_core.scorer import KeywordScorer, Prefix, Scorer, Tokenizer, Tokens
    from cprs_core.selection import Candidates, Granularity
    from cprs_core.types import Compression, Document, DocumentUsage, ScoredSegment, Span, Usage

__version__ = "0.1.0"

_HOMES = {
    "advice": ("Advice", "ChatPrice", "Speed"),
    "cache": ("ScoreCache",),
    "cascade": ("CascadeScorer", "LexicalRanker"),
    "compressor": ("Compressor",),
    "deadline": ("Deadline",),
    "errors": (
        "CPRSError",
        "InputError",
        "PrefixTooLongError",
        "CheckpointError",
        "DeadlineError",
        "DeviceError",
        "MissingExtraError",
        "StreamError",
    ),
    "instructions": ("PRESETS", "Preset"),
    "scorer": ("KeywordScorer", "Prefix", "Scorer", "Tokenizer", "Tokens"),
    "context": ("Context", "ScoredContext"),
    "selection": ("Candidates", "Granularity"),
    "types": ("Compression", "Document", "DocumentUsage", "ScoredSegment", "Span", "Usage"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "PRESETS",
    "Advice",
    "CPRSError",
    "Candidates",
    "CascadeScorer",
    "ChatPrice",
    "CheckpointError",
    "Compression",
    "Compressor",
    "Context",
    "Deadline",
    "DeadlineError",
    "DeviceError",
    "Document",
    "DocumentUsage",
    "Granularity",
    "InputError",
    "KeywordScorer",
    "LexicalRanker",
    "MissingExtraError",
    "Prefix",
    "PrefixTooLongError",
    "Preset",
    "ScoreCache",
    "ScoredContext",
    "ScoredSegment",
    "Scorer",
    "Span",
    "Speed",
    "StreamError",
    "Tokenizer",
    "Tokens",
    "Usage",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
