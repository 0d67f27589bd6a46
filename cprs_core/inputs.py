"""What callers pass in, checked and brought into one form."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from typing import Literal

from cprs_core.errors import InputError
from cprs_core.hops import MAX_HOPS
from cprs_core.instructions import Preset
from cprs_core.selection import DECODERS, GRANULARITIES, Granularity
from cprs_core.types import Document

Documents = str | Document | Sequence[str | Document]
CountTokens = Callable[[str], int]


def as_documents(documents: Documents) -> list[Document]:
    """One text, one document or a sequence of either, as a list of documents.

    Raises:
        InputError: something in it is neither text nor a document; nothing is read then.
    """
    return [as_document(document, index) for index, document in enumerate(as_iterable(documents))]


def as_iterable(documents: Iterable[str | Document] | str | Document) -> Iterable[str | Document]:
    """Texts and documents one after another; one alone counts as a list of one.

    Raises:
        InputError: it is nothing that can be gone through.
    """
    if isinstance(documents, str | Document):
        return [documents]
    if isinstance(documents, bytes | Mapping) or not isinstance(documents, Iterable):
        raise InputError(
            f"documents is of type {type(documents).__name__}; pass a str, a cprs_core.Document or an iterable of them"
        )
    return documents


def as_document(document: object, index: int) -> Document:
    """A text or a document as a document; ``index`` says where in the input it stood.

    Raises:
        InputError: it is neither.
    """
    if isinstance(document, str):
        document = Document(document)
    if not isinstance(document, Document) or not isinstance(document.text, str):
        raise InputError(f"documents[{index}] is of type {type(document).__name__}; pass a str or a cprs_core.Document")
    return document


def check_options(max_tokens: int | None, ratio: float | None, threshold: float | None) -> None:
    """Raises InputError where an option is no number or out of range."""
    if max_tokens is not None and not (_is_number(max_tokens) and max_tokens >= 1):
        raise InputError(f"max_tokens is {max_tokens!r}; it must be at least 1 (leave it out for no budget)")
    if ratio is not None and not (_is_number(ratio) and 0.0 < ratio <= 1.0):
        raise InputError(f"ratio is {ratio!r}; it must be above 0 and at most 1 (0.1 keeps a tenth of the tokens)")
    if threshold is not None and not (_is_number(threshold) and 0.0 <= threshold <= 1.0):
        raise InputError(f"threshold is {threshold!r}; scores lie between 0 and 1")


def whole_tokens(count_tokens: CountTokens | None) -> CountTokens | None:
    """``count_tokens`` with estimates such as ``len(text) / 4`` rounded up, so that budgets hold.

    Raises:
        InputError: it is no function; when it is called, that it gave no number.
    """
    if count_tokens is None:
        return None
    if not callable(count_tokens):
        raise InputError(f"count_tokens is of type {type(count_tokens).__name__}; pass a function that counts tokens")

    def count(text: str) -> int:
        tokens = count_tokens(text)
        if not _is_number(tokens) or not math.isfinite(tokens):
            raise InputError(f"count_tokens gave {tokens!r:.80} for a text; it must give the number of its tokens")
        return math.ceil(tokens)

    return count


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def most_hops(hops: int | Literal["auto"]) -> int:
    """Passes at most. Raises InputError where ``hops`` is none."""
    if hops == "auto":
        return MAX_HOPS
    if isinstance(hops, bool) or not isinstance(hops, int) or hops < 1:
        raise InputError(f"hops is {hops!r}; it must be 1 (one pass), a larger number, or 'auto'")
    return hops


def smallest_budget(max_tokens: int | None, ratio: float | None, input_tokens: int) -> int | None:
    """Tokens that may be kept under both limits; None without any."""
    budgets = [max_tokens] if max_tokens is not None else []
    if ratio is not None:
        budgets.append(int(ratio * input_tokens))
    return min(budgets) if budgets else None


def granularity_of(granularity: str | Granularity, preset: Preset) -> Granularity:
    known = GRANULARITIES | DECODERS
    if callable(granularity):
        return granularity
    if not isinstance(granularity, str) or preset.granularity not in known:
        names = ", ".join(repr(name) for name in [*known, "auto"])
        raise InputError(f"granularity is {granularity!r}; it must be one of {names}, or a function")
    return known[preset.granularity]
