"""Agent memory: what is still there after shrinking, what is saved, and what a turn costs in time.

    python benchmarks/memory.py [--data DIR] [--only dialogues tools histories run latency] [--critic DIR] [--number N]

dialogues  the turn that answers a question, kept at 2, 5 and 10 % of the tokens of 300-700 turns, beside the last
           turns, BM25 and MiniLM embeddings at the same tokens (SGD dev, and small talk of our own)
tools      lines that matter in tool outputs while nine tenths of the tokens go (our own, and recorded agents')
histories  10,000 random histories: accepted by the providers' protocols, paired, within budget or said so, and
           unchanged by a second application
run        an agent of 60 model calls through LangChain's create_agent and LlamaIndex's FunctionAgent
latency    seconds added by a tool result of 2,000 and of 50,000 tokens

Needs the extras bench, train, langchain and clients, and the data folder (`--data` or the variable CPRS_DATA) for SGD
and the recorded agents. `histories` takes a scorer with obvious behaviour, everything else the critic.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from benchmarks.memory_cases import (
    Dialogue,
    generated_dialogues,
    generated_outputs,
    sgd_dialogues,
    transcript_outputs,
)
from benchmarks.memory_runs import print_runs
from cprs_core import PRESETS, Compressor, InputError, KeywordScorer
from cprs_core.evaluation.baselines import BM25System, EmbeddingSystem
from cprs_core.evaluation.corpus import Corpus, Request
from cprs_core.evaluation.data import data_folder
from cprs_integrations.langchain.history import read_messages, write_messages
from cprs_integrations.messages import repair_pairs
from cprs_integrations.ranking import Goal, score_pieces
from cprs_integrations.tool_output import MIN_TOOL_TOKENS, shorten_output
from cprs_integrations.trimming import HistoryTrimmer
from tests.integrations.adapters.loopback import Loopback
from tests.integrations.adapters.protocols import Chat, Messages
from tests.integrations.memory.histories import random_history
from tests.integrations.memory.outputs import Output, service_log

SHARES = (0.02, 0.05, 0.10)
SECTIONS = ("dialogues", "tools", "histories", "run", "latency")

Scores = Callable[[Dialogue], np.ndarray]


def print_dialogues(name: str, dialogues: Sequence[Dialogue], compressor: Compressor) -> None:
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
    for dialogue in dialogues:
        costs = [count(turn) + 1 for turn in dialogue.turns]
        budgets = [int(share * sum(costs)) for share in SHARES]
        for system_name, scores in systems.items():
            found = scores(dialogue)
            hits[system_name].append([bool(_best(found, costs, b) & dialogue.gold) for b in budgets])
    turns = np.mean([len(dialogue.turns) for dialogue in dialogues])
    print(f"\n{name}: {len(dialogues)} questions over {turns:.0f} turns on average; a turn that answers is kept, %")
    print(f"{'':18}" + "".join(f"{f'{100 * share:.0f} % kept':>12}" for share in SHARES))
    for system_name, rows in hits.items():
        print(f"{system_name:18}" + "".join(f"{100 * value:12.1f}" for value in np.mean(rows, axis=0)))


def print_tools(name: str, outputs: Sequence[Output], compressor: Compressor) -> None:
    """Recall of the lines that matter at a tenth of the tokens."""
    recall: dict[str, list[float]] = defaultdict(list)
    gone: dict[str, list[float]] = defaultdict(list)
    for output in outputs:
        tokens = compressor.count_tokens(output.text)
        budget = max(tokens // 10, MIN_TOOL_TOKENS)
        short = shorten_output(output.text, Goal(output.request), compressor=compressor, max_tokens=budget)
        for key in (output.kind, "all"):
            recall[key].append(float(np.mean([line in short for line in output.gold])))
            gone[key].append(1 - compressor.count_tokens(short) / tokens)
    print(f"\n{name}: recall of lines that matter, and the share of tokens that went, %")
    for key, values in recall.items():
        print(f"{key:8}{len(values):6d} outputs{100 * np.mean(values):10.1f}{100 * np.mean(gone[key]):10.1f}")


def print_histories(number: int) -> None:
    """Any history, trimmed: what the protocols say to it."""
    from langchain_anthropic import ChatAnthropic
    from langchain_google_genai import ChatGoogleGenerativeAI
    from langchain_openai import ChatOpenAI

    logging.disable(logging.WARNING)
    trimmed_by = Compressor(KeywordScorer())
    openai: Any = ChatOpenAI(model="gpt-4o", api_key="k")
    anthropic: Any = ChatAnthropic(model="claude-sonnet-4-5", api_key="k", max_tokens=64)
    faults: dict[str, int] = dict.fromkeys(("openai", "anthropic", "gemini", "pairs", "budget", "second time"), 0)
    over = 0
    began = time.perf_counter()
    with Loopback() as server:
        gemini: Any = ChatGoogleGenerativeAI(
            model="gemini-2.5-pro", base_url=server.url, api_key="k", max_retries=0, timeout=60
        )
        for seed in range(number):
            rng = Random(seed)
            # Ids that repeat over a history are mixed up by Gemini's own client: it gets every second one, without.
            for_gemini = seed % 2 == 0
            history = random_history(rng, turns=8, begins_with_user=True, unique_ids=for_gemini)
            how = rng.choice(["trim", "follow"])
            budget, keep_last = rng.randrange(60, 3_000), rng.randrange(6)
            trimmer = HistoryTrimmer(trimmed_by, max_tokens=budget, tool_tokens=150, keep_last=keep_last)
            trimmed = getattr(trimmer, how)(read_messages(history))
            kept = write_messages(trimmed, history)
            faults["openai"] += Chat().problem(openai._get_request_payload(kept)) is not None
            faults["anthropic"] += Messages().problem(anthropic._get_request_payload(kept)) is not None
            if for_gemini:
                faults["gemini"] += not _is_accepted(gemini, kept)
                server.received.clear()
            faults["pairs"] += repair_pairs(trimmed.messages).is_needed
            over += trimmed.usage.over_budget
            faults["budget"] += trimmed.usage.over_budget != (trimmed.usage.output_tokens > budget)
            again = getattr(trimmer, how)(read_messages(kept))
            faults["second time"] += [m.texts for m in again.messages] != [m.texts for m in trimmed.messages]
    seconds = time.perf_counter() - began
    print(f"\n{number:,} histories in {seconds:.0f} s; {over:,} over budget, and said so; faults:")
    print("  ".join(f"{name} {count}" for name, count in faults.items()))


def print_latency(compressor: Compressor) -> None:
    """Seconds that one tool result adds to a turn."""
    print("\nseconds added to a turn by a tool result")
    for lines, runs in ((78, 40), (2_000, 12)):
        seconds, tokens = [], 0
        for seed in range(runs):
            output = service_log(Random(seed), lines)
            tokens = compressor.count_tokens(output.text)
            trimmer = HistoryTrimmer(compressor)
            began = time.perf_counter()
            trimmer.shorten_result(output.text, output.request)
            seconds.append(time.perf_counter() - began)
        p50, p99 = np.percentile(seconds, [50, 99])
        print(f"{tokens:8,d} tokens: p50 {p50:.2f} s, p99 {p99:.2f} s over {runs} results")


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--critic", type=Path, help="a critic's folder; the embedded one by default")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--number", type=int, default=200, help="questions and outputs of each kind")
    parser.add_argument("--histories", type=int, default=10_000)
    options = parser.parse_args()
    try:
        data: Path | None = data_folder(options.data)
    except InputError as error:
        print(f"without SGD and recorded agents: {error}")
        data = None
    needs_critic = set(options.only) - {"histories"}
    compressor = Compressor.from_pretrained(options.critic, device=options.device) if needs_critic else None
    if "dialogues" in options.only and compressor:
        if data:
            print_dialogues("SGD dev", sgd_dialogues(data, options.number), compressor)
        print_dialogues("Generated small talk", generated_dialogues(options.number), compressor)
    if "tools" in options.only and compressor:
        print_tools("Generated outputs", generated_outputs(options.number), compressor)
        if data:
            print_tools("Recorded agents", transcript_outputs(data, options.number), compressor)
    if "run" in options.only and compressor:
        print_runs(compressor)
    if "latency" in options.only and compressor:
        print_latency(compressor)
    if "histories" in options.only:
        print_histories(options.histories)


if __name__ == "__main__":
    main()
