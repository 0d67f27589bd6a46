"""What each part of the critic and of its training brings: variants trained alike, measured alike, in one table.

    python -m cprs_core.training.ablations --prepared DIR --data DATA --out results.json

Every variant has the same base, corpus, seed and number of optimizer steps; one thing is changed. ``--prepared`` is
what `cprs_core.training.recipe.prepare` wrote. Results are written after every variant, and a second run with other
``--only`` names adds to the same file; ``--table FILE...`` prints the table of one file or of several together.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cprs_core.critics.checkpoint import load_critic
from cprs_core.critics.encoder import EncoderConfig
from cprs_core.critics.runtime import CriticScorer, resolve_device
from cprs_core.critics.token_critic import TokenCritic
from cprs_core.errors import CPRSError
from cprs_core.evaluation.bench import TASKS
from cprs_core.evaluation.metrics import Measure
from cprs_core.evaluation.options import Options
from cprs_core.evaluation.report import describe_machine, render_rows
from cprs_core.evaluation.systems import CriticSystem
from cprs_core.scorer import LABELS, OUTSIDE
from cprs_core.training.corpus import Corpus
from cprs_core.training.losses import TrainingCritic
from cprs_core.training.recipe import MIXTURE, TEACHER_SETS
from cprs_core.training.tasks import Source
from cprs_core.training.train import PreparedVocabulary, TrainingConfig, prepare_vocabulary, train
from cprs_core.training.views import VIEWS

_log = logging.getLogger(__name__)

BASELINE = "baseline"


class PositionAlone(TokenCritic):
    """The position head without the tag head: every tag gets the same scores."""

    def forward(self, hidden: Tensor, rows: Tensor) -> Tensor:
        """See `TokenCritic.forward`."""
        positions = self.position_head(hidden).float().softmax(dim=-1)  # (n, 4)
        return positions.repeat(1, len(rows) - 1)


class KeepDropHead(nn.Linear):
    """Four position logits of which B, I and E are always equal: begin, inside and end are not told apart."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., hidden) -> (..., 4)."""
        logits = super().forward(input)
        keep = (logits.sum(dim=-1) - logits[..., OUTSIDE]) / (len(LABELS) - 1)
        return torch.stack([logits[..., i] if i == OUTSIDE else keep for i in range(len(LABELS))], dim=-1)


class KeepDrop(TokenCritic):
    """Keep or drop in place of begin, inside, outside and end; a span is a run of tokens that are rather kept."""

    def __init__(self, config: EncoderConfig, outside_word: int) -> None:
        super().__init__(config, outside_word)
        self.position_head: nn.Linear = KeepDropHead(config.hidden_size, len(LABELS))

    def forward(self, hidden: Tensor, rows: Tensor) -> Tensor:
        """See `TokenCritic.forward`; B is a little below I, so that label paths go on where they can."""
        scores = super().forward(hidden, rows).view(len(hidden), -1, len(LABELS))  # (n, tags, 4)
        outside = scores[..., OUTSIDE]
        return torch.stack([0.999 * (1 - outside), 1 - outside, outside, torch.zeros_like(outside)], dim=-1).flatten(1)


class WithoutMatches(TokenCritic):
    """No input of exact matches with the query."""

    def match_rows(self, ids: Tensor, parts: Tensor, asked: Tensor, unknown: int) -> Tensor:
        """See `TokenCritic.match_rows`: every token has row 0."""
        return torch.zeros_like(ids)


class WithinWindows(TrainingCritic):
    """Sentences compete with those of their own window alone, not with those of all windows of a query."""

    def forward(self, batch: dict[str, Tensor], embeddings: Tensor | None) -> dict[str, Tensor]:
        """See `TrainingCritic.forward`."""
        alone = torch.arange(len(batch["groups"]), device=batch["groups"].device, dtype=batch["groups"].dtype)
        return super().forward({**batch, "groups": alone}, embeddings)


