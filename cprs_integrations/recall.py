"""What a question needs of a long conversation: whole turns of it, or lines of what was shortened or left out."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import numpy as np

from cprs_integrations.adapting import Compresses
from cprs_integrations.ranking import (
    LEXICAL_WEIGHT,
    CountTokens,
    Goal,
    counter_of,
    holds_rare_words,
    read_pieces,
    score_pieces,
)
from cprs_integrations.tool_output.json_output import json_records

GAP = "[…]"  # stands where turns were left out

# A line of which the critic thinks less has too little to do with the request to be worth its tokens, unless it holds a
# rare word of the request. Of the turns of long dialogues that do not answer a question, 98 in 100 score less.
CRITIC_FLOOR = 0.1

_PIECE_CHARACTERS = 600
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


def _records(text: str) -> list[str]:
    """Records of JSON, lines of anything else; none longer than `_PIECE_CHARACTERS`."""
    return [piece for record in json_records(text) or [text] for piece in _LINE.findall(record)]


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
    lines = dict.fromkeys(line for text in texts for line in _records(text))
    pieces = [line for line in lines if line.strip() and line not in seen and not line.startswith("[cprs: ")]
    if not pieces or goal.is_empty:
        return ""
    lines_read = [f"{piece}\n" for piece in pieces]
    critic, lexical = read_pieces(lines_read, goal, compressor, read_characters=_READ_CHARACTERS)
    scores = critic + LEXICAL_WEIGHT * lexical
    scores[(critic < CRITIC_FLOOR) & ~holds_rare_words(pieces, goal.query)] = 0.0
    left = max_tokens
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable").tolist():
        if scores[index] <= 0.0 or left < 8:
            break
        price = count_tokens(pieces[index]) + 3  # the line break, and perhaps a gap mark
        if price <= left:
            left -= price
            kept.append(index)
    return join_turns(pieces, sorted(kept))
