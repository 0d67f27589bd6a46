"""Agent memory: what is still there after shrinking, what is saved, and what a turn costs in time.

    python -m benchmarks.memory SECTION... [--limit N] [--seed N] [--data DIR] [--critic DIR] [--failures N]
        [--workers N] [--json F]

dialogues  the turn that answers a question, kept at 2, 5 and 10 % of the tokens of 300-700 turns, beside the last
           turns, BM25 and MiniLM embeddings at the same tokens (SGD dev, and small talk of our own)
tools      lines that matter in tool outputs while nine tenths of the tokens go (our own, and recorded agents')
histories  random histories: accepted by the providers' protocols, paired, within budget or said so, and unchanged by a
           second application
run        an agent of 60 model calls through LangChain's create_agent and LlamaIndex's FunctionAgent
latency    seconds added by a tool result of 2,000 and of 50,000 tokens (needs an idle machine)
all        all of these

Needs the extras bench and train (`run`: also langchain, `histories`: also clients), and the data folder (`--data` or
the variable CPRS_DATA) for SGD and the recorded agents. `histories` takes a scorer with obvious behaviour, everything
else the critic. Seed 42 is for reports; the code was developed on others.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.memory_cases import (
    Dialogue,
    generated_dialogues,
    generated_outputs,
    sgd_dialogues,
    transcript_outputs,
)
from cprs_core import PRESETS, Compressor, InputError, KeywordScorer
from cprs_core.evaluation.baselines import BM25System, EmbeddingSystem
from cprs_core.evaluation.corpus import Corpus, Request
from cprs_core.evaluation.data import data_folder
from cprs_integrations.messages import repair_pairs
from cprs_integrations.ranking import Goal, score_pieces
from cprs_integrations.tool_output import MIN_TOOL_TOKENS, shorten_output
from cprs_integrations.trimming import HistoryTrimmer
from tests.integrations.memory.outputs import Output, service_log

SHARES = (0.02, 0.05, 0.10)
LIMITS = {"dialogues": 200, "tools": 200, "histories": 10_000, "run": 33, "latency": 40}

Scores = Callable[[Dialogue], np.ndarray]
Rows = dict[str, Any]


def print_dialogues(name: str, dialogues: Sequence[Dialogue], compressor: Compressor, failures: int) -> Rows:
    """Share of the questions for which a turn that answers is kept."""
    systems: dict[str, Scores] = {
        "last turns": lambda d: np.arange(len(d.turns), dtype=np.float32),
        # As `recall_turns` and compactions score turns.
        "cprs": lambda d: score_pieces([f"{turn}\n" for turn in d.turns], Goal(d.question, "turns"), compressor),
    }
    for system in (BM25System(), EmbeddingSystem()):
        systems[system.name] = lambda d, system=system: system.rank(
            [Request(Corpus(d.turns, compressor.scorer.tokenizer, unit="document"), d.question, PRESETS["turns"])]
        )[0]
    count = compressor.count_tokens
    hits: dict[str, list[list[bool]]] = defaultdict(list)
    for dialogue in tqdm(dialogues, name, disable=None):
        costs = [count(turn) + 1 for turn in dialogue.turns]
        budgets = [int(share * sum(costs)) for share in SHARES]
        for system_name, scores in systems.items():
            found = scores(dialogue)
            hits[system_name].append([bool(_best(found, costs, b) & dialogue.gold) for b in budgets])
            if system_name == "cprs" and not hits["cprs"][-1][1] and failures:
                failures -= 1
                _print_missed_turn(dialogue, found)
    turns = np.mean([len(dialogue.turns) for dialogue in dialogues])
    print(f"\n{name}: {len(dialogues)} questions over {turns:.0f} turns on average; a turn that answers is kept, %")
    print(f"{'':18}" + "".join(f"{f'{100 * share:.0f} % kept':>12}" for share in SHARES))
    rows: Rows = {}
    for system_name, kept in hits.items():
        rows[system_name] = [round(100 * float(value), 1) for value in np.mean(kept, axis=0)]
        print(f"{system_name:18}" + "".join(f"{value:12.1f}" for value in rows[system_name]))
    return rows


def print_tools(name: str, outputs: Sequence[Output], compressor: Compressor, failures: int) -> Rows:
    """Recall of the lines that matter at a tenth of the tokens."""
    recall: dict[str, list[float]] = defaultdict(list)
    gone: dict[str, list[float]] = defaultdict(list)
    for output in tqdm(outputs, name, disable=None):
        tokens = compressor.count_tokens(output.text)
        budget = max(tokens // 10, MIN_TOOL_TOKENS)
        short = shorten_output(output.text, Goal(output.request), compressor=compressor, max_tokens=budget)
        missed = [line for line in output.gold if line not in short]
        for key in (output.kind, "all"):
            recall[key].append(1 - len(missed) / len(output.gold))
            gone[key].append(1 - compressor.count_tokens(short) / tokens)
        if missed and failures:
            failures -= 1
            _print_missed_lines(output, missed, short)
    print(f"\n{name}: recall of lines that matter, and the share of tokens that went, %")
    rows: Rows = {}
    for key, values in recall.items():
        rows[key] = [len(values), round(100 * float(np.mean(values)), 1), round(100 * float(np.mean(gone[key])), 1)]
        print(f"{key:8}{rows[key][0]:6d} outputs{rows[key][1]:10.1f}{rows[key][2]:10.1f}")
    return rows


def print_histories(number: int, seed: int, workers: int) -> Rows:
    """Any history, trimmed: what the protocols say to it. Histories know nothing of each other: workers share them."""
    faults: dict[str, int] = dict.fromkeys(("openai", "anthropic", "gemini", "pairs", "budget", "second time"), 0)
    over = 0
    began = time.perf_counter()
    first = seed * 1_000_000
    parts = [range(at, min(at + 100, first + number)) for at in range(first, first + number, 100)]
    with ProcessPoolExecutor(min(workers, len(parts)), mp_context=get_context("spawn")) as pool:
        for over_budget, found in tqdm(pool.map(_history_faults, parts), "histories", len(parts), disable=None):
            over += over_budget
            for name, line in found:
                faults[name] += 1
                print(line)
    seconds = time.perf_counter() - began
    print(f"\n{number:,} histories in {seconds:.0f} s; {over:,} over budget, and said so; faults:")
    print("  ".join(f"{name} {count}" for name, count in faults.items()))
    return {"histories": number, "over budget": over, **faults}


def _history_faults(seeds: Sequence[int]) -> tuple[int, list[tuple[str, str]]]:
    """How many of the histories were over budget; and (name of the check, line that says where) of every fault."""
    from langchain_anthropic import ChatAnthropic
    from langchain_google_genai import ChatGoogleGenerativeAI
    from langchain_openai import ChatOpenAI

    from cprs_integrations.langchain.history import read_messages, write_messages
    from tests.integrations.adapters.loopback import Loopback
    from tests.integrations.adapters.protocols import Chat, Messages
    from tests.integrations.memory.histories import random_history

    logging.disable(logging.WARNING)
    trimmed_by = Compressor(KeywordScorer())
    openai: Any = ChatOpenAI(model="gpt-4o", api_key="k")
    anthropic: Any = ChatAnthropic(model="claude-sonnet-4-5", api_key="k", max_tokens=64)
    lines: list[tuple[str, str]] = []
    over = 0
    with Loopback() as server:
        gemini: Any = ChatGoogleGenerativeAI(
            model="gemini-2.5-pro", base_url=server.url, api_key="k", max_retries=0, timeout=60
        )
        for history_seed in seeds:
            rng = Random(history_seed)
            # Ids that repeat over a history are mixed up by Gemini's own client: it gets every second one, without.
            for_gemini = history_seed % 2 == 0
            history = random_history(rng, turns=8, begins_with_user=True, unique_ids=for_gemini)
            how = rng.choice(["trim", "follow"])
            budget, keep_last = rng.randrange(60, 3_000), rng.randrange(6)
            trimmer = HistoryTrimmer(trimmed_by, max_tokens=budget, tool_tokens=150, keep_last=keep_last)
            trimmed = getattr(trimmer, how)(read_messages(history))
            kept = write_messages(trimmed, history)
            again = getattr(trimmer, how)(read_messages(kept))
            found = {
                "openai": Chat().problem(openai._get_request_payload(kept)) is not None,
                "anthropic": Messages().problem(anthropic._get_request_payload(kept)) is not None,
                "gemini": for_gemini and not _is_accepted(gemini, kept),
                "pairs": repair_pairs(trimmed.messages).is_needed,
                "budget": trimmed.usage.over_budget != (trimmed.usage.output_tokens > budget),
                "second time": [m.texts for m in again.messages] != [m.texts for m in trimmed.messages],
            }
            server.received.clear()
            over += trimmed.usage.over_budget
            where = f"history {history_seed} ({how}, {budget} tokens, last {keep_last})"
            lines += [(name, f"{where}: {name}") for name, is_fault in found.items() if is_fault]
    return over, lines


def print_latency(compressor: Compressor, runs: int, seed: int) -> Rows:
    """Seconds that one tool result adds to a turn; texts of a log, each new, so nothing is remembered."""
    print("\nseconds added to a turn by a tool result")
    rows: Rows = {}
    trimmer = HistoryTrimmer(compressor)
    warm = service_log(Random(seed - 1), 78)
    trimmer.shorten_result(warm.text, warm.request)
    for name, lines in (("2,000 tokens", 92), ("50,000 tokens", 2_370)):
        seconds, tokens = [], []
        for number in range(runs):
            output = service_log(Random(f"{seed} {number}"), lines)
            tokens.append(compressor.count_tokens(output.text))
            began = time.perf_counter()
            trimmer.shorten_result(output.text, output.request)
            seconds.append(time.perf_counter() - began)
        p50, p99 = (round(float(value), 3) for value in np.percentile(seconds, [50, 99]))
        rows[name] = {"p50": p50, "p99": p99, "mean tokens": round(float(np.mean(tokens)))}
        print(f"{np.mean(tokens):8,.0f} tokens: p50 {p50:.2f} s, p99 {p99:.2f} s over {runs} results")
    return rows


def _print_missed_turn(dialogue: Dialogue, scores: np.ndarray) -> None:
    order = np.argsort(-scores, kind="stable").tolist()
    best = min(dialogue.gold, key=order.index)
    print(f"\nmissed at 5 %: {dialogue.question}\n  rank {order.index(best)}: {dialogue.turns[best][:200]}")
    for index in order[:3]:
        print(f"  first: {dialogue.turns[index][:200]}")


def _print_missed_lines(output: Output, missed: Sequence[str], short: str) -> None:
    print(f"\nmissed in {output.kind}: {output.request[:300]}")
    for line in missed:
        at = output.text.find(line)
        print(f"  {line!r} in ...{output.text[max(at - 150, 0) : at + 100]!r}")
    print(f"  kept: {short[:600]!r}")


def _is_accepted(model: Any, messages: list[Any]) -> bool:
    """Whether the loopback server takes the request; clients raise their own errors where it does not."""
    try:
        model.invoke(messages)
    except Exception as error:
        print(f"refused: {error}")
        return False
    return True


def _best(scores: np.ndarray, costs: Sequence[int], budget: int) -> set[int]:
    """Best turns first until the budget is full: the same filling for every system."""
    kept: set[int] = set()
    for index in np.argsort(-scores, kind="stable").tolist():
        if costs[index] <= budget:
            budget -= costs[index]
            kept.add(index)
        if budget < 4:
            break
    return kept


def run_section(section: str, options: argparse.Namespace, data: Path | None, compressor: Compressor | None) -> Rows:
    """One section's tables, printed and as plain data."""
    limit = options.limit or LIMITS[section]
    seed, failures = options.seed, options.failures
    if section == "histories":
        return print_histories(limit, seed, options.workers)
    assert compressor is not None
    if section == "run":
        from benchmarks.memory_runs import print_runs  # needs both frameworks

        return print_runs(compressor, limit, seed)
    if section == "latency":
        return print_latency(compressor, limit, seed)
    tables: Rows = {}
    if section == "dialogues":
        if data:
            tables["SGD dev"] = print_dialogues("SGD dev", sgd_dialogues(data, limit, seed), compressor, failures)
        made = generated_dialogues(limit, seed)
        tables["generated"] = print_dialogues("Generated small talk", made, compressor, failures)
        if data:
            print("\nboth together (as many questions of each)")
            pairs = zip(tables["SGD dev"].items(), tables["generated"].values(), strict=True)
            tables["both"] = {
                name: [round((a + b) / 2, 1) for a, b in zip(one, two, strict=True)] for (name, one), two in pairs
            }
            for name, values in tables["both"].items():
                print(f"{name:18}" + "".join(f"{value:12.1f}" for value in values))
    else:
        outputs = generated_outputs(limit, seed)
        tables["generated"] = print_tools("Generated outputs", outputs, compressor, failures)
        if data:
            recorded = transcript_outputs(data, limit, seed)
            tables["recorded agents"] = print_tools("Recorded agents", recorded, compressor, failures)
    return tables


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="+", choices=[*LIMITS, "all"], metavar="SECTION")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--critic", type=Path, help="a critic's folder; the embedded one by default")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--limit", type=int, help="cases of each table, requests of the run, or results timed")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--failures", type=int, default=0, help="misses of each table that are printed")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes of `histories`")
    parser.add_argument("--json", type=Path, help="results as JSON; what is in the file from other sections stays")
    options = parser.parse_args()
    sections = list(LIMITS) if "all" in options.sections else options.sections
    try:
        data: Path | None = data_folder(options.data)
    except InputError as error:
        print(f"without SGD and recorded agents: {error}")
        data = None
    needs_critic = set(sections) - {"histories"}
    compressor = Compressor.from_pretrained(options.critic, device=options.device) if needs_critic else None
    for section in sections:
        rows = run_section(section, options, data, compressor)
        if options.json:
            known = json.loads(options.json.read_text()) if options.json.exists() else {}
            options.json.write_text(json.dumps({**known, section: rows}, indent=1))


if __name__ == "__main__":
    main()
