"""Trains small Qwen-shaped critics from scratch and compares them: causal, hybrid, bidirectional; one head and two.

    python -m benchmarks.hybrid_ablation --out OUT [--seconds 240] [--only hybrid-both ...]
    python -m benchmarks.hybrid_ablation --table OUT/hybrid_ablation.json ...

Same data and seed for all. Writes ``OUT/hybrid_ablation.json``, and the folder of the variant
"hybrid-both" (int8, a few megabytes). Variants leave most of a GPU idle, so several processes with one each can share
it; ``--table`` puts their files together. On a CPU use ``--tiny`` to see that it runs.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, fields, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, pre_tokenizers
from tokenizers.decoders import ByteLevel
from tokenizers.models import BPE
from tokenizers.normalizers import NFC
from tokenizers.trainers import BpeTrainer
from transformers import Qwen2Config

from cprs_core.critics.chat_tokenizer import ChatTokenizer
from cprs_core.critics.hybrid import HybridCritic
from cprs_core.critics.hybrid_checkpoint import HybridConfig, load_hybrid, save_hybrid
from cprs_core.critics.memory import WeightFormat
from cprs_core.scorer import LABELS, OUTSIDE
from cprs_core.selection import decode_spans
from cprs_core.training.hybrid import HybridBatch, HybridTraining, TagWords, fit, init_matching
from cprs_core.training.needles import OUTSIDE_WORD, TAGS, UNCOUNTED, Examples, corpus_lines, make_examples

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WINDOW_TOKENS = 512
VARIANTS = tuple(
    f"{attention}-{heads}" for heads in ("both", "position") for attention in ("hybrid", "causal", "bidirectional")
)


def make_tokenizer(size: int) -> Tokenizer:
    """A byte-level vocabulary cut as Qwen does, made from the training text."""
    tokenizer = Tokenizer(BPE())
    tokenizer.normalizer = NFC()
    words = pre_tokenizers.Split(Regex(_WORDS), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = ByteLevel()
    trainer = BpeTrainer(vocab_size=size - 3, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(corpus_lines(3_000, seed=5), trainer)
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    return tokenizer


def make_config(tokenizer: Tokenizer, layers: int, hidden: int, first: int, tag_head: str | None) -> HybridConfig:
    base = Qwen2Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=hidden,
        intermediate_size=hidden * 8 // 3 // 16 * 16,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=hidden // 32,
        max_position_embeddings=2_048,
        rope_theta=1_000_000.0,
        tie_word_embeddings=True,
    )
    return HybridConfig(
        "hybrid-tiny", base, first, WINDOW_TOKENS, tag_head=tag_head, outside_word=OUTSIDE_WORD if tag_head else None
    )


def _part(tokenizer_json: str, count: int, length: int, seed: int) -> Examples:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # this process is one of many
    return make_examples(ChatTokenizer(Tokenizer.from_str(tokenizer_json)), count, length, seed)


def make_data(tokenizer: Tokenizer, count: int, length: int, seed: int, workers: int) -> Examples:
    """``count`` windows, made by several processes."""
    parts = max(1, workers) * 4
    make = partial(_part, tokenizer.to_str(), -(-count // parts), length)
    seeds = [seed * 1_000 + number for number in range(parts)]
    if workers <= 1:
        found = [make(one) for one in seeds]
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            found = list(pool.map(make, seeds))
    return Examples(*(np.concatenate([getattr(one, name) for one in found]) for name in vars(found[0])))


def make_all_data(tokenizer: Tokenizer, args: argparse.Namespace) -> list[Examples]:
    """Short and long windows to train on, and long ones to measure on; kept in ``args.data`` for other processes."""
    workers = 1 if args.tiny else os.cpu_count() or 1
    sets = [
        make_data(tokenizer, args.windows, args.length // 2, 1, workers),
        make_data(tokenizer, args.windows // 2, args.length, 2, workers),
        make_data(tokenizer, args.held_out, args.length, 9, workers),
    ]
    if args.data:
        arrays = {f"{number}.{name}": array for number, one in enumerate(sets) for name, array in vars(one).items()}
        np.savez(args.data, **arrays)
    return sets


def read_data(path: Path) -> list[Examples]:
    with np.load(path) as arrays:
        return [Examples(*(arrays[f"{number}.{name.name}"] for name in fields(Examples))) for number in range(3)]


def batches(sets: list[Examples], batch_tokens: int, device: torch.device, seed: int) -> Iterator[HybridBatch]:
    """Endless batches from each of the sets in turn, so that every window length is seen from the first to the last."""
    sources = [_shuffled(examples, batch_tokens, device, seed + number) for number, examples in enumerate(sets)]
    while True:
        yield from (next(source) for source in sources)


def _shuffled(examples: Examples, batch_tokens: int, device: torch.device, seed: int) -> Iterator[HybridBatch]:
    generator = torch.Generator().manual_seed(seed)
    ids, labels, tags = (torch.from_numpy(part).to(device) for part in (examples.ids, examples.labels, examples.tags))
    rows = max(1, batch_tokens // ids.shape[1])
    while True:
        for chosen in torch.randperm(len(ids), generator=generator).to(device).split(rows):
            yield HybridBatch(ids[chosen].long(), labels[chosen].long(), tags[chosen].long())


@torch.inference_mode()
def predict(critic: HybridCritic, examples: Examples, tag_ids: list[torch.Tensor], tokens: int) -> np.ndarray:
    """float32, (w, n, 4): label probabilities of every position, the prefix's included."""
    device = critic.model.embed_tokens.weight.device
    rows = max(1, tokens // examples.ids.shape[1])
    found = np.zeros((*examples.ids.shape, 4), dtype=np.float32)
    for tag in range(len(TAGS)):
        words = critic.tag_rows([tag_ids[tag]])
        mine = np.flatnonzero(examples.tags == tag)
        for chosen in np.split(mine, range(rows, len(mine), rows)):
            if len(chosen):
                hidden = critic(torch.from_numpy(examples.ids[chosen]).long().to(device))
                scores = critic.scores(hidden.flatten(0, 1), words).view(*hidden.shape[:2], 4)
                found[chosen] = scores.cpu().numpy()
    return found


def measure(scores: np.ndarray, examples: Examples) -> dict[str, dict[str, float]]:
    """Per kind of task, of spans decoded with Viterbi.

    ``recall``: right spans whose every token is kept; ``exact``: right spans decoded with just these borders;
    ``false``: decoded spans per window that touch no right one; ``tokens``: share of tokens with the right label.
    """
    w, n, _ = scores.shape
    scores = scores.copy()
    scores[examples.labels == UNCOUNTED] = np.eye(4, dtype=np.float32)[OUTSIDE]
    windows = np.stack([np.arange(w) * n, np.arange(1, w + 1) * n], axis=1)
    first, last = decode_spans(scores.reshape(-1, 4), windows)
    kept = np.zeros(w * n + 1, dtype=np.int64)
    np.add.at(kept, first, 1)
    np.add.at(kept, last + 1, -1)
    kept = np.cumsum(kept)[:-1] > 0
    labels = examples.labels.reshape(-1)
    starts, ends = np.flatnonzero(labels == LABELS.index("B")), np.flatnonzero(labels == LABELS.index("E"))
    sums = np.concatenate([[0], np.cumsum(kept)])
    whole = sums[ends + 1] - sums[starts] == ends + 1 - starts
    decoded = set(zip(first.tolist(), last.tolist(), strict=True))
    exact = np.array([pair in decoded for pair in zip(starts.tolist(), ends.tolist(), strict=True)])
    right = np.concatenate([[0], np.cumsum((labels != OUTSIDE) & (labels != UNCOUNTED))])
    false = right[last + 1] == right[first]
    guessed = scores.reshape(-1, 4).argmax(-1)
    found: dict[str, dict[str, float]] = {}
    for tag, name in [*enumerate(TAGS), (-1, "all")]:
        of_window = np.ones(w, dtype=bool) if tag < 0 else examples.tags == tag
        span = of_window[starts // n]
        token = np.repeat(of_window, n) & (labels != UNCOUNTED)
        found[name] = {
            "spans": int(span.sum()),
            "recall": round(float(whole[span].mean()), 5),
            "exact": round(float(exact[span].mean()), 5),
            "false": round(float(false[of_window[first // n]].sum() / of_window.sum()), 5),
            "tokens": round(float((guessed == labels)[token].mean()), 5),
        }
    return found


def agreement(critic: HybridCritic, scores: np.ndarray, examples: Examples, tag_ids: list[torch.Tensor]) -> float:
    """Share of context tokens whose likeliest label is the same as in ``scores``."""
    counted = examples.labels != UNCOUNTED
    other = predict(critic, examples, tag_ids, 65_536)
    return float((other.argmax(-1) == scores.argmax(-1))[counted].mean())


def run(args: argparse.Namespace) -> dict[str, Any]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    tokenizer = make_tokenizer(args.vocabulary)
    chat = ChatTokenizer(tokenizer)
    tag_ids = [torch.from_numpy(chat.word_ids(tag)).long().to(device) for tag in TAGS]
    began = time.perf_counter()
    short, long, held_out = read_data(args.data) if args.data and args.data.exists() else make_all_data(tokenizer, args)
    print(
        f"data: {time.perf_counter() - began:.0f} s, {(short.ids.size + long.ids.size) / 1e6:.1f} M tokens", flush=True
    )
    if not args.only:
        return {}
    layers, results = args.layers, {}
    first_layers = {"hybrid": layers - max(1, round(layers / 3)), "causal": layers, "bidirectional": 0}
    training = HybridTraining(
        steps=args.steps,
        seconds=args.seconds,
        learning_rate=args.learning_rate,
        compile_layers=args.compile,
        seed=1 + args.seed,
    )
    for name in args.only:
        attention, heads = name.split("-")
        first, tag_head = first_layers[attention], "tied" if heads == "both" else None
        config = make_config(tokenizer, layers, args.hidden, first, tag_head)
        outside = chat.word_ids(OUTSIDE_WORD).tolist() if tag_head else []
        torch.manual_seed(args.seed)
        critic = HybridCritic(config.base, first, tag_head=tag_head, outside_ids=outside)
        init_matching(critic, seed=3 + args.seed)
        critic.to(device)
        weights = sum(parameter.numel() for parameter in critic.parameters())
        began = time.perf_counter()
        words = TagWords.of(chat, TAGS, critic)
        steps = fit(critic, batches([short, long], args.batch_tokens, device, 4 + args.seed), words, training, _show)
        seconds = time.perf_counter() - began
        scores = predict(critic, held_out, tag_ids, 65_536)
        result: dict[str, Any] = {
            "weights": weights,
            "bidirectional_from": first,
            "steps": steps,
            "seconds": round(seconds, 1),
        }
        result["held_out"] = measure(scores, held_out)
        results[f"{name}, seed {args.seed}" if args.seed else name] = result
        print(f"{name}: {json.dumps(result)}", flush=True)
        if name == "hybrid-both":
            folder = args.out / "hybrid-tiny"
            save_hybrid(folder, critic, config, tokenizer.to_str(), small=True)
            result["saved"] = _of_saved(folder, device, held_out, tag_ids)
            trained = (
                f"{steps:,} steps of {args.batch_tokens:,} tokens in {seconds:.0f} s, {weights / 1e6:.1f} M weights"
            )
            measured = {"length": args.length, "trained": trained, **result["saved"]}
            (folder / "measured.json").write_text(json.dumps(measured, indent=2) + "\n")
            print(json.dumps(result["saved"]), flush=True)
        _write(args.out, results, training, args)
    return results


def _of_saved(folder: Path, device: torch.device, examples: Examples, tag_ids: list[torch.Tensor]) -> dict[str, Any]:
    """What the saved int8 weights do, and whether other number formats label tokens as float32 does."""
    critic, _, _ = load_hybrid(folder, device, WeightFormat(torch.float32))
    scores = predict(critic, examples, tag_ids, 65_536)
    found: dict[str, Any] = {"held_out": measure(scores, examples)}
    found["bytes"] = sum(file.stat().st_size for file in folder.iterdir())
    for dtype in ("bfloat16", "fp8"):
        try:
            other, _, _ = load_hybrid(folder, device, WeightFormat.resolve(dtype, device))
            found[f"agreement {dtype}"] = round(agreement(other, scores, examples, tag_ids), 5)
        except Exception as error:
            found[f"agreement {dtype}"] = f"{type(error).__name__}: {error}"
    return found


def render_table(files: list[dict[str, Any]]) -> str:
    """One Markdown row per variant, in percent: right spans with just the right borders, wrong spans, right labels."""
    done = {name: one for file in files for name, one in file["results"].items()}
    lines = [
        "| variant | steps | needles | key-values | chains | false | tokens labelled right |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in sorted(done, key=lambda name: (VARIANTS.index(name.partition(",")[0]), name)):
        found = done[name]["held_out"]
        cells = [f"{100 * found[tag]['exact']:.1f}" for tag in TAGS]
        cells += [f"{100 * found['all']['false']:.1f}", f"{100 * found['all']['tokens']:.2f}"]
        lines.append(f"| {name} | {done[name]['steps']:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _show(step: int, progress: float, losses: dict[str, float]) -> None:
    print(
        f"  step {step} {progress:.0%} " + " ".join(f"{name} {value:.4f}" for name, value in losses.items()), flush=True
    )


def _write(out: Path, results: dict[str, Any], training: HybridTraining, args: argparse.Namespace) -> None:
    out.mkdir(parents=True, exist_ok=True)
    settings = {name: value for name, value in vars(args).items() if name not in ("out", "data", "table")}
    data = {"settings": settings, "training": asdict(replace(training)), "torch": torch.__version__, "results": results}
    data["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    (out / "hybrid_ablation.json").write_text(json.dumps(data, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument(
        "--only", nargs="*", choices=VARIANTS, default=VARIANTS, help="default: all; none: only make data"
    )
    parser.add_argument(
        "--data", type=Path, metavar="FILE.npz", help="training data, made and kept there where missing"
    )
    parser.add_argument("--table", type=Path, nargs="+", metavar="FILE", help="only print the table of results files")
    parser.add_argument("--seconds", type=float, default=None, help="most seconds per variant, beside --steps")
    parser.add_argument("--steps", type=int, default=3_000)
    parser.add_argument("--windows", type=int, default=400_000, help="short windows; half as many long ones")
    parser.add_argument("--held-out", type=int, default=3_000)
    parser.add_argument("--length", type=int, default=WINDOW_TOKENS)
    parser.add_argument("--batch-tokens", type=int, default=65_536)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--vocabulary", type=int, default=1_024)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0, help="of weights, order of windows and dropout of labels")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--tiny", action="store_true", help="a few steps of a very small model")
    args = parser.parse_args()
    if args.tiny:
        args.windows, args.held_out, args.length, args.steps = 60, 12, 256, 3
        args.hidden, args.layers, args.batch_tokens = 64, 3, 512
    logging.basicConfig(level=logging.WARNING)
    if args.table:
        print(render_table([json.loads(file.read_text()) for file in args.table]))
        return
    if args.out is None:
        parser.error("--out is missing; name the folder for results, or --table with results files")
    run(args)


if __name__ == "__main__":
    main()
