"""Windows from a corpus: evidence among hard and random neighbours.

A *group* is several windows under one query: one that holds the evidence (unless there is none) and others that only
look like it, so that sentences compete over more text than one window, as they do in a long context.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cprs_core.scorer import LABELS
from cprs_core.training.corpus import Corpus
from cprs_core.training.tasks import LONG_DOCUMENT, Around, Augmentation, Source, Task, TaskMaker, Vocabulary
from cprs_core.training.views import VIEWS, View

B, I, O, E = range(len(LABELS))  # noqa: E741
IGNORED = -1  # label of prefix tokens
_NOT_PROSE = ("synthetic", "cipher")
_NOTHING = np.empty(0, dtype=np.int32)


@dataclass
class Batch:
    """Windows of one length. w windows, l tokens each, s sentences in all.

    ids, parts, labels, sentences: (w, l); ``sentences`` numbers the sentences of the batch, -1 for prefix tokens.
    asked (w, 2): range of the prefix that says what is looked for.
    tag_words (w, c): vocabulary rows: outside, the tag, the other tag or any word, others. groups (w,).
    tags (w, l): index into the row of ``tag_words``.
    sentence_windows, sentence_rows (s,): window and corpus index of each sentence; sentence_kept (s,) bool.
    competing (w,): whether sentences compete. teacher_queries (w,): row of the teacher's embeddings, -1 for none.
    """

    ids: NDArray[np.int32]
    parts: NDArray[np.int8]
    asked: NDArray[np.int32]
    labels: NDArray[np.int8]
    sentences: NDArray[np.int32]
    tag_words: NDArray[np.int32]
    tags: NDArray[np.int8]
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
        self._augmentation = augmentation or Augmentation()
        self._content = np.flatnonzero(vocabulary.content)
        self._tasks = TaskMaker(corpus, vocabulary, mixture, augmentation, teacher_sets, held_out, views)
        self._documents_of = {name: np.flatnonzero(corpus.document_sets == i) for i, name in enumerate(corpus.names)}
        prose = np.array([name not in _NOT_PROSE for name in corpus.names], dtype=bool)
        self._prose = np.flatnonzero(prose[corpus.document_sets])
        by_group = np.argsort(corpus.document_groups, kind="stable")
        groups = corpus.document_groups[by_group]
        self._group_starts = np.searchsorted(groups, np.arange(int(groups.max()) + 2)) if len(groups) else groups
        self._by_group = by_group
        of_teacher = np.array([name in teacher_sets for name in corpus.names], dtype=bool)[corpus.document_sets]
        documents = np.searchsorted(corpus.document_starts, corpus.sentence_starts[:-1], side="right") - 1
        self._taught = np.flatnonzero(of_teacher[documents])
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
        tags = np.zeros((w, length), dtype=np.int8)
        competing = np.zeros(w, dtype=bool)
        teacher = np.full(w, -1, dtype=np.int32)
        for group in range(groups):
            task = self._tasks.draw(self._rng)
            prefix, span, words = self._prefix(task, length // 2)
            for k in range(windows):
                row = group * windows + k
                pieces = self._pieces(task, length - len(prefix), gold=k == 0)
                at = len(prefix)
                ids[row, :at] = prefix
                asked[row] = span
                parts[row, at:] = 1
                labels[row, at:] = IGNORED if task.likeness else O
                for first, last in pieces:
                    size = min(last - first, length - at)
                    ids[row, at : at + size] = self._corpus.tokens[first : first + size]
                    rows[row, at : at + size] = self._sentence_of[first : first + size]
                    for tag, known in ((1, task.known), (2, task.other_known)):
                        for a, b in known[(known[:, 0] < first + size) & (known[:, 1] > first)].tolist():
                            begin, end = at + max(a, first) - first, at + min(b, first + size) - first
                            _mark(labels[row], begin, end)
                            tags[row, begin:end] = tag
                    at += size
                tag_words[row] = words
                competing[row] = task.view.by_sentence and not task.likeness
                teacher[row] = task.teacher
        return _number_sentences(ids, parts, asked, labels, rows, tag_words, tags, windows, competing, teacher)

    def _prefix(self, task: Task, room: int) -> tuple[NDArray[np.int32], tuple[int, int], NDArray[np.int32]]:
        """Prefix of at most ``room`` tokens, the range of it that says what is looked for, and the tag head's rows."""
        vocabulary, chance, rng = self._vocabulary, self._augmentation, self._rng
        wordings = vocabulary.instructions[task.source.view]
        instruction = wordings[int(rng.integers(len(wordings)))]
        if task.instruction and rng.random() < 0.8:
            instruction = vocabulary.own_instructions[task.instruction]
        named, other = self._tag_words(task)
        if task.other_kind:
            kinds = [(vocabulary.kind_words[kind], kind) for kind in (task.kind, task.other_kind)]
            named, other = kinds[0][0], kinds[1][0]
            for row, kind in kinds:
                names = np.array([vocabulary.kind_words[kind]], dtype=np.int32)
                instruction = np.concatenate([instruction, names, *_around(self._choice(vocabulary.tagging), row)])
        elif vocabulary.tagging and rng.random() < chance.named_tag:
            named = self._any_tag_word(task)
            instruction = np.concatenate([instruction, *_around(self._choice(vocabulary.tagging), named)])
        query = task.query[: max(1, room - len(instruction) - 8)]
        if vocabulary.requests and not task.other_kind and rng.random() < chance.no_query:
            before, after = self._choice(vocabulary.requests)
            instruction, query = np.concatenate([before, query, after]), query[:0]
        instruction = instruction[: room - 8]
        cls, sep = np.array([vocabulary.cls], np.int32), np.array([vocabulary.sep], np.int32)
        prefix = np.concatenate([cls, instruction, sep, query, sep])
        span = (len(instruction) + 2, len(prefix) - 1) if len(query) else (1, len(instruction) + 1)
        taken = {named, other}
        others = [row for row in self._foreign_tag_words(task) if row not in taken]
        return (
            prefix,
            span,
            np.array([vocabulary.outside, named, other, *rng.choice(others, 2, replace=False)], np.int32),
        )

    def _choice(self, options: Sequence[Around]) -> Around:
        return options[int(self._rng.integers(len(options)))]

    def _tag_words(self, task: Task) -> tuple[int, int]:
        """The view's word, now and then any word, and one that names something else."""
        vocabulary, rng = self._vocabulary, self._rng
        if rng.random() < 0.1:
            named = int(rng.choice(self._content))
        else:
            named = vocabulary.tag_words[task.view.tag_words[int(rng.integers(len(task.view.tag_words)))]]
        others = [row for row in self._foreign_tag_words(task) if row != named]
        return named, int(rng.choice(others))

    def _any_tag_word(self, task: Task) -> int:
        """A word that an instruction may name: the kind's own, that of another view, or any."""
        vocabulary, rng = self._vocabulary, self._rng
        if task.kind in vocabulary.kind_words and rng.random() < 0.6:
            return vocabulary.kind_words[task.kind]
        if rng.random() < 0.35:
            return int(rng.choice(list(vocabulary.tag_words.values())))
        return int(rng.choice(self._content))

    def _foreign_tag_words(self, task: Task) -> list[int]:
        own = {self._vocabulary.tag_words[word] for word in task.view.tag_words}
        return [row for row in dict.fromkeys(self._vocabulary.tag_words.values()) if row not in own]

    def _pieces(self, task: Task, room: int, gold: bool) -> list[tuple[int, int]]:
        """Token ranges that fill ``room`` tokens, in random order; with ``gold`` the right ones are among them."""
        if task.likeness:
            return self._alike_sentences(task, room)
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

    def _alike_sentences(self, task: Task, room: int) -> list[tuple[int, int]]:
        """Single sentences from anywhere that the teacher has read, half of them like the query."""
        rng, starts = self._rng, self._corpus.sentence_starts
        alike = self._vocabulary.alike[task.teacher] if task.teacher < len(self._vocabulary.alike) else _NOTHING
        alike = alike[alike >= 0]
        pieces: dict[int, tuple[int, int]] = {}
        filled, draws = 0, 0
        while filled < room and draws < 400:
            draws += 1
            pool = alike if len(alike) and rng.random() < 0.5 else self._taught
            sentence = int(pool[rng.integers(len(pool))])
            first, last = int(starts[sentence]), int(starts[sentence + 1])
            if sentence not in pieces and 3 < last - first < 120:
                pieces[sentence] = (first, last)
                filled += last - first
        return list(pieces.values())

    def _neighbour(self, task: Task) -> int:
        """A document that is not the right one: hard, of the same group, the same long document, or any of the set."""
        rng, corpus = self._rng, self._corpus
        if task.lone and rng.random() < 0.5:
            return self._other_than(task.document, self._prose)
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
        return self._other_than(task.document, documents)

    def _other_than(self, document: int, documents: NDArray[np.int64]) -> int:
        """Any of ``documents``, in ascending order, but not ``document`` unless there is no other."""
        at = int(np.searchsorted(documents, document))
        if len(documents) < 2 or at == len(documents) or documents[at] != document:
            return int(documents[self._rng.integers(len(documents))])
        return int(documents[(at + 1 + self._rng.integers(len(documents) - 1)) % len(documents)])

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


def _around(around: Around, word: int) -> list[NDArray[np.int32]]:
    return [around[0], np.array([word], dtype=np.int32), around[1]]


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
    tags: NDArray[np.int8],
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
        tags=tags,
        groups=(np.arange(w) // windows).astype(np.int32),
        sentence_windows=(where // length).astype(np.int32),
        sentence_rows=rows.ravel()[where],
        sentence_kept=kept >= 0.5 * np.maximum(sizes, 1),
        competing=competing,
        teacher_queries=teacher,
    )
