"""Chains across windows: what was found extends the query, and only what that makes plausible is read again.

A critic's window sees only itself, so of "the survey team reports to the harbour office" and, forty pages on, "the
harbour office has moved to Oslo" it finds the first. A hop asks again with the question and the text that was found,
but only of segments that share a rare word with that text which the question did not have.

A question that holds other questions ("Which is earlier: “...” or “...”?", or two one after the other) is asked
part by part too, since a critic that reads both at once may see to one. Of a question inside another ("When did the
answer to “...” die?") the words that answer it are found, put in its place, and the whole is asked again.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cprs_core.context import Context, ScoredContext
from cprs_core.deadline import Deadline
from cprs_core.errors import NonFiniteScoresError
from cprs_core.reading import Reading, likelihoods, read_windows
from cprs_core.scorer import OUTSIDE, OnProgress, Prefix, Scorer
from cprs_core.segmentation import Segments
from cprs_core.selection import KEYWORD_OUTSIDE, decode_spans, surest_tokens
from cprs_core.windows import Windows, plan_windows
from cprs_core.words import find_words

# Hops of "auto": the longest chains of the published tasks have ten links.
MAX_HOPS = 16

FOLLOWED = 4  # found segments that extend the query, per hop
READ_WINDOWS = 12  # windows that are read again for each
MOST_PARTS = 4  # of a question, that are asked by themselves

# What stands in quotation marks, and questions one after the other; a part of fewer words says too little by itself.
_QUOTED = re.compile(r"“([^“”]+)”|\"([^\"]+)\"|«([^«»]+)»|„([^„“]+)“|「([^「」]+)」|『([^『』]+)』")
_QUESTION_MARKS = "?？؟"
_QUESTION_END = re.compile(rf"(?<=[{_QUESTION_MARKS}])(?![{_QUESTION_MARKS}])")
_PART_WORDS, _PART_CHARACTERS = 4, 8
_LEAST_SCORE = 0.05  # of a segment that is followed
_FOLLOWED_SHARE = 0.2  # of the best score, likewise

# Words of the question that so few segments hold say where to begin, too, if the critic does not.
_ASKED_LEAST = 20
_ASKED_ABOUT = 2  # segments with such words that are followed in any case

# How many segments may hold a word that links two of them: names and identifiers are links where common words are not.
_COMMON_SHARE, _COMMON_LEAST = 0.002, 6
_NAME_SHARE, _NAME_LEAST = 0.02, 60

# What a shared word says by itself, before the critic reads: that the segment is about it. A segment that begins with
# it (defines it, in code; has it as its subject, in prose) is likelier to be than one that mentions it.
# Names say less: many sentences are about a person, few are what the question needs.
_IDENTIFIER_EVIDENCE = 0.6
_MENTION = 0.25  # of that, where another rare word comes first
_HOP_DECAY = 0.98  # so that what came first wins where scores are equal


@dataclass(frozen=True)
class Link:
    """A segment that a later hop found: characters of the context, and the link or first-pass segment it follows.

    What a part of the question found follows no segment.
    """

    start: int
    end: int
    hop: int
    follows: tuple[int, int] | None


@dataclass(frozen=True)
class Chain:
    """The context's scores after all hops.

    Attributes:
        scored: with the token scores of what was found put in.
        links: what was found, in the order of hops.
        hops: passes that were made, the first included.
        windows: windows that were read after the first pass.
        complete: whether nothing was left unasked for lack of time.
    """

    scored: ScoredContext
    links: list[Link]
    hops: int
    windows: int
    complete: bool = True


def follow(
    scored: ScoredContext,
    segments: Segments,
    scorer: Scorer,
    query: str,
    encode_prefix: Callable[[str], Prefix],
    *,
    encode_answers: Callable[[str], Prefix] | None = None,
    hops: int = MAX_HOPS,
    deadline: Deadline | None = None,
    on_progress: OnProgress | None = None,
) -> Chain:
    """Passes after the first.

    Args:
        scored: what the first pass found.
        segments (int64, (s, 2)): what is followed from and to: sentences or lines.
        scorer: reads the windows.
        query: the user's question.
        encode_prefix: a query in the critic's wire format, under the call's instruction.
        encode_answers: a query under the instruction for the exact words that answer it; None where questions inside
            the question are not to be answered.
        hops: passes in all, at most.
        deadline: no reading is begun after it, and one that is under way stops there; the chain ends where it is.
        on_progress: called with tokens scored, those of the first pass included, and with what they are to be when
            the reading in hand is done; what comes after it is not known before.
    """
    walk = _Walk(scored, segments, scorer, query, encode_prefix, deadline, on_progress)
    frontier, parts = walk.seeds(), parts_of(query)
    nested = nested_question(query) if encode_answers is not None else None
    hop = 1
    while (frontier or parts or nested) and hop < hops and walk.goes_on():
        hop += 1
        found: list[int] = []
        if nested is not None and not parts and encode_answers is not None:  # its part was asked a hop ago
            found += walk.ask_answered(nested, encode_answers(nested.inner), hop)
            nested = None
        while parts and walk.goes_on():
            found += walk.ask(parts.pop(0), hop)
        for segment in frontier:
            if not walk.goes_on():
                break
            found += walk.extend(segment, hop)
        frontier = walk.best(found)
    return Chain(replace(scored, scores=walk.token_scores), walk.links, hop, walk.windows, walk.complete)


def parts_of(query: str) -> list[str]:
    """Questions that a question holds, at most `MOST_PARTS`; none where it is one question."""
    quoted = [next(filter(None, groups)).strip() for groups in _QUOTED.findall(query)]
    questions = [part.strip() for part in _QUESTION_END.split(query) if part.endswith(tuple(_QUESTION_MARKS))]
    parts = quoted or (questions if len(questions) > 1 else [])
    long = [part for part in parts if len(part.split()) >= _PART_WORDS or _is_long_unspaced(part)]
    return list(dict.fromkeys(long))[:MOST_PARTS]


@dataclass(frozen=True)
class Nested:
    """A question with another one inside it, in quotation marks: ``before`` “``inner``” ``after``."""

    before: str
    inner: str
    after: str

    def answered(self, answer: str) -> str:
        """The question with the answer in the inner question's place."""
        return f"{self.before}{answer}{self.after}"


