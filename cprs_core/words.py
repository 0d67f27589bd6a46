"""The words of a context as numbers: which segments hold a word, how rare it is, whether it looks like a name.

Works on characters, for all tokenizers and scripts alike, and without a loop over words.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cprs_core.segmentation import Segments

_CHARACTERS = 0x110000
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that it has an inverse
_INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 2**64))
# Scripts without blanks between words: here two characters are a word.
_UNSPACED = ((0x0E00, 0x0E80), (0x3040, 0x3100), (0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00))


@dataclass(frozen=True)
class Words:
    """Every word of a context, as a number below ``v``, in source order.

    Attributes:
        ids (int64, (w,)): which word stands at each place.
        segments (int64, (w,)): the segment it stands in.
        hashes (uint64, (v,)): of the words, ascending; case is folded.
        segments_of_word (int64, (v,)): how many segments hold each word.
        is_identifier (bool, (v,)): it holds a digit or underscore beside letters, or capitals after its first letter.
        is_name (bool, (v,)): it is always written with a capital.
    """

    ids: NDArray[np.int64]
    segments: NDArray[np.int64]
    hashes: NDArray[np.uint64]
    segments_of_word: NDArray[np.int64]
    is_identifier: NDArray[np.bool_]
    is_name: NDArray[np.bool_]
    _order: NDArray[np.int64]
    _offsets: NDArray[np.int64]
    _first_special: NDArray[np.int64]  # (s,): place of a segment's first identifier or name, else of its first word

    def of_text(self, text: str) -> NDArray[np.int64]:
        """int64, (k,): the words of another text that the context has too, each once."""
        hashes = np.unique(_hash_words(text)[2])
        places = np.searchsorted(self.hashes, hashes)
        places = np.minimum(places, max(0, len(self.hashes) - 1))
        return places[self.hashes[places] == hashes] if len(self.hashes) else np.empty(0, dtype=np.int64)

    def of_segment(self, segment: int) -> NDArray[np.int64]:
        """int64, (k,): the words of a segment, each once."""
        first, last = np.searchsorted(self.segments, [segment, segment + 1])
        return np.unique(self.ids[first:last])

    def occurrences(self, word: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The segments that hold a word, one per occurrence, and whether it is the first special word of each."""
        places = self._order[self._offsets[word] : self._offsets[word + 1]]
        held_by = self.segments[places]
        return held_by, self._first_special[held_by] == places


