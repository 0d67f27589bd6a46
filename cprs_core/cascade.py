"""A scorer made of two: a cheap one looks at every window, a strong one reads only those that may matter.

Unread windows get "outside" scores. Which windows may matter follows from one number in the user's unit, the share of
recall that may be risked, by curves that were measured on held-out training data
(``python benchmarks/long_contexts.py curve``).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cprs_core.curves import CRITIC, LEXICAL, Curve
from cprs_core.deadline import Deadline
from cprs_core.errors import InputError
from cprs_core.lexical import GrowingBM25, asked_ids
from cprs_core.reading import Window, likelihoods, read_until, read_windows
from cprs_core.scorer import OUTSIDE, OnProgress, Prefix, Scorer, Staged, Tokenizer
from cprs_core.windows import plan_windows

# So few windows are all read: choosing among them saves nothing.
ALWAYS_READ = 8


# In a stream the best window may come last. Until one is better, windows are compared with this share of what one that
# has each of the query's words would get: of 100 questions, two have no better window. Measured with the curve.
EXPECTED = 0.5


class Ranker(Protocol):
    """A cheap stage: says of every window how likely it matters.

    Attributes:
        curve: recall lost against the cut, as measured.
        fingerprint: the same exactly where likelihoods are the same.
    """

    @property
    def curve(self) -> Curve: ...
    @property
    def fingerprint(self) -> str: ...

    def rank(
        self, prefix: Prefix, windows: Sequence[Window], tokenizer: Tokenizer, deadline: Deadline | None = None
    ) -> NDArray[np.float32]:
        """float32, (w,), 0 or more: larger is likelier; only ratios mean anything.

        All are equal where there is nothing to go on, and so all are read.

        Args:
            prefix, windows: as the strong scorer gets them.
            tokenizer: the strong scorer's, which made their ids.
            deadline: when to stop; windows not looked at by then are the least likely.
        """


class LexicalRanker:
    """Shared words, weighted by their rarity: BM25 over the strong scorer's token ids, in any language it can spell.

    Without a query there are no words to go by, and every window is as likely as any other.
    """

    fingerprint = "bm25 of word forms"

    def __init__(self, *, curve: Curve = LEXICAL) -> None:
        self.curve = curve

    def rank(
        self, prefix: Prefix, windows: Sequence[Window], tokenizer: Tokenizer, deadline: Deadline | None = None
    ) -> NDArray[np.float32]:
        """See `Ranker.rank`."""
        found = likelihoods(prefix, windows) if prefix.query.strip() else np.zeros(len(windows), dtype=np.float32)
        return found if found.any() else np.ones(len(windows), dtype=np.float32)

    def in_pieces(self) -> WordsSoFar:
        """The same for one context whose windows come in several calls."""
        return WordsSoFar(self.curve)


class WordsSoFar:
    """`LexicalRanker` over one context whose windows come in several calls: how rare a word is says all so far.

    Attributes:
        best: the best likelihood of all windows so far, in the unit of the last call, or what may be expected
            (`EXPECTED`) if that is more.
    """

    fingerprint = LexicalRanker.fingerprint

    def __init__(self, curve: Curve) -> None:
        self.curve = curve
        self.best = 0.0
        self._words: GrowingBM25 | None = None

    def rank(
        self, prefix: Prefix, windows: Sequence[Window], tokenizer: Tokenizer, deadline: Deadline | None = None
    ) -> NDArray[np.float32]:
        """See `Ranker.rank`; all are equal until one has shared a word with the query."""
        self._words = self._words or GrowingBM25(asked_ids(prefix), prefix.forms)
        found = likelihoods(prefix, windows, self._words)
        if not prefix.query.strip() or self._words.best <= 0.0:
            return np.ones(len(windows), dtype=np.float32)
        self.best = max(self._words.best, EXPECTED * self._words.of_all_words)
        return found


class CriticRanker:
    """A small critic: a window is as likely as its best run of `RUN_TOKENS` tokens. Its tokenizer may be another."""

    RUN_TOKENS = 16

    def __init__(self, scorer: Scorer, *, curve: Curve = CRITIC) -> None:
        self.scorer = scorer
        self.curve = curve

    @property
    def fingerprint(self) -> str:
        return str(self.scorer.fingerprint)  # type: ignore[attr-defined]

    def rank(
        self, prefix: Prefix, windows: Sequence[Window], tokenizer: Tokenizer, deadline: Deadline | None = None
    ) -> NDArray[np.float32]:
        """See `Ranker.rank`."""
        likely = self.likelihoods(prefix, windows, tokenizer, deadline)
        return likely if likely.any() else np.ones(len(windows), dtype=np.float32)

    def in_pieces(self) -> CriticSoFar:
        """The same for one context whose windows come in several calls."""
        return CriticSoFar(self)

    def likelihoods(
        self, prefix: Prefix, windows: Sequence[Window], tokenizer: Tokenizer, deadline: Deadline | None = None
    ) -> NDArray[np.float32]:
        """float32, (w,), in 0..1, comparable between calls: as `rank`, 0 where there is nothing to go on."""
        own, pieces, owner = self._translate(prefix, windows, tokenizer)
        if deadline is None:
            reading = read_windows(self.scorer, own, pieces)
        else:
            order = np.argsort(-likelihoods(own, pieces), kind="stable").tolist()
            reading = read_until(self.scorer, own, pieces, order, deadline)
        likely = np.zeros(len(windows), dtype=np.float32)
        best = [self._best_run(rows) for rows in reading.rows]
        np.maximum.at(likely, owner, np.array(best, dtype=np.float32))
        if not reading.complete:  # what was not looked at comes last, in the order of its words
            words = likelihoods(prefix, windows)
            likely += np.float32(1e-6) * words / max(float(words.max(initial=0.0)), 1e-9)
        return likely

    def _translate(
        self, prefix: Prefix, windows: Sequence[Window], tokenizer: Tokenizer
    ) -> tuple[Prefix, list[Window], NDArray[np.int64]]:
        """Prefix and windows in the cheap critic's tokens, and which window each piece belongs to."""
        mine = self.scorer.tokenizer
        same = mine is tokenizer
        own = prefix if same else mine.encode_prefix(prefix.instruction, prefix.query, prefix.tags)
        capacity = self.scorer.window_tokens - len(own)
        if capacity < 1:
            raise InputError(
                f"instruction and query take {len(own):,} tokens of the cheap critic; its window holds "
                f"{self.scorer.window_tokens:,}; shorten the instruction or query"
            )
        pieces: list[Window] = []
        owner: list[int] = []
        for index, window in enumerate(windows):
            ids = window if same else mine.encode(tokenizer.decode(window)).ids
            for start, end in plan_windows(np.empty(0, np.int64), len(ids), capacity, overlap=capacity // 4).tolist():
                pieces.append(ids[start:end])
                owner.append(index)
        return own, pieces, np.array(owner, dtype=np.int64)

    def _best_run(self, rows: NDArray[np.float32]) -> float:
        keep = 1.0 - rows[:, OUTSIDE :: len(self.scorer.labels)].min(axis=1)
        run = min(self.RUN_TOKENS, len(keep))
        sums = np.cumsum(np.append(0.0, keep))
        return float((sums[run:] - sums[:-run]).max(initial=0.0) / run) if run else 0.0


class CriticSoFar:
    """`CriticRanker` over one context whose windows come in several calls.

    Attributes:
        best: the best likelihood of all windows so far.
    """

    def __init__(self, ranker: CriticRanker) -> None:
        self.best = 0.0
        self.curve = ranker.curve
        self._ranker = ranker

    @property
    def fingerprint(self) -> str:
        return self._ranker.fingerprint

    def rank(
        self, prefix: Prefix, windows: Sequence[Window], tokenizer: Tokenizer, deadline: Deadline | None = None
    ) -> NDArray[np.float32]:
        """See `Ranker.rank`; all are equal until there was something to go on."""
        likely = self._ranker.likelihoods(prefix, windows, tokenizer, deadline)
        self.best = max(self.best, float(likely.max(initial=0.0)))
        return likely if self.best > 0.0 else np.ones(len(windows), dtype=np.float32)


class CascadeScorer:
    """A `Scorer` in which ``strong`` reads only what ``cheap`` finds likely enough.

    >>> from cprs_core import CascadeScorer, Compressor, KeywordScorer, LexicalRanker
    >>> compressor = Compressor(CascadeScorer(LexicalRanker(), KeywordScorer("lease"), recall_risk=0.01))

    Args:
        cheap: a `LexicalRanker`, or a scorer: a small critic, whose tokenizer may be another one.
        strong: who scores the windows that are read.
        recall_risk: the share of what ``strong`` alone would find that may be lost, in 0..1. 0 reads everything.

    Raises:
        InputError: ``recall_risk`` is out of range.
    """

    def __init__(self, cheap: Ranker | Scorer, strong: Scorer, *, recall_risk: float = 0.005) -> None:
        if not isinstance(recall_risk, int | float) or not 0.0 <= recall_risk <= 1.0:
            raise InputError(
                f"recall_risk is {recall_risk!r}; it is a share of recall, in 0..1 (0.005 risks half a percent)"
            )
        self.strong = strong
        self.ranker: Ranker = CriticRanker(cheap) if isinstance(cheap, Scorer) else cheap
        self.recall_risk = float(recall_risk)
        self._so_far: tuple[int, int] | None = None  # windows and how many were chosen, where they come in pieces
        self.batch_tokens = getattr(strong, "batch_tokens", None) or 4_096

    @property
    def tokenizer(self) -> Tokenizer:
        return self.strong.tokenizer

    @property
    def window_tokens(self) -> int:
        return self.strong.window_tokens

    @property
    def labels(self) -> tuple[str, ...]:
        return self.strong.labels

    @property
    def thresholds(self) -> Mapping[str, float]:
        return self.strong.thresholds

    @property
    def fingerprint(self) -> str:
        """See `Scorer`; empty unless both stages have one."""
        cheap, strong = self.ranker.fingerprint, self.strong.fingerprint  # type: ignore[attr-defined]
        return f"cascade {cheap} {self.ranker.curve} {strong} {self.recall_risk}" if cheap and strong else ""

    def plan(self, prefix: Prefix, windows: Sequence[Window], deadline: Deadline | None = None) -> NDArray[np.int64]:
        """int64, (k,): indices of the windows that ``strong`` is to read, the likeliest first."""
        windows_before, chosen_before = self._so_far or (0, 0)
        count = windows_before + len(windows)
        least = max(ALWAYS_READ - chosen_before, 0)
        if count <= ALWAYS_READ and deadline is None and self._so_far is None:
            return np.arange(len(windows), dtype=np.int64)
        half = deadline.half() if deadline is not None else None
        likely = self.ranker.rank(prefix, windows, self.tokenizer, half)
        order = np.argsort(-likely, kind="stable").astype(np.int64)
        best = max(float(likely.max(initial=0.0)), getattr(self.ranker, "best", 0.0))
        cut = cut_for(self.ranker.curve, count, self.recall_risk) * best
        chosen = order[: max(least, int((likely >= cut).sum()))]
        if self._so_far is not None:
            self._so_far = count, chosen_before + len(chosen)
        return chosen

    def in_pieces(self) -> CascadeScorer:
        """The same for one context and prefix whose windows come in several calls, as a stream's do.

        Windows are compared with all that came before them, so what is far less likely than something earlier is not
        read; a ranker without a method of this name compares those of each call alone. The twin remembers: it serves
        one context.
        """
        twin = copy.copy(self)
        begin = getattr(self.ranker, "in_pieces", None)
        twin.ranker = begin() if begin is not None else self.ranker
        twin.strong = self.strong.in_pieces() if isinstance(self.strong, Staged) else self.strong
        twin._so_far = (0, 0)
        return twin

    def score(
        self, prefix: Prefix, windows: Sequence[Window], on_progress: OnProgress | None = None
    ) -> list[NDArray[np.float32]]:
        """Label probabilities of every window token; see `cprs_core.scorer.Scorer.score`."""
        return read_windows(self, prefix, windows, on_progress).rows


def cut_for(curve: Curve, windows: int, recall_risk: float) -> float:
    """The share of the best likelihood below which windows are left unread, between the measured points of a curve.

    Beyond the fewest and the most windows, and beyond the largest loss that were measured, the nearest point holds.
    """
    sizes = sorted(curve)
    cuts = [np.interp(recall_risk, *np.array(curve[size]).T) for size in sizes]
    return float(np.interp(math.log(max(windows, 1)), np.log(sizes), cuts))
