"""What is asked of which document: a query of the mixture, perhaps made harder, and what answers it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from cprs_core.training.corpus import Corpus
from cprs_core.training.views import VIEWS, View

_NONE = np.empty((0, 2), dtype=np.int64)
LONG_DOCUMENT = 600  # tokens; longer documents are shown in parts
HELD_OUT = 50  # one query in so many is kept for thresholds and held-out metrics
_FEW_SHARED = 0.25  # share of a set's queries that counts as sharing few words with their evidence
_ANSWER = "answer"


@dataclass(frozen=True)
class Source:
    """A share of the mixture: records of one set under one view. The set "sentences" makes up its own queries.

    Attributes:
        few_shared: only the quarter of queries that share the fewest words with their evidence.
        stated: the query and its answer, one after the other, as a claim.
    """

    set_name: str
    view: str
    weight: float
    few_shared: bool = False
    stated: bool = False


@dataclass(frozen=True)
class Augmentation:
    """How often a query, or the document under it, is changed. Chances are per group."""

    no_evidence: float = 0.08  # the right document is left out
    cut_evidence: float = 0.06  # the right document is shown without its evidence; nothing answers the query
    wrong_entity: float = 0.08  # the query asks about another name; nothing answers it
    synonyms: float = 0.25  # words shared with the evidence become neighbours in the backbone's embedding space
    dropped_words: float = 0.10  # words shared with the evidence are left out
    joined: float = 0.04  # two queries of one document are asked at once
    lone_evidence: float = 0.15  # the evidence stands alone among other documents, without the text around it
    likeness: float = 0.1  # only the teacher speaks, over single sentences that it finds more or less alike
    named_tag: float = 0.2  # the instruction says which word to tag with: any word
    two_kinds: float = 0.3  # of names: two kinds are asked for, each with a tag word of its own
    no_query: float = 0.07  # the instruction says it all


NO_AUGMENTATION = Augmentation(**{name.name: 0.0 for name in fields(Augmentation)})


Around = tuple[NDArray[np.int32], NDArray[np.int32]]  # token ids before and after something


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
        alike (int32, (q, n)): sentences of other documents that the teacher finds most like each query, -1 for none.
        kind_words: vocabulary row of the word for each kind of name.
        tagging: token ids around the tag word in clauses such as "Tag them with 'x'."; none to leave them out.
        requests: token ids around a query that is put into the instruction; none to leave that out.
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
    alike: NDArray[np.int32] = field(default_factory=lambda: np.empty((0, 0), dtype=np.int32))
    kind_words: Mapping[str, int] = field(default_factory=dict)
    tagging: Sequence[Around] = ()
    requests: Sequence[Around] = ()


@dataclass
class Task:
    """A query, a document, and what of it is to be kept.

    Attributes:
        evidence: token ranges of the document that answer the query.
        elsewhere (int64, (n, 2)): what the same query finds in other documents.
        hard (int32): documents that look like the right one, -1 for none.
        teacher: row of the teacher's embeddings; -1 for none.
        shown: token ranges to show instead of the document; None for the document itself.
        lone: whether the shown ranges stand among any documents, not among those that look alike.
        likeness: sentences that are more or less like the query are shown, and nothing but their likeness is taught.
        kind: what the names that are asked for are; "" where it is not names.
        other_kind, other_known (int64, (n, 2)): another kind that is asked for too, and its names in all documents.
    """

    view: View
    source: Source
    query: NDArray[np.int32]
    document: int
    evidence: list[tuple[int, int]]
    hard: NDArray[np.int32]
    teacher: int
    elsewhere: NDArray[np.int64]
    instruction: int = 0
    shown: list[tuple[int, int]] | None = None
    lone: bool = False
    likeness: bool = False
    kind: str = ""
    other_kind: str = ""
    other_known: NDArray[np.int64] = field(default_factory=lambda: _NONE)

    @property
    def known(self) -> NDArray[np.int64]:
        """int64, (n, 2): all token ranges that are to be kept."""
        own = np.array(self.evidence, dtype=np.int64).reshape(-1, 2)
        return np.concatenate([own, self.elsewhere]) if len(self.elsewhere) else own


class TaskMaker:
    """Draws tasks from the sources of a mixture, by their weights."""

    def __init__(
        self,
        corpus: Corpus,
        vocabulary: Vocabulary,
        mixture: list[Source],
        augmentation: Augmentation | None = None,
        teacher_sets: frozenset[str] = frozenset(),
        held_out: bool = False,
        views: Mapping[str, View] = VIEWS,
    ) -> None:
        """``held_out`` draws only from the queries that training never sees: one in `HELD_OUT`."""
        self._corpus = corpus
        self._vocabulary = vocabulary
        self._views = views
        self._augmentation = augmentation or Augmentation()
        self._mixture = mixture
        weights = np.array([source.weight for source in mixture])
        self._weights = weights / weights.sum()
        self._tags = np.array(corpus.tags)
        self._held_out = held_out
        self._queries_of = {source: self._matching(source) for source in mixture}
        self._teacher = np.array([name in teacher_sets for name in corpus.names])
        self._shared = self._shared_evidence()

    @property
    def has_queries(self) -> bool:
        """Whether any source of the mixture has records to draw from."""
        return any(len(queries) for queries in self._queries_of.values())

    def draw(self, rng: np.random.Generator) -> Task:
        """One task."""
        while True:
            source = self._mixture[int(rng.choice(len(self._mixture), p=self._weights))]
            if source.set_name == "sentences":
                return self._made_up_task(source, rng)
            queries = self._queries_of[source]
            if len(queries):
                return self._recorded_task(int(queries[rng.integers(len(queries))]), source, rng)

    def _matching(self, source: Source, every: bool = False) -> NDArray[np.int64]:
        """Queries of a source, by document; with ``every`` those of the other part (held out or not) too."""
        corpus = self._corpus
        if source.set_name not in corpus.names:
            return np.empty(0, dtype=np.int64)
        rows = np.flatnonzero(corpus.query_sets == corpus.names.index(source.set_name))
        if len(rows) >= 2 * HELD_OUT and not every:
            rows = rows[(rows % HELD_OUT == 0) == self._held_out]
        rows = rows[np.argsort(corpus.query_documents[rows], kind="stable")]
        if source.few_shared and len(rows):
            shares = np.array([self._shared_words(query, source) for query in rows.tolist()])
            return rows[shares <= np.quantile(shares, _FEW_SHARED)]
        if source.set_name != "synthetic":
            return rows
        kinds = np.array([tag.split(":")[0] == self._views[source.view].tag for tag in self._tags])
        return rows[kinds[corpus.query_kinds[rows]]]

    def _shared_words(self, query: int, source: Source) -> float:
        """Share of the query's content words that its evidence holds too; 1 where there is nothing to compare."""
        tokens = self._query_tokens(query)
        content = tokens[self._vocabulary.content[tokens]]
        evidence = self._evidence(query, self._views[source.view].tag)
        if not len(content) or not evidence:
            return 1.0
        return float(np.isin(content, np.concatenate([self._corpus.tokens[a:b] for a, b in evidence])).mean())

    def _query_tokens(self, query: int) -> NDArray[np.int32]:
        starts = self._corpus.query_starts
        return self._corpus.query_tokens[starts[query] : starts[query + 1]].astype(np.int32)

    def _evidence(self, query: int, tag: str) -> list[tuple[int, int]]:
        corpus = self._corpus
        rows = corpus.evidence[corpus.evidence_starts[query] : corpus.evidence_starts[query + 1]]
        return [(a, b) for a, b, kind in rows.tolist() if corpus.tags[kind].split(":")[0] == tag]

    def _key(self, query: int, source: Source) -> object:
        """What is equal for queries that ask for the same: the kind of name, else the words."""
        corpus = self._corpus
        if self._views[source.view].tag == "entity":
            group = int(corpus.document_groups[corpus.query_documents[query]])
            return group, int(corpus.query_kinds[query])
        return self._query_tokens(query).tobytes()

    def _shared_evidence(self) -> dict[tuple[Source, object], NDArray[np.int64]]:
        """For sources that ask the same of many documents: evidence of each query in all documents of the set.

        Without it the names in a neighbouring document would be taught as wrong.
        """
        found: dict[tuple[Source, object], list[tuple[int, int]]] = {}
        for source in self._mixture:
            view = self._views[source.view]
            if not view.shared:
                continue
            for query in self._matching(source, every=True).tolist():
                found.setdefault((source, self._key(query, source)), []).extend(self._evidence(query, view.tag))
        return {key: np.array(parts, dtype=np.int64).reshape(-1, 2) for key, parts in found.items()}

    def _recorded_task(self, query: int, source: Source, rng: np.random.Generator) -> Task:
        corpus, view = self._corpus, self._views[source.view]
        document = int(corpus.query_documents[query])
        if view.tag == "document":
            evidence = [(int(corpus.document_starts[document]), int(corpus.document_starts[document + 1]))]
        else:
            evidence = self._evidence(query, view.tag)
        task = Task(
            view,
            source,
            self._stated(query) if source.stated else self._query_tokens(query),
            document,
            evidence,
            corpus.negatives[query],
            query if view.by_sentence and not source.stated and self._teacher[corpus.query_sets[query]] else -1,
            self._shared.get((source, self._key(query, source)), _NONE),
            int(corpus.query_instructions[query]),
        )
        if view.tag == "entity":
            task.kind = corpus.tags[corpus.query_kinds[query]].partition(":")[2]
            if rng.random() < self._augmentation.two_kinds:
                self._add_kind(task, query, rng)
        return self._harder(task, query, rng)

    def _add_kind(self, task: Task, query: int, rng: np.random.Generator) -> None:
        """Asks for another kind of name in the same document too."""
        other = self._another_query(task, rng)
        kind = self._corpus.tags[self._corpus.query_kinds[other]].partition(":")[2]
        if kind != task.kind and {kind, task.kind} <= self._vocabulary.kind_words.keys():
            task.query = np.concatenate([task.query, self._query_tokens(other)])
            task.other_kind = kind
            task.other_known = self._shared.get((task.source, self._key(other, task.source)), _NONE)

    def _another_query(self, task: Task, rng: np.random.Generator) -> int:
        """Any query of the task's source and document, perhaps its own."""
        queries = self._queries_of[task.source]
        documents = self._corpus.query_documents[queries]
        return int(queries[rng.integers(*np.searchsorted(documents, (task.document, task.document + 1)))])

    def _stated(self, query: int) -> NDArray[np.int32]:
        """The question, without its mark, and its answer: the words of a claim, if not its grammar."""
        tokens = self._query_tokens(query)
        answers = self._evidence(query, _ANSWER)
        if not answers:
            return tokens
        if len(tokens) > 1 and not self._vocabulary.content[tokens[-1]] and not self._vocabulary.continues[tokens[-1]]:
            tokens = tokens[:-1]
        a, b = answers[0]
        return np.concatenate([tokens, self._corpus.tokens[a:b].astype(np.int32)])

    def _made_up_task(self, source: Source, rng: np.random.Generator) -> Task:
        """A query from one or two sentences of a document: some words, some order, nothing else."""
        corpus = self._corpus
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
        tokens = np.concatenate([self._some_words(corpus.tokens[a:b].astype(np.int32), keep, rng) for a, b in spans])
        is_one = len(spans) == 1 and self._teacher[corpus.document_sets[document]]
        teacher = len(corpus.query_sets) + int(chosen[0]) if is_one else -1
        empty = np.empty(0, dtype=np.int32)
        task = Task(self._views[source.view], source, tokens[:80], document, spans, empty, teacher, _NONE)
        return self._harder(task, None, rng)

    def _some_words(self, tokens: NDArray[np.int32], keep: float, rng: np.random.Generator) -> NDArray[np.int32]:
        """Whole words of ``tokens``: one run of them, or each with chance ``keep``."""
        if rng.random() < 0.4:
            span = max(6, int(keep * len(tokens)))
            begin = int(rng.integers(0, max(1, len(tokens) - span + 1)))
            return tokens[begin : begin + span]
        words = np.cumsum(~self._vocabulary.continues[tokens])
        kept = rng.random(int(words.max()) + 1) < keep
        some = tokens[kept[words]]
        return some if len(some) else tokens[:8]

    def _harder(self, task: Task, query: int | None, rng: np.random.Generator) -> Task:
        """Perhaps another name, other words or fewer words in the query; perhaps no evidence, or it alone."""
        chance = self._augmentation
        if task.teacher >= 0 and rng.random() < chance.likeness:
            task.likeness, task.evidence, task.elsewhere, task.shown = True, [], _NONE, []
            return task
        draw = rng.random()
        for name in ("no_evidence", "cut_evidence", "wrong_entity", "joined", "synonyms", "dropped_words"):
            draw -= getattr(chance, name)
            if draw < 0:
                getattr(self, f"_with_{name}")(task, query, rng)
                break
        if task.evidence and self._of_one_sentence(task) and rng.random() < chance.lone_evidence:
            task.shown, task.lone = list(task.evidence), True
            if rng.random() < 0.5:
                self._reword(task, 1.0, rng)
        return task

    def _with_no_evidence(self, task: Task, query: int | None, rng: np.random.Generator) -> None:
        if task.evidence and self._is_short(task.document):  # parts of a long document are their own neighbours
            task.evidence, task.shown, task.teacher = [], [], -1

    def _with_cut_evidence(self, task: Task, query: int | None, rng: np.random.Generator) -> None:
        if query is None or not self._of_one_sentence(task):
            return
        at, high = (int(value) for value in self._corpus.document_starts[task.document : task.document + 2])
        rest = []
        for a, b in sorted(task.evidence):
            rest.append((at, a))
            at = max(at, b)
        rest = [(a, b) for a, b in [*rest, (at, high)] if b - a > 2]
        if rest and not self._holds_answer(query, rest):
            task.evidence, task.shown, task.elsewhere, task.teacher = [], rest, _NONE, -1

    def _holds_answer(self, query: int, spans: list[tuple[int, int]]) -> bool:
        tokens = self._corpus.tokens
        answers = [tokens[a:b].tobytes() for a, b in self._evidence(query, _ANSWER)]
        return any(answer in tokens[a:b].tobytes() for answer in answers for a, b in spans)

    def _with_wrong_entity(self, task: Task, query: int | None, rng: np.random.Generator) -> None:
        if query is None or task.source.stated or not task.view.by_sentence or task.view.tag == "document":
            return
        corpus = self._corpus
        low, high = corpus.entity_spans[query].tolist()
        others = self._queries_of[task.source]
        for _ in range(4):
            other = int(others[rng.integers(len(others))])
            a, b = corpus.entity_spans[other].tolist()
            if high > low and b > a and corpus.query_documents[other] != task.document:
                begin = int(corpus.query_starts[other])
                name = corpus.query_tokens[begin + a : begin + b].astype(np.int32)
                task.query = np.concatenate([task.query[:low], name, task.query[high:]])
                task.evidence, task.elsewhere, task.teacher = [], _NONE, -1
                return

    def _with_joined(self, task: Task, query: int | None, rng: np.random.Generator) -> None:
        if query is None or not self._of_one_sentence(task):
            return
        other = self._another_query(task, rng)
        if other != query:
            words = self._stated(other) if task.source.stated else self._query_tokens(other)
            task.query = np.concatenate([task.query, words])
            task.evidence = sorted({*task.evidence, *self._evidence(other, task.view.tag)})
            task.teacher = -1

    def _with_synonyms(self, task: Task, query: int | None, rng: np.random.Generator) -> None:
        if task.view.by_sentence:
            self._reword(task, 0.75, rng)

    def _with_dropped_words(self, task: Task, query: int | None, rng: np.random.Generator) -> None:
        if task.view.by_sentence:
            self._drop(task, self._shared_with_evidence(task) & (rng.random(len(task.query)) < 0.5))

    def _reword(self, task: Task, share: float, rng: np.random.Generator) -> None:
        """Words shared with the evidence become others of like meaning; with a ``share`` of 1 none of them stays."""
        shared = self._shared_with_evidence(task)
        table = self._vocabulary.neighbours
        options = table[task.query, rng.integers(table.shape[1], size=len(task.query))]
        options = np.where(options >= 0, options, table[task.query, 0])
        swap = shared & (options >= 0) & (rng.random(len(shared)) < share)
        task.query = np.where(swap, options, task.query).astype(np.int32)
        if share >= 1.0:
            self._drop(task, shared & ~swap & (rng.random(len(shared)) < 0.7))

    def _shared_with_evidence(self, task: Task) -> NDArray[np.bool_]:
        if not task.evidence:
            return np.zeros(len(task.query), dtype=bool)
        evidence = np.concatenate([self._corpus.tokens[a:b] for a, b in task.evidence[:4]])
        return np.isin(task.query, evidence) & self._vocabulary.content[task.query]

    @staticmethod
    def _drop(task: Task, dropped: NDArray[np.bool_]) -> None:
        if (~dropped).sum() >= 3:
            task.query = task.query[~dropped]

    def _of_one_sentence(self, task: Task) -> bool:
        """Whether single sentences of a short document of real text are asked for."""
        made_up = self._corpus.names[self._corpus.document_sets[task.document]] == "synthetic"
        is_fact = task.view.by_sentence and task.view.tag == "fact" and not task.view.shared
        return bool(task.evidence) and is_fact and not made_up and self._is_short(task.document)

    def _is_short(self, document: int) -> bool:
        starts = self._corpus.document_starts
        return int(starts[document + 1] - starts[document]) <= LONG_DOCUMENT
