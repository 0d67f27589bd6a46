"""Readers: what answers a question from a context, so that kept text can be judged by the answers it allows."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Protocol

from cprs_core.compressor import Compressor
from cprs_core.errors import InputError, MissingExtraError
from cprs_core.instructions import PRESETS
from cprs_core.scorer import Scorer

PROMPT = (
    "Answer the question based on the given documents. Only give me the answer and do not output any other words.\n\n"
    "The following are given documents.\n\n{context}\n\n"
    "Answer the question based on the given documents. Only give me the answer and do not output any other words.\n\n"
    "Question: {query} Answer:"
)  # RULER's wording for question answering (arXiv 2404.06654)


class Reader(Protocol):
    """Answers questions from contexts.

    Attributes:
        name: of its table in reports.
    """

    @property
    def name(self) -> str: ...

    def answer(self, cases: Sequence[tuple[str, str]]) -> list[str]:
        """One answer per (context, query), in order; empty where nothing answers."""


class CriticReader:
    """A critic as an extractive reader: its best keyword span under the preset ``answers``.

    A context of any length is read window by window; the span that scores best over all windows is the answer.
    """

    def __init__(self, scorer: Scorer, name: str = "cprs-mini, best span") -> None:
        self.name = name
        self._compressor = Compressor(scorer)

    def answer(self, cases: Sequence[tuple[str, str]]) -> list[str]:
        """See `Reader.answer`."""
        return [self._best_span(context, query) for context, query in cases]

    def _best_span(self, context: str, query: str) -> str:
        spans = self._compressor.score(context, query, instruction=PRESETS["answers"], granularity="keyword")
        best = max(spans, key=lambda span: span.score, default=None)
        return "" if best is None else context[best.start : best.end]


class ChatReader:
    """A LangChain chat model, asked in RULER's words."""

    CONCURRENT_CALLS = 8

    def __init__(self, model: Any, name: str) -> None:
        self.name = name
        self._model = model

    @classmethod
    def from_name(cls, name: str) -> ChatReader:
        """The chat model that ``langchain.chat_models.init_chat_model`` makes of a name, at temperature 0.

        Raises:
            MissingExtraError: langchain is not installed.
            InputError: it knows no such model, or the model's own package or key is missing.
        """
        try:
            module = importlib.import_module("langchain.chat_models")
        except ImportError:
            raise MissingExtraError("langchain", "langchain", "a chat model as reader") from None
        try:
            return cls(module.init_chat_model(name, temperature=0), name)
        except Exception as error:  # every provider has errors of its own
            raise InputError(
                f"LangChain cannot make a chat model of {name!r}: {error}; pass PROVIDER:MODEL, as in openai:gpt-5"
            ) from error

    def answer(self, cases: Sequence[tuple[str, str]]) -> list[str]:
        """See `Reader.answer`."""
        prompts = [PROMPT.format(context=context, query=query) for context, query in cases]
        replies = self._model.batch(prompts, config={"max_concurrency": self.CONCURRENT_CALLS})
        return [str(reply.text).strip() for reply in replies]
