"""The small critic's tokenizer: a WordPiece vocabulary read through the `tokenizers` library."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as RustTokenizer

from cprs_core.errors import CheckpointError
from cprs_core.forms import WordForms
from cprs_core.scorer import Prefix, Tokens
from cprs_core.types import replace_surrogates

# Long texts are cut at line breaks or blanks into pieces of about this many characters, which are encoded in parallel.
# WordPiece never joins over a blank, nor over a mark of Chinese or Japanese, which may have no blanks: the tokens are
# the same as in one piece.
_PIECE_CHARACTERS = 8_192
_BATCH_CHARACTERS = 262_144
_SAFE_CUT = re.compile(r"[\s。！？；：，、]")

# A run without blanks that the vocabulary cannot spell (a checksum, an encoded image) is one unknown token however long
# it is. Budgets count tokens, so such a run counts as one token for every 4 characters.
_UNKNOWN_CHARACTERS = 4

# Characters that tokens spell one for one, whether accents are kept or not: up to Latin-1 and a little further, dashes
# and quotation marks, ideographs. None of them ever becomes two.
_PLAIN = ((0, 0x130), (0x2010, 0x2028), (0x4E00, 0xA000))
_BLANK = np.zeros(0xA000, dtype=np.bool_)
_BLANK[[ord(blank) for blank in " \t\n\r\xa0"]] = True


class WordPieceTokenizer:
    """Text to ids, and instruction and query to ``[CLS] instruction [SEP] query [SEP]``.

    Nothing inside a text is read as a control token: ``[SEP]`` in a document is three ordinary tokens.
    """

    def __init__(self, tokenizer: RustTokenizer) -> None:
        self._tokenizer = RustTokenizer.from_str(tokenizer.to_str())  # the caller's own stays as it was
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True
        self._cls, self._sep, self._unknown = (self._special(name) for name in ("[CLS]", "[SEP]", "[UNK]"))
        lengths = np.array([len(word.removeprefix("##")) for word in self.vocabulary()], dtype=np.int64)
        lengths[self._unknown] = 0
        self._lengths = lengths
        self._forms = WordForms(self.vocabulary)

    @classmethod
    def from_file(cls, path: Path) -> WordPieceTokenizer:
        """Raises CheckpointError where the file is missing or damaged."""
        try:
            return cls(RustTokenizer.from_file(str(path)))
        except Exception as error:  # the library raises bare Exception
            raise CheckpointError(f"cannot read the tokenizer {path}: {error}; download or save it again") from error

    @property
    def vocab_size(self) -> int:
        return self._tokenizer.get_vocab_size()

    @property
    def unknown_id(self) -> int:
        """Id of ``[UNK]``."""
        return self._unknown

    @property
    def prefix_ids(self) -> tuple[int, int]:
        """Ids of ``[CLS]`` and ``[SEP]``."""
        return self._cls, self._sep

    def vocabulary(self) -> list[str]:
        """All tokens, by id."""
        ids = self._tokenizer.get_vocab(with_added_tokens=True)
        return sorted(ids, key=ids.__getitem__)

    def encode(self, text: str) -> Tokens:
        """Tokens of ``text``; nothing inside it is ever read as a control token."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[Tokens]:
        """Tokens of each text, as `encode` gives them; many are read in parallel, as pieces of one are."""
        found: list[Tokens] = []
        for batch in _batches(texts):
            found += self._encode_batch([replace_surrogates(text) for text in batch])
        return found

    def _encode_batch(self, texts: list[str]) -> list[Tokens]:
        borders = [_piece_borders(text) for text in texts]
        ranges = [
            (text, *piece) for text, cuts in zip(texts, borders, strict=True) for piece in itertools.pairwise(cuts)
        ]
        pieces = [text[a:b] for text, a, b in ranges]
        codes = np.frombuffer("".join(texts).encode("utf-32-le"), dtype=np.uint32)
        plain = _is_plain(codes)
        encode = self._tokenizer.encode_batch_fast if plain else self._tokenizer.encode_batch  # fast: without offsets
        encodings = encode(pieces, add_special_tokens=False)
        ids = [encoding.ids for encoding in encodings]
        counts = np.array([len(part) for part in ids], dtype=np.int64)
        total = int(counts.sum())
        all_ids = np.fromiter(itertools.chain.from_iterable(ids), np.int32, total)
        of_text = np.array([max(0, len(cuts) - 1) for cuts in borders], dtype=np.int64)
        owner = np.repeat(np.repeat(np.arange(len(texts)), of_text), counts)
        ends = np.cumsum(np.array([len(piece) for piece in pieces], dtype=np.int64))
        offsets = self._spelled(codes, all_ids, counts, ends) if plain else None
        if offsets is None:
            if plain:
                encodings = self._tokenizer.encode_batch(pieces, add_special_tokens=False)
            pairs = itertools.chain.from_iterable(encoding.offsets for encoding in encodings)
            offsets = np.fromiter(itertools.chain.from_iterable(pairs), np.int64, 2 * total).reshape(-1, 2)
            offsets += np.repeat(np.array([a for _, a, _ in ranges], dtype=np.int64), counts)[:, None]
        else:
            bounds = np.cumsum([0, *(len(text) for text in texts)], dtype=np.int64)
            offsets -= bounds[owner][:, None]
        tokens, owner = self._cut_unknown_runs(all_ids, offsets, owner)
        cuts = np.searchsorted(owner, np.arange(len(texts) + 1)).tolist()
        return [Tokens(tokens.ids[a:b], tokens.starts[a:b], tokens.ends[a:b]) for a, b in itertools.pairwise(cuts)]

    def encode_prefix(self, instruction: str, query: str, tags: tuple[str, ...]) -> Prefix:
        """``[CLS] instruction [SEP] query [SEP]``."""
        cls, sep = np.array([self._cls], dtype=np.int32), np.array([self._sep], dtype=np.int32)
        wording, question = self.encode(instruction).ids, self.encode(query).ids
        asked = (len(wording) + 2, len(wording) + 2 + len(question)) if len(question) else (1, len(wording) + 1)
        return Prefix(np.concatenate([cls, wording, sep, question, sep]), tags, asked, instruction, query, self._forms)

    def decode(self, ids: NDArray[np.int32]) -> str:
        """Roughly the text of these tokens: lower case, without marks."""
        return self._tokenizer.decode(ids.tolist(), skip_special_tokens=False)

    def word_ids(self, word: str) -> NDArray[np.int32]:
        """int32, (n,): vocabulary rows of a tag word, at least one."""
        ids = self.encode(word).ids
        return ids if len(ids) else np.array([self._unknown], dtype=np.int32)

    def _special(self, name: str) -> int:
        id = self._tokenizer.token_to_id(name)
        if id is None:
            raise CheckpointError(f"the tokenizer has no {name} token; it is not one of a BERT-like critic")
        return int(id)

    def _spelled(
        self, codes: NDArray[np.uint32], ids: NDArray[np.int32], counts: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> NDArray[np.int64] | None:
        """Characters of each token, int64 (n, 2), in plain texts end to end; None where the library has to be asked.

        Its offsets take it a quarter of its time, and come as Python objects, two for each token, which takes longer
        than all else here. Tokens of plain text without unknown words spell its visible characters one after the other,
        so these can be counted; where a piece has not just as many as its tokens spell, the library left something out.

        Args:
            codes (uint32, (characters,)): the texts.
            counts, ends (int64, (pieces,)): tokens of each piece, and where it ends.
        """
        lengths = self._lengths[ids]
        if not lengths.all():
            return None
        visible = np.flatnonzero(~_BLANK[codes])
        after = np.cumsum(lengths)
        spelled = np.append(0, after)[np.cumsum(counts)]
        if not np.array_equal(spelled, np.searchsorted(visible, ends)):
            return None
        return np.stack([visible[after - lengths], visible[after - 1] + 1], axis=1)

    def _cut_unknown_runs(
        self, ids: NDArray[np.int32], offsets: NDArray[np.int64], owner: NDArray[np.int64]
    ) -> tuple[Tokens, NDArray[np.int64]]:
        """Tokens, and the text that each belongs to, with unknown runs in parts."""
        starts, ends = offsets[:, 0], offsets[:, 1]
        parts = np.where(ids == self._unknown, -(-(ends - starts) // _UNKNOWN_CHARACTERS), 1)
        if not len(ids) or int(parts.max()) <= 1:
            return Tokens(ids, np.ascontiguousarray(starts), np.ascontiguousarray(ends)), owner
        first = np.repeat(np.cumsum(parts) - parts, parts)
        begin = np.repeat(starts, parts) + _UNKNOWN_CHARACTERS * (np.arange(int(parts.sum())) - first)
        stop = np.where(np.repeat(parts, parts) == 1, np.repeat(ends, parts), begin + _UNKNOWN_CHARACTERS)
        return Tokens(np.repeat(ids, parts), begin, np.minimum(stop, np.repeat(ends, parts))), np.repeat(owner, parts)


def _is_plain(codes: NDArray[np.uint32]) -> bool:
    plain = np.zeros(len(codes), dtype=np.bool_)
    for low, high in _PLAIN:
        plain |= (codes >= low) & (codes < high)
    return bool(plain.all())


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """Neighbours of together about `_BATCH_CHARACTERS` characters: the library needs some hundred bytes per token."""
    batch: list[str] = []
    room = _BATCH_CHARACTERS
    for text in texts:
        batch.append(text)
        room -= len(text)
        if room <= 0:
            yield batch
            batch, room = [], _BATCH_CHARACTERS
    if batch:
        yield batch


def _piece_borders(text: str) -> list[int]:
    borders = [0]
    while len(text) - borders[-1] > 2 * _PIECE_CHARACTERS:
        match = _SAFE_CUT.search(text, borders[-1] + _PIECE_CHARACTERS)
        if match is None:
            break
        borders.append(match.start())
    if text:
        borders.append(len(text))
    return borders
