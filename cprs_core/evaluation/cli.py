"""``cprs bench``: its arguments, and one run."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cprs_core.errors import InputError
from cprs_core.evaluation.bench import PAPER, QUALITY, QUICK, SUITE, TASKS, default_tokenizer, run_tasks
from cprs_core.evaluation.compare import compare_runs, render_changes
from cprs_core.evaluation.data import data_folder
from cprs_core.evaluation.failures import FailureLog
from cprs_core.evaluation.html_report import write_page
from cprs_core.evaluation.metrics import Measure
from cprs_core.evaluation.options import Options
from cprs_core.evaluation.paper import render_paper
from cprs_core.evaluation.pictures import write_pictures
from cprs_core.evaluation.published import render_published
from cprs_core.evaluation.readers import ChatReader, CriticReader, Reader
from cprs_core.evaluation.readme import render_measured, update_readme
from cprs_core.evaluation.report import describe_machine, read_results, read_run, render_tables, write_results
from cprs_core.evaluation.targets import render_summary
from cprs_core.scorer import Scorer

_log = logging.getLogger(__name__)

SUITES: dict[str, tuple[str, ...]] = {
    "haystack": ("haystack",),
    "quality": QUALITY,
    "suite": SUITE,
    "quick": QUICK,
    "paper": (*PAPER, "reader"),
    "reader": ("reader",),
    "latency": ("latency",),
    "speed": ("speed",),
}
QUICK_TOKENS, QUICK_QUESTIONS = 4_096, 36
LEAST_TOKENS = 128  # the longest needles take about as many

_DESCRIPTION = """\
Measures critics beside BM25 and MiniLM embeddings at equal tokens, with 95 % bootstrap intervals.

  haystack   answer sentences in 131,072 tokens of SQuAD dev paragraphs
  quality    everything that the embedded critic is meant to reach
  suite      RULER, InfiniteBench and our own long contexts at 131,072 tokens, needles to 1 M
  paper      the paper's tasks in one table beside its numbers: evidence, compression and reader
  reader     right answers from full, truncated, retrieved and compressed contexts
  quick      own generators alone, a few minutes on two cores
  latency    time to the first token, 16 K to 1 M tokens, beside direct prompting and RAG
  speed      tokens per second on 100 KB of text, split by stage
  compare    two results files: what changed by more than the noise
  report     results files again as tables, page, pictures or the README's table
