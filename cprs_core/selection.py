"""From token scores to kept ranges: granularities make candidates, a budget or threshold chooses among them.

A granularity is one function from `ScoredContext` to `Candidates`; a caller's own is passed as ``granularity=``.
Positions here are characters of the context: all documents laid end to end with nothing between them.
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from cprs_core.context import Context, ScoredContext
from cprs_core.errors import InputError

B, I, O, E = range(4)  # noqa: E741 - columns of a label group, in the order of `cprs_core.scorer.LABELS`

# Which label may follow which (rows: from, columns: to). A span is B, then I or E; a new B may follow a span at once,
# because a span of one token is a lone B.
_LEGAL = np.array(
    [
        #  B      I      O      E
        [True, True, True, True],  # B
        [False, True, False, True],  # I
        [True, False, True, False],  # O
        [True, False, True, False],  # E
    ]
)


@dataclass(frozen=True)
class Candidates:
    """Ranges that may be kept.

    ``starts``, ``ends`` (int64, (n,)) in characters of the context, sorted by start; ``scores`` (float32, (n,)) in
    0..1; ``tags`` (int64, (n,)) index into the tags of the call.

    Raises:
        InputError: they are not sorted.
    """

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    scores: NDArray[np.float32]
    tags: NDArray[np.int64]

    def __post_init__(self) -> None:
        if (self.starts[1:] < self.starts[:-1]).any():
            raise InputError("the candidates of a granularity are not sorted by start; sort all four arrays alike")

    def __len__(self) -> int:
        return len(self.starts)


Granularity = Callable[[ScoredContext], Candidates]


def by_sentence(context: ScoredContext) -> Candidates:
    """Every sentence, scored by the mean of its tokens."""
    return _candidates(context.sentences, context.mean_scores(context.sentences))


def by_line(context: ScoredContext) -> Candidates:
    """Every line, scored by the mean of its tokens."""
    return _candidates(context.lines, context.mean_scores(context.lines))


def by_paragraph(context: ScoredContext) -> Candidates:
    """Every paragraph, scored by its best sentence."""
    return _candidates(context.paragraphs, context.best_part_scores(context.paragraphs, context.sentences))


def by_document(context: ScoredContext) -> Candidates:
    """Every document, scored by its best sentence."""
    bounds = context.context.document_bounds
    documents = np.stack([bounds[:-1], bounds[1:]], axis=1)
    documents = documents[documents[:, 1] > documents[:, 0]]
    return _candidates(documents, context.best_part_scores(documents, context.sentences))


def _candidates(segments: NDArray[np.int64], scores: NDArray[np.float32]) -> Candidates:
    """One candidate per segment, under the tag that scores best; scores are (segments, tags)."""
    tags = scores.argmax(axis=1)
    return Candidates(segments[:, 0], segments[:, 1], scores[np.arange(len(segments)), tags], tags.astype(np.int64))


# Where a critic hesitates between two places for one answer, "outside" is likelier than each of them, and the best path
# would keep neither. Weighed down it makes both candidates; threshold and budget then judge them by their scores.
# Measured on 591 SQuAD dev questions: token F1 of the best span 71.3 at weight 0.3, 74.6 at 0.1, 76.0 at 0.05, 75.7 at
# 0.01.
KEYWORD_OUTSIDE = 0.05


def by_keyword(context: ScoredContext) -> Candidates:
    """Spans with borders of their own: the best legal label path of each window, per tag, scored by `surest_tokens`.

    A window may hold several documents; a span lies in one.
    """
    cuts = np.unique(np.append(context.windows[:, 1], context.context.first_tokens(context.context.document_bounds)))
    ranges = np.stack([cuts[:-1], cuts[1:]], axis=1)  # cuts begin at token 0
    starts, ends, scores, tags = [], [], [], []
    keep = context.keep
    for tag in range(keep.shape[1]):
        scored = context.scores[:, 4 * tag : 4 * tag + 4]
        first, last = decode_spans(scored, ranges, outside_weight=KEYWORD_OUTSIDE)
        starts.append(context.context.starts[first])
        ends.append(_span_ends(context.context, last))
        scores.append(surest_tokens(keep[:, tag], first, last))
        tags.append(np.full(len(first), tag))
    order = np.argsort(np.concatenate(starts), kind="stable")
    return Candidates(
        np.concatenate(starts)[order],
        np.concatenate(ends)[order],
        np.concatenate(scores)[order].astype(np.float32),
        np.concatenate(tags)[order].astype(np.int64),
    )


def surest_tokens(keep: NDArray[np.float32], first: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.float32]:
    """Scores of spans: of each the surest token's.

    A critic that knows the place but not the borders is unsure of the tokens there, and a mean over them puts the span
    behind one of fewer words somewhere else. On 591 SQuAD dev questions the best span by the surest token has a token
    F1 of 76, by the mean 69, by the product 68.

    Args:
        keep: float32 (n,): probability that a token belongs to a span.
        first, last: int64 (s,): first and last token of each span, ascending; spans do not overlap.

    Returns:
        float32 (s,).
    """
    if not len(first):
        return np.empty(0, dtype=np.float32)
    # reduceat takes the maximum from each cut to the next: of a span, then of what lies before the one after it.
    cuts = np.stack([first, last + 1], axis=1).ravel()
    return np.maximum.reduceat(np.append(keep, np.float32(0.0)), cuts)[::2]


# What the released 7 B critic's own server does with labels.
RELEASED_GAP, RELEASED_MIN_TOKENS = 20, 4
_RELEASED_SENTENCE_END = re.compile(r"[.。:：?？!！\"\n]")


def by_released_rules(
    context: ScoredContext,
    *,
    gap: int = RELEASED_GAP,
    min_tokens: int = RELEASED_MIN_TOKENS,
    complete_sentences: bool = True,
) -> Candidates:
    """Spans as the released server decodes them: the likeliest label of each token, gaps bridged, short spans dropped.

    Args:
        gap: fewer O tokens than this between two tagged tokens of a window are counted in.
        min_tokens: spans of at most so many tokens are dropped.
        complete_sentences: spans grow to the sentence marks (``. : ? ! " newline``, also the wide ones) around them.

    A span's score is the mean over its tagged tokens, which is above 0.5: none falls to the default threshold.
    """
    bounds = context.context.document_bounds
    cuts = np.unique(np.append(context.windows[:, 1], context.context.first_tokens(bounds)))[1:]
    part = np.searchsorted(cuts, np.arange(len(context.context.ids)), side="right")  # window and document of each token
    starts, ends, scores, tags = [], [], [], []
    for tag in range(context.keep.shape[1]):
        tagged = np.flatnonzero(context.scores[:, 4 * tag : 4 * tag + 4].argmax(axis=1) != O)
        new = np.append(True, (np.diff(tagged) > gap) | (np.diff(part[tagged]) > 0))[: len(tagged)]
        first, last = tagged[new], tagged[np.append(new[1:], True)[: len(tagged)]]
        sums = np.append(0.0, np.cumsum(context.keep[tagged, tag], dtype=np.float64))
        begin, end = np.searchsorted(tagged, first), np.searchsorted(tagged, last, side="right")
        means = (sums[end] - sums[begin]) / np.maximum(end - begin, 1)
        long = last + 1 - first > min_tokens
        first, last, means = first[long], last[long], means[long]
        starts.append(context.context.starts[first])
        ends.append(_span_ends(context.context, last))
        scores.append(means)
        tags.append(np.full(len(first), tag))
    order = np.argsort(np.concatenate(starts), kind="stable")
    start, end = np.concatenate(starts)[order], np.concatenate(ends)[order]
    if complete_sentences and len(start):
        marks = np.unique(np.concatenate([bounds, context.context.marks(_RELEASED_SENTENCE_END)]))
        start, end = marks[np.searchsorted(marks, start, side="right") - 1], marks[np.searchsorted(marks, end)]
        start = context.context.starts[context.context.first_tokens(start)]
    return Candidates(start, end, np.concatenate(scores)[order].astype(np.float32), np.concatenate(tags)[order])


GRANULARITIES: dict[str, Granularity] = {
    "keyword": by_keyword,
    "sentence": by_sentence,
    "line": by_line,
    "paragraph": by_paragraph,
    "document": by_document,
}
# Names that are no granularity of ours, but can be asked for in the same place.
DECODERS: dict[str, Granularity] = {"released": by_released_rules}


def _span_ends(context: Context, last_tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64: where spans end whose last tokens are given.

    Normalising tokenizers leave combining marks outside every token, so a span reaches to where the next token
    begins, or to the first blank before it.
    """
    ends = context.ends[last_tokens].copy()
    next_starts = np.append(context.starts[1:], context.document_bounds[-1])[last_tokens]
    limits = np.minimum(next_starts, context.document_bounds[context.document_of(ends - 1) + 1])
    for i in np.flatnonzero(limits > ends).tolist():
        gap = context.text(int(ends[i]), int(limits[i]))
        ends[i] += next((k for k, character in enumerate(gap) if character.isspace()), len(gap))
    return ends


def decode_spans(
    scores: NDArray[np.float32], windows: NDArray[np.int64], outside_weight: float = 1.0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Spans of the best label path (Viterbi) with legal transitions, all windows at once.

    Args:
        scores: float32 (n, 4): probabilities of B, I, O, E per token.
        windows: int64 (w, 2): token ranges that are decoded apart, one after the other, covering all tokens.
        outside_weight: what the probability of O is multiplied by; below 1 more spans are found.

    Returns:
        int64 (s,) twice: first and last token of each span, ascending.
    """
    # Windows of like length together: filled up to one length, thousands of short ones would take gigabytes.
    size = np.frexp(windows[:, 1] - windows[:, 0])[1]
    found = [_decode_alike(scores, windows[size == one], outside_weight) for one in np.unique(size).tolist()]
    firsts = np.concatenate([np.empty(0, dtype=np.int64), *(first for first, _ in found)])
    lasts = np.concatenate([np.empty(0, dtype=np.int64), *(last for _, last in found)])
    return np.sort(firsts), np.sort(lasts)  # spans do not overlap, so both have the same order


def _decode_alike(
    scores: NDArray[np.float32], windows: NDArray[np.int64], outside_weight: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`decode_spans` of some of the windows, filled up to the longest."""
    lengths = windows[:, 1] - windows[:, 0]
    steps = int(lengths.max())
    logs = np.zeros((len(windows), steps, 4), dtype=np.float32)  # padding is free: a window may end inside a span
    rows = np.repeat(np.arange(len(windows)), lengths)
    columns = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    tokens = columns + windows[rows, 0]
    logs[rows, columns] = np.log(np.maximum(scores[tokens], 1e-9))
    logs[rows, columns, O] += np.log(np.float32(outside_weight))
    penalty = np.where(_LEGAL, 0.0, -1e9).astype(np.float32)
    best = logs[:, 0] + np.array([0.0, -1e9, 0.0, -1e9], dtype=np.float32)  # a span begins with B  # (w, 4)
    came_from = np.zeros((steps, len(windows), 4), dtype=np.int8)
    for step in range(1, steps):
        paths = best[:, :, None] + penalty  # (w, from, to)
        came_from[step] = paths.argmax(axis=1)
        best = paths.max(axis=1) + logs[:, step]
    labels = np.empty((len(windows), steps), dtype=np.int8)
    labels[:, -1] = best.argmax(axis=1)
    for step in range(steps - 1, 0, -1):
        labels[:, step - 1] = came_from[step, np.arange(len(windows)), labels[:, step]]
    path = labels[rows, columns]
    firsts = np.flatnonzero(path == B)
    inside = (path == I) | (path == E)
    run_ends = np.flatnonzero(~np.append(inside[1:], False))  # tokens not followed by I or E
    lasts = run_ends[np.searchsorted(run_ends, firsts)]
    return tokens[firsts], tokens[lasts]


def best_first(candidates: Candidates, prior: NDArray[np.float32] | None = None) -> NDArray[np.int64]:
    """int64, (n,): candidates by score, equal scores by ``prior`` (float32, (n,)), then in source order."""
    if prior is None:
        return np.argsort(-candidates.scores, kind="stable").astype(np.int64)
    return np.lexsort((-prior, -candidates.scores)).astype(np.int64)


def choose(
    candidates: Candidates,
    *,
    threshold: float | None,
    max_tokens: int | None,
    cost: Callable[[int], int],
    prior: NDArray[np.float32] | None = None,
) -> NDArray[np.int64]:
    """The candidates to keep: best score first, none that overlaps a better one, until the budget is full.

    Args:
        threshold: least score that is kept; None for no limit.
        max_tokens: tokens that may be kept in all; None for no limit.
        cost: tokens of a candidate, by index.
        prior (float32, (n,)): which of equal scores comes first, larger ones do; None for source order.

    Returns:
        int64, (k,): indices of kept candidates, in source order.
    """
    order = best_first(candidates, prior)
    if threshold is not None:
        order = order[candidates.scores[order] >= threshold]
    left = max_tokens
    # Segments never overlap; only spans under several tags and candidates of a caller's own have to be compared.
    overlapping = bool((np.maximum.accumulate(candidates.ends)[:-1] > candidates.starts[1:]).any())
    taken: list[tuple[int, int]] = []
    kept: list[int] = []
    misfits = 0
    for index in order.tolist():
        start, end = int(candidates.starts[index]), int(candidates.ends[index])
        at = bisect_left(taken, (start, end)) if overlapping else 0
        if overlapping and ((at < len(taken) and taken[at][0] < end) or (at > 0 and taken[at - 1][1] > start)):
            continue
        if left is not None:
            price = cost(index)
            if price > left:
                misfits += 1
                if left <= 0 or misfits > MAX_MISFITS:
                    break
                continue
            left -= price
        if overlapping:
            insort(taken, (start, end))
        kept.append(index)
    if not kept and max_tokens is not None:  # the best were all too long; one that fits is better than nothing
        kept = list(itertools.islice((index for index in order.tolist() if cost(index) <= max_tokens), 1))
    return np.array(sorted(kept), dtype=np.int64)


# A budget that is nearly full tries this many smaller candidates before it stops: enough to fill the rest well,
# few enough that a caller's slow token counter is not called for every segment of a long text.
MAX_MISFITS = 200


def explain(
    *,
    tokens: int,
    candidates: int,
    best: float,
    default: float,
    threshold: float | None,
    budget: int | None,
    kept: bool,
    shortest: Callable[[], int],
) -> str | None:
    """One sentence on why little or nothing was kept, where that needs saying.

    Args:
        tokens: of all documents.
        candidates: how many there were; a critic's spans may be none, segments are as many as the text has.
        best: the best of their scores.
        default: the critic's own threshold.
        threshold, budget: as asked for.
        kept: whether anything is.
        shortest: tokens of the shortest candidate that reaches the threshold; only asked for where the budget was too
            small.
    """
    if not candidates:
        return "nothing matches: no text stands out at all" if tokens else "the documents hold no text"
    if not kept and budget is not None and (threshold is None or best >= threshold):
        return f"the budget of {budget} tokens is below the shortest segment that matches ({shortest()} tokens)"
    if best < default:
        return f"nothing matches well: the best score is {best:.3f}, the critic's default threshold {default:.3f}"
    if not kept:
        return f"nothing reaches the threshold {threshold}: the best score is {best:.3f}"
    return None


class _Weighed(Protocol):
    @property
    def score(self) -> float: ...
    @property
    def text(self) -> str: ...


Kept = TypeVar("Kept", bound=_Weighed)
T = TypeVar("T", bound=tuple)  # what spans are put together to; its first item is the text


def drop_until_fits(
    kept: Sequence[Kept], max_tokens: int | None, count: Callable[[str], int], assemble: Callable[[Sequence[Kept]], T]
) -> tuple[Sequence[Kept], T, int]:
    """What of ``kept`` holds the budget when it stands together.

    Joining costs tokens too, and a tokenizer may count a whole differently from its parts, so what was chosen by the
    tokens of its parts may be over the budget.

    Args:
        kept: spans in source order; the weakest go first.
        max_tokens: None for no budget.
        count: tokens of a text.
        assemble: puts spans together, the joined text first.

    Returns:
        the spans that are left, what ``assemble`` makes of them, and the tokens of its text.
    """
    while True:
        assembled = assemble(kept)
        tokens = count(assembled[0]) if kept else 0
        if max_tokens is None or tokens <= max_tokens:
            return kept, assembled, tokens
        kept = without_weakest(kept, tokens - max_tokens, count)


def without_weakest(spans: Sequence[Kept], tokens: int, count: Callable[[str], int]) -> list[Kept]:
    """``spans`` without the weakest that take no more than ``tokens`` together, at least one."""
    dropped: set[int] = set()
    for index in sorted(range(len(spans)), key=lambda index: spans[index].score):
        tokens -= max(1, count(spans[index].text))  # a counter that rounds down may call a short text nothing
        if dropped and tokens < 0:
            break
        dropped.add(index)
    return [span for index, span in enumerate(spans) if index not in dropped]
