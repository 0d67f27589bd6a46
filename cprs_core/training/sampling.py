"""Windows from a corpus: evidence among hard and random neighbours.

A *group* is several windows under one query: one that holds the evidence (unless there is none) and others that only
look like it, so that sentences compete over more text than one window, as they do in a long context.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cprs_core.scorer import LABELS
from cprs_core.training.corpus import Corpus
from cprs_core.training.tasks import LONG_DOCUMENT, Augmentation, Source, Task, TaskMaker, Vocabulary
from cprs_core.training.views import VIEWS, View

B, I, O, E = range(len(LABELS))  # noqa: E741
IGNORED = -1  # label of prefix tokens
_NOT_PROSE = ("synthetic", "cipher")


@dataclass
class Batch:
    """Windows of one length. w windows, l tokens each, s sentences in all.

    ids, parts, labels, sentences: (w, l); ``sentences`` numbers the sentences of the batch, -1 for prefix tokens.
    asked (w, 2): range of the prefix that says what is looked for.
    tag_words (w, c): vocabulary rows: outside, the tag, others. groups (w,).
    sentence_windows, sentence_rows (s,): window and corpus index of each sentence; sentence_kept (s,) bool.
    competing (w,): whether sentences compete. teacher_queries (w,): row of the teacher's embeddings, -1 for none.
    """

    ids: NDArray[np.int32]
    parts: NDArray[np.int8]
    asked: NDArray[np.int32]
    labels: NDArray[np.int8]
    sentences: NDArray[np.int32]
    tag_words: NDArray[np.int32]
    groups: NDArray[np.int32]
    sentence_windows: NDArray[np.int32]
    sentence_rows: NDArray[np.int32]
    sentence_kept: NDArray[np.bool_]
    competing: NDArray[np.bool_]
    teacher_queries: NDArray[np.int32]


class WindowSampler:
    """Draws batches; two samplers with the same seed draw the same."""

    def __init__(
        self,
        corpus: Corpus,
        vocabulary: Vocabulary,
        mixture: list[Source],
        seed: int,
        augmentation: Augmentation | None = None,
        teacher_sets: frozenset[str] = frozenset(),
        held_out: bool = False,
        views: Mapping[str, View] = VIEWS,
    ) -> None:
        """``held_out`` draws only from the queries that training never sees: one in `HELD_OUT`."""
        self._corpus = corpus
        self._vocabulary = vocabulary
        self._rng = np.random.default_rng(seed)
        self._tasks = TaskMaker(corpus, vocabulary, mixture, augmentation, teacher_sets, held_out, views)
        self._documents_of = {name: np.flatnonzero(corpus.document_sets == i) for i, name in enumerate(corpus.names)}
        prose = np.array([name not in _NOT_PROSE for name in corpus.names], dtype=bool)
        self._prose = np.flatnonzero(prose[corpus.document_sets])
        by_group = np.argsort(corpus.document_groups, kind="stable")
        groups = corpus.document_groups[by_group]
        self._group_starts = np.searchsorted(groups, np.arange(int(groups.max()) + 2)) if len(groups) else groups
        self._by_group = by_group
        lengths = np.diff(corpus.sentence_starts)
        self._sentence_of = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)

    @property
    def has_queries(self) -> bool:
        """Whether any source of the mixture has records to draw from."""
        return self._tasks.has_queries

    @property
    def queries(self) -> int:
        """Queries of the corpus; the teacher's rows of sentences come after theirs."""
        return len(self._corpus.query_sets)

    def reseed(self, seed: tuple[int, ...]) -> None:
        """Start another sequence of batches, for a worker of its own."""
        self._rng = np.random.default_rng(seed)

    def batch(self, length: int, groups: int, windows: int) -> Batch:
        """``groups`` queries with ``windows`` windows of ``length`` tokens each."""
        w = groups * windows
        ids = np.zeros((w, length), dtype=np.int32)
        parts = np.zeros((w, length), dtype=np.int8)
        asked = np.zeros((w, 2), dtype=np.int32)
        labels = np.full((w, length), IGNORED, dtype=np.int8)
        rows = np.full((w, length), -1, dtype=np.int32)
        tag_words = np.zeros((w, 5), dtype=np.int32)
        competing = np.zeros(w, dtype=bool)
        teacher = np.full(w, -1, dtype=np.int32)
        for group in range(groups):
            task = self._tasks.draw(self._rng)
            words = self._candidate_words(task.view)
            prefix, query_start = self._prefix(task, length // 2)
            for k in range(windows):
                row = group * windows + k
                pieces = self._pieces(task, length - len(prefix), gold=k == 0)
                at = len(prefix)
                ids[row, :at] = prefix
                asked[row] = (query_start, at - 1)
                parts[row, at:] = 1
                labels[row, at:] = O
                for first, last in pieces:
                    span = min(last - first, length - at)
                    ids[row, at : at + span] = self._corpus.tokens[first : first + span]
                    rows[row, at : at + span] = self._sentence_of[first : first + span]
                    known = task.known
                    for a, b in known[(known[:, 0] < first + span) & (known[:, 1] > first)].tolist():
                        _mark(labels[row], at + max(a, first) - first, at + min(b, first + span) - first)
                    at += span
                tag_words[row] = words
                competing[row] = task.view.by_sentence
                teacher[row] = task.teacher
        return _number_sentences(ids, parts, asked, labels, rows, tag_words, windows, competing, teacher)

    def _prefix(self, task: Task, room: int) -> tuple[NDArray[np.int32], int]:
        """Prefix of at most ``room`` tokens, and where the query begins in it."""
        vocabulary, wordings = self._vocabulary, self._vocabulary.instructions[task.source.view]
        instruction = wordings[int(self._rng.integers(len(wordings)))]
        if task.instruction and self._rng.random() < 0.8:
            instruction = vocabulary.own_instructions[task.instruction]
        cls, sep = np.array([vocabulary.cls], np.int32), np.array([vocabulary.sep], np.int32)
        query = task.query[: max(1, room - len(instruction) - 3)]
        return np.concatenate([cls, instruction, sep, query, sep]), len(instruction) + 2

    def _candidate_words(self, view: View) -> NDArray[np.int32]:
        """Rows of the tag head: outside, the view's word or now and then any word, and three words of other kinds."""
        vocabulary, rng = self._vocabulary, self._rng
        if rng.random() < 0.1:
            named = int(rng.choice(np.flatnonzero(vocabulary.content)))
        else:
            named = vocabulary.tag_words[view.tag_words[int(rng.integers(len(view.tag_words)))]]
        own = {vocabulary.tag_words[word] for word in view.tag_words}
        others = [row for row in vocabulary.tag_words.values() if row not in own and row != named]
        return np.array([vocabulary.outside, named, *rng.choice(others, size=3, replace=False)], dtype=np.int32)

    def _pieces(self, task: Task, room: int, gold: bool) -> list[tuple[int, int]]:
        """Token ranges that fill ``room`` tokens, in random order; with ``gold`` the right ones are among them."""
        right: list[tuple[int, int]] = []
        if gold:
            right = [self._piece_of(task.document, room, task.evidence)] if task.shown is None else task.shown
            while len(right) > 1 and sum(b - a for a, b in right) > room:
                right = right[:-1]
        others: list[tuple[int, int]] = []
        filled = sum(b - a for a, b in right)
        misses = 0
        while filled < room:
            piece = self._piece_of(self._neighbour(task), room, around=[])
            misses += 1
            # The same text twice is only shown where there is no other.
            if misses > 50 or not any(piece[0] < b and a < piece[1] for a, b in right):
                others.append(piece)
                filled += piece[1] - piece[0]
        # The last piece is cut where the window ends; the right ones never are.
        pieces = right + others[:-1]
        return [pieces[i] for i in self._rng.permutation(len(pieces))] + others[-1:]

    def _neighbour(self, task: Task) -> int:
        """A document that is not the right one: hard, of the same group, the same long document, or any of the set."""
        rng, corpus = self._rng, self._corpus
        if task.lone and rng.random() < 0.5:
            return int(self._prose[rng.integers(len(self._prose))])
        hard = task.hard[task.hard >= 0]
        same_domain = task.view.tag == "entity"  # where kinds of names mean the same
        draw = rng.random()
        if len(hard) and draw < 0.55:
            return int(hard[rng.integers(len(hard))])
        if self._length(task.document) > LONG_DOCUMENT and draw < 0.7:
            return task.document
        if draw < 0.75 or same_domain:
            group = corpus.document_groups[task.document]
            low, high = self._group_starts[group], self._group_starts[group + 1]
            same = int(self._by_group[rng.integers(low, high)])
            if same != task.document or same_domain:
                return same
        documents = self._documents_of[corpus.names[corpus.document_sets[task.document]]]
        other = int(documents[rng.integers(len(documents))])
        return other if other != task.document else int(documents[(rng.integers(len(documents)))])

    def _length(self, document: int) -> int:
        return int(self._corpus.document_starts[document + 1] - self._corpus.document_starts[document])

    def _piece_of(self, document: int, room: int, around: list[tuple[int, int]]) -> tuple[int, int]:
        """A run of whole sentences of a document: all of it where it is short, else around the evidence or anywhere."""
        corpus, rng = self._corpus, self._rng
        low, high = int(corpus.document_starts[document]), int(corpus.document_starts[document + 1])
        limit = min(room, int(rng.integers(60, 320)) if not around or rng.random() < 0.5 else room)
        if high - low <= min(room, 400) and (not around or high - low <= room):
            return low, high
        if around:
            a, b = around[int(rng.integers(len(around)))]
            limit = min(room, max(limit, b - a))
            begin = a - int(rng.integers(0, max(1, limit - (b - a)) + 1)) if b - a < limit else a
        else:
            begin = int(rng.integers(low, high))
        starts = corpus.sentence_starts
        sentence = int(np.searchsorted(starts, max(begin, low), side="right")) - 1
        first = max(int(starts[sentence]), low)
        if around and first + limit < min(around[0][1], high):
            first = max(low, min(first, around[0][0]))
        last = int(starts[min(int(np.searchsorted(starts, first + limit, side="right")) - 1, len(starts) - 1)])
        return first, min(high, last if last > first else first + limit)


def _mark(labels: NDArray[np.int8], first: int, last: int) -> None:
    labels[first:last] = I
    labels[last - 1] = E
    labels[first] = B


def _number_sentences(
    ids: NDArray[np.int32],
    parts: NDArray[np.int8],
    asked: NDArray[np.int32],
    labels: NDArray[np.int8],
    rows: NDArray[np.int32],
    tag_words: NDArray[np.int32],
    windows: int,
    competing: NDArray[np.bool_],
    teacher: NDArray[np.int32],
) -> Batch:
    w, length = ids.shape
    in_context = rows >= 0
    changes = np.ones((w, length), dtype=bool)
    changes[:, 1:] = rows[:, 1:] != rows[:, :-1]
    changes &= in_context
    numbers = np.cumsum(changes.ravel()).reshape(w, length).astype(np.int32) - 1
    numbers[~in_context] = -1
    where = np.flatnonzero(changes.ravel())
    count = len(where)
    flat = numbers.ravel()
    inside = flat >= 0
    sizes = np.bincount(flat[inside], minlength=count)
    kept = np.bincount(flat[inside], weights=(labels.ravel()[inside] != O), minlength=count)
    return Batch(
        ids=ids,
        parts=parts,
        asked=asked,
        labels=labels,
        sentences=numbers,
        tag_words=tag_words,
        groups=(np.arange(w) // windows).astype(np.int32),
        sentence_windows=(where // length).astype(np.int32),
        sentence_rows=rows.ravel()[where],
        sentence_kept=kept >= 0.5 * np.maximum(sizes, 1),
        competing=competing,
        teacher_queries=teacher,
    )
