"""How much every piece of a history or of a tool's output has to do with the goal.

Two readers agree on a score: the critic, which understands paraphrase, and word statistics (BM25), which never miss a
rare identifier. Agents ask for identifiers all the time.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cprs_core import Candidates, Compressor, Document, Preset, ScoredContext
from cprs_integrations.adapting import Compresses, approximate_tokens

CountTokens = Callable[[str], int]

# Tokens of a query that a critic reads; a small critic's window holds 512 tokens, and most must be left for the text.
QUERY_TOKENS = 128

# A piece is as good as its best run of this many tokens: one telling field of a long record is enough.
PEAK_TOKENS = 24

# Texts beyond this many characters (about 50,000 tokens) are thinned out by word statistics before the critic reads.
READ_CHARACTERS = 200_000

# Of pieces that differ in numbers only (lines of a log), this many are read, and all that hold a word of the query.
_READ_OF_ALIKE = 4

# Weight of the word statistics beside the critic's probability.
LEXICAL_WEIGHT = 0.5

# What the words that a piece shares with a query must tell: one word that 3 pieces of 700 hold, or several less rare.
_RARE_NATS = 5.0

# A word is a run of letters and digits; in scripts that write no blanks, every character is one.
_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
_MOST_WORDS = 1_000  # different ones of a query that are looked for in every piece
_APPROXIMATE_ABOVE = 400_000  # characters

# A small critic's tokenizer reads such a run of letters as one unknown word, and such a gap, or bytes that are no text,
# as nothing at all; the tokenizer of a chat model does not. In texts up to so many characters that does not matter.
_SWALLOWED = re.compile(
    r"(?<![A-Za-z0-9])[A-Za-z0-9]{101,}|(?<!\s)\s{101,}|[\x00-\x08\x0e-\x1b\x7f\ud800-\udfff\ufffd]+"
)
_SWALLOWED_ABOVE = 400
_STOP_WORDS = frozenset(
    (
        "a an and are as at be been but by can did do does for from get had has have how i if in into is it its me my "
        "no not of on or our please so that the their them then there these they this to us was we were what when "
        "where which who why will with would you your about all also any could find give just know list look make "
        "more need now other out see should show some tell than up use want "
    ).split()
)


@dataclass(frozen=True)
class Goal:
    """What the pieces are wanted for: the request, and what to extract for it (text or a preset; None: the default)."""

    query: str
    instruction: str | Preset | None = None

    @property
    def is_empty(self) -> bool:
        return not self.query.strip() and self.instruction is None


def counter_of(compressor: Compresses) -> CountTokens:
    """The critic's own token counter, or characters by rule of thumb for a compressor that has none. No network."""
    scorer = getattr(compressor, "scorer", None)
    if scorer is None:
        return approximate_tokens
    tokenizer = scorer.tokenizer

    def count(text: str) -> int:
        tokens = len(tokenizer.encode(text))
        if len(text) <= _SWALLOWED_ABOVE:
            return tokens
        swallowed = sum(match.end() - match.start() for match in _SWALLOWED.finditer(text))
        return max(tokens, swallowed // 4)

    return count


def estimate_tokens(text: str, count: CountTokens) -> int:
    """``count(text)``; for texts of megabytes, extrapolated from samples of it."""
    if len(text) <= _APPROXIMATE_ABOVE:
        return count(text)
    size = _APPROXIMATE_ABOVE // 8
    step = len(text) // 8
    sampled = [text[at : at + size] for at in range(0, 8 * step, step)]
    return round(sum(map(count, sampled)) * len(text) / sum(map(len, sampled)))


def score_pieces(
    pieces: Sequence[str],
    goal: Goal,
    compressor: Compresses,
    priors: NDArray[np.float32] | None = None,
    alike: Sequence[int] | None = None,
) -> NDArray[np.float32]:
    """How much each piece has to do with the goal.

    Args:
        pieces: texts in source order; neighbours are read together, so they explain each other.
        priors (float32, (n,)): what the structure of the output says about each piece, added to the score.
        alike: for every piece the number of a group of near-identical ones: a few of each are read.

    Returns:
        float32, (n,): larger is better; only the order means anything.
    """
    critic, lexical = read_pieces(pieces, goal, compressor, priors, alike=alike)
    scores = critic + LEXICAL_WEIGHT * lexical
    return scores if priors is None else scores + priors


def read_pieces(
    pieces: Sequence[str],
    goal: Goal,
    compressor: Compresses,
    priors: NDArray[np.float32] | None = None,
    *,
    alike: Sequence[int] | None = None,
    read_characters: int = READ_CHARACTERS,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """float32, (n,) twice: what the critic says of each piece, 0..1, and what word statistics say, 0 to about 1.

    Args:
        read_characters: of longer texts the critic reads only the pieces that seem most promising without it; the
            others score 0, or as much as those that are like them.
    """
    lexical = lexical_scores(pieces, goal.query)
    critic = np.zeros(len(pieces), dtype=np.float32)
    if pieces and not goal.is_empty:
        known = lexical if priors is None else lexical + priors
        offered = np.arange(len(pieces)) if alike is None else _representatives(alike, lexical)
        read = offered[_worth_reading([pieces[index] for index in offered.tolist()], known[offered], read_characters)]
        critic[read] = critic_scores([pieces[index] for index in read.tolist()], goal, compressor)
        if alike is not None and len(read) < len(pieces):
            _spread(critic, read, np.asarray(alike))
    return critic, lexical


def _representatives(alike: Sequence[int], lexical: NDArray[np.float32]) -> NDArray[np.int64]:
    """int64: indices of the first few pieces of every group, and of all that share words with the query."""
    seen: Counter[int] = Counter()
    chosen = []
    for index, group in enumerate(alike):
        seen[group] += 1
        if seen[group] <= _READ_OF_ALIKE or lexical[index] > 0.0:
            chosen.append(index)
    return np.array(chosen, dtype=np.int64)


def _spread(critic: NDArray[np.float32], read: NDArray[np.int64], alike: NDArray[np.int64]) -> None:
    """Give every piece that was not read the mean score of those of its group that were."""
    groups = int(alike.max()) + 1
    sums = np.bincount(alike[read], critic[read], minlength=groups)
    means = sums / np.maximum(np.bincount(alike[read], minlength=groups), 1)
    unread = np.ones(len(critic), dtype=bool)
    unread[read] = False
    critic[unread] = means[alike[unread]]


def critic_scores(pieces: Sequence[str], goal: Goal, compressor: Compresses) -> NDArray[np.float32]:
    """float32, (n,): the critic's probability that a piece belongs to what the goal asks for, at its best place."""
    scores = np.zeros(len(pieces), dtype=np.float32)
    documents = [Document(piece) for piece in pieces]
    query = fit_query(goal.query, compressor)
    if isinstance(compressor, Compressor):
        for segment in compressor.score(documents, query, instruction=goal.instruction, granularity=by_peak):
            scores[segment.document_index] = segment.score
    elif any(piece.strip() for piece in pieces):
        kept = compressor.compress(
            documents, query, instruction=goal.instruction, granularity="document", threshold=0.0
        )
        for span in kept.spans:
            scores[span.document_index] = max(scores[span.document_index], span.score)
    return scores


def by_peak(context: ScoredContext) -> Candidates:
    """A granularity: every document, scored by its best run of `PEAK_TOKENS` tokens."""
    bounds = context.context.document_bounds
    documents = np.stack([bounds[:-1], bounds[1:]], axis=1)
    documents = documents[documents[:, 1] > documents[:, 0]]
    first = context.context.first_tokens(documents[:, 0])
    last = context.context.first_tokens(documents[:, 1])
    keep = context.keep.max(axis=1) if context.keep.shape[1] else np.zeros(len(context.keep), dtype=np.float32)
    sums = np.concatenate([[0.0], np.cumsum(keep, dtype=np.float64)])
    stop = np.repeat(last, last - first)
    begin = np.repeat(first, last - first)
    here = np.minimum(np.arange(len(keep)), np.maximum(stop - PEAK_TOKENS, begin))  # no run is cut short by an end
    until = np.minimum(here + PEAK_TOKENS, stop)
    means = np.append((sums[until] - sums[here]) / np.maximum(until - here, 1), 0.0)
    scores = np.zeros(len(documents), dtype=np.float32)
    filled = last > first
    if filled.any():
        scores[filled] = np.maximum.reduceat(means, first[filled])
    return Candidates(documents[:, 0], documents[:, 1], scores, np.zeros(len(documents), dtype=np.int64))


def lexical_scores(pieces: Sequence[str], query: str) -> NDArray[np.float32]:
    """float32, (n,): BM25 of every piece, scaled so that a piece with every word of the query scores about 1.

    Words that no piece holds are left out: they tell nothing about pieces, and long requests are full of them. Where
    the words that are left tell less than one rare word would, all scores stay small.
    """
    wanted = _wanted_words(query)
    if not wanted or not pieces:
        return np.zeros(len(pieces), dtype=np.float32)
    rows, words, counts = _count_words(pieces, wanted)
    lengths = np.array([len(piece) for piece in pieces], dtype=np.float32)
    norm = 0.9 * (0.6 + 0.4 * lengths / max(float(lengths.mean()), 1.0))
    held = np.bincount(words, minlength=len(wanted))
    weight = np.log(1 + (len(pieces) - held + 0.5) / (held + 0.5))  # rare words weigh more
    once = np.log(1 + (len(pieces) - 0.5) / 1.5)  # what a word tells that one piece holds
    scale = max(weight[held > 0].sum(), once)
    scores = np.bincount(rows, weight[words] * counts / (counts + norm[rows]), minlength=len(pieces)) / scale
    return scores.astype(np.float32)


def _count_words(
    pieces: Sequence[str], wanted: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Where pieces hold words: piece (int64), word (int64) and how often (float32), (k,) each.

    One search over all pieces, for texts of megabytes; not a table of pieces and words, which would take gigabytes.
    """
    folded = [piece.casefold() for piece in pieces]
    starts = np.cumsum([0, *(len(piece) + 1 for piece in folded)])
    endings = [f"(?:{re.escape(w)}s?{f'|{re.escape(w[:-1])}ies' if w.endswith('y') else ''})" for w in wanted]
    either_side = rf"[^\W_{_UNSPACED}]"
    search = re.compile(rf"(?<!{either_side})(?:{'|'.join(endings)})(?!{either_side})")
    number = {word: index for index, word in enumerate(wanted)}
    found = [
        (match.start(), word)
        for match in search.finditer("\n".join(folded))
        if (word := number.get(_stem(match.group()))) is not None
    ]
    places, words = np.array(found, dtype=np.int64).reshape(-1, 2).T
    pairs, counts = np.unique(
        (np.searchsorted(starts, places, side="right") - 1) * len(wanted) + words, return_counts=True
    )
    return pairs // len(wanted), pairs % len(wanted), counts.astype(np.float32)


def holds_rare_words(pieces: Sequence[str], query: str) -> NDArray[np.bool_]:
    """bool, (n,): whether a piece holds words of the query that are very rare among the pieces: identifiers, names."""
    wanted = _wanted_words(query)
    if not wanted or not pieces:
        return np.zeros(len(pieces), dtype=bool)
    rows, words, _ = _count_words(pieces, wanted)
    held = np.bincount(words, minlength=len(wanted))
    nats = np.log(1 + (len(pieces) - held + 0.5) / (held + 0.5))
    information = np.bincount(rows, nats[words], minlength=len(pieces))
    once = np.log(1 + (len(pieces) - 0.5) / 1.5)
    return information >= min(_RARE_NATS, float(once))


def _wanted_words(query: str) -> list[str]:
    """The telling words of a query, each once; of a request with a document in it those at its beginning and end."""
    words = list(dict.fromkeys(words_of(query)))
    if len(words) > _MOST_WORDS:
        words = [*words[: _MOST_WORDS // 4], *words[-_MOST_WORDS * 3 // 4 :]]
    return sorted(words)


def words_of(text: str) -> list[str]:
    """The telling words of a query, as `all_words` spells them."""
    return [word for word in all_words(text) if word not in _STOP_WORDS]


def all_words(text: str) -> list[str]:
    """Words of a text, case folded, plural endings cut."""
    return [_stem(word) for word in _WORD.findall(text.casefold())]


def fit_query(query: str, compressor: Compresses) -> str:
    """The query, or where it is too long for a window its beginning and its end: that is where people put requests."""
    count = counter_of(compressor)
    if len(query) < QUERY_TOKENS or count(query) <= QUERY_TOKENS:
        return query
    words = query.split()
    head, tail = QUERY_TOKENS // 4, QUERY_TOKENS // 2
    while head + tail > 2:
        short = " ".join([*words[:head], *words[max(len(words) - tail, head) :]])
        if count(short) <= QUERY_TOKENS:
            return short
        head, tail = head * 3 // 4, tail * 3 // 4
    # No blanks to cut at: Chinese, say.
    return f"{query[: QUERY_TOKENS // 8]} {query[-QUERY_TOKENS // 4 :]}"


def _stem(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        return word[:-1]
    return word


def _worth_reading(pieces: Sequence[str], known: NDArray[np.float32], characters: int) -> NDArray[np.int64]:
    """int64: indices, ascending, of the pieces that the critic reads: all, or the most promising of a huge text."""
    lengths = np.array([len(piece) for piece in pieces], dtype=np.int64)
    if int(lengths.sum()) <= characters:
        return np.arange(len(pieces))
    order = np.argsort(-known, kind="stable")
    fits = np.cumsum(lengths[order]) <= characters
    return np.sort(order[fits])
