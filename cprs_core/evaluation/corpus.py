"""A context prepared once for many queries: texts, the segments that systems rank, and what each costs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cprs_core.context import Context, read_context
from cprs_core.instructions import Preset
from cprs_core.scorer import Tokenizer
from cprs_core.segmentation import Segments, segment_lines, segment_paragraphs, segment_sentences, split_long

# Sentences and lines of more tokens are ranked in pieces, for every system alike: half of what a window of 512 holds
# beside an instruction and a question, as in `Compressor`.
PIECE_TOKENS = 224
PARAGRAPH_TOKENS = 1_000

_PHRASE_CHARACTERS = 80
_THAI = re.compile(r"[\u0e00-\u0e7f]")


@dataclass
class Corpus:
    """Texts laid end to end, cut into the segments that systems rank.

    Attributes:
        texts: documents, in order.
        tokenizer: the run's meter: costs and budgets are in its tokens, for every system.
        unit: "sentence", "line", "paragraph" or "document".
        segment: finds segments in one text; None for the unit's own.
        given: segments that are known already; None to find them.
    """

    texts: Sequence[str]
    tokenizer: Tokenizer
    unit: str = "sentence"
    segment: Callable[[str], Segments] | None = None
    given: Segments | None = field(default=None, repr=False)
    _contexts: dict[int, Context] = field(default_factory=dict, repr=False)

    @cached_property
    def context(self) -> Context:
        """The texts in the meter's tokens."""
        return self.read_by(self.tokenizer)

    def read_by(self, tokenizer: Tokenizer) -> Context:
        """The texts in another tokenizer's tokens; read once per tokenizer."""
        key = id(tokenizer)
        if key not in self._contexts:
            self._contexts[key] = read_context(self.texts, tokenizer)
        return self._contexts[key]

    @cached_property
    def segments(self) -> Segments:
        """(s, 2): character ranges of the context, ascending, not overlapping."""
        if self.given is not None:
            return self.given
        context = self.context
        if self.unit == "document":
            bounds = context.document_bounds
            return np.stack([bounds[:-1], bounds[1:]], axis=1)[np.diff(bounds) > 0]
        segment = self.segment or segment_sentences
        if self.segment is None and self.unit != "sentence":
            segment = {"line": segment_lines, "paragraph": segment_paragraphs}[self.unit]
        limit = PARAGRAPH_TOKENS if self.unit == "paragraph" else PIECE_TOKENS
        # A token continues a word where it begins at the end of the one before.
        word_starts = np.append(True, context.starts[1:] > context.ends[:-1])[: len(context.starts)]
        return split_long(context.segments(segment), context.starts, word_starts, limit)

    @cached_property
    def costs(self) -> NDArray[np.int64]:
        """int64, (s,): tokens of each segment."""
        first, last = (self.context.first_tokens(self.segments[:, column]) for column in (0, 1))
        return last - first

    @property
    def tokens(self) -> int:
        """Tokens in all."""
        return len(self.context.ids)

    @cached_property
    def segment_texts(self) -> list[str]:
        """The characters of every segment."""
        documents = self.context.document_of(self.segments[:, 0])
        bases = self.context.document_bounds[documents]
        rows = zip(documents.tolist(), (self.segments - bases[:, None]).tolist(), strict=True)
        return [self.texts[document][start:end] for document, (start, end) in rows]

    def chunks(self, tokens: int) -> tuple[Corpus, NDArray[np.int64]]:
        """The same texts in runs of whole segments of at most ``tokens`` tokens (a longer segment is a run alone).

        Returns:
            the corpus of chunks, and int64 (s,): the chunk of each segment. No chunk crosses a document's border.
        """
        documents = self.context.document_of(self.segments[:, 0]).tolist()
        chunk_of = np.zeros(len(self.segments), dtype=np.int64)
        chunk, room, previous = -1, 0, -1
        for index, (cost, document) in enumerate(zip(self.costs.tolist(), documents, strict=True)):
            if document != previous or cost > room:
                chunk, room, previous = chunk + 1, tokens, document
            room -= cost
            chunk_of[index] = chunk
        first = np.flatnonzero(np.diff(chunk_of, prepend=-1))
        last = np.append(first[1:], len(chunk_of)) - 1
        given = np.stack([self.segments[first, 0], self.segments[last, 1]], axis=1)
        return Corpus(self.texts, self.tokenizer, "paragraph", given=given, _contexts=self._contexts), chunk_of

    def overlaps(self, start: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which segments a range touches and with how many characters: int64, (k,), twice."""
        first = int(np.searchsorted(self.segments[:, 1], start, side="right"))
        last = int(np.searchsorted(self.segments[:, 0], end, side="left"))
        touched = np.arange(first, max(first, last))
        rows = self.segments[touched]
        return touched, np.minimum(rows[:, 1], end) - np.maximum(rows[:, 0], start)

    def gold_segments(self, start: int, end: int) -> NDArray[np.int64]:
        """int64, (k,), k >= 1 where any is touched: segments that share at least half of the shorter of the two with a
        range, or else the one that shares most."""
        touched, shared = self.overlaps(start, end)
        if not len(touched):
            return touched
        lengths = self.segments[touched, 1] - self.segments[touched, 0]
        gold = touched[2 * shared >= np.minimum(lengths, end - start)]
        return gold if len(gold) else touched[[int(shared.argmax())]]


@dataclass(frozen=True)
class Request:
    """One query over a prepared context, under an instruction."""

    corpus: Corpus
    query: str
    preset: Preset


def segment_phrases(text: str) -> Segments:
    """Runs of phrases of at least 80 characters: Thai marks no sentence ends, only phrases, by blanks."""
    pieces: list[tuple[int, int]] = []
    start = 0
    for match in re.finditer(r"\s+|$", text):
        if match.start() - start >= _PHRASE_CHARACTERS or (match.start() == len(text) and match.start() > start):
            pieces.append((start, match.start()))
            start = match.end()
    return np.array(pieces, dtype=np.int64).reshape(-1, 2)


def sentences_or_phrases(text: str) -> Segments:
    """Sentences, or phrases where a text is mostly Thai."""
    return segment_phrases(text) if 2 * len(_THAI.findall(text)) > len(text) else segment_sentences(text)
