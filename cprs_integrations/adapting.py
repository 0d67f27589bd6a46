"""What every adapter does the same way: options, one call for all inputs, policies, provenance. No framework here.

An adapter is three steps: theirs -> `Document`; one call of the compressor for all inputs; copies back with the text
replaced and provenance under one metadata key. The middle step is here.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import threading
import weakref
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, field_validator

from cprs_core import Compression, Document, DocumentUsage, InputError, Preset, Span, __version__
from cprs_integrations.shared import shared_compressor

logger = logging.getLogger(__name__)

PROVENANCE_KEY = "cprs"

# What an adapter keeps when no option says how much: this share of the tokens that come in, and at least so many
# tokens. Over retrieved paragraphs the critic's threshold alone keeps far less, and loses evidence for it.
DEFAULT_RATIO = 0.1
DEFAULT_TOKENS = 256

GranularityName = Literal["keyword", "sentence", "line", "paragraph", "document", "auto"]


class Compresses(Protocol):
    """What an adapter needs of a compressor: `cprs_core.Compressor`, a remote client, or one of your own.

    Both are called with a sequence of `Document`, the query, and the selection options by keyword.
    """

    @property
    def compress(self) -> Callable[..., Compression]: ...

    @property
    def acompress(self) -> Callable[..., Awaitable[Compression]]: ...


class CompressionOptions(BaseModel):
    """The options of one adapter. Selection options mean what they mean in `cprs_core.Compressor.compress`."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    compressor: Any = Field(default=None, exclude=True, repr=False)
    """Anything with `compress` and `acompress`; None for the critic that all adapters of the process share."""

    instruction: str | Preset | None = None
    """What to extract, in words, or a preset or its name; None for the default of the granularity."""

    granularity: GranularityName | Callable[..., Any] = "sentence"
    """What is kept or dropped as a whole; a name, or a function from `ScoredContext` to `Candidates`."""

    max_tokens: int | None = Field(default=None, ge=1)
    """Most tokens of kept text over all inputs of a call. With sentences or lines, and no other limit, the default is a
    tenth of the inputs' tokens, or 256 where that is more."""

    ratio: float | None = Field(default=None, gt=0.0, le=1.0)
    """Most tokens of kept text, as a share of the tokens of all inputs of a call."""

    threshold: float | None = Field(default=None, ge=0.0, le=1.0)
    """Least score of a kept segment; it cuts, where a budget fills."""

    count_tokens: Callable[[str], int] | None = Field(default=None, repr=False)
    """Tokens of a text in your tokenizer; None for the critic's."""

    on_empty: Literal["best", "empty", "passthrough"] = "best"
    """When nothing is kept: the segment that scored best, nothing at all, or every input as it came."""

    on_error: Literal["raise", "passthrough"] = "raise"
    """When the compressor raises: let the error through, or log it and hand every input on as it came."""

    @field_validator("compressor")
    @classmethod
    def _has_both_calls(cls, compressor: Any) -> Any:
        if compressor is not None and not (hasattr(compressor, "compress") and hasattr(compressor, "acompress")):
            raise InputError(
                f"compressor is of type {type(compressor).__name__}, which lacks compress or acompress; "
                "pass a cprs_core.Compressor, or leave it out for the embedded critic"
            )
        return compressor

    def active_compressor(self) -> Compresses:
        """The compressor of this adapter: its own, or the shared one, which is loaded now if it was not yet."""
        return self.compressor if self.compressor is not None else shared_compressor()

    def selection(self, documents: Sequence[Document], instruction: str | Preset | None = None) -> dict[str, Any]:
        """Keyword arguments of a `compress` call; ``instruction`` takes precedence over the adapter's own."""
        names = ("granularity", "max_tokens", "ratio", "threshold", "count_tokens")
        chosen = {name: getattr(self, name) for name in names}
        has_limit = any(chosen[name] is not None for name in ("max_tokens", "ratio", "threshold"))
        if not has_limit and self.granularity in ("sentence", "line"):
            tokens = sum(approximate_tokens(document.text) for document in documents)
            if DEFAULT_RATIO * tokens > 1.25 * DEFAULT_TOKENS:  # the guess is about a fifth too high for English
                chosen["ratio"] = DEFAULT_RATIO
            else:
                chosen["max_tokens"] = DEFAULT_TOKENS
        return {**chosen, "instruction": self.instruction if instruction is None else instruction}

    @classmethod
    def option_names(cls) -> list[str]:
        """Names of all options, sorted; a subclass that adds some says so here."""
        return sorted(CompressionOptions.model_fields)

    def settings(self) -> dict[str, Any]:
        """Every option that changes the result, as plain data: a key for caches, and what traces show.

        Functions and compressors are named by number; the numbers hold within a process.
        """
        shown = {name: getattr(self, name) for name in self.option_names()}
        if self.compressor is None:
            shown["compressor"] = f"embedded critic of cprs {__version__}"
        return {name: value if _is_plain(value) else _numbered(value) for name, value in shown.items()}


