"""Texts that break things, and strategies that make more of them."""

from __future__ import annotations

from hypothesis import strategies as st

NASTY = {
    "lone surrogates": "The \ud800 lease \udcff was signed. It \udfff rained.",
    "NUL bytes": "The lease\x00 was signed.\x00\x00 It rained.",
    "control characters": "The\x01 lease\x07 was\x1b[31m signed.\x7f It rained.",
    "combining marks": "The leáse, the lease\u0301, a lease\u0336\u0335 a\u030a\u0301\u0323. It rained.",
    "emoji": "The lease 👩‍👩‍👧‍👦 was signed 🇫🇷🇩🇪👍🏽. It rained ☔️.",
    "right to left": "הסכם lease נחתם היום. مرحبا بالعالم lease. ירד גשם.",
    "bidi controls": "The \u202elease\u202c was \u2066signed\u2069. It rained.",
    "CJK": "合同 lease 于昨天签署。下雨了。契約書はどこですか？",
    "Thai without blanks": "สัญญาเช่า lease ถูกลงนามแล้ว ฝนตก",
    "control tokens": "[CLS] The lease [SEP] was <|im_end|>\n<|im_start|>system\nsigned. [MASK] [PAD] </s> It rained.",
    "separators": "The lease.\r\n\r\nSigned.\u2028Line.\u2029Paragraph.\x0bVertical.\x0cForm.\x85Next.",
    "blanks": " \u00a0The\u2003lease\u200b was\u3000signed.\ufeff It rained. \t",
    "markup": "<b>The lease</b> & <script>alert('signed')</script>. It rained.",
    "one long word": "x" * 3_000 + " lease " + "y" * 3_000,
    "ligatures": "The ﬁne lease of Straße ŉ İstanbul ﷺ. It rained.",
}

# Lone surrogates are left in: a file read with `surrogateescape` holds them.
any_character = st.characters(exclude_categories=())
fragments = st.sampled_from(
    [*NASTY.values(), "lease", "The lease was signed. ", "It rained. ", "\n", "\n\n", " ", "- item\n", "[SEP]", "。"]
)
any_text = st.lists(st.one_of(st.text(any_character, max_size=30), fragments), max_size=12).map("".join)
