"""A WordPiece vocabulary with single characters of more scripts, so that few tokens of any language are unknown."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

# Scripts whose letters join into words need each letter both at the beginning of a word and inside it.
_LETTER_RANGES = (
    (0x0370, 0x03FF),  # Greek
    (0x0400, 0x045F),  # Cyrillic
    (0x0590, 0x05FF),  # Hebrew
    (0x0600, 0x06FF),  # Arabic
    (0x0900, 0x097F),  # Devanagari
    (0x0E00, 0x0E7F),  # Thai
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x1100, 0x1112),  # Hangul, as it is decomposed by the normalizer
    (0x1161, 0x1175),
    (0x11A8, 0x11C2),
)
_PUNCTUATION_RANGES = (
    (0x2010, 0x2044),
    (0x3001, 0x301F),
    (0x3005, 0x3005),
    (0xFF01, 0xFF65),
    (0x20A0, 0x20BF),
    (0x2190, 0x21FF),
)


def extend_vocabulary(tokenizer_json: str) -> str:
    """The tokenizer with added characters; ids that it had stay as they are."""
    data: dict[str, Any] = json.loads(tokenizer_json)
    vocabulary: dict[str, int] = data["model"]["vocab"]
    for token in _new_tokens():
        vocabulary.setdefault(token, len(vocabulary))
    data["truncation"] = None
    data["padding"] = None
    return json.dumps(data, ensure_ascii=False)


def _new_tokens() -> list[str]:
    tokens: list[str] = []
    for low, high in _LETTER_RANGES:
        for code in range(low, high + 1):
            character = chr(code)
            # The normalizer lowercases and drops marks, so only what is left of a letter can ever be looked up.
            if unicodedata.category(character)[0] in "LMN" and unicodedata.normalize("NFD", character) == character:
                tokens += [character, f"##{character}"]
    for low, high in _PUNCTUATION_RANGES:
        tokens += [chr(code) for code in range(low, high + 1) if unicodedata.category(chr(code))[0] in "PSL"]
    return [*tokens, *_common_ideographs()]


def _common_ideographs() -> list[str]:
    """The everyday Chinese and Japanese characters: first levels of GB 2312, Big5 and JIS X 0208."""
    found: dict[str, None] = {}
    blocks = (
        ("gb2312", range(0xB0, 0xD8), range(0xA1, 0xFF)),
        ("big5", range(0xA4, 0xC7), (*range(0x40, 0x7F), *range(0xA1, 0xFF))),
        ("euc_jp", range(0xB0, 0xD0), range(0xA1, 0xFF)),
    )
    for encoding, leads, trails in blocks:
        for lead in leads:
            for trail in trails:
                try:
                    character = bytes((lead, trail)).decode(encoding)
                except UnicodeDecodeError:
                    continue
                if 0x4E00 <= ord(character) <= 0x9FFF:
                    found.setdefault(character)
    return list(found)
