"""What every structure needs to shorten a text: who scores, who counts, how much may stay, and how a note reads.

A structure (JSON, log, code, ...) says which pieces a text has and how kept pieces are written down again. Which of
them stay is decided here, the same way for all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cprs_integrations.adapting import Compresses
from cprs_integrations.ranking import CountTokens, Goal, score_pieces

# A line that is not blank, whole. It can only begin where a line does: in a line of a million blanks, every other
# beginning would be tried in vain up to its end.
LINE = re.compile(r"(?<![^\r\n])[^\S\r\n]*+\S[^\r\n]*")

# A note may turn out longer than the one it was measured with, by its numbers.
_NOTE_MARGIN = 4

# Of the best score in a record, what its other parts gain.
_RECORD_SHARE = 0.7


@dataclass(frozen=True)
class Piece:
    """A range of the text that stays or goes as a whole; characters, end exclusive.

    ``prior`` is added to its score; ``needs`` are the indices of pieces that must stay when it does (a header row, the
    signature around a line of code); ``text`` stands for the range where the structure has shortened its inside;
    ``record`` is the number of the record that the piece is a part of: what is wanted of one part is the record, so
    its other parts gain from it.
    """

    start: int
    end: int
    prior: float = 0.0
    needs: tuple[int, ...] = ()
    text: str | None = None
    record: int | None = None


@dataclass(frozen=True)
class Task:
    """One text to shorten.

    Attributes:
        goal: what the text is wanted for.
        max_tokens: most tokens of the result, counted by ``count``, note included.
        note: from what was left out ("12 of 40 lines") to the sentence that says so and names the key.
    """

    goal: Goal
    compressor: Compresses
    count: CountTokens
    max_tokens: int
    note: Callable[[str], str]

    def within(self, max_tokens: int) -> Task:
        """The same task with another budget."""
        return replace(self, max_tokens=max_tokens)


@dataclass(frozen=True)
class Layout:
    """A text as its structure sees it.

    Attributes:
        pieces: in source order, not overlapping.
        render: from the kept indices, ascending, to the shortened text, note included.
        alike: for every piece the number of a group of near-identical pieces (a log line that repeats), or None.
    """

    text: str
    pieces: Sequence[Piece]
    render: Callable[[Sequence[int]], str]
    alike: Sequence[int] | None = None

    def text_of(self, index: int) -> str:
        """What a piece looks like when it is kept."""
        piece = self.pieces[index]
        return self.text[piece.start : piece.end] if piece.text is None else piece.text


def shorten_layout(layout: Layout, task: Task) -> str:
    """The text with the pieces that matter most for the goal, within the budget."""
    pieces = layout.pieces
    priors = np.array([piece.prior for piece in pieces], dtype=np.float32)
    texts = [layout.text_of(index) for index in range(len(pieces))]
    scores = score_pieces(texts, task.goal, task.compressor, priors, layout.alike)
    order = _order(_with_records(scores, pieces), layout.alike)
    costs: dict[int, int] = {}

    def cost(index: int) -> int:
        if index not in costs:
            costs[index] = task.count(texts[index])
        return costs[index]

    chosen = _fill(order, pieces, cost, task.max_tokens - task.count(layout.render([])) - _NOTE_MARGIN)
    return _fit(layout, chosen, task)


def _with_records(scores: NDArray[np.float32], pieces: Sequence[Piece]) -> NDArray[np.float32]:
    """float32, (n,): scores, with a share of the best score of its record for every part of one."""
    best: dict[int, float] = {}
    for piece, score in zip(pieces, scores.tolist(), strict=True):
        if piece.record is not None:
            best[piece.record] = max(best.get(piece.record, 0.0), score)
    gains = [0.0 if piece.record is None else _RECORD_SHARE * best[piece.record] for piece in pieces]
    return scores + np.array(gains, dtype=np.float32)


def _order(scores: NDArray[np.float32], alike: Sequence[int] | None) -> list[int]:
    """Indices, best first; every further piece of a group of look-alikes comes as if it scored less."""
    if alike is None:
        return np.argsort(-scores, kind="stable").tolist()
    lowered = scores.astype(np.float64).copy()
    seen: dict[int, int] = {}
    for index in np.argsort(-scores, kind="stable").tolist():
        seen[alike[index]] = repeats = seen.get(alike[index], -1) + 1
        lowered[index] -= min(0.1 * repeats, 0.5)
    return np.argsort(-lowered, kind="stable").tolist()


def _fill(order: list[int], pieces: Sequence[Piece], cost: Callable[[int], int], room: int) -> list[list[int]]:
    """Best pieces first, each with what it needs, until the room is used: one list of new indices per choice."""
    taken: set[int] = set()
    chosen: list[list[int]] = []
    misfits = 0
    for index in order:
        if index in taken:
            continue
        new = [needed for needed in (*pieces[index].needs, index) if needed not in taken]
        price = sum(map(cost, new))
        if price > room:
            misfits += 1
            if room <= 0 or misfits > 100:
                break
            continue
        room -= price
        taken.update(new)
        chosen.append(new)
    return chosen


def _fit(layout: Layout, chosen: list[list[int]], task: Task) -> str:
    """The longest prefix of the choices whose rendering holds the budget; gap marks cost tokens too."""

    def render(choices: int) -> str:
        return layout.render(sorted(index for new in chosen[:choices] for index in new))

    text = render(len(chosen))
    if task.count(text) <= task.max_tokens:
        return text
    fits, too_many = 0, len(chosen)
    best = render(0)
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        text = render(middle)
        if task.count(text) <= task.max_tokens:
            fits, best = middle, text
        else:
            too_many = middle
    return best


def render_lines(
    text: str,
    pieces: Sequence[Piece],
    kept: Sequence[int],
    note: Callable[[str], str],
    *,
    unit: str,
    gap: Callable[[int, int], str],
) -> str:
    """Kept pieces in source order, one gap mark between pieces that were not neighbours, the note as the last line.

    Args:
        unit: what the pieces are called in the note, in the plural.
        gap: from the first and last index left out to the gap's line; "" for none.
    """
    lines: list[str] = []
    after = -1
    for index in kept:
        if index > after + 1:
            lines.append(gap(after + 1, index - 1))
        lines.append(text[pieces[index].start : pieces[index].end])
        after = index
    if after < len(pieces) - 1 and kept:
        lines.append(gap(after + 1, len(pieces) - 1))
    lines.append(f"[{note(f'kept {len(kept):,} of {len(pieces):,} {unit}')}]")
    return "\n".join(line for line in lines if line)