class DocumentOptions(CompressionOptions):
    """Options of adapters whose inputs are documents or nodes."""

    top_n: int | None = Field(default=None, ge=1)
    """Rerank: the best ``top_n`` inputs only, best first, from the same pass; None for all, in the order they came."""

    @classmethod
    def option_names(cls) -> list[str]:
        return sorted(DocumentOptions.model_fields)


@dataclass(frozen=True)
class Outcome:
    """One input after compression; outcomes come in the order to hand back.

    ``index`` is the input's; ``score`` its best kept span's, None where it passed through; ``provenance`` is plain
    data that serialises to JSON.
    """

    index: int
    text: str
    score: float | None
    provenance: dict[str, Any]


@dataclass(frozen=True)
class Step:
    """The middle step of one call."""

    options: CompressionOptions
    documents: Sequence[Document]
    query: str
    instruction: str | Preset | None = None
    top_n: int | None = None

    def compress(self) -> Compression:
        """The one call of the compressor."""
        compressor = self.options.active_compressor()
        return compressor.compress(
            self.documents, self.query, **self.options.selection(self.documents, self.instruction)
        )

    async def acompress(self) -> Compression:
        """The one call of the compressor; loading the shared critic does not block the loop either."""
        compressor = self.options.compressor
        if compressor is None:
            compressor = await asyncio.to_thread(self.options.active_compressor)
        return await compressor.acompress(
            self.documents, self.query, **self.options.selection(self.documents, self.instruction)
        )

    def carry_out(self, compress: Callable[[], Compression] | None = None) -> list[Outcome]:
        """Compress under the policies of the options.

        Args:
            compress: runs `Step.compress` in a frame of the adapter's own (a child run, say).

        Returns:
            what is left of the inputs; inputs of which nothing was kept are left out.
        """
        if not self._has_text:
            return []
        try:
            compression = (compress or self.compress)()
        except Exception as error:
            return self._recover(error)
        return self._outcomes(compression)

    async def acarry_out(self, acompress: Callable[[], Awaitable[Compression]] | None = None) -> list[Outcome]:
        """`carry_out` without blocking the loop."""
        if not self._has_text:
            return []
        try:
            compression = await (acompress or self.acompress)()
        except Exception as error:
            return self._recover(error)
        return self._outcomes(compression)

    @property
    def _has_text(self) -> bool:
        return any(document.text.strip() for document in self.documents)

    def _recover(self, error: Exception) -> list[Outcome]:
        if self.options.on_error == "raise":
            raise error
        logger.warning("compression failed and %d inputs pass through: %s", len(self.documents), error, exc_info=error)
        return self._pass_through({"error": f"{type(error).__name__}: {error}"})

    def _outcomes(self, compression: Compression) -> list[Outcome]:
        if not compression.spans:
            return self._after_nothing_kept(compression)
        spans: list[list[Span]] = [[] for _ in self.documents]
        for span in compression.spans:
            spans[span.document_index].append(span)
        usages: Sequence[DocumentUsage | None] = compression.usage.documents or [None] * len(self.documents)
        outcomes = [
            Outcome(
                index,
                compression.documents[index].text,
                max(span.score for span in kept),
                provenance(kept, usages[index], compression),
            )
            for index, kept in enumerate(spans)
            if kept
        ]
        if self.top_n is not None:
            outcomes = sorted(outcomes, key=lambda outcome: outcome.score or 0.0, reverse=True)[: self.top_n]
        return outcomes

    def _after_nothing_kept(self, compression: Compression) -> list[Outcome]:
        logger.info("nothing was kept (on_empty=%r): %s", self.options.on_empty, compression.notice)
        if self.options.on_empty == "passthrough":
            return self._pass_through({"low_confidence": True, "notice": compression.notice})
        best = compression.best
        if self.options.on_empty == "empty":
            return []
        if best is None:
            logger.warning("nothing is left of %d inputs: %s", len(self.documents), compression.notice)
            return []
        usage = self._usage_of(best, compression)
        return [Outcome(best.document_index, best.text, best.score, provenance([best], usage, compression))]

    def _usage_of(self, span: Span, compression: Compression) -> DocumentUsage | None:
        """Tokens of the document of a span that was kept after all."""
        count = self.options.count_tokens or getattr(self.options.active_compressor(), "count_tokens", None)
        if count is None or not compression.usage.documents:
            return None
        read = compression.usage.documents[span.document_index].input_tokens
        return DocumentUsage(input_tokens=read, output_tokens=count(span.text))

    def _pass_through(self, why: dict[str, Any]) -> list[Outcome]:
        outcomes = [
            Outcome(index, document.text, None, {"passed_through": True, **why})
            for index, document in enumerate(self.documents)
        ]
        return outcomes[: self.top_n]


