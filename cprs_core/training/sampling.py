"""Windows from a corpus: evidence among hard and random neighbours, and queries made harder on the way.

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
from cprs_core.training.views import VIEWS, View

B, I, O, E = range(len(LABELS))  # noqa: E741
_NONE = np.empty((0, 2), dtype=np.int64)
_LONG = 600  # tokens; longer documents are shown in parts
IGNORED = -1  # label of prefix tokens
HELD_OUT = 50  # one query in so many is kept for thresholds and held-out metrics


@dataclass(frozen=True)
class Source:
    """A share of the mixture: records of one set under one view. The set "sentences" makes up its own queries."""

    set_name: str
    view: str
    weight: float


@dataclass(frozen=True)
class Augmentation:
    """How often a query is changed. Chances are per group."""

    no_evidence: float = 0.08  # the right document is left out
    wrong_entity: float = 0.08  # the query asks about another name; nothing answers it
    synonyms: float = 0.25  # words shared with the evidence become neighbours in the backbone's embedding space
    dropped_words: float = 0.10  # words shared with the evidence are left out


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


@dataclass(frozen=True)
class Vocabulary:
    """What a sampler needs of the tokenizer.

    Attributes:
        cls, sep, outside, unknown: vocabulary rows.
        instructions: token ids per view and wording; own_instructions: per instruction of the corpus.
        tag_words: vocabulary row per tag word.
        content (bool, (v,)): whether a token begins a content word.
        continues (bool, (v,)): whether a token continues a word.
        neighbours (int32, (v, n)): words of similar meaning, -1 for none.
    """

    cls: int
    sep: int
    outside: int
    unknown: int
    instructions: dict[str, list[NDArray[np.int32]]]
    own_instructions: list[NDArray[np.int32]]
    tag_words: dict[str, int]
    content: NDArray[np.bool_]
    continues: NDArray[np.bool_]
    neighbours: NDArray[np.int32]


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
        self._views = views
        self._rng = np.random.default_rng(seed)
        self._augmentation = augmentation or Augmentation()
        self._mixture = mixture
        weights = np.array([source.weight for source in mixture])
        self._weights = weights / weights.sum()
        self._tags = np.array(corpus.tags)
        self._held_out = held_out
        self._queries_of = {source: self._matching(source) for source in mixture}
        self._documents_of = {name: np.flatnonzero(corpus.document_sets == i) for i, name in enumerate(corpus.names)}
        self._teacher = np.array([name in teacher_sets for name in corpus.names])
        by_group = np.argsort(corpus.document_groups, kind="stable")
        groups = corpus.document_groups[by_group]
        self._group_starts = np.searchsorted(groups, np.arange(int(groups.max()) + 2)) if len(groups) else groups
        self._by_group = by_group
        self._shared = self._shared_evidence()
        lengths = np.diff(corpus.sentence_starts)
        self._sentence_of = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)

    @property
    def has_queries(self) -> bool:
        """Whether any source of the mixture has records to draw from."""
        return any(len(queries) for queries in self._queries_of.values())

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
            task = self._task()
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

    def _matching(self, source: Source, every: bool = False) -> NDArray[np.int64]:
        """Queries of a source; with ``every`` those of the other part (held out or not) too."""
        corpus = self._corpus
        if source.set_name not in corpus.names:
            return np.empty(0, dtype=np.int64)
        rows = np.flatnonzero(corpus.query_sets == corpus.names.index(source.set_name))
        if len(rows) >= 2 * HELD_OUT and not every:
            rows = rows[(rows % HELD_OUT == 0) == self._held_out]
        view = self._views[source.view]
        if source.set_name != "synthetic":
            return rows
        kinds = np.array([tag.split(":")[0] == view.tag for tag in self._tags])
        return rows[kinds[corpus.query_kinds[rows]]]

    def _key(self, query: int, source: Source) -> object:
        """What is equal for queries that ask for the same: the kind of name, else the words."""
        corpus = self._corpus
        if self._views[source.view].tag == "entity":
            group = int(corpus.document_groups[corpus.query_documents[query]])
            return group, int(corpus.query_kinds[query])
        return corpus.query_tokens[corpus.query_starts[query] : corpus.query_starts[query + 1]].tobytes()

    def _shared_evidence(self) -> dict[tuple[Source, object], NDArray[np.int64]]:
        """For sources that ask the same of many documents: evidence of each query in all documents of the set.

        Without it the names in a neighbouring document would be taught as wrong.
        """
        corpus = self._corpus
        found: dict[tuple[Source, object], list[NDArray[np.int64]]] = {}
        for source in self._mixture:
            if not self._views[source.view].shared:
                continue
            for query in self._matching(source, every=True).tolist():
                rows = corpus.evidence[corpus.evidence_starts[query] : corpus.evidence_starts[query + 1]]
                matching = [tag.split(":")[0] == self._views[source.view].tag for tag in self._tags[rows[:, 2]]]
                found.setdefault((source, self._key(query, source)), []).append(
                    rows[np.array(matching, dtype=bool), :2]
                )
        return {key: np.concatenate(parts) for key, parts in found.items()}

    def _task(self) -> _Task:
        while True:
            source = self._mixture[int(self._rng.choice(len(self._mixture), p=self._weights))]
            if source.set_name == "sentences":
                return self._made_up_task(source)
            queries = self._queries_of[source]
            if len(queries):
                return self._recorded_task(int(queries[self._rng.integers(len(queries))]), source)

    def _recorded_task(self, query: int, source: Source) -> _Task:
        corpus, view = self._corpus, self._views[source.view]
        document = int(corpus.query_documents[query])
        tokens = corpus.query_tokens[corpus.query_starts[query] : corpus.query_starts[query + 1]].astype(np.int32)
        rows = corpus.evidence[corpus.evidence_starts[query] : corpus.evidence_starts[query + 1]]
        if view.tag == "document":
            evidence = [(int(corpus.document_starts[document]), int(corpus.document_starts[document + 1]))]
        else:
            matching = np.array([tag.split(":")[0] == view.tag for tag in self._tags[rows[:, 2]]], dtype=bool)
            evidence = [(int(a), int(b)) for a, b, _ in rows[matching]]
        teacher = query if view.by_sentence and self._teacher[corpus.query_sets[query]] else -1
        instruction = int(corpus.query_instructions[query])
        elsewhere = self._shared.get((source, self._key(query, source)), _NONE)
        task = _Task(view, source, tokens, document, evidence, corpus.negatives[query], teacher, elsewhere, instruction)
        return self._harder(task, query)

    def _made_up_task(self, source: Source) -> _Task:
        """A query from one or two sentences of a document: some words, some order, nothing else."""
        corpus, rng = self._corpus, self._rng
        while True:
            document = int(rng.integers(len(corpus.document_sets)))
            if corpus.names[corpus.document_sets[document]] in ("synthetic", "cipher"):
                continue
            low, high = corpus.document_starts[document], corpus.document_starts[document + 1]
            first, last = np.searchsorted(corpus.sentence_starts, (low, high))
            if last - first < 3:
                continue
            chosen = rng.choice(
                np.arange(first, last), size=min(int(rng.choice((1, 1, 2, 3))), last - first), replace=False
            )
            spans = [(int(corpus.sentence_starts[s]), int(corpus.sentence_starts[s + 1])) for s in np.sort(chosen)]
            if all(8 <= b - a <= 120 for a, b in spans):
                break
        keep = rng.uniform(0.35, 0.9)
        tokens = np.concatenate([self._some_words(corpus.tokens[a:b].astype(np.int32), keep) for a, b in spans])[:80]
        is_one = len(spans) == 1 and self._teacher[corpus.document_sets[document]]
        teacher = len(corpus.query_sets) + int(chosen[0]) if is_one else -1
        empty = np.empty(0, dtype=np.int32)
        return self._harder(
            _Task(self._views[source.view], source, tokens, document, spans, empty, teacher, _NONE), None
        )

    def _some_words(self, tokens: NDArray[np.int32], keep: float) -> NDArray[np.int32]:
        """Whole words of ``tokens``: one run of them, or each with chance ``keep``."""
        if self._rng.random() < 0.4:
            span = max(6, int(keep * len(tokens)))
            begin = int(self._rng.integers(0, max(1, len(tokens) - span + 1)))
            return tokens[begin : begin + span]
        words = np.cumsum(~self._vocabulary.continues[tokens])
        kept = self._rng.random(int(words.max()) + 1) < keep
        some = tokens[kept[words]]
        return some if len(some) else tokens[:8]

    def _harder(self, task: _Task, query: int | None) -> _Task:
        """Perhaps another name, other words or fewer words in the query; perhaps no evidence at all."""
        chance, rng = self._augmentation, self._rng
        draw = rng.random()
        whole = self._length(task.document) <= _LONG  # parts of a long document are their own neighbours
        if draw < chance.no_evidence and task.evidence and whole:
            task.evidence, task.show_document, task.teacher = [], False, -1
            return task
        draw -= chance.no_evidence
        if draw < 0:
            return task
        if draw < chance.wrong_entity:
            if query is not None and task.view.by_sentence and task.view.tag != "document":
                self._swap_entity(task, query)
            return task
        draw -= chance.wrong_entity
        if draw < chance.synonyms + chance.dropped_words and task.evidence and task.view.by_sentence:
            shared = np.isin(task.query, np.concatenate([self._corpus.tokens[a:b] for a, b in task.evidence[:4]]))
            shared &= self._vocabulary.content[task.query]
            if draw < chance.synonyms:
                options = self._vocabulary.neighbours[task.query, rng.integers(self._vocabulary.neighbours.shape[1])]
                swap = shared & (options >= 0) & (rng.random(len(shared)) < 0.75)
                task.query = np.where(swap, options, task.query).astype(np.int32)
            else:
                dropped = shared & (rng.random(len(shared)) < 0.5)
                task.query = task.query[~dropped] if (~dropped).sum() >= 3 else task.query
        return task

    def _swap_entity(self, task: _Task, query: int) -> None:
        corpus = self._corpus
        low, high = corpus.entity_spans[query].tolist()
        others = self._queries_of[task.source]
        for _ in range(4):
            other = int(others[self._rng.integers(len(others))])
            a, b = corpus.entity_spans[other].tolist()
            if high > low and b > a and corpus.query_documents[other] != task.document:
                begin = int(corpus.query_starts[other])
                name = corpus.query_tokens[begin + a : begin + b].astype(np.int32)
                task.query = np.concatenate([task.query[:low], name, task.query[high:]])
                task.evidence, task.elsewhere, task.teacher = [], _NONE, -1
                return

    def _prefix(self, task: _Task, room: int) -> tuple[NDArray[np.int32], int]:
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

    def _pieces(self, task: _Task, room: int, gold: bool) -> list[tuple[int, int]]:
        """Token ranges that fill ``room`` tokens, in random order; with ``gold`` the right one is among them."""
        pieces: list[tuple[int, int]] = []
        filled = 0
        if gold and task.show_document:
            pieces.append(self._piece_of(task.document, room, around=task.evidence))
            filled = pieces[0][1] - pieces[0][0]
        misses = 0
        while filled < room:
            piece = self._piece_of(self._neighbour(task), room, around=[])
            misses += 1
            # The same text twice is only shown where there is no other.
            if misses > 50 or not (pieces and piece[0] < pieces[0][1] and pieces[0][0] < piece[1]):
                pieces.append(piece)
                filled += piece[1] - piece[0]
        if len(pieces) > 1 and gold and task.show_document:
            # The last piece is cut where the window ends; the right one never is.
            order = self._rng.permutation(len(pieces) - 1)
            pieces = [pieces[i] for i in order] + pieces[-1:]
        return pieces

    def _neighbour(self, task: _Task) -> int:
        """A document that is not the right one: hard, of the same group, the same long document, or any of the set."""
        rng, corpus = self._rng, self._corpus
        hard = task.hard[task.hard >= 0]
        same_domain = task.view.tag == "entity"  # where kinds of names mean the same
        draw = rng.random()
        if len(hard) and draw < 0.55:
            return int(hard[rng.integers(len(hard))])
        if self._length(task.document) > _LONG and draw < 0.7:
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


@dataclass
class _Task:
    """``evidence`` lies in the task's document, ``elsewhere`` (n, 2) is what the same query finds in others."""

    view: View
    source: Source
    query: NDArray[np.int32]
    document: int
    evidence: list[tuple[int, int]]
    hard: NDArray[np.int32]
    teacher: int
    elsewhere: NDArray[np.int64]
    instruction: int = 0
    show_document: bool = True

    @property
    def known(self) -> NDArray[np.int64]:
        """int64, (n, 2): all token ranges that are to be kept."""
        own = np.array(self.evidence, dtype=np.int64).reshape(-1, 2)
        return np.concatenate([own, self.elsewhere]) if len(self.elsewhere) else own


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
