"""A look at a result: the source with the kept text highlighted."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from cprs_core.types import replace_surrogates

if TYPE_CHECKING:
    from cprs_core.types import Compression, Document, Span

_STYLE = """
.cprs{font:15px/1.6 system-ui,sans-serif;color:#6b7280;max-width:52rem}
.cprs mark{background:hsl(48 96% calc(94% - 22% * var(--score)));color:#111827;border-radius:3px;padding:1px 2px}
.cprs pre{white-space:pre-wrap;word-wrap:break-word;font:inherit;margin:.4rem 0 1.2rem}
.cprs h3{margin:.8rem 0 .2rem;color:#111827;font-size:1rem}
.cprs .usage{color:#374151;border-bottom:1px solid #e5e7eb;padding-bottom:.5rem}
.cprs .gap{color:#9ca3af}
"""

# Longer runs of dropped text are shortened on the page, so that a whole book still opens in a browser.
_CONTEXT_CHARACTERS = 600


def render_page(result: Compression, sources: Sequence[Document]) -> str:
    """A self-contained HTML page."""
    title = _clean(result.query or result.instruction or "compression")
    return (
        f'<!doctype html><html><head><meta charset="utf-8"><title>{title}</title></head>'
        f"<body>{render_fragment(result, sources)}</body></html>\n"
    )


def render_fragment(result: Compression, sources: Sequence[Document]) -> str:
    """The same for a notebook cell. Without sources (a result loaded from JSON) only the kept text is shown."""
    usage = result.usage
    parts = [
        f'<style>{_STYLE}</style><div class="cprs"><p class="usage"><b>{_clean(result.query)}</b><br>'
        f"{usage.output_tokens:,} of {usage.input_tokens:,} tokens kept ({usage.ratio:.1%}), "
        f"{len(result.spans)} spans, {usage.seconds:.2f} s</p>"
    ]
    if result.notice:
        parts.append(f"<p><i>{_clean(result.notice)}</i></p>")
    spans_of: dict[int, list[Span]] = {}
    for span in result.spans:
        spans_of.setdefault(span.document_index, []).append(span)
    for index, document in enumerate(sources or result.documents):
        name = document.title or document.id or f"document {index + 1}"
        body = _highlight(document.text, spans_of.get(index, [])) if sources else _clean(document.text)
        parts.append(f"<h3>{_clean(name)}</h3><pre>{body}</pre>")
    parts.append("</div>")
    return "".join(parts)


def _highlight(text: str, spans: Sequence[Span]) -> str:
    pieces: list[str] = []
    position = 0
    for span in spans:
        pieces.append(_dropped(text[position : span.start]))
        hint = f"{span.tag} {span.score:.2f}, characters {span.start}-{span.end}"
        pieces.append(
            f'<mark style="--score:{min(max(span.score, 0.0), 1.0):.2f}" title="{_clean(hint)}">'
            f"{_clean(span.text)}</mark>"
        )
        position = span.end
    pieces.append(_dropped(text[position:]))
    return "".join(pieces)


def _dropped(text: str) -> str:
    if len(text) <= 2 * _CONTEXT_CHARACTERS:
        return _clean(text)
    left_out = len(text) - 2 * _CONTEXT_CHARACTERS
    return (
        f"{_clean(text[:_CONTEXT_CHARACTERS])}"
        f'<span class="gap"> [... {left_out:,} characters ...] </span>'
        f"{_clean(text[-_CONTEXT_CHARACTERS:])}"
    )


def _clean(text: str) -> str:
    """``text`` for HTML: escaped, and without characters that no page may hold."""
    return escape(replace_surrogates(text).replace("\x00", "\ufffd"))
