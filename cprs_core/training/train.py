"""The training loop: windows in, a critic's folder out; CPU, one GPU or several through accelerate."""

from __future__ import annotations

import copy
import json
import logging
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from cprs_core.critics.checkpoint import CriticConfig, load_critic, save_critic
from cprs_core.critics.encoder import Encoder
from cprs_core.critics.token_critic import TokenCritic
from cprs_core.critics.wordpiece import WordPieceTokenizer
from cprs_core.errors import InputError
from cprs_core.training.calibration import calibrate, score_difference
from cprs_core.training.corpus import Corpus
from cprs_core.training.losses import LossWeights, TrainingCritic
from cprs_core.training.sampling import Batch, WindowSampler
from cprs_core.training.tasks import Augmentation, Source, Vocabulary
from cprs_core.training.teacher import embed, most_alike, neighbours
from cprs_core.training.views import KIND_WORDS, REQUESTS, TAGGING, VIEWS, View

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingConfig:
    """What a run can be told.

    Attributes:
        steps: optimizer steps; with ``minutes`` whichever ends first, the learning rate falling to 0 with it.
        batch_tokens: tokens per step and process.
        lengths: window lengths and the share of steps that use each.
        windows_per_query: windows that compete for one query.
        held_out: queries per granularity that thresholds are found with.
        checks: how often, spread over the run, held-out numbers are reported.
        average: decay of the moving average of weights that is saved in the end.
    """

    name: str = "critic"
    steps: int = 6_000
    minutes: float | None = None
    batch_tokens: int = 98_304
    lengths: tuple[tuple[int, float], ...] = ((512, 0.6), (256, 0.3), (128, 0.1))
    windows_per_query: int = 3
    learning_rate: float = 3e-4
    weight_decay: float = 0.01
    warmup: float = 0.04
    average: float = 0.999
    seed: int = 1
    workers: int = 0
    compile_layers: bool = False
    save_minutes: float = 10.0
    log_steps: int = 50
    checks: int = 0
    held_out: int = 256
    losses: LossWeights = field(default_factory=LossWeights)
    augmentation: Augmentation = field(default_factory=Augmentation)


OnStep = Callable[[int, float, dict[str, float]], None]  # step, progress in 0..1, losses
PreparedVocabulary = tuple[Vocabulary, Tensor | None]  # what sampler and teacher need of a corpus


def train(
    corpus: Corpus,
    base: Path,
    out: Path,
    mixture: list[Source],
    config: TrainingConfig,
    *,
    teacher: Path | None = None,
    teacher_sets: frozenset[str] = frozenset(),
    views: Mapping[str, View] = VIEWS,
    critic_kind: type[TokenCritic] = TokenCritic,
    losses_kind: type[TrainingCritic] = TrainingCritic,
    prepared: PreparedVocabulary | None = None,
    resume: bool = False,
    on_step: OnStep | None = None,
) -> Path:
    """Fine-tune the critic in ``base`` and write the result to ``out``.

    Args:
        base: a critic's folder, untrained or trained.
        teacher: a critic's folder whose encoder knows how alike texts are; by default ``base``.
        teacher_sets: names of the sets that the teacher speaks to; none for no teacher.
        critic_kind, losses_kind: what is trained and what it is taught, for experiments; the base's own by default.
        prepared: what `prepare_vocabulary` returned for the same corpus, base and views, to share it between runs.
        resume: continue from ``out/state`` where a killed run left it.

    Returns:
        ``out``, which `Compressor.from_pretrained` loads.
    """
    from accelerate import Accelerator

    torch.manual_seed(config.seed)
    accelerator = Accelerator(mixed_precision="bf16" if torch.cuda.is_available() else "no")
    critic, critic_config, tokenizer = load_critic(base, critic_kind)
    critic.train().requires_grad_(True)
    wise = (critic if teacher is None else load_critic(teacher)[0]).encoder if teacher_sets else None
    vocabulary, embeddings = prepared or prepare_vocabulary(
        corpus, critic, tokenizer, accelerator.device, wise, views, teacher_sets
    )
    sampler = WindowSampler(corpus, vocabulary, mixture, config.seed, config.augmentation, teacher_sets, views=views)
    if config.compile_layers:
        for layer in critic.encoder.layers:
            layer.compile()
    model = losses_kind(critic, config.losses, tokenizer.unknown_id)
    optimizer = torch.optim.AdamW(
        _parameter_groups(model, config.weight_decay), lr=config.learning_rate, fused=torch.cuda.is_available()
    )
    model, optimizer = accelerator.prepare(model, optimizer)
    average = copy.deepcopy(accelerator.unwrap_model(model).critic)
    state = _State(out / "state", accelerator, average, _fingerprint(corpus, critic_config, mixture, config))
    first = state.load() if resume else 0
    loader = _loader(sampler, config, accelerator.process_index, first)
    began = time.monotonic()
    longest = max(length for length, _ in config.lengths)
    where: dict[str, Any] = {"device": accelerator.device, "length": longest, "views": views}

    def check() -> dict[str, float]:
        found = calibrate(average, corpus, vocabulary, mixture, groups=config.held_out, **where)
        return {f"held-out {name} kept": one.evidence_kept for name, one in found.items()}

    step, losses = _fit(
        loader, model, optimizer, average, embeddings, accelerator, state, config, first, on_step, check
    )
    if accelerator.is_main_process:
        write_calibrated(
            average,
            replace(critic_config, name=config.name),
            out,
            (base / "tokenizer.json").read_text(encoding="utf-8"),
            corpus,
            vocabulary,
            mixture,
            config,
            device=accelerator.device,
            views=views,
            critic_kind=critic_kind,
            summary={"steps": step, "seconds": time.monotonic() - began, "losses": losses, "settings": asdict(config)},
        )
        state.remove()
    accelerator.wait_for_everyone()
    return out