def find_words(texts: Sequence[str], segments: Segments) -> Words:
    """The words of all segments of ``texts`` laid end to end."""
    starts, ends, hashes, identifier, capital = _hash_words("".join(texts), borders=[len(text) for text in texts])
    held_by = np.searchsorted(segments[:, 0], starts, side="right") - 1
    inside = (
        (held_by >= 0) & (ends <= np.where(held_by >= 0, segments[np.maximum(held_by, 0), 1], 0))
        if len(segments)
        else np.zeros(len(starts), dtype=np.bool_)
    )
    held_by, hashes, identifier, capital = held_by[inside], hashes[inside], identifier[inside], capital[inside]
    known, ids = np.unique(hashes, return_inverse=True)
    count = len(known)
    pairs = np.unique(ids * max(1, len(segments)) + held_by)
    is_identifier = np.bincount(ids, identifier, minlength=count) > 0
    totals = np.bincount(ids, minlength=count)
    is_name = np.bincount(ids, capital, minlength=count) == totals
    order = np.argsort(ids, kind="stable")
    special = (is_identifier | is_name)[ids]
    first_special = np.full(len(segments), -1)
    for places in (np.arange(len(ids))[::-1], np.flatnonzero(special)[::-1]):
        first_special[held_by[places]] = places  # the last write is the first word
    return Words(
        ids=ids,
        segments=held_by,
        hashes=known,
        segments_of_word=np.bincount(pairs // max(1, len(segments)), minlength=count),
        is_identifier=is_identifier,
        is_name=is_name,
        _order=order,
        _offsets=np.concatenate([[0], np.cumsum(totals)]),
        _first_special=first_special,
    )


def _hash_words(
    text: str, borders: Sequence[int] = ()
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Start, end, hash, "is an identifier" and "begins with a capital" of every word; no word crosses a border.

    Args:
        borders: lengths of the texts that ``text`` is made of.
    """
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.int64)  # (n,)
    kind, lower = _character_table(codes)
    word = kind > 0
    unspaced = kind == _UNSPACED_KIND
    first = np.ones(len(codes) + 1, dtype=np.bool_)  # whether nothing of a word can come over from before
    first[1:-1] = ~word[:-1] | unspaced[:-1] | unspaced[1:]
    if borders:
        first[np.cumsum(borders)] = True
    spaced = word & ~unspaced
    starts = np.flatnonzero(spaced & first[:-1])
    ends = np.flatnonzero(spaced & (first[1:] | ~np.append(spaced[1:], False))) + 1
    # Unspaced scripts: pairs of neighbours, and characters that stand alone.
    pair = unspaced[:-1] & unspaced[1:]
    if borders:
        cuts = np.cumsum(borders)[:-1]
        pair[cuts[(cuts > 0) & (cuts < len(codes))] - 1] = False
    pairs = np.flatnonzero(pair)
    paired = np.zeros(len(codes), dtype=np.bool_)
    paired[pairs] = paired[pairs + 1] = True
    alone = np.flatnonzero(unspaced & ~paired)
    starts, ends = np.concatenate([starts, pairs, alone]), np.concatenate([ends, pairs + 2, alone + 1])
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], ends[order]

    def count(which: NDArray[np.bool_]) -> NDArray[np.int64]:
        sums = np.concatenate([[0], np.cumsum(which)])
        return sums[ends] - sums[starts]

    length = ends - starts
    digits, capitals, underscores = count(kind == _DIGIT), count(kind == _CAPITAL), count(codes == ord("_"))
    capital = (kind[starts] == _CAPITAL) if len(starts) else np.zeros(0, dtype=np.bool_)
    inner = capitals - capital
    letters = length - digits - underscores
    identifier = (
        ((digits > 0) & (letters > 0))
        | ((underscores > 0) & (length > 1))
        | (digits >= _LONG_NUMBER)
        | ((inner > 0) & ((length > _LONGEST_ACRONYM) | (capitals < length)))
    )
    return starts, ends, _hashes(lower, starts, ends), identifier, capital


_CAPITAL, _DIGIT, _OTHER, _UNSPACED_KIND = 1, 2, 3, 4  # kinds of characters of words
_LONG_NUMBER = 5  # digits: shorter numbers are years, counts and amounts
_LONGEST_ACRONYM = 4  # capitals


def _character_table(codes: NDArray[np.int64]) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """Kind (0: of no word) and lower-case form of every character; each kind of character is looked at once."""
    seen = np.zeros(_CHARACTERS, dtype=np.bool_)
    seen[codes] = True
    present = np.flatnonzero(seen).tolist()
    kinds = np.zeros(_CHARACTERS, dtype=np.int8)
    lower = np.zeros(_CHARACTERS, dtype=np.int64)
    for code in present:
        character = chr(code)
        folded = character.lower()
        lower[code] = ord(folded) if len(folded) == 1 else code
        if any(low <= code < high for low, high in _UNSPACED):
            kinds[code] = _UNSPACED_KIND
        elif character.isdigit():
            kinds[code] = _DIGIT
        elif character.isupper():
            kinds[code] = _CAPITAL
        elif character.isalnum() or character == "_" or unicodedata.category(character) in ("Mn", "Mc"):
            kinds[code] = _OTHER
    return kinds[codes], lower[codes]


def _hashes(codes: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.uint64]:
    """uint64, (w,): a polynomial of each word's characters, from differences of one running sum (Rabin and Karp)."""
    mixed = codes.astype(np.uint64) * _MIX
    mixed ^= mixed >> np.uint64(29)
    powers = np.concatenate([[np.uint64(1)], np.cumprod(np.full(len(codes), _MULTIPLIER))])
    inverse = np.concatenate([[np.uint64(1)], np.cumprod(np.full(len(codes), _INVERSE))])
    sums = np.concatenate([[np.uint64(0)], np.cumsum(mixed * powers[:-1], dtype=np.uint64)])
    return (sums[ends] - sums[starts]) * inverse[starts]