@dataclass(frozen=True)
class Variant:
    """One change to the baseline.

    Attributes:
        what: the change in words, for the table.
        critic, losses: what is trained, and what it is taught.
        weights: shares of the loss that differ.
        length: the only window length in training and in measuring; None for the baseline's.
        without: the group of sources (`GROUPS`) that is left out.
        teacher: whether likeness to the backbone is taught.
        seed: added to the run's seed.
    """

    what: str
    critic: type[TokenCritic] = TokenCritic
    losses: type[TrainingCritic] = TrainingCritic
    weights: Mapping[str, float] = field(default_factory=dict)
    length: int | None = None
    without: str | None = None
    teacher: bool = True
    seed: int = 0


# Data sources that are left out together, by the beginning of their sets' names. Sets made up by code that no other
# group names are "synthetic".
GROUPS: dict[str, tuple[str, ...]] = {
    "squad": ("squad/",),
    "qed": ("qed/",),
    "other-english": ("covid_qa/", "evidence_inference/"),
    "contracts-talks": ("cuad/", "qmsum/", "sgd/"),
    "names": ("crossner/", "wnut17/"),
    "chinese-japanese": ("cmrc2018/", "drcd/", "jaquad/"),
    "cipher": ("cipher",),
    "sentences": ("sentences",),
    "synthetic": (),
}

VARIANTS: dict[str, Variant] = {
    BASELINE: Variant("as cprs-mini is trained"),
    "position-alone": Variant("position head alone, no tag head", critic=PositionAlone, weights={"tag": 0.0}),
    "keep-drop": Variant("keep or drop instead of B, I, O, E", critic=KeepDrop, weights={"borders": 0.0}),
    "window-256": Variant("windows of 256 tokens alone", length=256),
    "within-windows": Variant("no competition between windows", losses=WithinWindows),
    "no-matches": Variant("no input of exact matches", critic=WithoutMatches),
    "no-teacher": Variant("no likeness to the backbone", teacher=False),
    "second-seed": Variant("the baseline with another seed", seed=1),
    **{f"no-{group}": Variant(f"without {group.replace('-', ', ')}", without=group) for group in GROUPS},
}

# Tasks, with the cases that are enough where more would take long; the columns of the table are (task, metric, head).
_TASKS = {
    "haystack": 100,
    "qed": 300,
    "xquad": 100,
    "wice": 200,
    "cuad": 60,
    "spans": 200,
    "entities": 60,
    "pairs": 48,
    "look-alikes": 120,
    "absence": 100,
}
COLUMNS = (
    ("haystack", "recall@512", "haystack 512"),
    ("qed", "right sentence first", "QED"),
    ("xquad-en", "right sentence first", "XQuAD en"),
    ("xquad-zh", "right sentence first", "zh"),
    ("xquad-others", "right sentence first", "ten"),
    ("wice", "best-set F1, first 2", "WiCE"),
    ("cuad", "clause recall at 10 %", "CUAD"),
    ("squad-spans", "token F1", "spans F1"),
    ("entities", "mean span F1", "names F1"),
    ("no-shared-word", "kept at 1 %", "no word"),
    ("look-alikes", "empty without it", "look-alikes"),
    ("nothing there", "evidence kept at 97 % empty", "kept at 97 % empty"),
)


def mixture_without(mixture: Sequence[Source], group: str | None) -> list[Source]:
    """The mixture without the sources of a group; shares of the others stay in proportion."""
    named = tuple(prefix for prefixes in GROUPS.values() for prefix in prefixes)
    if group is None:
        return list(mixture)
    if GROUPS[group]:
        return [source for source in mixture if not source.set_name.startswith(GROUPS[group])]
    return [source for source in mixture if source.set_name.startswith(named)]


def config_of(variant: Variant, config: TrainingConfig) -> TrainingConfig:
    """``config`` with what the variant changes."""
    lengths = ((variant.length, 1.0),) if variant.length else config.lengths
    return replace(
        config, losses=replace(config.losses, **variant.weights), lengths=lengths, seed=config.seed + variant.seed
    )


