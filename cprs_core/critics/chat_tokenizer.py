"""The hybrid critic's tokenizer: a Qwen byte-level vocabulary, and the chat turns that its prefix is written in."""

from __future__ import annotations

import functools
import itertools
import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as RustTokenizer

from cprs_core.errors import CheckpointError
from cprs_core.forms import WordForms
from cprs_core.scorer import Prefix, Tokens
from cprs_core.types import replace_surrogates

TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"

# Long texts are encoded in parallel, in pieces of about this many characters. Qwen's pre-tokenizer always cuts after a
# line break that something visible follows, and before a blank between two letters: the tokens are those of one piece.
_PIECE_CHARACTERS = 8_192
_SAFE_CUT = re.compile(r"(?<=\n)(?=[^\W_])|(?<=[^\W\d_])(?= [^\W\d_])")

_BLANK = "\u0120"  # how a byte-level vocabulary writes a blank


class ChatTokenizer:
    """Text to ids, and instruction and query to the chat turns of the released 7 B critic.

    Nothing inside a text is read as a control token: ``<|im_start|>`` in a document is ordinary text.
    """

    def __init__(self, tokenizer: RustTokenizer) -> None:
        self._start, self._end = (_control_id(tokenizer, name) for name in (TURN_START, TURN_END))
        self._size = tokenizer.get_vocab_size()
        settings = json.loads(tokenizer.to_str())
        settings.update(added_tokens=[], post_processor=None, truncation=None, padding=None)
        self._tokenizer = RustTokenizer.from_str(json.dumps(settings))
        self._json = tokenizer.to_str()
        self._forms = WordForms(self._words)

    @classmethod
    def from_folder(cls, folder: Path) -> ChatTokenizer:
        """Reads ``tokenizer.json``, or ``vocab.json`` and ``merges.txt``.

        Raises:
            CheckpointError: they are missing or damaged, or the vocabulary has no chat turns.
        """
        path = folder / "tokenizer.json"
        try:
            if not path.exists() and (folder / "vocab.json").exists():
                from transformers import AutoTokenizer

                loaded: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
                return cls(loaded.backend_tokenizer)
            return cls(RustTokenizer.from_file(str(path)))
        except CheckpointError:
            raise
        except Exception as error:  # the library raises bare Exception
            raise CheckpointError(f"cannot read the tokenizer {path}: {error}; download or save it again") from error

    @property
    def vocab_size(self) -> int:
        """Tokens of the vocabulary, control tokens included; a model's table may have more rows, never fewer."""
        return self._size

    def to_json(self) -> str:
        """What ``tokenizer.json`` holds."""
        return self._json

    def encode(self, text: str) -> Tokens:
        """Tokens of ``text``; nothing inside it is ever read as a control token.

        A token's characters leave out the blanks it begins with, so that a sentence begins with its first token.
        """
        text = replace_surrogates(text)
        borders = _piece_borders(text)
        pieces = [text[a:b] for a, b in itertools.pairwise(borders)]
        ids, offsets = self._counted(text, pieces) or self._asked_for(pieces, borders)
        starts, ends = offsets[:, 0], offsets[:, 1]
        visible = _next_visible(text)
        if len(starts):
            inner = visible[np.minimum(starts, len(text))]
            starts = np.maximum.accumulate(np.where(inner < ends, inner, starts))
        return Tokens(ids, starts, np.maximum(ends, starts + 1))

    def _counted(self, text: str, pieces: list[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]] | None:
        """Ids, and the characters of each token by adding up its bytes; None where tokens are not the text's own bytes.

        The library's own offsets cost as much again as the tokens, most of it inside the interpreter.
        """
        if not (text.isascii() or unicodedata.is_normalized("NFC", text)):  # Qwen's tokenizers normalise to NFC
            return None
        encodings = self._tokenizer.encode_batch_fast(pieces, add_special_tokens=False)
        ids = np.concatenate([np.empty(0, np.int32), *(np.array(one.ids, dtype=np.int32) for one in encodings)])
        bytes_of = self._bytes_of_tokens[ids]
        ends = np.cumsum(bytes_of)  # (tokens,)
        data = np.frombuffer(text.encode(), dtype=np.uint8)
        if len(data) != (int(ends[-1]) if len(ends) else 0):
            return None
        if len(data) == len(text):
            return ids, np.stack([ends - bytes_of, ends], axis=1)
        character = np.cumsum((data & 0xC0) != 0x80) - 1  # of each byte
        return ids, np.stack([character[ends - bytes_of], character[ends - 1] + 1], axis=1)

    def _asked_for(self, pieces: list[str], borders: list[int]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Ids and offsets as the library gives them."""
        encodings = self._tokenizer.encode_batch(pieces, add_special_tokens=False)
        ids = [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]
        offsets = [
            np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2) + base
            for encoding, base in zip(encodings, borders, strict=False)
        ]
        empty = np.empty((0, 2), dtype=np.int64)
        return np.concatenate([empty[:, 0].astype(np.int32), *ids]), np.concatenate([empty, *offsets])

    @functools.cached_property
    def _bytes_of_tokens(self) -> NDArray[np.int64]:
        """int64, (vocabulary,): a byte-level vocabulary writes every byte as one character."""
        return np.array([len(self._tokenizer.id_to_token(id) or "") for id in range(self._size)], dtype=np.int64)

    def encode_prefix(self, instruction: str, query: str, tags: tuple[str, ...]) -> Prefix:
        """A system turn with the instruction, a user turn with the query, and the beginning of the context's turn."""
        start, end = np.array([self._start], dtype=np.int32), np.array([self._end], dtype=np.int32)
        system, wording = self.encode("system\n").ids, self.encode("system\n" + instruction).ids
        user, question = self.encode("user\n").ids, self.encode("user\n" + query).ids
        line, context = self.encode("\n").ids, self.encode("context\n").ids
        parts = [start, wording, end, line, start, question, end, line, start, context]
        before_question = sum(len(part) for part in parts[:5])
        asked = (
            (before_question + len(user), before_question + len(question))
            if query
            else (1 + len(system), 1 + len(wording))
        )
        return Prefix(np.concatenate(parts), tags, asked, instruction, query, self._forms)

    def _words(self) -> list[str]:
        """Every token's text by id, without the blank it may begin with; what the vocabulary lacks is empty."""
        tokens = (self._tokenizer.id_to_token(id) or "" for id in range(self._size))
        return [token.removeprefix(_BLANK) for token in tokens]

    def decode(self, ids: NDArray[np.int32]) -> str:
        """Roughly the text of these tokens; never for output."""
        return str(self._tokenizer.decode(ids.tolist(), skip_special_tokens=False))

    def word_ids(self, word: str) -> NDArray[np.int32]:
        """int32, (n,): vocabulary rows of a tag word, written as in running text."""
        return self.encode(word).ids


def _control_id(tokenizer: RustTokenizer, name: str) -> int:
    id = tokenizer.token_to_id(name)
    if id is None:
        raise CheckpointError(f"the tokenizer has no {name} token; it is not one of a Qwen model")
    return int(id)


def _next_visible(text: str) -> NDArray[np.int64]:
    """int64, (n + 1,): for each position the first one at or after it that is no blank; n where none is."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    blanks = np.array([ord(character) for character in set(text) if character.isspace()], dtype=np.uint32)
    places = np.where(np.isin(codes, blanks), len(codes), np.arange(len(codes)))
    return np.append(np.minimum.accumulate(places[::-1])[::-1], len(codes)).astype(np.int64)


def _piece_borders(text: str) -> list[int]:
    borders = [0]
    while len(text) - borders[-1] > 2 * _PIECE_CHARACTERS:
        target = borders[-1] + _PIECE_CHARACTERS
        match = _SAFE_CUT.search(text, target)
        if match is None:
            break
        borders.append(match.start())
    if text:
        borders.append(len(text))
    return borders
