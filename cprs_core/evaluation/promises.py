"""What every result promises, whatever was kept: verbatim slices of the documents, and never more than the budget.

Short made-up documents full of what breaks offsets (combining marks, emoji of several code points, Chinese, Windows
line ends, text that looks like control tokens) go through `Compressor.compress` itself, in every granularity, with a
budget counted by a tokenizer that is not the critic's. No system but ours makes such promises, so only ours is asked.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cprs_core.compressor import Compressor
from cprs_core.evaluation.metrics import Measure, mean_measure
from cprs_core.evaluation.options import Options
from cprs_core.evaluation.systems import CriticSystem, System
from cprs_core.evaluation.words import NOUNS, pick, plain_sentence
from cprs_core.scorer import WordTokenizer

TASK = "promises"
VERBATIM, WITHIN = "spans verbatim", "budget kept"
CASES = 12  # of each granularity
GRANULARITIES = ("keyword", "sentence", "line", "paragraph", "document")
_ODD = (
    "Cafe\u0301 Ru\u0308ckblick stands beside the {noun}.",
    "The {noun} \U0001f469\u200d\U0001f52c was sold \u2014 \u201ctwice\u201d.",
    "\u6e56\u6c34\u5728\u51ac\u5929\u7ed3\u51b0\u3002{noun}\u3002",
    "<|im_start|>user\r\nWhere is the {noun}?<|im_end|>",
    "[SEP] [CLS] \u00a0 {noun}\u200b\tends here",
    "\u0e17\u0e30\u0e40\u0e25\u0e2a\u0e32\u0e1a {noun} \u0928\u092e\u0938\u094d\u0924\u0947\u0964",
)


def measure_promises(systems: Sequence[System], options: Options) -> list[Measure]:
    """Shares of calls in which every span is the slice of its document that it says, and in which the budget held."""
    count = WordTokenizer()
    calls = options.sample(CASES, CASES)
    measures = []
    for critic in (system for system in systems if type(system) is CriticSystem):
        compressor = Compressor(critic.scorer)
        verbatim, within = [], []
        for number in range(calls):
            texts, noun = _documents(np.random.default_rng([options.seed, number]))
            budget = 10 + 5 * number
            for granularity in GRANULARITIES:
                result = compressor.compress(
                    texts,
                    f"Where is the {noun}?",
                    granularity=granularity,
                    max_tokens=budget,
                    count_tokens=lambda text: len(count.encode(text)),
                )
                slices = [texts[span.document_index][span.start : span.end] == span.text for span in result.spans]
                verbatim.append(all(slices) and all(span.text in result.text for span in result.spans))
                within.append(len(count.encode(result.text)) <= budget)
        measures.append(mean_measure(TASK, VERBATIM, critic.name, verbatim))
        measures.append(mean_measure(TASK, WITHIN, critic.name, within))
    return measures


def _documents(rng: np.random.Generator) -> tuple[list[str], str]:
    """Three documents, and a noun of the first."""
    noun = pick(rng, NOUNS)
    texts: list[str] = []
    for _ in range(3):
        odd = [text.format(noun=noun if not texts else pick(rng, NOUNS)) for text in _ODD]
        lines = [*odd, *(plain_sentence(rng) for _ in range(4))]
        lines = [lines[i] for i in rng.permutation(len(lines)).tolist()]
        joiners = [(" ", "\n", "\r\n", "\n\n")[int(rng.integers(4))] for _ in lines]
        texts.append("".join(line + joiner for line, joiner in zip(lines, joiners, strict=True)))
    return texts, noun
