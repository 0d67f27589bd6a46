"""``cprs train``: records in, a critic's folder out."""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from cprs_core.errors import InputError
from cprs_core.training.records import EvidenceSet, Record, read_inline
from cprs_core.training.views import NAME_OF_TAG, VIEWS, View, view_of_tag

_log = logging.getLogger(__name__)


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
        "--base",
        default="embedded",
        metavar="DIR",
        help="a critic's folder, an encoder's of BERT's shape (MiniLM, E5, BGE) or a Qwen2 or Qwen3 model's; "
        "default: the embedded critic",
    )
    parser.add_argument("--recipe", action="store_true", help="make cprs-mini itself, from all-MiniLM-L6-v2")
    parser.add_argument(
        "--steps", type=int, default=None, help="optimizer steps (default 300; with --recipe of every stage, its own)"
    )
    parser.add_argument("--minutes", type=float, default=None, help="stop after so many minutes, whichever ends first")
    parser.add_argument(
        "--learning-rate", type=float, default=None, help="default 1e-4; with --recipe of every stage, its own"
    )
    parser.add_argument(
        "--batch-tokens", type=int, default=None, help="tokens per step (default 98,304; on a CPU 6,144)"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--save-minutes", type=float, default=2.0, metavar="N", help="minutes between saved states")
    parser.add_argument("--resume", action="store_true", help="go on where a killed run left OUT/state")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Trains and writes ``--out``. Raises InputError for what the user can put right."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in ("accelerate", "bm25s"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    _check(args)
    folder = _train_recipe(args) if args.recipe else _train_records(args)
    sys.stdout.write(f"{folder}\n")
    return 0


def _check(args: argparse.Namespace) -> None:
    """Raises InputError for what cannot work, before anything is read or written."""
    for name in ("steps", "minutes", "learning_rate", "batch_tokens", "save_minutes"):
        value = getattr(args, name)
        if value is not None and value <= 0:
            raise InputError(f"--{name.replace('_', '-')} is {value}; it must be above 0")
    if args.out.exists() and not args.out.is_dir():
        raise InputError(f"--out {args.out} is a file; name a folder")
    if args.base != "embedded" and args.out.exists() and Path(args.base).resolve() == args.out.resolve():
        raise InputError(f"--out {args.out} is the base itself; name another folder, so that the base stays as it is")
    if (args.out / "state").exists() and not args.resume:
        raise InputError(f"{args.out} holds an unfinished run; add --resume to go on, or name another --out")


def _train_recipe(args: argparse.Namespace) -> Path:
    """All stages, their average, and its table of quality."""
    from cprs_core.evaluation.cli import print_quality
    from cprs_core.training.recipe import prepare
    from cprs_core.training.stages import train_stages

    if len(args.data) != 1 or not args.data[0].is_dir():
        raise InputError("--recipe takes one --data, the folder with the public sets")
    work = args.out / "prepared"
    if not (work / "corpus.xz").exists():
        prepare(args.data[0], work)
    config = _config(args, work / "base", "cprs-mini", steps=6_000, learning_rate=2.5e-4)
    folder = train_stages(work, args.out, config, steps=args.steps, learning_rate=args.learning_rate, on_step=_progress)
    print_quality(folder, args.data[0])
    return folder


def _train_records(args: argparse.Namespace) -> Path:
    from cprs_core.critics import embedded_folder
    from cprs_core.critics.wordpiece import WordPieceTokenizer
    from cprs_core.training.base import prepare_base
    from cprs_core.training.corpus import build_corpus
    from cprs_core.training.negatives import mine_negatives
    from cprs_core.training.tasks import Source
    from cprs_core.training.train import train

    sets = by_tag([read_inline(path, str(path)) for path in dict.fromkeys(args.data)])
    if args.base != "embedded" and is_decoder(Path(args.base)):
        return _train_hybrid(args, sets)
    views, names = views_of(sets)
    given = embedded_folder() if args.base == "embedded" else Path(args.base)
    base = prepare_base(given, args.out / "base")
    tokenizer = WordPieceTokenizer.from_file(base / "tokenizer.json")
    corpus = build_corpus(sets, tokenizer, [mine_negatives(one) for one in sets])
    count = sum(len(one.records) for one in sets)
    _log.info("%d records, %d documents, %d tokens", count, len(corpus.document_sets), len(corpus.tokens))
    if count < FEW_RECORDS:
        _log.info("fewer than %d records: none are held out, and held-out numbers come from the records", FEW_RECORDS)
    mixture = [Source(one.name, name, float(len(one.records))) for one in sets for name in names[one.name]]
    # An encoder that never was a critic needs longer than a critic that learns one more domain.
    config = _config(args, base, args.out.name, steps=300 if base == given else 2_000, learning_rate=1e-4)
    folder = train(corpus, base, args.out, mixture, config, views=views, resume=args.resume, on_step=_progress)
    if base != given:
        shutil.rmtree(base)
    return folder


def is_decoder(base: Path) -> bool:
    """Whether a folder holds a Qwen model, which becomes a hybrid critic."""
    from cprs_core.critics.hybrid import MODEL_TYPES

    try:
        settings = json.loads((base / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False  # whoever reads the base says what is wrong
    return isinstance(settings, dict) and settings.get("model_type") in MODEL_TYPES


def _train_hybrid(args: argparse.Namespace, sets: list[EvidenceSet]) -> Path:
    import torch

    from cprs_core.training.hybrid import HybridTraining
    from cprs_core.training.hybrid_records import train_hybrid

    if args.resume:
        raise InputError("--resume does not work with a Qwen base: its runs are not saved midway; start anew")
    on_gpu = torch.cuda.is_available()
    config = HybridTraining(
        steps=args.steps or 300,
        seconds=60.0 * args.minutes if args.minutes else None,
        learning_rate=args.learning_rate or 1e-5,
        focal=2.0,
        seed=args.seed,
        checkpointing=on_gpu,
        log_steps=10,
    )
    return train_hybrid(
        sets,
        Path(args.base),
        args.out,
        config,
        batch_tokens=args.batch_tokens or (32_768 if on_gpu else 2_048),
        length=2_048 if on_gpu else 512,
        on_step=_progress,
    )


FEW_RECORDS = 100


def by_tag(sets: list[EvidenceSet]) -> list[EvidenceSet]:
    """The sets with the records of each tag apart, so that no record is taken for one of another kind.

    A record without evidence and without a tag goes to every tag of its file: there, keeping nothing is right.
    """
    parts = []
    for one in sets:
        tags = sorted({tag for record in one.records for tag in _tags(record)} or {"fact"})
        for tag in tags:
            records = [record for record in one.records if tag in _tags(record) or not _tags(record)]
            name = one.name if len(tags) == 1 else f"{one.name}, {tag}"
            parts.append(EvidenceSet(name, one.texts, one.groups, one.languages, [_only(r, tag) for r in records]))
    return parts


def _tags(record: Record) -> set[str]:
    found = {item.tag.split(":")[0] for item in record.evidence}
    return found or ({record.tag.split(":")[0]} if record.tag else set())


def _only(record: Record, tag: str) -> Record:
    evidence = tuple(item for item in record.evidence if item.tag.split(":")[0] == tag)
    return replace(record, evidence=evidence, tag=tag)


def views_of(sets: list[EvidenceSet]) -> tuple[dict[str, View], dict[str, list[str]]]:
    """A view for every tag of the records, and the names of each set's views.

    Tags that `VIEWS` knows are taught as it says; for others whole sentences are kept, under the tag's own word. Where
    one query is asked of several documents, what answers it in a neighbouring document is right there too.
    """
    views = dict(VIEWS)
    names: dict[str, list[str]] = {}
    for one in sets:
        for tag in sorted({tag for record in one.records for tag in _tags(record)} or {"fact"}):
            name = NAME_OF_TAG.get(tag, tag)
            views.setdefault(name, view_of_tag(tag))
            views[name] = replace(views[name], shared=views[name].shared or _asks_again(one))
            names.setdefault(one.name, []).append(name)
    return views, names


def _asks_again(one: EvidenceSet) -> bool:
    asked = {(record.query, record.documents[0]) for record in one.records}
    return len({query for query, _ in asked}) < len(asked)


def _config(args: argparse.Namespace, base: Path, name: str, *, steps: int, learning_rate: float) -> Any:
    import torch

    from cprs_core.critics.checkpoint import CriticConfig
    from cprs_core.training.train import TrainingConfig

    on_gpu = torch.cuda.is_available()
    window = CriticConfig.from_file(base / "config.json").window_tokens
    steps = args.steps or steps
    return TrainingConfig(
        name=name,
        steps=steps,
        save_minutes=args.save_minutes,
        minutes=args.minutes,
        learning_rate=args.learning_rate or learning_rate,
        batch_tokens=args.batch_tokens or (98_304 if on_gpu else 6_144),
        lengths=((window, 0.65), (window // 2, 0.35)) if on_gpu else ((min(window, 256), 1.0),),
        compile_layers=on_gpu and args.recipe,
        workers=8 if on_gpu else 0,
        held_out=256 if on_gpu else 8,
        log_steps=50 if on_gpu else 10,
        checks=min(4, steps // 25),
        seed=args.seed,
    )


def _progress(step: int, progress: float, losses: dict[str, float]) -> None:
    parts = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
    sys.stderr.write(f"step {step:>6,}  {progress:4.0%}  {parts}\n")
    sys.stderr.flush()