def nested_question(query: str) -> Nested | None:
    """The question that stands inside ``query``; None where there is none, or where there are several to compare."""
    quoted = list(_QUOTED.finditer(query))
    if len(quoted) != 1 or not parts_of(query):
        return None
    inner = next(filter(None, quoted[0].groups())).strip()
    before, after = query[: quoted[0].start()], query[quoted[0].end() :]
    return Nested(before, inner, after) if (before + after).strip() else None


def _is_long_unspaced(part: str) -> bool:
    return not part.isascii() and " " not in part and len(part) >= _PART_CHARACTERS


def place_links(links: Sequence[Link], spans: Sequence[tuple[int, int]]) -> list[tuple[int, int | None]]:
    """Hop of every kept span, and which of the spans it follows.

    Args:
        spans: characters of the context, ascending. A span that no link overlaps was found by the first pass.

    Returns:
        (hop, index): where the segment that was followed is not kept, the nearest kept one before it in the chain.
    """
    of_segment = {(link.start, link.end): link for link in links}
    placed: list[tuple[int, int | None]] = []
    starts = [start for start, _ in spans]

    def kept(segment: tuple[int, int]) -> int | None:
        index = bisect_right(starts, segment[1] - 1) - 1
        return index if index >= 0 and spans[index][1] > segment[0] else None

    links_of: dict[int, Link] = {}
    for link in links:
        index = kept((link.start, link.end))
        if index is not None:
            links_of.setdefault(index, link)
    for index in range(len(spans)):
        own = links_of.get(index)
        if own is None:
            placed.append((1, None))
            continue
        before: Link | None = own
        follows: int | None = None
        while before is not None and before.follows is not None:
            follows = kept(before.follows)
            if follows is not None and follows != index:
                break
            follows, before = None, of_segment.get(before.follows)
        placed.append((own.hop, follows))
    return placed


