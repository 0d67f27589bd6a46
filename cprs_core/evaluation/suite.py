"""The long-context suite: the published protocols at 131,072 tokens, without a reader.

Recall is judged at the mean number of tokens that QwenLong-CPRS kept (arXiv 2505.18092, table 4): 60 for needles and
variable chains, 1,000 for question answering, 2 % of the context for code. The query is the question alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from cprs_core.errors import MissingExtraError
from cprs_core.evaluation.data import read_dataset
from cprs_core.evaluation.metrics import Measure, mean_measure
from cprs_core.evaluation.needles import book_essay, measure_samples, needle_samples, sample_seeds
from cprs_core.evaluation.options import Options
from cprs_core.evaluation.systems import CriticSystem, System
from cprs_core.evaluation.tasks import everyday, infinitebench, ruler
from cprs_core.evaluation.tasks.questions import make_questions
from cprs_core.evaluation.tasks.sample import Sample

TOKENS = 131_072
GRID_LENGTHS = (32_768, 131_072, 524_288, 1_048_576)
GRID_DEPTHS = 15
CODE_DEPTHS = (2, 4, 6, 8, 10)


def measure_ruler_needles(systems: Sequence[System], options: Options) -> list[Measure]:
    """RULER's needles and InfiniteBench's look-ups."""
    samples = needle_samples(options, options.tokens or TOKENS)
    return measure_samples("long needles", samples, systems, options, budgets=(60,))


def measure_variables(systems: Sequence[System], options: Options) -> list[Measure]:
    """Variable tracking, one to four chains, in noise and in essays."""

    def samples() -> Iterator[Sample]:
        essay = book_essay(options)
        for hay in (None, essay):
            for chains in (1, 2, 4):
                for seed in sample_seeds(options):
                    sample = ruler.make_variables(
                        options.tokenizer, options.tokens or TOKENS, seed, chains=chains, essay=hay
                    )
                    yield replace(sample, task=f"{chains} in {'noise' if hay is None else 'essay'}")

    return measure_samples("variable tracking", samples(), systems, options, budgets=(60,))


def measure_code_run(systems: Sequence[System], options: Options) -> list[Measure]:
    """Chains of one-line functions."""
    samples = (
        infinitebench.make_code_run(options.tokenizer, options.tokens or TOKENS, seed, depth)
        for depth in CODE_DEPTHS
        for seed in sample_seeds(options)
    )
    return measure_samples("code run", samples, systems, options, budgets=(0.02,))


def measure_questions(systems: Sequence[System], options: Options) -> list[Measure]:
    """Question answering over documents of which BM25 chose the distractors: SQuAD's questions, then QED's."""
    tokens, count = options.tokens or TOKENS, 5 * len(sample_seeds(options))
    samples: list[Sample] = []
    try:
        for task, name in (("qa_1", "squad"), ("qa_2", "qed")):
            dataset = read_dataset(options.folder, name, "dev")
            samples += make_questions(dataset, options.tokenizer, tokens, count, options.seed, task)
    except MissingExtraError as error:
        return [Measure("hard questions", "recall@1,000", "all", float("nan"), note=str(error))]
    return measure_samples("hard questions", samples, systems, options, budgets=(500, 1_000, 16_384))


def measure_everyday(systems: Sequence[System], options: Options) -> list[Measure]:
    """Two-hop questions, long dialogues, tool output."""
    tokenizer, tokens, seeds = options.tokenizer, options.tokens or TOKENS, sample_seeds(options)
    essay = book_essay(options)

    def samples() -> Iterator[Sample]:
        for parity in (0, 1):  # comparisons, then bridges
            for seed in seeds:
                yield everyday.make_two_hops(tokenizer, tokens, 2 * seed + parity, essay)
        for make in (everyday.make_dialogue, everyday.make_tool_output):
            for seed in seeds:
                yield make(tokenizer, tokens, seed)

    return measure_samples("everyday", samples(), systems, options, budgets=(256, 1_024))


def measure_grid(systems: Sequence[System], options: Options) -> list[Measure]:
    """One needle at every depth of every length: found within 60 tokens."""
    lengths = (options.tokens,) if options.tokens else GRID_LENGTHS
    essay = book_essay(options)

    def samples() -> Iterator[Sample]:
        for length in lengths:
            for number in range(GRID_DEPTHS):
                sample = ruler.make_needles(
                    "niah_single_2",
                    options.tokenizer,
                    length,
                    options.seed + number,
                    essay,
                    depth=number / (GRID_DEPTHS - 1),
                )
                yield replace(sample, task=f"{length:,}")

    return measure_samples("needle grid", samples(), systems, options, budgets=(60,))


def measure_aggregation(systems: Sequence[System], options: Options) -> list[Measure]:
    """Tasks that cannot be compressed: the right answer is a result marked ``low_confidence``.

    Counting words and finding the largest number need every line. A critic says so when nothing in the context reaches
    its default threshold.
    """
    tokens = min(options.tokens or TOKENS, TOKENS)
    measures = []
    for make in (ruler.make_common_words, ruler.make_frequent_words, infinitebench.make_math_find):
        samples = [make(options.tokenizer, tokens, seed) for seed in sample_seeds(options)]
        requests = [sample.request(options.tokenizer) for sample in samples]
        for system in systems:
            if isinstance(system, CriticSystem):
                least = system.threshold("sentence")
                says_so = [float(scores.max(initial=0.0)) < least for scores in system.rank(requests)]
                measures.append(mean_measure("aggregation", samples[0].task, system.name, np.array(says_so)))
    return measures
