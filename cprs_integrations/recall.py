"""Which turns of a long conversation a question needs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cprs_integrations.adapting import Compresses
from cprs_integrations.ranking import CountTokens, Goal, counter_of, score_pieces

GAP = "[…]"  # stands where turns were left out


def recall_turns(
    turns: Sequence[str],
    goal: Goal,
    *,
    compressor: Compresses,
    max_tokens: int,
    count_tokens: CountTokens | None = None,
) -> list[int]:
    """Indices, ascending, of the turns that have most to do with the goal and fit the budget together.

    Args:
        turns: the texts of turns in order; ``role: text`` reads best.
        max_tokens: most tokens of the turns and of the line breaks between them.
    """
    count = count_tokens or counter_of(compressor)
    scores = score_pieces([f"{turn}\n" for turn in turns], goal, compressor)
    left = max_tokens
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable").tolist():
        price = count(turns[index]) + 1
        if price <= left:
            left -= price
            kept.append(index)
        if left < 4:
            break
    return sorted(kept)


def join_turns(turns: Sequence[str], kept: Sequence[int]) -> str:
    """Kept turns in order, a gap mark where turns between them are missing."""
    lines: list[str] = []
    for before, index in zip([None, *kept], kept, strict=False):
        if before is not None and index > before + 1:
            lines.append(GAP)
        lines.append(turns[index])
    return "\n".join(lines)