class _Walk:
    """The state of one call."""

    def __init__(
        self,
        scored: ScoredContext,
        segments: Segments,
        scorer: Scorer,
        query: str,
        encode_prefix: Callable[[str], Prefix],
        deadline: Deadline | None,
        on_progress: OnProgress | None,
    ) -> None:
        self.context: Context = scored.context
        self.segments = segments
        self.token_scores = scored.scores.copy()
        self.links: list[Link] = []
        self.windows = 0
        self.complete = True
        self._scored = scored
        self._scorer = scorer
        self._query = query
        self._encode_prefix = encode_prefix
        self._deadline = deadline
        self._on_progress = on_progress
        self._tokens_read = len(self.context.ids)
        self._scores = scored.mean_scores(segments).max(axis=1, initial=0.0)  # (s,)
        self._words = find_words(self.context.texts, segments)
        self._first_token = self.context.first_tokens(segments[:, 0])
        self._last_token = self.context.first_tokens(segments[:, 1])
        self._hop = np.ones(len(segments), dtype=np.int64)
        self._parent = np.full(len(segments), -1)
        self._followed: set[int] = set()
        self._best_for: dict[str, int | None] = {}  # the likeliest segment for each part of the question
        asked = self._words.of_text(query)
        # Words that were followed from, or asked for, on the way to each segment are no news there.
        self._asked = asked
        self._known = {-1: asked}
        self._weigh_first_pass(asked)

    def _weigh_first_pass(self, asked: NDArray[np.int64]) -> None:
        """What the question's own identifiers say about the first pass."""
        linked, evidence, _ = self._linked(asked, names=False)
        self._scores[linked] = _either(self._scores[linked], evidence)
        for segment in linked.tolist():
            self._raise_tokens(segment, float(self._scores[segment]))

    def goes_on(self) -> bool:
        """Whether there is time left, for what is still to be asked."""
        in_time = self._deadline is None or self._deadline.left > 0
        self.complete = self.complete and in_time
        return in_time

    def seeds(self) -> list[int]:
        """The best segments of the first pass, and some that hold rare words of the question, more where those are few.

        A first link need not look like an answer: "Ada pocketed the poppy" does not say where the poppy is.
        """
        best = self.best(np.flatnonzero(self._scores >= _LEAST_SCORE).tolist())
        return best + self._asked_about()[: max(_ASKED_ABOUT, FOLLOWED - len(best))]

    def _asked_about(self) -> list[int]:
        """Segments that were hardly found, with rare words of the question, the rarest and likeliest first."""
        index = self._words
        held = index.segments_of_word[self._asked]
        weight = np.zeros(len(self.segments))
        for word in self._asked[held <= _ASKED_LEAST].tolist():
            weight[np.unique(index.occurrences(word)[0])] += np.log1p(len(weight) / index.segments_of_word[word])
        chosen = np.flatnonzero((weight > 0) & (self._scores < _LEAST_SCORE))
        return chosen[np.lexsort((-self._scores[chosen], -weight[chosen]))].tolist()

    def best(self, found: list[int]) -> list[int]:
        """The best of what was found that were not followed yet."""
        fresh = [segment for segment in dict.fromkeys(found) if segment not in self._followed]
        least = max(_LEAST_SCORE, _FOLLOWED_SHARE * float(self._scores.max(initial=0.0)))
        fresh = [segment for segment in fresh if self._scores[segment] >= least]
        return sorted(fresh, key=lambda segment: -self._scores[segment])[:FOLLOWED]

    def ask(self, part: str, hop: int, follows: int | None = None, most: int = READ_WINDOWS) -> list[int]:
        """Ask for a part of the question where its words are likeliest; the segments that gained by it.

        Args:
            follows: the segment that holds what ``part`` builds on; nothing scores more than it.
            most: windows that are read.
        """
        prefix = self._encode_prefix(part)
        windows = self._windows(len(prefix))
        if not len(windows):
            return []
        likely = likelihoods(prefix, [self.context.ids[a:b] for a, b in windows.tolist()])
        chosen = np.sort(np.argsort(-likely, kind="stable")[:most])
        scores, read = self._read_windows(prefix, windows[chosen])
        self._best_for[part] = int(scores.argmax()) if scores.max(initial=0.0) >= _LEAST_SCORE else None
        value = _HOP_DECAY * (scores if follows is None else np.minimum(scores, self._scores[follows]))
        gained = np.flatnonzero(read & (value > self._scores))
        followed = None if follows is None else _range(self.segments[follows])
        for target in gained.tolist():
            if self._scores[target] < _LEAST_SCORE <= value[target]:  # else an earlier pass found it, or none did
                self._hop[target] = hop
                self.links.append(Link(*_range(self.segments[target]), hop, followed))
            self._scores[target] = value[target]
            self._raise_tokens(target, float(value[target]))
        return gained.tolist()

    def ask_answered(self, nested: Nested, prefix: Prefix, hop: int) -> list[int]:
        """Ask with the answer in the inner question's place; the segments that gained by it.

        Args:
            prefix: asks for the words that answer the inner question.
        """
        segment = self._best_for.get(nested.inner)
        if segment is None or nested.inner.casefold() in self._text(segment).casefold():
            return []  # what the text quotes too is a title or a saying, no question
        answer = self._answer(segment, prefix)
        if answer is None:
            return []
        return self.ask(nested.answered(answer), hop, segment, FOLLOWED * READ_WINDOWS)

    def _answer(self, segment: int, prefix: Prefix) -> str | None:
        """The likeliest words of a segment under a prefix that asks for the words of an answer."""
        windows = self._windows(len(prefix))
        if not len(windows):
            return None
        window = windows[np.searchsorted(windows[:, 0], self._first_token[segment], side="right") - 1]
        first, last = int(self._first_token[segment]), min(int(self._last_token[segment]), int(window[1]))
        (rows,) = self._score(prefix, window[None]).rows
        own = rows[first - window[0] : last - window[0], : len(self._scorer.labels)]
        if not len(own):
            return None
        begins, ends = decode_spans(own, np.array([[0, len(own)]]), outside_weight=KEYWORD_OUTSIDE)
        if not len(begins):
            return None
        best = int(surest_tokens(1.0 - own[:, OUTSIDE], begins, ends).argmax())
        tokens = slice(first + int(begins[best]), first + int(ends[best]) + 1)
        return self.context.text(int(self.context.starts[tokens][0]), int(self.context.ends[tokens][-1]))

    def extend(self, segment: int, hop: int) -> list[int]:
        """Ask again with the segment's text; the segments that gained by it."""
        self._followed.add(segment)
        if self._scores[segment] < _LEAST_SCORE:  # the question's words led here
            self._scores[segment] = _LEAST_SCORE
            self._raise_tokens(segment, _LEAST_SCORE)
        known = self._known[int(self._parent[segment])] if self._parent[segment] >= 0 else self._asked
        own = self._words.of_segment(segment)
        self._known[segment] = np.union1d(known, own)
        linked, evidence, weight = self._linked(np.setdiff1d(own, known))
        keep = linked != segment
        linked, evidence, weight = linked[keep], evidence[keep], weight[keep]
        if not len(linked):
            return []
        text = self._text(segment)
        scores, read = self._read(text, linked, weight)
        value = np.minimum(_either(scores[linked], evidence), _HOP_DECAY * self._scores[segment])
        value[~read[linked]] = 0.0
        gained = value > self._scores[linked]
        for target, score in zip(linked[gained].tolist(), value[gained].tolist(), strict=True):
            self._scores[target] = score
            self._raise_tokens(target, score)
            if target not in self._followed:
                self._hop[target], self._parent[target] = hop, segment
                self.links.append(Link(*_range(self.segments[target]), hop, _range(self.segments[segment])))
        return linked[gained].tolist()

    def _linked(
        self, words: NDArray[np.int64], *, names: bool = True
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
        """Segments that hold any of these words, as far as they are rare; what that says; and how much it weighs."""
        index = self._words
        count = len(self.segments)
        held = index.segments_of_word[words]
        identifiers = words[index.is_identifier[words] & (held <= max(_NAME_LEAST, _NAME_SHARE * count))]
        if len(identifiers) or not names:
            words = identifiers  # a text that names things exactly is about them, and not about its other words
        else:
            common = held <= max(_COMMON_LEAST, _COMMON_SHARE * count)
            words = words[common | (index.is_name[words] & (held <= max(_NAME_LEAST, _NAME_SHARE * count)))]
        evidence = np.zeros(count, dtype=np.float32)
        weight = np.zeros(count, dtype=np.float32)
        for word in words.tolist():
            held_by, is_first = index.occurrences(word)
            if index.is_identifier[word]:
                # Of a name that many segments hold, each of them is as much likelier as they are fewer.
                rarity = min(1.0, _COMMON_LEAST / max(1, int(index.segments_of_word[word])))
                strength = np.where(is_first, 1.0, _MENTION) * _IDENTIFIER_EVIDENCE * rarity
                np.maximum.at(evidence, held_by, strength.astype(np.float32))
            weight[np.unique(held_by)] += np.float32(np.log1p(count / max(1, int(index.segments_of_word[word]))))
        linked = np.flatnonzero(weight > 0)
        return linked, evidence[linked], weight[linked]

    def _text(self, segment: int) -> str:
        """A segment's text, cut where it would take too much of a window."""
        start, end = self.segments[segment].tolist()
        first, last = int(self._first_token[segment]), int(self._last_token[segment])
        limit = self._scorer.window_tokens // 4
        if last - first > limit:
            end = int(self.context.ends[first + limit - 1])
        return self.context.text(start, end)

    def _read(
        self, text: str, linked: NDArray[np.int64], weight: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read the windows of the likeliest linked segments: scores (s,) of all segments, and which were read."""
        prefix = self._encode_prefix(f"{self._query} {text}")
        windows = self._windows(len(prefix))
        if not len(windows):
            return np.zeros(len(self.segments), dtype=np.float32), np.zeros(len(self.segments), dtype=np.bool_)
        order = np.argsort(-weight, kind="stable")
        window_of = np.searchsorted(windows[:, 0], self._first_token[linked[order]], side="right") - 1
        chosen = np.sort(list(dict.fromkeys(window_of.tolist()))[:READ_WINDOWS])
        return self._read_windows(prefix, windows[chosen])

    def _windows(self, prefix_tokens: int) -> Windows:
        """All windows behind a prefix; none where it leaves them too little room."""
        capacity = self._scorer.window_tokens - prefix_tokens
        if capacity < self._scorer.window_tokens // 8:
            return np.empty((0, 2), dtype=np.int64)
        borders = self.context.first_tokens(self.context.sentences[:, 0])
        return plan_windows(borders, len(self.context.ids), capacity, overlap=capacity // 4)

    def _read_windows(self, prefix: Prefix, windows: Windows) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Scores (s,) of all segments that lie within any of these windows, and which do."""
        scores = np.zeros(len(self.segments), dtype=np.float32)
        read = np.zeros(len(self.segments), dtype=np.bool_)
        reading = self._score(prefix, windows)
        labels = len(self._scorer.labels)
        inside = (self._first_token[:, None] >= windows[:, 0]) & (self._last_token[:, None] <= windows[:, 1])
        for column, (window, found) in enumerate(zip(windows.tolist(), reading.rows, strict=True)):
            if not reading.read[column]:
                continue
            keep = 1.0 - found[:, OUTSIDE::labels].min(axis=1)
            sums = np.concatenate([[0.0], np.cumsum(keep, dtype=np.float64)])
            mine = np.flatnonzero(inside[:, column])
            first, last = self._first_token[mine] - window[0], self._last_token[mine] - window[0]
            scores[mine] = (sums[last] - sums[first]) / np.maximum(last - first, 1)
            read[mine] = True
        return scores, read

    def _score(self, prefix: Prefix, windows: Windows) -> Reading:
        """Read these windows, as far as there is time, with progress."""
        report, before = self._on_progress, self._tokens_read
        more = None if report is None else lambda done, total: report(before + done, before + total)
        slices = [self.context.ids[a:b] for a, b in windows.tolist()]
        try:
            reading = read_windows(self._scorer, prefix, slices, more, self._deadline)
        except NonFiniteScoresError as error:
            raise self.context.named(error, windows) from error
        self.complete = self.complete and reading.complete
        self._tokens_read += sum(len(one) for one in slices)
        self.windows += reading.windows_read
        return reading

    def _raise_tokens(self, segment: int, score: float) -> None:
        """Bring a segment's tokens up to a mean score, under the tag that fits them best."""
        first, last = int(self._first_token[segment]), int(self._last_token[segment])
        rows = self.token_scores[first:last]
        labels = len(self._scorer.labels)
        means = 1.0 - rows[:, OUTSIDE::labels].mean(axis=0)
        tag = int(means.argmax())
        mean = float(means[tag])
        if score <= mean or last == first:
            return
        # Outside shrinks alike for all tokens; other labels grow in proportion, or begin and go on where all were 0.
        own = rows[:, tag * labels : (tag + 1) * labels]
        outside = own[:, OUTSIDE] * np.float32((1.0 - score) / max(1e-9, 1.0 - mean))
        inside = 1.0 - own[:, OUTSIDE]
        growth = (1.0 - outside) / np.maximum(inside, 1e-9)
        grown = own * growth[:, None]
        flat = inside < 1e-6
        grown[flat] = 0.0
        grown[flat, 1] = 1.0 - outside[flat]
        if flat[0]:
            grown[0, 1], grown[0, 0] = 0.0, 1.0 - outside[0]
        grown[:, OUTSIDE] = outside
        rows[:, tag * labels : (tag + 1) * labels] = grown


def _range(segment: NDArray[np.int64]) -> tuple[int, int]:
    start, end = segment.tolist()
    return start, end


def _either(score: NDArray[np.float32], evidence: NDArray[np.float32]) -> NDArray[np.float32]:
    """Two independent reasons to keep: the probability that either holds."""
    return (1.0 - (1.0 - score) * (1.0 - evidence)).astype(np.float32)
