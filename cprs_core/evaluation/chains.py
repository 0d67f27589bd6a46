"""Chains across windows: is every link of a chain kept?

Call chains, variables, people and objects that move, two-hop questions. Every critic has rows with hops and with one
pass. A chain counts only if all of it is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import numpy as np

from cprs_core.errors import InputError, MissingExtraError
from cprs_core.evaluation.data import read_dataset
from cprs_core.evaluation.metrics import Measure, fill_budget, mean_measure
from cprs_core.evaluation.needles import book_essay, sample_seeds
from cprs_core.evaluation.options import Options
from cprs_core.evaluation.systems import CriticSystem, HopSystem, System
from cprs_core.evaluation.tasks import infinitebench, ruler
from cprs_core.evaluation.tasks.movement import make_movement
from cprs_core.evaluation.tasks.sample import Sample
from cprs_core.evaluation.tasks.two_hops import make_two_hop_questions

TOKENS = 131_072
CODE_TOKENS = 75_000  # InfiniteBench's Code.Run
CALL_DEPTHS = range(2, 11)
SHARE = 0.02  # of the context's tokens that may be kept of code and stories
VARIABLE_TOKENS = 60
QUESTION_TOKENS = 1_024


def measure_chains(systems: Sequence[System], options: Options) -> list[Measure]:
    """Share of chains that are kept whole, by kind of chain, each at its own budget."""
    rivals = [system for system in systems if not isinstance(system, CriticSystem)]
    critics = [s for s in systems if isinstance(s, CriticSystem) and not isinstance(s, HopSystem)]
    rows: list[System] = [*(HopSystem(critic.name, critic.scorer) for critic in critics), *critics, *rivals]
    measures: list[Measure] = []
    for name, budget, samples in _kinds(options):
        try:
            measures += whole_chains(name, samples, rows, options, budget)
        except MissingExtraError as error:
            measures.append(Measure(name, "whole chains", "all", float("nan"), note=str(error)))
        except InputError as error:  # no data folder
            measures.append(Measure(name, "whole chains", "all", float("nan"), note=str(error)))
    return measures


def _kinds(options: Options) -> Iterator[tuple[str, float, Iterator[Sample]]]:
    """(task, budget, samples); a budget below 1 is a share of the context's tokens."""
    tokenizer, seeds = options.tokenizer, sample_seeds(options)
    tokens = options.tokens or TOKENS
    code = options.tokens or CODE_TOKENS
    essay = book_essay(options)

    def questions() -> Iterator[Sample]:
        dataset = read_dataset(options.folder, "squad", "dev")
        for kind in ("bridge", "comparison"):
            yield from make_two_hop_questions(dataset, tokenizer, tokens, 5 * len(seeds), options.seed, kind)

    yield (
        "call chains",
        SHARE,
        (infinitebench.make_code_run(tokenizer, code, seed, depth) for depth in CALL_DEPTHS for seed in seeds),
    )
    yield "variable chains", VARIABLE_TOKENS, (ruler.make_variables(tokenizer, tokens, seed) for seed in seeds)
    yield (
        "movement",
        SHARE,
        (make_movement(tokenizer, tokens, seed, facts, essay) for facts in (2, 3) for seed in seeds),
    )
    yield "two-hop questions", QUESTION_TOKENS, questions()


def whole_chains(
    task: str, samples: Iterable[Sample], systems: Sequence[System], options: Options, budget: float
) -> list[Measure]:
    """Share of samples of which everything is kept, over all and by kind of sample; and the mean share that is."""
    whole: dict[str, dict[str, list[float]]] = {system.name: {} for system in systems}
    shares: dict[str, list[float]] = {system.name: [] for system in systems}
    for kind, group in groupby(samples, key=lambda sample: sample.task):
        for sample in group:  # one long context in memory at a time
            request = sample.request(options.tokenizer)
            facts = sample.facts(request.corpus)
            room = int(budget * request.corpus.tokens) if budget < 1 else int(budget)
            for system in systems:
                kept = fill_budget(system.rank([request])[0], request.corpus.costs, room)
                share = sample.recall(facts, kept)
                shares[system.name].append(share)
                whole[system.name].setdefault(kind, []).append(float(share == 1.0))
    label = f"{budget:.0%} of the tokens" if budget < 1 else f"{int(budget):,} tokens"
    measures = []
    for name, kinds in whole.items():
        every = [value for values in kinds.values() for value in values]
        measures.append(mean_measure(task, f"whole chains at {label}", name, np.array(every)))
        measures.append(mean_measure(task, "links kept", name, np.array(shares[name])))
        if len(kinds) > 1:
            measures += [mean_measure(task, kind, name, np.array(values)) for kind, values in kinds.items()]
    return measures