# By loop. A lock that was waited for holds its loop, so it must live no longer than the calls that wait for it.
_turns: weakref.WeakValueDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = weakref.WeakValueDictionary()


async def take_turn() -> None:
    """Wait until the calls before this one have begun, one per round of the event loop; for the start of async calls.

    To begin costs about a millisecond (inputs, a child run, callbacks). Hundreds of calls that begin in one round would
    keep everything else on the loop waiting until the last of them has begun.
    """
    turn = _turns.setdefault(asyncio.get_running_loop(), asyncio.Lock())
    async with turn:
        await asyncio.sleep(0)


def provenance(spans: Sequence[Span], usage: DocumentUsage | None, compression: Compression) -> dict[str, Any]:
    """What happened to one input, as plain data.

    Spans are characters of the input's text as it came, end exclusive. Token counts are there where the compressor
    gives them.
    """
    facts: dict[str, Any] = {}
    if usage is not None:
        facts["original_tokens"] = usage.input_tokens
        facts["kept_tokens"] = usage.output_tokens
        facts["ratio"] = round(usage.output_tokens / usage.input_tokens, 4) if usage.input_tokens else 0.0
    facts["score"] = max(span.score for span in spans)
    facts["spans"] = [{"start": span.start, "end": span.end, "score": span.score, "tag": span.tag} for span in spans]
    facts["low_confidence"] = compression.low_confidence
    if compression.notice:
        facts["notice"] = compression.notice
    return facts


def approximate_tokens(text: str) -> int:
    """Tokens by rule of thumb: one for four ASCII characters, one for every other character."""
    wide = 0 if text.isascii() else len(text) - len(text.encode("ascii", "ignore"))
    return math.ceil((len(text) - wide) / 4) + wide


def copy_metadata(metadata: Any, _copies: dict[int, Any] | None = None) -> Any:
    """A copy whose containers are new and whose leaves are the caller's: `deepcopy` fails on locks and open files."""
    copies = {} if _copies is None else _copies  # by id: metadata may hold itself
    if id(metadata) in copies:
        return copies[id(metadata)]
    if isinstance(metadata, dict):
        fresh: dict[Any, Any] = {}
        copies[id(metadata)] = fresh
        fresh.update((key, copy_metadata(value, copies)) for key, value in metadata.items())
        return fresh
    if type(metadata) is list:
        items: list[Any] = []
        copies[id(metadata)] = items
        items.extend(copy_metadata(value, copies) for value in metadata)
        return items
    if type(metadata) in (tuple, set):
        return type(metadata)(copy_metadata(value, copies) for value in metadata)
    return metadata


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str | Preset)


_numbers: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
_next_number = itertools.count(1)
_numbering = threading.Lock()


def _numbered(value: Any) -> str:
    """A name that no other object of this process gets, also after this one is gone; `id` is given out again."""
    name = getattr(value, "__qualname__", type(value).__qualname__)
    with _numbering:
        try:
            number = _numbers.get(value)
            if number is None:
                number = _numbers[value] = next(_next_number)
        except TypeError:  # neither hashable nor weakly referable: never the same key twice
            number = next(_next_number)
    return f"{name} #{number}"
