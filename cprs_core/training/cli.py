"""``cprs train``: records in, a critic's folder out."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

from cprs_core.errors import InputError
from cprs_core.training.records import EvidenceSet, read_inline
from cprs_core.training.views import VIEWS, View


def add_train_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds ``train`` to a command line's subcommands (what ``ArgumentParser.add_subparsers`` returned)."""
    parser: argparse.ArgumentParser = subparsers.add_parser("train", help="train a critic from evidence records")
    parser.add_argument(
        "--data",
        type=Path,
        action="append",
        required=True,
        metavar="FILE",
        help="records, one JSON object per line; may be repeated; with --recipe the data folder",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the critic is written")
    parser.add_argument(
        "--base", default="embedded", metavar="DIR", help="a critic's folder; default: the embedded one"
    )
    parser.add_argument("--recipe", action="store_true", help="make cprs-mini itself, from all-MiniLM-L6-v2")
    parser.add_argument("--steps", type=int, default=None, help="optimizer steps (default 300; with --recipe 6,000)")
    parser.add_argument("--minutes", type=float, default=None, help="stop after so many minutes, whichever ends first")
    parser.add_argument("--learning-rate", type=float, default=None, help="default 1e-4; with --recipe 2.5e-4")
    parser.add_argument(
        "--batch-tokens", type=int, default=None, help="tokens per step (default 98,304; on a CPU 6,144)"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="go on where a killed run left OUT/state")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Trains and writes ``--out``. Raises InputError for what the user can put right."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if args.steps is not None and args.steps < 1:
        raise InputError(f"--steps is {args.steps}; it must be at least 1")
    folder = _train_recipe(args) if args.recipe else _train_records(args)
    sys.stdout.write(f"{folder}\n")
    return 0


def _train_recipe(args: argparse.Namespace) -> Path:
    from cprs_core.training.corpus import Corpus
    from cprs_core.training.recipe import MIXTURE, TEACHER_SETS, prepare
    from cprs_core.training.train import train

    if len(args.data) != 1 or not args.data[0].is_dir():
        raise InputError("--recipe takes one --data, the folder with the public sets")
    work = args.out / "prepared"
    if not (work / "corpus.xz").exists():
        prepare(args.data[0], work)
    config = _config(args, "cprs-mini", steps=6_000, learning_rate=2.5e-4)
    return train(
        Corpus.load(work / "corpus.xz"),
        work / "base",
        args.out,
        MIXTURE,
        config,
        teacher_sets=TEACHER_SETS,
        resume=args.resume,
        on_step=_progress,
    )


def _train_records(args: argparse.Namespace) -> Path:
    from cprs_core.critics import embedded_folder
    from cprs_core.critics.wordpiece import WordPieceTokenizer
    from cprs_core.training.corpus import build_corpus
    from cprs_core.training.negatives import mine_negatives
    from cprs_core.training.tasks import Source
    from cprs_core.training.train import train

    base = embedded_folder() if args.base == "embedded" else Path(args.base)
    sets = [read_inline(path) for path in args.data]
    views, tags = views_of(sets)
    corpus = build_corpus(
        sets, WordPieceTokenizer.from_file(base / "tokenizer.json"), [mine_negatives(one) for one in sets]
    )
    mixture = [Source(one.name, name, float(len(one.records))) for one in sets for name in tags[one.name]]
    config = _config(args, args.out.name, steps=300, learning_rate=1e-4)
    return train(corpus, base, args.out, mixture, config, views=views, resume=args.resume, on_step=_progress)


def views_of(sets: list[EvidenceSet]) -> tuple[dict[str, View], dict[str, list[str]]]:
    """A view for every tag of the records, and the names of each set's views.

    Tags that `VIEWS` knows are taught as it says; for others whole sentences are kept, under the tag's own word.
    """
    views = dict(VIEWS)
    of_tag = {view.tag: name for name, view in reversed(VIEWS.items())}
    names: dict[str, list[str]] = {}
    for one in sets:
        found = {item.tag.split(":")[0] for record in one.records for item in record.evidence}
        found |= {record.tag for record in one.records if record.tag}
        for tag in sorted(found or {"fact"}):
            if tag not in of_tag:
                views[tag] = View(tag, (f"Extract the sentences about the query; tag them with '{tag}'.",), (tag,))
                of_tag[tag] = tag
            names.setdefault(one.name, []).append(of_tag[tag])
    return views, names


def _config(args: argparse.Namespace, name: str, *, steps: int, learning_rate: float) -> Any:
    import torch

    from cprs_core.training.train import TrainingConfig

    on_gpu = torch.cuda.is_available()
    return TrainingConfig(
        name=name,
        steps=args.steps or steps,
        minutes=args.minutes,
        learning_rate=args.learning_rate or learning_rate,
        batch_tokens=args.batch_tokens or (98_304 if on_gpu else 6_144),
        lengths=((512, 0.65), (256, 0.35)) if on_gpu else ((256, 1.0),),
        compile_layers=on_gpu and args.recipe,
        workers=8 if on_gpu else 0,
        held_out=256 if on_gpu else 8,
        log_steps=50 if on_gpu else 10,
        seed=args.seed,
    )


def _progress(step: int, progress: float, losses: dict[str, float]) -> None:
    parts = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
    sys.stderr.write(f"step {step:>6,}  {progress:4.0%}  {parts}\n")
