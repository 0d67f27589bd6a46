"""What to extract, in words: ready-made instructions, their tag words, and how tags are read from free text."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """A ready-made instruction: its wording, the tag words it names and the granularity it is meant for."""

    text: str
    tags: tuple[str, ...]
    granularity: str


PRESETS: dict[str, Preset] = {
    "supporting_facts": Preset("Extract the sentences that support answering the question.", ("fact",), "sentence"),
    "answers": Preset("Extract the exact words that answer the question.", ("answer",), "keyword"),
    "entities": Preset("Extract the names of the kind that the query describes.", ("entity",), "keyword"),
    "paragraphs": Preset("Extract the paragraphs or tables that are related to the query.", ("passage",), "paragraph"),
    "documents": Preset("Find the documents that are related to the query.", ("passage",), "document"),
    "clauses": Preset("Extract the contract clauses that the query describes.", ("clause",), "sentence"),
    "needles": Preset("Extract the line that holds the value for the key in the question.", ("needle",), "sentence"),
    "errors": Preset("Extract the log lines that show the error and its cause.", ("error",), "line"),
    "code": Preset("Extract the definitions of the code that the query is about.", ("code",), "line"),
    "turns": Preset("Extract the conversation turns that are related to the query.", ("turn",), "line"),
    "claims": Preset("Extract the sentences that support or refute the claim.", ("fact",), "sentence"),
}

_DEFAULT_PRESET = {
    "keyword": "answers",
    "sentence": "supporting_facts",
    "line": "supporting_facts",
    "paragraph": "paragraphs",
    "document": "documents",
}

# "tag the needles with 'needle'", "tagged as "error"", "tag: 'fact'"
_TAG_WORD = re.compile(r"\btag(?:ged|s)?\b[^'\"‘“\n]{0,60}['\"‘“]([^\W_][\w-]*)['\"’”]", re.IGNORECASE)


def resolve_instruction(instruction: str | Preset | None, granularity: str | None) -> Preset:
    """The wording, tags and granularity that a call means.

    Args:
        instruction: free text, a `Preset`, the name of one, or None for the default of the granularity.
        granularity: a granularity's name, "auto" to take the instruction's own, or None for a caller's own function.
    """
    named = granularity if granularity not in (None, "auto") else None
    if instruction is None or (isinstance(instruction, str) and not instruction.strip()):
        preset = PRESETS[_DEFAULT_PRESET.get(named or "sentence", "supporting_facts")]
    elif isinstance(instruction, Preset):
        preset = instruction
    elif instruction in PRESETS:
        preset = PRESETS[instruction]
    else:
        preset = _known_wording(instruction) or Preset(instruction, read_tags(instruction, named), "sentence")
    return Preset(preset.text, preset.tags, named or preset.granularity)


def read_tags(instruction: str, granularity: str | None = None) -> tuple[str, ...]:
    """Tag words that a free-text instruction names, in order; the granularity's usual tag where it names none.

    >>> read_tags("Extract needles. ## tagging rule: - tag the needles with 'needle'")
    ('needle',)
    """
    words = tuple(dict.fromkeys(word.casefold() for word in _TAG_WORD.findall(instruction)))
    return words or PRESETS[_DEFAULT_PRESET.get(granularity or "sentence", "supporting_facts")].tags


def _known_wording(instruction: str) -> Preset | None:
    return next((preset for preset in PRESETS.values() if preset.text == instruction), None)