def write_calibrated(
    critic: TokenCritic,
    critic_config: CriticConfig,
    out: Path,
    tokenizer_json: str,
    corpus: Corpus,
    vocabulary: Vocabulary,
    mixture: list[Source],
    config: TrainingConfig,
    *,
    device: torch.device,
    views: Mapping[str, View] = VIEWS,
    critic_kind: type[TokenCritic] = TokenCritic,
    summary: Mapping[str, Any],
) -> None:
    """Find a trained critic's thresholds on held-out queries and write it to ``out``.

    ``training.json`` beside it holds ``summary``, the held-out rates, and by how much storing the weights as int8
    changes scores.
    """
    where: dict[str, Any] = {"device": device, "length": max(length for length, _ in config.lengths), "views": views}
    found = calibrate(critic.eval(), corpus, vocabulary, mixture, groups=config.held_out, **where)
    thresholds = dict(critic_config.thresholds) | {name: round(one.threshold, 4) for name, one in found.items()}
    save_critic(out, critic, replace(critic_config, thresholds=thresholds), tokenizer_json)
    stored = load_critic(out, critic_kind)[0]
    few = max(3, config.held_out // 8)
    apart = score_difference(critic, stored, corpus, vocabulary, mixture, windows=few, **where)
    _log.info("scores of the stored weights differ by %.5f on average", apart)
    held_out = {name: asdict(one) for name, one in found.items()}
    told = {**summary, "storage_difference": apart, "held_out": held_out}
    (out / "training.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def _fit(
    loader: DataLoader,
    model: Any,
    optimizer: Any,
    average: TokenCritic,
    embeddings: Tensor | None,
    accelerator: Any,
    state: _State,
    config: TrainingConfig,
    step: int,
    on_step: OnStep | None,
    check: Callable[[], dict[str, float]],
) -> tuple[int, dict[str, float]]:
    """The loop itself, from ``step`` on; the last step and the losses that were last looked at."""
    began = saved = time.monotonic()
    seen: dict[str, float] = {}
    checked = int(config.checks * step / config.steps)
    for tensors in loader:
        elapsed = (time.monotonic() - began) / 60.0
        progress = max(step / config.steps, elapsed / config.minutes if config.minutes else 0.0)
        if accelerator.num_processes > 1:  # clocks differ; processes must stop together
            progress = float(accelerator.reduce(torch.tensor(progress, device=accelerator.device), "mean"))
        if progress >= 1.0:
            break
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * _schedule(progress, config.warmup)
        batch = {name: tensor.to(accelerator.device, non_blocking=True) for name, tensor in tensors.items()}
        losses = model(batch, embeddings)
        accelerator.backward(losses["loss"])
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        _follow(average, accelerator.unwrap_model(model).critic, min(config.average, step / (step + 10.0)))
        step += 1
        if step % config.log_steps == 0 and on_step is not None:
            seen = {name: float(value.detach()) for name, value in losses.items()}
            on_step(step, progress, seen)
        if int(config.checks * max(progress, step / config.steps)) > checked and accelerator.is_main_process:
            checked += 1
            if on_step is not None:
                on_step(step, progress, check())
        if _is_time(accelerator, time.monotonic() - saved > 60.0 * config.save_minutes):
            state.save(step)
            saved = time.monotonic()
    return step, seen


def _is_time(accelerator: Any, here: bool) -> bool:
    """Whether it is time by the clock of the main process: all processes save together or none does."""
    if accelerator.num_processes == 1:
        return here
    flag = torch.tensor(float(here and accelerator.is_main_process), device=accelerator.device)
    return bool(accelerator.reduce(flag, "sum") > 0)


def _fingerprint(corpus: Corpus, critic: CriticConfig, mixture: list[Source], config: TrainingConfig) -> str:
    """What must be the same for a run to go on: data, base and how windows are drawn."""
    parts = (critic.encoder, mixture, config.seed, config.lengths, config.batch_tokens, len(corpus.tokens))
    data = [zlib.crc32(array.tobytes()) for array in (corpus.tokens, corpus.query_tokens, corpus.evidence)]
    return f"{zlib.crc32(repr((parts, data)).encode()):08x}"


class _Stream(IterableDataset):
    """Endless batches as tensors; every worker of every process draws its own."""

    def __init__(self, sampler: WindowSampler, config: TrainingConfig, process: int, first: int) -> None:
        """``first`` is the step that is begun with, so that a resumed run does not see the same windows again."""
        self._sampler = sampler
        self._config = config
        self._process = process
        self._first = first

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        info = torch.utils.data.get_worker_info()
        worker = 0 if info is None else info.id
        config = self._config
        rng = np.random.default_rng((config.seed, self._process, worker, self._first))
        self._sampler.reseed((config.seed, self._process, worker, self._first, 1))
        lengths, shares = zip(*config.lengths, strict=True)
        while True:
            length = int(rng.choice(lengths, p=np.array(shares) / sum(shares)))
            groups = max(1, config.batch_tokens // length // config.windows_per_query)
            yield _tensors(self._sampler.batch(length, groups, config.windows_per_query), self._sampler.queries)


def _tensors(batch: Batch, queries: int) -> dict[str, Tensor]:
    tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in vars(batch).items()}
    tensors["teacher_sentences"] = tensors.pop("sentence_rows").long() + queries
    return tensors


def _loader(sampler: WindowSampler, config: TrainingConfig, process: int, first: int) -> DataLoader:
    ahead = 4 if config.workers else None
    stream = _Stream(sampler, config, process, first)
    return DataLoader(stream, batch_size=None, num_workers=config.workers, prefetch_factor=ahead)


def _schedule(progress: float, warmup: float) -> float:
    """Linear rise, then a cosine fall to 0."""
    if progress < warmup:
        return max(progress, 1e-4) / warmup
    return 0.5 * (1.0 + float(np.cos(np.pi * (progress - warmup) / (1.0 - warmup))))


def _parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    matrices = [p for p in model.parameters() if p.requires_grad and p.dim() > 1]
    others = [p for p in model.parameters() if p.requires_grad and p.dim() <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


@torch.no_grad()
def _follow(average: TokenCritic, critic: TokenCritic, decay: float) -> None:
    ours: list[Tensor] = list(average.parameters())
    theirs: list[Tensor] = list(critic.parameters())
    torch._foreach_lerp_(ours, theirs, 1.0 - decay)


class _State:
    """Everything a killed run needs to go on. A kill while saving leaves the state before."""

    def __init__(self, folder: Path, accelerator: Any, average: TokenCritic, fingerprint: str) -> None:
        self._folder = folder
        self._old, self._new = folder.with_name("state.old"), folder.with_name("state.new")
        self._accelerator = accelerator
        self._average = average
        self._fingerprint = fingerprint

    def save(self, step: int) -> None:
        self._accelerator.save_state(str(self._new))
        if self._accelerator.is_main_process:
            kept = {"step": step, "average": self._average.state_dict(), "fingerprint": self._fingerprint}
            torch.save(kept, self._new / "average.pt")
            shutil.rmtree(self._old, ignore_errors=True)
            if self._folder.exists():
                self._folder.rename(self._old)
            self._new.rename(self._folder)
            shutil.rmtree(self._old, ignore_errors=True)
        self._accelerator.wait_for_everyone()

    def load(self) -> int:
        folder = self._folder if self._folder.exists() else self._old
        path = folder / "average.pt"
        if not path.exists():
            _log.info("nothing to resume in %s; starting anew", self._folder)
            return 0
        saved = torch.load(path, weights_only=True, map_location=self._accelerator.device)
        if saved.get("fingerprint") != self._fingerprint:
            raise InputError(
                f"{folder} was saved by a run with other records, another base or other settings; "
                "call with those again, or name another output folder"
            )
        self._accelerator.load_state(str(folder))
        self._average.load_state_dict(saved["average"])
        _log.info("going on from step %d", saved["step"])
        return int(saved["step"])

    def remove(self) -> None:
        """What a finished run does not need any more."""
        for folder in (self._folder, self._old, self._new):
            shutil.rmtree(folder, ignore_errors=True)


def prepare_vocabulary(
    corpus: Corpus,
    critic: TokenCritic,
    tokenizer: WordPieceTokenizer,
    device: torch.device,
    wise: Encoder | None,
    views: Mapping[str, View],
    teacher_sets: frozenset[str] = frozenset(),
) -> PreparedVocabulary:
    """What the sampler needs of the vocabulary, and the teacher's embeddings of all queries, then all sentences."""
    words = tokenizer.vocabulary()
    continues = np.array([word.startswith("##") for word in words])
    frequent = np.bincount(corpus.tokens, minlength=len(words))
    common = np.zeros(len(words), dtype=bool)
    common[np.argsort(-frequent)[: min(250, len(words) // 100)]] = True
    content = np.array([word.isalnum() and len(word) >= 3 for word in words]) & ~common & ~continues
    table = np.full((len(words), 4), -1, dtype=np.int32)
    embeddings, alike = None, np.empty((0, 0), dtype=np.int32)
    if wise is not None:
        teacher = copy.deepcopy(wise).to(device).eval()
        if device.type == "cuda":
            teacher = teacher.bfloat16()
        cls, sep = tokenizer.prefix_ids
        rows = [row for row in np.flatnonzero(content & (frequent > 5)).tolist() if words[row].isascii()]
        singles = embed(teacher, np.array(rows), np.arange(len(rows) + 1), cls, sep, device)
        table = neighbours(singles, [words[row] for row in rows], rows, len(words))
        of_queries = embed(teacher, corpus.query_tokens, corpus.query_starts, cls, sep, device)
        of_sentences = embed(teacher, corpus.tokens, corpus.sentence_starts, cls, sep, device)
        alike = _alike(corpus, of_queries, of_sentences, teacher_sets)
        embeddings = torch.cat([of_queries, of_sentences])
        _log.info("the teacher has read %d queries and sentences", len(embeddings))
    return (
        Vocabulary(
            cls=tokenizer.prefix_ids[0],
            sep=tokenizer.prefix_ids[1],
            outside=int(critic.outside_word),
            unknown=tokenizer.unknown_id,
            instructions={
                name: [tokenizer.encode(text).ids for text in view.instructions] for name, view in views.items()
            },
            own_instructions=[tokenizer.encode(text).ids for text in corpus.instructions],
            tag_words={
                word: int(tokenizer.word_ids(word)[0])
                for view in [*VIEWS.values(), *views.values()]
                for word in view.tag_words
            },
            content=content,
            continues=continues,
            neighbours=table,
            alike=alike,
            kind_words={
                kind: int(tokenizer.word_ids(KIND_WORDS.get(kind, kind))[0])
                for kind in (tag.partition(":")[2] for tag in corpus.tags)
                if kind
            },
            tagging=[(tokenizer.encode(before).ids, tokenizer.encode(after).ids) for before, after in TAGGING],
            requests=[(tokenizer.encode(before).ids, tokenizer.encode(after).ids) for before, after in REQUESTS],
        ),
        embeddings,
    )


def _alike(corpus: Corpus, queries: Tensor, sentences: Tensor, teacher_sets: frozenset[str]) -> NDArray[np.int32]:
    """int32, (q, n): rows of `Vocabulary.alike`, filled for queries of the teacher's sets."""
    taught = np.array([name in teacher_sets for name in corpus.names], dtype=bool)
    documents = np.searchsorted(corpus.document_starts, corpus.sentence_starts[:-1], side="right") - 1
    asked = np.flatnonzero(taught[corpus.query_sets])
    told = np.flatnonzero(taught[corpus.document_sets[documents]])
    rows = [torch.from_numpy(part).to(queries.device) for part in (asked, told)]
    nearest = most_alike(queries[rows[0]], sentences[rows[1]], corpus.query_documents[asked], documents[told])
    found = np.full((len(queries), nearest.shape[1]), -1, dtype=np.int32)
    found[asked] = np.where(nearest >= 0, told[np.maximum(nearest, 0)] if len(told) else -1, -1)
    return found
