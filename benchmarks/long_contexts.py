"""Long contexts: what the cascade loses and saves, how late a deadline is kept, what the score cache saves.

    python benchmarks/long_contexts.py cascade  [--tokens 131072] [--questions 200] [--recall-risk 0.005]
    python benchmarks/long_contexts.py losses   [--tokens 131072] [--questions 200] [--recall-risk 0.005]
    python benchmarks/long_contexts.py deadline [--tokens 131072] [--calls 1000] [--longest 4]
    python benchmarks/long_contexts.py cache    [--tokens 131072] [--path scores.sqlite]
    python benchmarks/long_contexts.py curve    [--tokens 131072] [--haystacks 8] [--cheap lexical|critic]

`cascade`, `losses` and `curve` need the data folder (--data DIR or CPRS_DATA). Each prints what it measured; add
``--json`` for a machine. Medians are over calls of one process; run them on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cprs_core import CascadeScorer, Compressor, LexicalRanker, ScoreCache, Scorer
from cprs_core.cascade import CriticRanker
from cprs_core.critics import load_scorer
from cprs_core.evaluation.corpus import Request
from cprs_core.evaluation.data import data_folder, read_dataset
from cprs_core.evaluation.haystack import Haystack, build_haystack, recall_at_budgets
from cprs_core.evaluation.systems import CriticSystem
from cprs_core.evaluation.words import plain_sentence
from cprs_core.instructions import PRESETS
from cprs_core.windows import plan_windows

INSTRUCTION = "supporting_facts"
NEEDLE = "Ada King signed the lease of the boathouse on Monday."
QUERY = "Who signed the lease of the boathouse?"
BUDGET = 1_024
HELD_OUT = 50  # one query in so many is never trained on, see `cprs_core.training.sampling`


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["cascade", "losses", "deadline", "cache", "curve"])
    parser.add_argument("--tokens", type=int, default=131_072, help="tokens of the context")
    parser.add_argument("--data", help="the data folder")
    parser.add_argument("--critic", type=Path, help="a critic's folder; the embedded one by default")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--questions", type=int, default=200, help="cascade, losses, curve: of each haystack")
    parser.add_argument("--recall-risk", type=float, default=0.005, help="cascade, losses")
    parser.add_argument("--timed", type=int, default=5, help="cascade, cache: calls that are timed, of each kind")
    parser.add_argument("--calls", type=int, default=1_000, help="deadline: calls")
    parser.add_argument("--longest", type=float, default=4.0, help="deadline: the longest, in seconds")
    parser.add_argument("--path", type=Path, help="cache: a file to keep scores in; in memory by default")
    parser.add_argument("--haystacks", type=int, default=8, help="curve: contexts")
    parser.add_argument("--cheap", choices=["lexical", "critic"], default="lexical", help="curve: the cheap stage")
    parser.add_argument("--largest-cut", type=float, default=0.44, help="curve: the larger, the longer it takes")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    scorer = load_scorer(arguments.critic, device=arguments.device, dtype=arguments.dtype)
    measure: Callable[[Any, argparse.Namespace], dict[str, Any]] = {
        "cascade": measure_cascade,
        "losses": measure_losses,
        "deadline": measure_deadline,
        "cache": measure_cache,
        "curve": measure_curve,
    }[arguments.what]
    found = measure(scorer, arguments)
    if arguments.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:40} {value:.4g}" if isinstance(value, float) else f"{name:40} {value}")
    return 0


def measure_cascade(scorer: Scorer, arguments: argparse.Namespace) -> dict[str, Any]:
    """Recall and seconds, text to spans, with and without the cascade, on the haystack of ``cprs bench haystack``."""
    dataset = read_dataset(data_folder(arguments.data), "squad", "dev")
    haystack = build_haystack(dataset, scorer.tokenizer, arguments.tokens, arguments.questions, arguments.seed)
    cascade = CascadeScorer(LexicalRanker(), scorer, recall_risk=arguments.recall_risk)
    found: dict[str, Any] = {"tokens": haystack.corpus.tokens, "questions": len(haystack.queries)}
    requests = [Request(haystack.corpus, query, PRESETS[INSTRUCTION]) for query in haystack.queries]
    facts = haystack.facts(haystack.corpus)
    texts = list(haystack.corpus.texts)
    for name, one in (("all windows", scorer), ("cascade", cascade)):
        measures = recall_at_budgets("haystack", name, CriticSystem(name, one), requests, facts, (BUDGET,))
        found[f"recall at {BUDGET:,}, {name}"] = float(measures[0].value)
    seconds: dict[str, list[float]] = {"all windows": [], "cascade": []}
    shares: list[float] = []
    for query in haystack.queries[: arguments.timed]:  # one of each in turn: both meet the same machine
        for name, one in (("all windows", scorer), ("cascade", cascade)):
            began = time.perf_counter()
            usage = Compressor(one).compress(texts, query, instruction=INSTRUCTION, max_tokens=BUDGET).usage
            seconds[name].append(time.perf_counter() - began)
        shares.append(usage.windows_read / usage.windows)
    for name, taken in seconds.items():
        found[f"seconds, {name}"] = statistics.median(taken)
    found["times faster"] = found["seconds, all windows"] / found["seconds, cascade"]
    found["share of windows read, timed calls"] = statistics.mean(shares)
    found["share of windows read, all questions"] = statistics.mean(_share_read(cascade, haystack))
    return found


def measure_losses(scorer: Scorer, arguments: argparse.Namespace) -> dict[str, Any]:
    """Questions whose fact the cascade drops and reading all windows keeps, on the haystack of `measure_cascade`.

    To save time all windows are read only for questions whose fact the cascade drops. What it keeps and they do not is
    not set off against the losses.
    """
    dataset = read_dataset(data_folder(arguments.data), "squad", "dev")
    haystack = build_haystack(dataset, scorer.tokenizer, arguments.tokens, arguments.questions, arguments.seed)
    cascade = CascadeScorer(LexicalRanker(), scorer, recall_risk=arguments.recall_risk)
    facts = haystack.facts(haystack.corpus)

    def keeps(one: Scorer, index: int) -> bool:
        request = Request(haystack.corpus, haystack.queries[index], PRESETS[INSTRUCTION])
        system = CriticSystem("critic", one)
        return bool(recall_at_budgets("losses", "critic", system, [request], [facts[index]], (BUDGET,))[0].value)

    count = len(haystack.queries)
    dropped = [index for index in range(count) if not keeps(cascade, index)]
    lost = [index for index in dropped if keeps(scorer, index)]
    return {
        "tokens": haystack.corpus.tokens,
        "questions": count,
        f"recall at {BUDGET:,}, cascade": 100.0 * (1.0 - len(dropped) / count),
        "questions lost": len(lost),
        "recall lost, points at most": 100.0 * len(lost) / count,
        "share of windows read": statistics.mean(_share_read(cascade, haystack)),
    }


def measure_deadline(scorer: Scorer, arguments: argparse.Namespace) -> dict[str, Any]:
    """How late answers come under random deadlines, in seconds and in batches; negative: before the deadline."""
    rng = np.random.default_rng(arguments.seed)
    texts = _texts(arguments.tokens, scorer, arguments.seed)
    compressor = Compressor(scorer)
    began = time.perf_counter()
    usage = compressor.compress(texts, QUERY, max_tokens=BUDGET).usage
    full = time.perf_counter() - began
    batch = usage.stage_seconds["score"] * getattr(scorer, "batch_tokens", 4_096) / usage.input_tokens
    late: list[float] = []
    read: list[float] = []
    found_needle = 0
    for seconds in rng.uniform(0.0, arguments.longest, arguments.calls).tolist():
        began = time.perf_counter()
        result = compressor.compress(texts, QUERY, max_tokens=BUDGET, deadline=seconds)
        late.append(time.perf_counter() - began - seconds)
        read.append(result.usage.windows_read / result.usage.windows)
        found_needle += NEEDLE in result.text
    return {
        "tokens": usage.input_tokens,
        "calls": len(late),
        "seconds without a deadline": full,
        "seconds of one batch": batch,
        "seconds late, median": float(np.median(late)),
        "seconds late, p99": float(np.quantile(late, 0.99)),
        "seconds late, worst": max(late),
        "batches late, worst": max(late) / batch,
        "calls late by more than one batch": sum(one > batch for one in late),
        "share of windows read, mean": statistics.mean(read),
        "needle kept, share of calls": found_needle / len(late),
    }


def measure_cache(scorer: Scorer, arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of the first call and of further calls with other budgets and granularities."""
    texts = _texts(arguments.tokens, scorer, arguments.seed)
    compressor = Compressor(scorer, cache=ScoreCache(path=arguments.path))
    first: list[float] = []
    second: list[float] = []
    granularity: list[float] = []
    for index in range(arguments.timed):
        query = f"{QUERY} {index}"
        for kept, options in (
            (first, {"max_tokens": BUDGET}),
            (second, {"max_tokens": 2 * BUDGET}),
            (granularity, {"max_tokens": BUDGET, "granularity": "paragraph"}),
        ):
            began = time.perf_counter()
            usage = compressor.compress(texts, query, instruction=INSTRUCTION, **options).usage  # type: ignore[arg-type]
            kept.append(time.perf_counter() - began)
        assert usage.cached
    return {
        "tokens": usage.input_tokens,
        "seconds, first call": statistics.median(first),
        "seconds, another budget": statistics.median(second),
        "seconds, another granularity": statistics.median(granularity),
        "times faster, another budget": statistics.median(first) / statistics.median(second),
        "times faster, another granularity": statistics.median(first) / statistics.median(granularity),
    }


