"""The tool that brings originals back: a page of one, or the lines of it that hold something."""

from __future__ import annotations

from cprs_integrations.store import OriginalStore

EXPAND_DESCRIPTION = (
    "Fetch the original of a text that was shortened. Notes like '[cprs: kept 5 of 80 lines ...; call expand with key "
    "K for the rest]' name the key. Without `search` you get one page of the original; with `search` (a word or a "
    "regular expression) you get the numbered lines that hold it."
)

PAGE_CHARACTERS = 8_000  # about 2,000 tokens: an answer must not flood the history that it was taken from
_MATCHES = 50


def read_original(store: OriginalStore, key: str, search: str = "", page: int = 1) -> str:
    """What the expand tool answers; always text, never an error.

    Args:
        key: the key that a note names.
        search: a word or a regular expression; empty for a page of the whole text.
        page: which page of the whole text, from 1.
    """
    key = key.strip().strip("\"'")
    text = store.get(key)
    if text is None:
        return f"No original is held under the key {key!r}. It may be mistyped, or so old that it was forgotten."
    if search:
        try:
            found = store.search(key, search, limit=_MATCHES)
        except TimeoutError:
            return f"Searching {key} for {search!r} takes too long; search for a word of it, or fetch a page."
        if not found:
            return f"No line of {key} holds {search!r}; it has {text.count(chr(10)) + 1:,} lines."
        lines = [f"{number}: {line}" for number, line in found]
        more = f"\n[the first {_MATCHES} matches]" if len(found) == _MATCHES else ""
        return "\n".join(lines) + more
    pages = max(-(-len(text) // PAGE_CHARACTERS), 1)
    page = min(max(page, 1), pages)
    body = text[(page - 1) * PAGE_CHARACTERS : page * PAGE_CHARACTERS]
    return body if pages == 1 else f"{body}\n[page {page} of {pages}]"