"""


def add_bench_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds ``bench`` to a command line's subcommands (what ``ArgumentParser.add_subparsers`` returned)."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "bench",
        help="measure critics beside BM25 and embeddings at equal tokens",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("suite", nargs="?", default="quality", choices=[*SUITES, "compare", "report"], metavar="SUITE")
    parser.add_argument("runs", nargs="*", type=Path, metavar="FILE", help="for compare and report: results")
    parser.add_argument("--quick", action="store_true", help="the same as the suite quick")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help=f"one of: {', '.join(TASKS)}")
    parser.add_argument("--critic", action="append", default=[], metavar="DIR", help="may be repeated")
    parser.add_argument("--no-critic", action="store_true", help="baselines alone")
    parser.add_argument("--no-baselines", action="store_true", help="critics alone")
    parser.add_argument("--minilm", type=Path, metavar="DIR", help="folder of all-MiniLM-L6-v2")
    parser.add_argument(
        "--weights", type=Path, metavar="DIR", help="folder of llmlingua-2 and open-provence, else CPRS_WEIGHTS"
    )
    parser.add_argument("--data", metavar="DIR|FILE", help="data folder, or a JSONL file of your own records")
    parser.add_argument("--questions", "--cases", type=int, metavar="N", help="most cases per set")
    parser.add_argument("--plain", action="store_true", help="critics without the rows for cascade and hops")
    parser.add_argument("--tokens", type=int, metavar="N", help="length of generated contexts")
    parser.add_argument(
        "--reader",
        metavar="NAME|DIR",
        help="chat model that answers, as in openai:gpt-4o-mini, or a critic's folder; else the first critic",
    )
    parser.add_argument(
        "--reader-tokens", type=int, metavar="N", help="the reader's window; else an eighth of --tokens"
    )
    parser.add_argument("--shape", choices=["7b", "tiny"], help="for latency: the reader; 7b on a GPU, else tiny")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float16, int8")
    parser.add_argument("--out", type=Path, metavar="FILE", help="results as JSON")
    parser.add_argument("--html", type=Path, metavar="FILE", help="the report as one self-contained page")
    parser.add_argument("--png", type=Path, metavar="DIR", help="curves and heat maps as PNG files")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="for report: write the measured table into it")
    parser.add_argument(
        "--against", type=Path, metavar="FILE", help="earlier results; exit code 1 where a critic fell below them"
    )
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Measures, writes the report to stdout and results to ``--out``; 1 where ``--against`` shows a fall, else 0."""
    if args.suite == "compare":
        if len(args.runs) != 2:
            raise InputError(f"compare needs two results files, before and after; got {len(args.runs)}")
        sys.stdout.write(render_changes(compare_runs(*(read_results(path) for path in args.runs))) + "\n")
        return 0
    if args.suite == "report":
        return _report_again(args)
    if args.runs:
        raise InputError(f"unexpected argument {str(args.runs[0])!r}; only compare and report take files")
    if args.readme is not None:
        raise InputError("--readme belongs to cprs bench report: measure with --out FILE first")
    for name, least in (("tokens", LEAST_TOKENS), ("questions", 1), ("reader_tokens", 1)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise InputError(f"--{name.replace('_', '-')} is {value}; it must be at least {least}")
    if args.png is not None:
        write_pictures(args.png, [])  # what is missing shows before anything is measured
    before = read_results(args.against) if args.against is not None else None
    _show_progress()
    critics = load_critics(args)
    measures, report = measure(args, critics)
    sys.stdout.write(report + "\n")
    if before is None:
        return 0
    changes = compare_runs(before, [m for m in measures if m.system in critics])
    if not changes:
        raise InputError(
            f"--against {args.against} holds nothing of {', '.join(critics)} in this run; name its own results"
        )
    worse = [change for change in changes if change.worse]
    if worse:
        sys.stdout.write(f"\nBelow {args.against}:\n\n{render_changes(worse)}\n")
    return 1 if worse else 0


def measure(args: argparse.Namespace, critics: dict[str, Scorer]) -> tuple[list[Measure], str]:
    """One run: its measures and the report's text."""
    suite = "quick" if args.quick else args.suite
    own = Path(args.data) if args.data and Path(args.data).is_file() else None
    options = Options(
        None if suite == "quick" else _folder(None if own else args.data),
        default_tokenizer(critics, args.minilm),
        args.seed,
        args.tokens,
        args.questions,
        reader=load_reader(args),
        reader_tokens=args.reader_tokens,
        shape=args.shape,
        device=args.device,
    )
    if suite == "quick":
        tokens, questions = options.tokens or QUICK_TOKENS, options.questions or QUICK_QUESTIONS
        options = dataclasses.replace(options, tokens=tokens, questions=questions)
    machine = describe_machine(_device_name(args.device))
    settings = {"suite": suite, "only": args.only, "seed": args.seed, "critics": list(critics)}
    settings |= {"tokens": options.tokens, "questions": options.questions}
    began = time.perf_counter()

    def save(so_far: list[Measure]) -> None:
        if args.out is not None:
            seconds = round(time.perf_counter() - began, 1)
            write_results(args.out, so_far, machine, {**settings, "seconds": seconds}, options.failures.to_rows())

    measures = run_tasks(
        [] if own else args.only or SUITES[suite],
        critics,
        options,
        own=own,
        baselines=not args.no_baselines,
        variants=not args.plain,
        minilm=args.minilm,
        weights=args.weights,
        device=args.device,
        on_measured=save,  # a run that is cut off leaves what it had
    )
    seconds = time.perf_counter() - began
    how = f"seed {args.seed}; {seconds:.0f} s"
    return measures, _report(args, measures, list(critics), machine, options.failures, suite, how)


def _report(
    args: argparse.Namespace,
    measures: Sequence[Measure],
    critics: Sequence[str],
    machine: Mapping[str, str],
    failures: FailureLog,
    suite: str,
    how: str,
) -> str:
    """The report's text; writes page and pictures where they were asked for."""
    tables = (render_paper(measures, critics), render_summary(measures, critics))
    summary = "\n\n".join(table for table in tables if table)
    published = render_published() if suite in ("suite", "paper") else ""
    if args.html is not None:
        write_page(args.html, measures, {"run": f"{suite}; {how};", **machine}, summary, failures, published)
    if args.png is not None:
        for path in write_pictures(args.png, measures):
            _log.info("wrote %s", path)
    facts = ", ".join(f"{key} {value}" for key, value in machine.items())
    foot = f"95 % bootstrap intervals in brackets; {how}; {facts}"
    parts = (summary, render_tables(measures), failures.render(), published, foot)
    return "\n\n".join(part for part in parts if part)


def print_quality(critic: Path, data: Path) -> None:
    """What ``cprs bench quality`` prints of the critic in a folder, without the baselines' rows."""
    parser = argparse.ArgumentParser()
    add_bench_parser(parser.add_subparsers())
    args = parser.parse_args(["bench", "quality", "--no-baselines", "--critic", str(critic), "--data", str(data)])
    args.run(args)


def _report_again(args: argparse.Namespace) -> int:
    """Report of results files; where two hold the same measure the later one counts."""
    if not args.runs:
        raise InputError("report needs at least one results file (written with --out)")
    measures: dict[tuple[str, str, str], Measure] = {}
    failures: dict[str, list[Any]] = {"counts": [], "worst": []}
    for path in args.runs:
        run = read_run(path)
        measures |= {(m.task, m.metric, m.system): m for m in read_results(path)}
        for part, found in run.get("failures", {}).items():
            failures[part] += found
    log = FailureLog.from_rows(failures)
    settings, rows = run.get("settings", {}), list(measures.values())
    if args.readme is not None:
        update_readme(args.readme, render_measured(rows, run["machine"]))
    how = f"from {', '.join(path.name for path in args.runs)}; seed {settings.get('seed')}"
    text = _report(args, rows, settings.get("critics", []), run["machine"], log, settings.get("suite", ""), how)
    sys.stdout.write(text + "\n")
    return 0


def _folder(named: str | None) -> Path | None:
    """The data folder; None where none was named and none is found, so that own generators still run."""
    try:
        return data_folder(named)
    except InputError:
        if named:
            raise
        return None


def load_critics(args: argparse.Namespace) -> dict[str, Scorer]:
    """The critics that were named, by the names of their folders; without any the embedded one."""
    from cprs_core.critics import EMBEDDED, load_scorer

    if args.no_critic:
        return {}
    paths = [Path(name) for name in args.critic]
    if not paths:
        return {EMBEDDED: load_scorer(None, device=args.device, dtype=args.dtype)}
    names = [path.resolve().name for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    return {
        name: load_scorer(path, device=args.device, dtype=args.dtype) for name, path in zip(names, paths, strict=True)
    }


def load_reader(args: argparse.Namespace) -> Reader | None:
    """Who answers: a critic's folder or a chat model's name; None where nobody was named."""
    if args.reader is None:
        return None
    folder = Path(args.reader)
    if not folder.is_dir():
        return ChatReader.from_name(args.reader)
    from cprs_core.critics import load_scorer

    scorer = load_scorer(folder, device=args.device, dtype=args.dtype)
    return CriticReader(scorer, f"{folder.resolve().name}, best span")


def _device_name(device: str) -> str:
    import torch

    from cprs_core.critics.runtime import resolve_device

    resolved = resolve_device(device)
    return torch.cuda.get_device_name(resolved) if resolved.type == "cuda" else str(resolved)


def _show_progress() -> None:
    """Which task took how long, on a terminal's stderr only."""
    if sys.stderr.isatty():
        log = logging.getLogger("cprs_core.evaluation")
        log.setLevel(logging.INFO)
        if not log.handlers:
            log.addHandler(logging.StreamHandler())