def measure_curve(scorer: Scorer, arguments: argparse.Namespace) -> dict[str, Any]:
    """Recall lost against the cut, and the share of windows read, on held-out questions of SQuAD train.

    Of the questions whose fact the critic keeps at `BUDGET` tokens when it reads all windows, the share whose fact is
    in no window above the cut, in one call and in a stream (`cprs_core.cascade.EXPECTED`). To save time the critic
    reads in full only for questions that the largest cut would lose; a lower cut cannot lose the others.
    """
    cuts = np.arange(0.0, arguments.largest_cut + 0.01, 0.02)
    dataset = read_dataset(data_folder(arguments.data), "squad", "train")
    held_out = type(dataset)(dataset.documents, dataset.records[::HELD_OUT])
    ranker = LexicalRanker() if arguments.cheap == "lexical" else CriticRanker(scorer)
    best_shares: list[float] = []
    expected_shares: list[float] = []  # where the best may be still to come, as in a stream: `cascade.EXPECTED`
    above: list[NDArray[np.float64]] = []
    sizes: list[int] = []
    missed = 0
    for seed in range(arguments.haystacks):
        haystack = build_haystack(held_out, scorer.tokenizer, arguments.tokens, arguments.questions, seed)
        corpus = haystack.corpus
        facts = haystack.facts(corpus)
        context = corpus.read_by(scorer.tokenizer)
        for index, query in enumerate(haystack.queries):
            prefix = scorer.tokenizer.encode_prefix(PRESETS[INSTRUCTION].text, query, PRESETS[INSTRUCTION].tags)
            capacity = scorer.window_tokens - len(prefix)
            borders = context.first_tokens(context.sentences[:, 0])
            windows = plan_windows(borders, len(context.ids), capacity, overlap=capacity // 4)
            slices = [context.ids[a:b] for a, b in windows.tolist()]
            so_far = ranker.in_pieces()
            likely = so_far.rank(prefix, slices, scorer.tokenizer)
            shares = likely / max(float(likely.max()), 1e-9)
            first = context.first_tokens(np.array([start for start, _ in haystack.ranges[index]]))
            best = float(shares[np.searchsorted(windows[:, 0], first, side="right") - 1].max())
            expected = best * float(likely.max()) / max(so_far.best, 1e-9)
            if best < cuts[-1]:
                request = Request(corpus, query, PRESETS[INSTRUCTION])
                system = CriticSystem("critic", scorer)
                kept = recall_at_budgets("curve", "critic", system, [request], [facts[index]], (BUDGET,))[0].value
                if not kept:
                    missed += 1
                    continue
            best_shares.append(best)
            expected_shares.append(expected)
            above.append((shares[:, None] >= cuts[None, :]).mean(axis=0))
            sizes.append(len(windows))
        print(f"{seed + 1} haystacks, {len(best_shares)} questions", file=sys.stderr)
    lost, lost_in_streams = (
        (np.array(found)[:, None] < cuts[None, :]).mean(axis=0) for found in (best_shares, expected_shares)
    )
    read = np.mean(above, axis=0)
    rows = [
        {
            "cut": round(float(cut), 2),
            "recall lost": round(float(a), 4),
            "at most in a stream": round(float(b), 4),
            "share of windows read": round(float(c), 4),
        }
        for cut, a, b, c in zip(cuts, lost, lost_in_streams, read, strict=True)
    ]
    return {
        "windows": statistics.median(sizes),
        "questions that the critic answers": len(best_shares),
        "questions that it misses with all windows": missed,
        "curve": "".join(f"\n  {row}" for row in rows) if not arguments.json else rows,
    }


def _share_read(cascade: CascadeScorer, haystack: Haystack) -> list[float]:
    context = haystack.corpus.read_by(cascade.tokenizer)
    borders = context.first_tokens(context.sentences[:, 0])
    shares = []
    for query in haystack.queries:
        prefix = cascade.tokenizer.encode_prefix(PRESETS[INSTRUCTION].text, query, PRESETS[INSTRUCTION].tags)
        capacity = cascade.window_tokens - len(prefix)
        windows = plan_windows(borders, len(context.ids), capacity, overlap=capacity // 4)
        chosen = cascade.plan(prefix, [context.ids[a:b] for a, b in windows.tolist()])
        shares.append(len(chosen) / len(windows))
    return shares


def _texts(tokens: int, scorer: Scorer, seed: int) -> list[str]:
    """Documents of our own prose, with a needle in the middle of them."""
    rng = np.random.default_rng(seed)
    texts: list[str] = []
    total = 0
    while total < tokens:
        texts.append("\n\n".join(" ".join(plain_sentence(rng) for _ in range(8)) for _ in range(12)))
        total += len(scorer.tokenizer.encode(texts[-1]))
    middle = len(texts) // 2
    texts[middle] = f"{texts[middle]}\n\n{NEEDLE}"
    return texts


if __name__ == "__main__":
    sys.exit(main())
