"""All documents laid end to end: their tokens, their segments, and what the critic thinks of each token.

Positions here are characters of the context: the documents' texts with nothing between them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cprs_core.errors import NonFiniteScoresError
from cprs_core.scorer import OUTSIDE, Tokenizer
from cprs_core.segmentation import Segments, segment_lines, segment_paragraphs, segment_sentences, split_long
from cprs_core.windows import Windows

# A paragraph longer than this many tokens is offered in pieces, so that one endless block does not defeat a budget.
MAX_PARAGRAPH_TOKENS = 1_000


@dataclass(frozen=True)
class Context:
    """Documents end to end, tokenised once.

    Attributes:
        texts: the documents' texts.
        document_bounds (int64, (d + 1,)): where each document begins, and the context's end.
        ids (int32, (n,)): token ids.
        starts, ends (int64, (n,)): every token's characters.
    """

    texts: Sequence[str]
    document_bounds: NDArray[np.int64]
    ids: NDArray[np.int32]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    @cached_property
    def sentences(self) -> Segments:
        """(s, 2): sentences of all documents."""
        return self.segments(segment_sentences)

    def segments(self, segment: Callable[[str], Segments]) -> Segments:
        """(s, 2): what ``segment`` finds in every document."""
        return find_segments(self.texts, self.document_bounds, segment)

    def marks(self, pattern: re.Pattern[str]) -> NDArray[np.int64]:
        """int64: where matches of ``pattern`` end, in all documents."""
        bases = self.document_bounds[:-1].tolist()
        found = [m.end() + base for text, base in zip(self.texts, bases, strict=True) for m in pattern.finditer(text)]
        return np.array(found, dtype=np.int64)

    def first_tokens(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64: index of the first token that begins at or after each position."""
        return np.searchsorted(self.starts, positions, side="left")

    def count_tokens(self, start: int, end: int) -> int:
        """Tokens that begin in a range of characters."""
        first, last = self.first_tokens(np.array([start, end]))
        return int(last - first)

    def document_of(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64: index of the document that holds each position."""
        return np.searchsorted(self.document_bounds, positions, side="right") - 1

    def documents_of(self, first: int, last: int) -> range:
        """Indices of the documents that the tokens from ``first`` to before ``last`` lie in."""
        begin, end = self.document_of(self.starts[[first, last - 1]]).tolist()
        return range(begin, end + 1)

    def named(self, error: NonFiniteScoresError, windows: Windows) -> NonFiniteScoresError:
        """The same error with the number of its window among ``windows`` and the documents that it holds."""
        ranges = enumerate(windows.tolist())
        index, (first, last) = next(one for one in ranges if np.array_equal(self.ids[slice(*one[1])], error.ids))
        return error.in_documents(index, self.documents_of(first, last))

    def text(self, start: int, end: int) -> str:
        """The characters of a range that lies inside one document."""
        index = int(self.document_of(np.array([start]))[0])
        base = int(self.document_bounds[index])
        return self.texts[index][start - base : end - base]


@dataclass(frozen=True)
class ScoredContext:
    """Everything a granularity may look at.

    Attributes:
        context: the documents and their tokens.
        scores (float32, (n, tags * 4)): label probabilities of each token, one group of B, I, O, E per tag.
        windows (int64, (w, 2)): the token ranges that were run together.
        piece_tokens: sentences and lines longer than this are offered in pieces.
    """

    context: Context
    scores: NDArray[np.float32]
    windows: NDArray[np.int64]
    piece_tokens: int

    @cached_property
    def keep(self) -> NDArray[np.float32]:
        """float32, (n, tags): probability that a token belongs to a span of the tag."""
        return np.float32(1.0) - self.scores[:, OUTSIDE::4]

    @cached_property
    def sentences(self) -> Segments:
        """(s, 2): sentences of all documents, none longer than ``piece_tokens``."""
        return self._pieces(self.context.sentences, self.piece_tokens)

    @cached_property
    def lines(self) -> Segments:
        """(s, 2): lines of all documents, none longer than ``piece_tokens``."""
        return self._pieces(self.context.segments(segment_lines), self.piece_tokens)

    @cached_property
    def paragraphs(self) -> Segments:
        """(s, 2): paragraphs of all documents, none longer than `MAX_PARAGRAPH_TOKENS`."""
        return self._pieces(self.context.segments(segment_paragraphs), MAX_PARAGRAPH_TOKENS)

    def mean_scores(self, segments: Segments) -> NDArray[np.float32]:
        """float32, (s, tags): mean of `keep` over each segment's tokens; 0 for a segment without tokens."""
        first = self.context.first_tokens(segments[:, 0])
        last = self.context.first_tokens(segments[:, 1])
        sums = np.concatenate([np.zeros((1, self.keep.shape[1])), np.cumsum(self.keep, axis=0, dtype=np.float64)])
        return ((sums[last] - sums[first]) / np.maximum(last - first, 1)[:, None]).astype(np.float32)

    def best_part_scores(self, segments: Segments, parts: Segments) -> NDArray[np.float32]:
        """float32, (s, tags): the best mean score among the ``parts`` (sentences, say) that begin in each segment."""
        part_scores = self.mean_scores(parts)
        first = np.searchsorted(parts[:, 0], segments[:, 0], side="left")
        last = np.searchsorted(parts[:, 0], segments[:, 1], side="left")
        best = np.zeros((len(segments), part_scores.shape[1]), dtype=np.float32)
        filled = last > first
        if filled.any():
            # reduceat takes the maximum from each cut to the next: of the parts inside a segment, then of those between
            # two segments; every second one is ours. The extra row lets the last cut be the end.
            cuts = np.stack([first[filled], last[filled]], axis=1).ravel()
            padded = np.concatenate([part_scores, np.zeros((1, part_scores.shape[1]), dtype=np.float32)])
            best[filled] = np.maximum.reduceat(padded, cuts, axis=0)[::2]
        return best

    def _pieces(self, segments: Segments, limit: int) -> Segments:
        word_starts = np.append(True, self.context.starts[1:] > self.context.ends[:-1])[: len(self.context.starts)]
        return split_long(segments, self.context.starts, word_starts, limit)


def find_segments(
    texts: Sequence[str], document_bounds: NDArray[np.int64], segment: Callable[[str], Segments]
) -> Segments:
    """(s, 2): what ``segment`` finds in every one of ``texts``, which lie end to end."""
    parts = [segment(text) + base for text, base in zip(texts, document_bounds.tolist(), strict=False)]
    return np.concatenate(parts) if parts else np.empty((0, 2), dtype=np.int64)


def read_context(texts: Sequence[str], tokenizer: Tokenizer) -> Context:
    """Tokenise every text once."""
    encode_batch = getattr(tokenizer, "encode_batch", None)  # several texts at once, where a tokenizer can
    tokens = encode_batch(texts) if encode_batch is not None else [tokenizer.encode(text) for text in texts]
    bounds = np.cumsum([0, *(len(text) for text in texts)], dtype=np.int64)
    bases = bounds[:-1].tolist()
    empty = np.empty(0, dtype=np.int64)
    return Context(
        texts=texts,
        document_bounds=bounds,
        ids=np.concatenate([empty.astype(np.int32), *(part.ids for part in tokens)]),
        starts=np.concatenate([empty, *(part.starts + base for part, base in zip(tokens, bases, strict=True))]),
        ends=np.concatenate([empty, *(part.ends + base for part, base in zip(tokens, bases, strict=True))]),
    )
