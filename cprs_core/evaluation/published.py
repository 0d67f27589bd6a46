"""Numbers that others published, shown beside ours and never mixed with them.

They come from readers, data and token counts of their own; they say what a system claims, not what it does on our data.
"""

from __future__ import annotations

from dataclasses import dataclass

from cprs_core.evaluation.report import render_rows


@dataclass(frozen=True)
class Published:
    """One published number: what was measured, by whom, at which cost, and where it stands."""

    measure: str
    system: str
    value: str
    cost: str
    source: str


_CPRS = "arXiv 2505.18092, table 1"

PUBLISHED = (
    Published("RULER-128K needles, reader score", "QwenLong-CPRS + Qwen2.5-7B", "99.85", "52 tokens", _CPRS),
    Published("RULER-128K needles, reader score", "RAG to 16K + Qwen2.5-7B", "93.30", "16K tokens", _CPRS),
    Published("RULER-128K needles, reader score", "MInference, Qwen2.5-7B", "62.38", "all tokens", _CPRS),
    Published("RULER-128K variable tracking", "QwenLong-CPRS + Qwen2.5-7B", "98.68", "53 tokens", _CPRS),
    Published("RULER-128K variable tracking", "RAG to 16K + Qwen2.5-7B", "98.92", "16K tokens", _CPRS),
    Published("RULER-128K variable tracking", "MInference, Qwen2.5-7B", "21.12", "all tokens", _CPRS),
    Published("RULER-128K QA, reader score", "QwenLong-CPRS + Qwen2.5-7B", "72.20", "1,173 tokens", _CPRS),
    Published("RULER-128K QA, reader score", "RAG to 16K + Qwen2.5-7B", "65.70", "16K tokens", _CPRS),
    Published("InfiniteBench key-value", "QwenLong-CPRS + Qwen2.5-7B", "98.80", "69 tokens", _CPRS),
    Published("InfiniteBench key-value", "RAG to 16K + Qwen2.5-7B", "73.60", "16K tokens", _CPRS),
    Published("mean compression", "QwenLong-CPRS", "21.59 x", "-", "arXiv 2505.18092, abstract"),
    Published("NQ, LLM judge (full context 71.8)", "Provence", "72.5", "38 % kept", "arXiv 2501.16214, figure 2"),
    Published("English sets, mean span F2, T 0.3", "OpenProvence, 30 M", "0.725", "52 % kept", "OpenProvence report"),
    Published("English sets, mean span F2, T 0.3", "OpenProvence, 310 M", "0.772", "49 % kept", "OpenProvence report"),
    Published("HotpotQA top 5, EM (full 29.2)", "EXIT, 2 B", "31.6", "191 of 735 tokens", "EXIT, appendix"),
    Published("NQ 20 documents, GPT-3.5, first", "LongLLMLingua", "75.0", "748 tokens", "arXiv 2310.06839"),
)


def render_published() -> str:
    """Markdown table of all of them."""
    rows = [["published, on other data", "system", "value", "at", "source"]]
    rows += [[item.measure, item.system, item.value, item.cost, item.source] for item in PUBLISHED]
    return render_rows(rows)
