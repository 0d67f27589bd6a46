"""What a question needs of a long conversation: whole turns of it, or lines of what was shortened or left out."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import numpy as np

from cprs_integrations.adapting import Compresses
from cprs_integrations.ranking import CountTokens, Goal, counter_of, score_pieces

GAP = "[…]"  # stands where turns were left out

# A line that scores less has too little to do with the request to be worth its tokens: of the turns of long dialogues
# that have nothing to do with a question, 99 in 100 score below 0.1.
RECALL_FLOOR = 0.25

_PIECE_CHARACTERS = 400
_READ_CHARACTERS = 20_000  # everything that was ever shortened is looked through: word statistics choose what is read
_LINE = re.compile(rf"[^\n]{{1,{_PIECE_CHARACTERS}}}")


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


def recall_lines(
    texts: Sequence[str],
    goal: Goal,
    *,
    compressor: Compresses,
    max_tokens: int,
    count_tokens: CountTokens,
    seen: Collection[str] = (),
) -> str:
    """Lines of texts that were shortened or left out, as far as the goal needs them; empty where nothing does.

    Args:
        texts: in the order in which they came.
        seen: lines that are in sight anyway.
    """
    lines = dict.fromkeys(line for text in texts for line in _LINE.findall(text))
    pieces = [line for line in lines if line.strip() and line not in seen]
    if not pieces or goal.is_empty:
        return ""
    scores = score_pieces([f"{piece}\n" for piece in pieces], goal, compressor, read_characters=_READ_CHARACTERS)
    left = max_tokens
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable").tolist():
        if scores[index] < RECALL_FLOOR or left < 8:
            break
        price = count_tokens(pieces[index]) + 3  # the line break, and perhaps a gap mark
        if price <= left:
            left -= price
            kept.append(index)
    return join_turns(pieces, sorted(kept))