def run_variant(
    variant: Variant,
    corpus: Corpus,
    base: Path,
    folder: Path,
    config: TrainingConfig,
    prepared: PreparedVocabulary,
) -> CriticScorer:
    """Train one variant into ``folder``; the scorer of what came out."""
    train(
        corpus,
        base,
        folder,
        mixture_without(MIXTURE, variant.without),
        config_of(variant, config),
        teacher_sets=TEACHER_SETS if variant.teacher else frozenset(),
        critic_kind=variant.critic,
        losses_kind=variant.losses,
        prepared=(prepared[0], prepared[1] if variant.teacher else None),
        on_step=_log_step,
    )
    critic, settings, tokenizer = load_critic(folder, variant.critic)
    return CriticScorer(
        critic,
        tokenizer,
        name=folder.name,
        window_tokens=variant.length or settings.window_tokens,
        thresholds=settings.thresholds,
    )


def measure_variant(scorer: CriticScorer, data: Path | None, seed: int, cases: int | None) -> list[Measure]:
    """The measures of `COLUMNS`; a task that fails is logged and left out."""
    measures: list[Measure] = []
    for name, most in _TASKS.items():
        options = Options(data, scorer.tokenizer, seed, None, min(most, cases or most))
        try:
            measures += TASKS[name]([CriticSystem(scorer.name, scorer)], options)
        except CPRSError as error:  # one set that is not at hand must not cost the others
            _log.warning("%s could not be measured: %s", name, error)
    shown = {(task, metric) for task, metric, _ in COLUMNS}
    return [
        measure for measure in measures if (measure.task, measure.metric) in shown and measure.system == scorer.name
    ]


def run_all(
    names: Sequence[str],
    prepared_folder: Path,
    data: Path | None,
    out: Path,
    config: TrainingConfig,
    *,
    cases: int | None = None,
    total_minutes: float | None = None,
) -> dict[str, Any]:
    """Train and measure the named variants, one after another; what ``out`` holds already stays.

    Args:
        data: the data folder; None to measure only what needs none.
        total_minutes: no variant is begun after so many minutes, or where the last one would not have fitted.

    Returns:
        what was written to ``out``: machine, settings, and per variant its measures, or the error that ended it.
    """
    began = time.monotonic()
    corpus = Corpus.load(prepared_folder / "corpus.xz")
    base = prepared_folder / "base"
    device = resolve_device("auto")
    critic, _, tokenizer = load_critic(base)
    prepared = prepare_vocabulary(corpus, critic, tokenizer, device, critic.encoder, VIEWS, TEACHER_SETS)
    results = _read(out) | {"machine": describe_machine(_device_name(device)), "settings": asdict(config)}
    done: dict[str, Any] = results.setdefault("variants", {})
    longest = 0.0
    for name in names:
        start = time.monotonic()
        if total_minutes is not None and (start - began + longest) / 60.0 > total_minutes:
            _log.info("no time is left for %s", name)
            continue
        with tempfile.TemporaryDirectory() as scratch:
            try:
                scorer = run_variant(VARIANTS[name], corpus, base, Path(scratch) / name, config, prepared)
                trained = time.monotonic()
                summary = json.loads((Path(scratch) / name / "training.json").read_text(encoding="utf-8"))
                measures = measure_variant(scorer, data, 42, cases)
                done[name] = {
                    "steps": summary["steps"],
                    "train_seconds": round(trained - start, 1),
                    "measure_seconds": round(time.monotonic() - trained, 1),
                    "losses": summary["losses"],
                    "measures": [_without_nan(asdict(measure)) for measure in measures],
                }
            except Exception as error:  # the others go on
                _log.exception("%s failed", name)
                done[name] = {"error": f"{type(error).__name__}: {error}"}
        longest = max(longest, time.monotonic() - start)
        _log.info("%s took %.0f s", name, time.monotonic() - start)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return results


