"""``cprs bench``: its arguments, and one run."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from cprs_core.errors import CheckpointError, CPRSError, InputError
from cprs_core.evaluation.bench import QUALITY, TASKS, default_tokenizer, run_tasks
from cprs_core.evaluation.data import data_folder
from cprs_core.evaluation.metrics import Measure
from cprs_core.evaluation.options import Options
from cprs_core.evaluation.report import describe_machine, render_tables, write_results
from cprs_core.scorer import Scorer

SUITES: dict[str, tuple[str, ...]] = {"haystack": ("haystack",), "quality": QUALITY}


def add_bench_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds ``bench`` to a command line's subcommands (what ``ArgumentParser.add_subparsers`` returned)."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "bench", help="measure critics beside BM25 and embeddings at equal tokens"
    )
    parser.add_argument("suite", nargs="?", default="quality", choices=sorted(SUITES), help="what to measure")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help=f"one of: {', '.join(TASKS)}")
    parser.add_argument("--critic", action="append", default=[], type=Path, metavar="DIR", help="may be repeated")
    parser.add_argument("--no-critic", action="store_true", help="baselines alone")
    parser.add_argument("--no-baselines", action="store_true", help="critics alone")
    parser.add_argument("--minilm", type=Path, metavar="DIR", help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--data", metavar="DIR", help="data folder (else CPRS_DATA, else ../shared/data)")
    parser.add_argument("--questions", type=int, help="most cases per set")
    parser.add_argument("--tokens", type=int, help="length of haystacks")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--out", type=Path, metavar="FILE", help="results as JSON")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Measures, prints the tables, and writes ``--out``. Exit code 2 for what the user can put right."""
    import sys

    try:
        critics = load_critics(args)
        text = measure(args, critics)
    except CPRSError as error:
        sys.stderr.write(f"cprs bench: {error}\n")
        return 2
    sys.stdout.write(text + "\n")
    return 0


def measure(args: argparse.Namespace, critics: dict[str, Scorer]) -> str:
    """One run; the report's text."""
    try:
        folder: Path | None = data_folder(args.data)
    except InputError:
        if args.data:
            raise
        folder = None
    options = Options(folder, default_tokenizer(critics, args.minilm), args.seed, args.tokens, args.questions)
    began = time.perf_counter()
    measures: list[Measure] = run_tasks(
        args.only or SUITES[args.suite],
        critics,
        options,
        baselines=not args.no_baselines,
        minilm=args.minilm,
        device=args.device,
    )
    seconds = time.perf_counter() - began
    machine = describe_machine(_device_name(args.device))
    settings = {"suite": args.suite, "only": args.only, "seed": args.seed, "seconds": round(seconds, 1)}
    settings |= {"tokens": args.tokens, "questions": args.questions, "critics": list(critics)}
    if args.out is not None:
        write_results(args.out, measures, machine, settings)
    facts = ", ".join(f"{key} {value}" for key, value in machine.items())
    return (
        f"{render_tables(measures)}\n\n95 % bootstrap intervals in brackets; seed {args.seed}; {seconds:.0f} s; {facts}"
    )


def load_critics(args: argparse.Namespace) -> dict[str, Scorer]:
    """The critics that were named, by the names of their folders; without any the embedded one."""
    from cprs_core.critics import EMBEDDED, load_scorer

    if args.no_critic:
        return {}
    if not args.critic:
        return {EMBEDDED: load_scorer(None, device=args.device, dtype=args.dtype)}
    names = [path.name or str(path) for path in args.critic]
    if len(set(names)) < len(names):
        names = [str(path) for path in args.critic]
    return {
        name: load_scorer(path, device=args.device, dtype=args.dtype)
        for name, path in zip(names, args.critic, strict=True)
    }


def _device_name(device: str) -> str:
    import torch

    from cprs_core.critics.runtime import resolve_device

    try:
        resolved = resolve_device(device)
    except CheckpointError:
        return device
    return torch.cuda.get_device_name(resolved) if resolved.type == "cuda" else str(resolved)
