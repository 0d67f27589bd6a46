"""The seam between text and models: a scorer turns windows of token ids into token scores.

Devices, replicas, cascades and caches live behind `Scorer`, and nest, because each is a `Scorer`.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from cprs_core.deadline import Deadline
from cprs_core.forms import WordForms

LABELS = ("B", "I", "O", "E")  # begin, inside, outside, end of a span; the order of the released 7 B critic
OUTSIDE = LABELS.index("O")

OnProgress = Callable[[int, int], None]  # (tokens scored so far, tokens in all)


@dataclass(frozen=True)
class Tokens:
    """One text's tokens.

    ``ids`` (int32, (n,)); ``starts`` and ``ends`` (int64, (n,)) are character positions in the text, end exclusive.
    """

    ids: NDArray[np.int32]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Prefix:
    """Instruction and query as the critic reads them, shared by all windows of a call.

    ``ids`` (int32, (p,)); ``tags`` are the tag words that the instruction names, at least one; ``asked`` is the range
    of ``ids`` that says what is looked for: the query, or the instruction where the query is empty. ``instruction``
    and ``query`` are the words themselves, for critics with another tokenizer. ``forms`` says which tokens are forms of
    one word; without it every token is a word of its own.
    """

    ids: NDArray[np.int32]
    tags: tuple[str, ...]
    asked: tuple[int, int] = (0, 0)
    instruction: str = ""
    query: str = ""
    forms: WordForms | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.ids)


class Tokenizer(Protocol):
    """Text to token ids in the critic's own vocabulary and wire format.

    Optional: ``encode_batch(texts)``, the same as `encode` of each, where many texts at once are faster.
    """

    def encode(self, text: str) -> Tokens:
        """Tokens of ``text``; nothing inside ``text`` is ever read as a control token."""

    def encode_prefix(self, instruction: str, query: str, tags: tuple[str, ...]) -> Prefix:
        """Instruction and query in the critic's wire format."""

    def decode(self, ids: NDArray[np.int32]) -> str:
        """Roughly the text of these tokens, for critics with another tokenizer to read; never for output."""


@runtime_checkable
class Scorer(Protocol):
    """Anything that turns windows into token scores.

    Five attributes are optional: ``fingerprint`` (str), which is the same exactly where scores are the same, so that
    they may be cached; ``batch_tokens`` (int), how many tokens a deadline may be late by; ``plan``, see `Staged`; and
    ``overlaps`` (bool), true where windows run on a device that leaves the CPU to others. Long texts are then tokenised
    while it runs, in parts, and ``score`` is called several times. The tokenizer must find the same tokens in a text
    that was cut behind a blank line, before a letter or digit. ``devices`` (int) is how many run windows side by side.

    Attributes:
        tokenizer: the critic's `Tokenizer`.
        window_tokens: tokens of one window, prefix included.
        labels: names of the position labels, in column order (`LABELS`).
        thresholds: the default score threshold of each granularity, as measured on held-out data.
    """

    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def window_tokens(self) -> int: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def thresholds(self) -> Mapping[str, float]: ...

    def score(
        self, prefix: Prefix, windows: Sequence[NDArray[np.int32]], on_progress: OnProgress | None = None
    ) -> list[NDArray[np.float32]]:
        """Label probabilities of every window token, windows in the order given.

        Args:
            prefix: instruction and query, shared by all windows.
            windows: int32, (n_i,): slices of the context's ids, ``len(prefix) + n_i <= window_tokens``.
            on_progress: called now and then with tokens done and tokens in all.

        Returns:
            list of float32, (n_i, tags * labels): for every tag of the prefix one group of label columns, each group
            summing to 1; prefix rows are left out.
        """


