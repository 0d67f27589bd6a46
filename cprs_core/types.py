"""The nouns of the public contract. Positions are characters, end exclusive."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, PrivateAttr, SkipValidation


def replace_surrogates(text: str) -> str:
    """``text`` with every lone surrogate as U+FFFD; the length, and so every position, stays the same."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)
    return text


def _check_text(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError(f"got {type(value).__name__}; pass a str")
    return value


# A Python string may hold lone surrogates (a file read with `surrogateescape`, say). They are kept as they came;
# only JSON, which is UTF-8, cannot carry them and gets U+FFFD in their place.
Text = Annotated[
    SkipValidation[str],  # pydantic's own check of strings refuses surrogates
    AfterValidator(_check_text),
    PlainSerializer(replace_surrogates, return_type=str, when_used="json-unless-none"),
]


def _for_json(value: Any) -> Any:
    """``value`` with `replace_surrogates` of every text in it."""
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, dict):
        return {_for_json(key): _for_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_for_json(item) for item in value]
    return value


# A path among it may hold surrogates, as a text may.
Metadata = Annotated[dict[str, Any], PlainSerializer(_for_json, return_type=dict[str, Any], when_used="json")]


class Frozen(BaseModel):
    """Immutable, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Document(Frozen):
    """One input text with an optional id, title and metadata.

    >>> Document("The lease was signed by Ada.", id="lease").id
    'lease'
    """

    text: Text
    id: Text | None = None
    title: Text | None = None
    metadata: Metadata = Field(default_factory=dict)

    def __init__(
        self, text: str, id: str | None = None, title: str | None = None, metadata: dict[str, Any] | None = None
    ) -> None:
        super().__init__(text=text, id=id, title=title, metadata=metadata or {})  # type: ignore[call-arg]


class Span(Frozen):
    """A kept range of one document: ``documents[document_index].text[start:end] == text``.

    ``hop`` is the pass that found it, 1 is the first; ``follows`` the index in ``spans`` of the span whose text led to
    it, None for those of the first pass.
    """

    document_id: Text | None
    document_index: int
    start: int
    end: int
    text: Text
    score: float
    tag: str
    hop: int = 1
    follows: int | None = None


class ScoredSegment(Frozen):
    """One segment with its score; nothing is dropped, the caller chooses."""

    document_index: int
    start: int
    end: int
    score: float
    tag: str


class DocumentUsage(Frozen):
    """Tokens of one document that were read, and tokens of it that were kept."""

    input_tokens: int
    output_tokens: int


class Usage(Frozen):
    """What one call read, kept and took.

    ``hops`` counts passes, ``windows`` what was read in all of them; ``ratio`` is output over input tokens;
    ``stage_seconds`` splits ``seconds`` by stage of the straight path; where a GPU scores while texts are still read,
    "tokenize" and "segment" are the seconds that it had to wait for them;
    ``documents`` has one entry per input document, in their order (joining documents may cost tokens of its own).
    Of ``windows``, the scorer (in a cascade, the strong one) read ``windows_read``; equal windows are read once, and
    none where scores came from a cache (``cached``). ``complete`` is false when a deadline left windows unread, or cut
    hops short.
    """

    input_tokens: int
    output_tokens: int
    ratio: float
    windows: int
    windows_read: int = 0
    complete: bool = True
    cached: bool = False
    seconds: float
    hops: int = 1
    stage_seconds: dict[str, float] = Field(default_factory=dict)
    documents: list[DocumentUsage] = Field(default_factory=list)


class Compression(Frozen):
    """The kept text and where it came from.

    ``low_confidence`` is true when nothing in the context reached the critic's default threshold; ``notice`` then, or
    when a budget left no room, says why in one sentence. ``best`` is there when nothing was kept: the segment that
    scored best among those that fit the budget, for callers that would rather have a weak answer than none.
    """

    text: Text
    documents: list[Document]
    spans: list[Span]
    usage: Usage
    query: Text = ""
    instruction: Text = ""
    low_confidence: bool = False
    notice: str | None = None
    best: Span | None = None
    _sources: list[Document] = PrivateAttr(default_factory=list)

    def to_html(self) -> str:
        """A self-contained page: every source document with the kept text highlighted."""
        from cprs_core.html import render_page

        return render_page(self, self._sources)

    def _repr_html_(self) -> str:
        from cprs_core.html import render_fragment

        return render_fragment(self, self._sources)
