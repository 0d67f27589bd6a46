"""A real text that every Python installation has: chapters of the language reference behind ``help()``."""

from __future__ import annotations

from importlib import import_module

from cprs_core.errors import InputError
from cprs_core.types import Document

QUESTION = "What happens to an exception when the finally clause executes a return statement?"

# Chapters with little in common, about 140,000 characters together.
_TOPICS = ("compound", "execmodel", "formatstrings", "string-methods", "typesseq", "debugger")


def load_reference() -> list[Document]:
    """The chapters as documents.

    Raises:
        InputError: this Python was installed without them.
    """
    try:
        topics: dict[str, str] = import_module("pydoc_data.topics").topics
    except ImportError:
        topics = {}
    documents = [Document(topics[name], id=f"pydoc:{name}") for name in _TOPICS if name in topics]
    if not documents:
        raise InputError("this Python has no pydoc_data; name a file and a --query of your own instead")
    return documents