def render_table(results: Mapping[str, Any]) -> str:
    """One Markdown row per variant, in percent; a dash for what was not measured, the error of one that failed."""
    rows = [["variant", "steps", *(head for _, _, head in COLUMNS)]]
    done = results.get("variants", {})
    for name in [*(known for known in VARIANTS if known in done), *(other for other in done if other not in VARIANTS)]:
        result = done[name]
        what = VARIANTS[name].what if name in VARIANTS else name
        if "error" in result:
            rows.append([what, result["error"], *("-" for _ in COLUMNS)])
            continue
        values = {(row["task"], row["metric"]): row["value"] for row in result["measures"]}
        cells = [values.get((task, metric)) for task, metric, _ in COLUMNS]
        rows.append([what, f"{result['steps']:,}", *("-" if cell is None else f"{cell:.1f}" for cell in cells)])
    return render_rows(rows)


def merge_results(paths: Sequence[Path]) -> dict[str, Any]:
    """Several files as one; of a variant that is in two, the last one counts."""
    merged: dict[str, Any] = {"variants": {}}
    for path in paths:
        one = _read(path)
        merged = {**one, "variants": {**merged["variants"], **one.get("variants", {})}}
    return merged


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return data


def _without_nan(row: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}


def _log_step(step: int, progress: float, losses: dict[str, float]) -> None:
    _log.info("step %d  %s", step, "  ".join(f"{name} {value:.3f}" for name, value in losses.items()))


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line in the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m cprs_core.training.ablations", description=__doc__.splitlines()[0])
    parser.add_argument("--prepared", type=Path, metavar="DIR", help="corpus.xz and base/, as the recipe prepares them")
    parser.add_argument("--data", type=Path, metavar="DIR", help="the data folder to measure with")
    parser.add_argument("--out", type=Path, default=Path("ablations.json"), metavar="FILE", help="results, added to")
    parser.add_argument("--only", default=",".join(VARIANTS), metavar="A,B", help=f"of: {', '.join(VARIANTS)}")
    parser.add_argument("--steps", type=int, default=350, help="optimizer steps of every variant")
    parser.add_argument(
        "--minutes", type=float, default=1.5, help="most minutes of training a variant, should steps last"
    )
    parser.add_argument(
        "--total-minutes", type=float, metavar="N", help="begin no variant that would end after N minutes"
    )
    parser.add_argument("--batch-tokens", type=int, default=98_304, help="tokens per step")
    parser.add_argument(
        "--workers", type=int, default=12 if torch.cuda.is_available() else 0, help="sampling processes"
    )
    parser.add_argument("--cases", type=int, metavar="N", help="most cases of each set, fewer than by default")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--table", type=Path, nargs="+", metavar="FILE", help="only print the table of results files")
    args = parser.parse_args(argv)
    if args.table:
        sys.stdout.write(render_table(merge_results(args.table)) + "\n")
        return 0
    if args.prepared is None or not (args.prepared / "corpus.xz").exists():
        parser.error(f"--prepared is {args.prepared}; name the folder that holds corpus.xz and base/")
    names = [name for name in args.only.split(",") if name]
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        parser.error(f"there is no variant {unknown[0]!r}; choose from {', '.join(VARIANTS)}")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    config = TrainingConfig(
        name="ablation",
        steps=args.steps,
        minutes=args.minutes,
        batch_tokens=args.batch_tokens,
        lengths=((512, 0.65), (256, 0.35)),
        learning_rate=2.5e-4,
        average=0.99,  # a run of a few hundred steps is over before the longer average of the recipe forgets its start
        workers=args.workers,
        held_out=256 if torch.cuda.is_available() else 8,
        seed=args.seed,
    )
    results = run_all(
        names, args.prepared, args.data, args.out, config, cases=args.cases, total_minutes=args.total_minutes
    )
    sys.stdout.write(render_table(results) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