@runtime_checkable
class Staged(Scorer, Protocol):
    """A `Scorer` that reads only some of the windows: a plan says which, ``strong`` is who reads them."""

    @property
    def strong(self) -> Scorer: ...

    def plan(
        self, prefix: Prefix, windows: Sequence[NDArray[np.int32]], deadline: Deadline | None = None
    ) -> NDArray[np.int64]:
        """int64, (k,): indices of the windows to read, the likeliest first.

        With a deadline a cheap stage that is slow itself stops in time, and the plan is made of what is known by then.
        """

    def in_pieces(self) -> Staged:
        """The same for one context and prefix whose windows come in several calls of `plan`, in order."""


def identity(scorer: Scorer) -> str:
    """What tells critics apart in a checkpoint."""
    name = getattr(scorer, "fingerprint", None) or getattr(scorer, "name", type(scorer).__name__)
    return f"{name} {scorer.window_tokens}"


@dataclass
class WordTokenizer:
    """A tokenizer with obvious behaviour: runs of word characters, and every other visible character by itself.

    A word has the same id in every process: its checksum, unless ``vocabulary`` names another.
    """

    vocabulary: dict[str, int] = field(default_factory=dict)

    def encode(self, text: str) -> Tokens:
        matches = [(m.group(), m.start(), m.end()) for m in re.finditer(r"\w+|[^\w\s]", text)]
        ids = [self._id(word.casefold()) for word, _, _ in matches]
        return Tokens(
            np.array(ids, dtype=np.int32),
            np.array([start for _, start, _ in matches], dtype=np.int64),
            np.array([end for _, _, end in matches], dtype=np.int64),
        )

    def encode_prefix(self, instruction: str, query: str, tags: tuple[str, ...]) -> Prefix:
        wording, question = self.encode(instruction).ids, self.encode(query).ids
        asked = (len(wording), len(wording) + len(question)) if len(question) else (0, len(wording))
        return Prefix(np.concatenate([wording, question]), tags, asked, instruction, query)

    def decode(self, ids: NDArray[np.int32]) -> str:
        words = {id: word for word, id in list(self.vocabulary.items())}
        return " ".join(words.get(id, "") for id in ids.tolist())

    def _id(self, word: str) -> int:
        known = self.vocabulary.get(word)
        if known is None:
            known = self.vocabulary.setdefault(word, zlib.crc32(word.encode("utf-8", "surrogatepass")) >> 1)
        return known


class KeywordScorer:
    """A scorer with obvious behaviour, for tests and examples: the given words score 1, all other tokens 0.

    Without words it looks for the words of the query that are longer than three letters.
    """

    labels = LABELS

    def __init__(self, *words: str, window_tokens: int = 512) -> None:
        self.tokenizer = WordTokenizer()
        self.window_tokens = window_tokens
        names = ("keyword", "sentence", "line", "paragraph", "document")
        self.thresholds: Mapping[str, float] = dict.fromkeys(names, 1e-6)  # one hit is enough, however long the segment
        self.windows_scored = 0
        self._words = words

    @property
    def fingerprint(self) -> str:
        """Two of these with the same words score alike."""
        return f"keywords {self._words!r} in {self.window_tokens}"

    def score(
        self, prefix: Prefix, windows: Sequence[NDArray[np.int32]], on_progress: OnProgress | None = None
    ) -> list[NDArray[np.float32]]:
        if self._words:
            wanted = np.concatenate([self.tokenizer.encode(word).ids for word in self._words])
        else:
            long_words = [id for word, id in list(self.tokenizer.vocabulary.items()) if len(word) > 3]
            wanted = np.intersect1d(prefix.ids, np.array(long_words, dtype=np.int32))
        total = sum(len(window) for window in windows)
        done = 0
        scores = []
        for window in windows:
            hit = np.isin(window, wanted)
            rows = np.zeros((len(window), len(LABELS)), dtype=np.float32)
            rows[hit, LABELS.index("B")] = 1.0
            rows[~hit, OUTSIDE] = 1.0
            scores.append(np.tile(rows, (1, len(prefix.tags))))
            self.windows_scored += 1
            done += len(window)
            if on_progress is not None:
                on_progress(done, total)
        return scores
