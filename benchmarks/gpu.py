"""Speed of the critics on GPUs, one table: a 7 B-shaped hybrid critic with random weights, and cprs-mini.

    python -m benchmarks.gpu --out OUT [--only NAME ...] [--seconds 1.5]

Speed does not depend on what the weights are, so they are drawn on the device. The share of the roofline is against a
bf16 matrix product measured in the same run, a short one; how fast the card does it for seconds, when its power limit
counts, is printed beside it. Useful tokens only: the prefix that every window repeats is printed apart,
and nothing is padded. Every row stands alone: where one fails, its error stands in its place. ``OUT/gpu.json`` holds
all rows. On a machine without a GPU ``--tiny`` shows that it runs.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Qwen2Config

from benchmarks.hybrid_ablation import make_tokenizer
from cprs_core import Compressor
from cprs_core.context import read_context
from cprs_core.critics import load_scorer
from cprs_core.critics.chat_tokenizer import ChatTokenizer
from cprs_core.critics.hybrid import HybridCritic
from cprs_core.critics.hybrid_runtime import HybridScorer
from cprs_core.critics.memory import GIB, WeightFormat
from cprs_core.evaluation.speed import prose
from cprs_core.instructions import PRESETS
from cprs_core.scale.spread import SpreadScorer
from cprs_core.scorer import Prefix, Scorer
from cprs_core.windows import plan_windows

QUERY = "What is the special magic number for the harbour garden mentioned in the provided text?"


@dataclass
class Row:
    """One line of the table; ``value`` is None where the measurement failed, and ``note`` says why."""

    name: str
    value: float | None
    unit: str
    reach: str = ""
    note: str = ""


class Bench:
    """What the measurements share."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.tiny: bool = args.tiny
        self.cuda = torch.cuda.is_available()
        self.device = torch.device("cuda:0" if self.cuda else "cpu")
        self.window = 256 if self.tiny else 8_192
        self.rows: list[Row] = []
        self.tokenizer = ChatTokenizer(make_tokenizer(2_048))
        preset = PRESETS["needles"]
        self.prefix: Prefix = self.tokenizer.encode_prefix(preset.text, QUERY, preset.tags)
        self.roofline: float | None = None
        self.sustained: float | None = None
        self.bf16: float | None = None

    def config(self) -> Qwen2Config:
        if self.tiny:
            return Qwen2Config(
                vocab_size=2_304, hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4,
                num_key_value_heads=2,
            )  # fmt: skip
        return Qwen2Config(
            vocab_size=152_064, hidden_size=3_584, intermediate_size=18_944, num_hidden_layers=28,
            num_attention_heads=28, num_key_value_heads=4, max_position_embeddings=32_768, rope_theta=1_000_000.0,
        )  # fmt: skip

    def critic(self, device: torch.device) -> HybridCritic:
        """Random bfloat16 weights, drawn on the device."""
        base = self.config()
        with torch.device("meta"):
            critic = HybridCritic(base, base.num_hidden_layers * 3 // 4)
        critic = critic.to(torch.bfloat16).to_empty(device=device).eval().requires_grad_(False)
        for name, parameter in critic.named_parameters():
            if "norm" in name:
                parameter.fill_(1.0)
            else:
                parameter.normal_(std=0.02)
        critic.rebuild_rotary(device)
        return critic

    def scorer(self, critic: HybridCritic, dtype: str = "bfloat16") -> HybridScorer:
        return HybridScorer(critic, self.tokenizer, name="7B-shaped", window_tokens=self.window, dtype=dtype)

    def windows(self, count: int, *, varied: bool = False) -> list[np.ndarray]:
        rng = np.random.default_rng(1)
        room = self.window - len(self.prefix)
        lengths = rng.integers(int(0.97 * room), room, count) if varied else np.full(count, room)
        return [rng.integers(0, 2_000, length).astype(np.int32) for length in lengths.tolist()]

    def flops(self, critic: HybridCritic) -> float:
        """Of one full window: linear layers and attention, causal layers counted by half."""
        base, n = critic.model.config, self.window
        linear = sum(p.numel() for p in critic.layers.parameters() if p.dim() == 2)
        first = critic.bidirectional_from
        attention = 4.0 * n * n * base.hidden_size * (0.5 * first + (base.num_hidden_layers - first))
        return 2.0 * linear * n + attention

    def rate(self, scorer: Scorer, *, varied: bool = False, devices: int = 1) -> float:
        """Useful tokens per second through `Scorer.score`."""
        few = self.windows(2 * devices, varied=varied)
        scorer.score(self.prefix, few)  # warm
        began = time.perf_counter()
        scorer.score(self.prefix, few)
        each = (time.perf_counter() - began) / 2
        count = devices * int(np.clip(self.args.seconds / max(each, 1e-3), 3, 200))
        windows = self.windows(count, varied=varied)
        began = time.perf_counter()
        scorer.score(self.prefix, windows)
        return sum(len(window) for window in windows) / (time.perf_counter() - began)

    def text(self, tokens: int, scorer: Scorer) -> str:
        """Made-up prose in paragraphs, about ``tokens`` of a scorer's tokens; no two windows are the same."""
        sample = prose(20_000, seed=8)
        return prose(int(tokens * len(sample) / len(scorer.tokenizer.encode(sample))), seed=9)

    def add(self, row: Row) -> None:
        self.rows.append(row)
        shown = "failed" if row.value is None else f"{row.value:,.3f}" if row.value < 100 else f"{row.value:,.0f}"
        print(f"{row.name:<58} {shown:>12} {row.unit:<12} {row.reach:<14} {row.note}", flush=True)
        self.save()

    @contextmanager
    def guard(self, name: str) -> Iterator[None]:
        """Turns a failure inside into a row with its text."""
        try:
            yield
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            self.add(Row(name, None, "", note=reason[:400]))
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()

    def save(self) -> None:
        self.args.out.mkdir(parents=True, exist_ok=True)
        machine = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if self.cuda else ["cpu"]
        import transformers

        data = {"devices": machine, "torch": torch.__version__, "transformers": transformers.__version__}
        data["rows"] = [asdict(row) for row in self.rows]
        (self.args.out / "gpu.json").write_text(json.dumps(data, indent=2) + "\n")


def measure_roofline(bench: Bench) -> None:
    with bench.guard("bf16 matrix product"):
        n = 256 if bench.tiny else 8_192
        a, b = (torch.randn(n, n, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
        seconds = _seconds(bench, lambda: a @ b, 3 if bench.tiny else 30)
        bench.roofline = 2.0 * n**3 / seconds
        bench.add(Row("bf16 matrix product, 8192 x 8192 x 8192 (the roofline)", bench.roofline / 1e12, "TFLOP/s"))
        times = max(3, int(bench.args.seconds / seconds))
        bench.sustained = 2.0 * n**3 / _seconds(bench, lambda: a @ b, times)
        bench.add(Row(f"  the same for {bench.args.seconds:g} s", bench.sustained / 1e12, "TFLOP/s"))


def measure_upstream(bench: Bench, critic: HybridCritic) -> float | None:
    """One window at a time, dense masks, fp16."""
    found = None
    with bench.guard("the upstream way"):
        critic.half()
        ours = critic.model.config._attn_implementation
        critic.model.config._attn_implementation = "sdpa"  # which takes masks
        n, first, heads = bench.window, critic.bidirectional_from, torch.float16
        ids = torch.from_numpy(bench.windows(1)[0]).long().to(bench.device)
        ids = torch.cat([torch.from_numpy(bench.prefix.ids).long().to(bench.device), ids])[None]
        low = torch.finfo(heads).min

        def forward() -> torch.Tensor:
            causal = torch.full((n, n), low, device=bench.device, dtype=heads).triu(1)[None, None]
            full = torch.zeros((1, 1, n, n), device=bench.device, dtype=heads)
            hidden = critic.model.embed_tokens(ids)
            positions = torch.arange(n, device=bench.device)[None]
            rotary = critic.model.rotary_emb(hidden, positions)
            for index, layer in enumerate(critic.layers):
                mask = causal if index < first else full
                hidden = layer(hidden, attention_mask=mask, position_ids=positions, position_embeddings=rotary)
                hidden = hidden[0] if isinstance(hidden, tuple) else hidden
            return critic.cls_head(critic.model.norm(hidden)).argmax(-1).cpu()

        with torch.inference_mode():
            seconds = _seconds(bench, forward, 2 if bench.tiny else 6)
        found = (n - len(bench.prefix)) / seconds
        bench.add(
            Row("upstream's way: one window, dense masks, fp16", found, "tokens/s", "", _share(bench, critic, found))
        )
    with bench.guard("back to bf16"):
        critic.model.config._attn_implementation = ours
        critic.to(torch.bfloat16)
    return found


def measure_bf16(bench: Bench, critic: HybridCritic, upstream: float | None) -> None:
    scorer = bench.scorer(critic)
    with bench.guard("bf16, stock layers"):
        eager = bench.rate(scorer)
        bench.add(Row("bf16, stock layers with the flag", eager, "tokens/s", "", _share(bench, critic, eager)))
    with bench.guard("bf16, compiled layers"):
        seconds = scorer.compile_layers() if bench.cuda else 0.0
        if bench.cuda:
            torch.cuda.reset_peak_memory_stats()
        bench.bf16 = bench.rate(scorer)
        share = _share(bench, critic, bench.bf16)
        bench.add(Row("bf16, compiled layers, w = 8,192", bench.bf16, "tokens/s", ">= 40,000", share))
        if bench.roofline:
            per_window = bench.flops(critic) / (bench.window - len(bench.prefix))
            reached = bench.bf16 * per_window
            bench.add(Row("  share of the roofline", reached / bench.roofline, "", ">= 0.80"))
            if bench.sustained:
                bench.add(Row("  share of the product that lasts as long", reached / bench.sustained, ""))
        bench.add(Row("  warm-up of the compiler", seconds, "s"))
        p = len(bench.prefix)
        bench.add(Row("  overhead: prefix tokens per useful token", p / (bench.window - p), "", "", "padding: none"))
        if upstream:
            bench.add(Row("  against upstream's way", bench.bf16 / upstream, "x", ">= 1.4"))
        if bench.cuda:
            bench.add(Row("  peak memory", torch.cuda.max_memory_allocated() / GIB, "GiB", "<= 20"))
        varied = bench.rate(scorer, varied=True)
        bench.add(Row("  windows of varied lengths", varied, "tokens/s"))
    with bench.guard("text in, spans out, bf16"):
        measure_text(bench, scorer, 2_000 if bench.tiny else 131_072, "bf16")


def measure_text(bench: Bench, scorer: Scorer, tokens: int, name: str, reach: str = "<= 1.1") -> None:
    """Text to spans, and the scorer alone on the same windows, which it has seen once before either."""
    compressor = Compressor(scorer)
    text = bench.text(tokens, scorer)
    preset = PRESETS["needles"]
    prefix = scorer.tokenizer.encode_prefix(preset.text, QUERY, preset.tags)
    windows = _windows_of(text, scorer, prefix)
    compressor.compress(text[:2_000], QUERY, instruction="needles", max_tokens=100)
    scorer.score(prefix, windows)
    began = time.perf_counter()
    result = compressor.compress(text, QUERY, instruction="needles", max_tokens=2_000)
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    scorer.score(prefix, windows)
    alone = time.perf_counter() - began
    read = result.usage.input_tokens
    parts = ", ".join(f"{stage} {value:.2f}" for stage, value in result.usage.stage_seconds.items())
    bench.add(Row(f"{name}: text in, spans out, {read:,} tokens", seconds, "s", "", parts))
    rate = f"{read / seconds:,.0f} tokens/s; alone {alone:.2f} s, {read / alone:,.0f}"
    bench.add(Row(f"{name}: the same against the scorer alone", seconds / alone, "x", reach, rate))


def _windows_of(text: str, scorer: Scorer, prefix: Prefix) -> list[np.ndarray]:
    """The windows that a compressor scores: of equal ones one."""
    context = read_context([text], scorer.tokenizer)
    capacity = scorer.window_tokens - len(prefix)
    starts = context.first_tokens(context.sentences[:, 0])
    ranges = plan_windows(starts, len(context.ids), capacity, overlap=capacity // 4).tolist()
    return list({window.tobytes(): window for window in (context.ids[a:b] for a, b in ranges)}.values())


def measure_fp8(bench: Bench, critic: HybridCritic) -> None:
    with bench.guard("fp8"):
        form = WeightFormat.resolve("fp8", bench.device)
        torch._dynamo.reset()
        for layer in critic.layers:
            layer._compiled_call_impl = None
            form.quantize(layer)
        scorer = bench.scorer(critic, "fp8")
        scorer.compile_layers()
        torch.cuda.reset_peak_memory_stats()
        rate = bench.rate(scorer)
        times = f"{rate / bench.bf16:.2f} x bf16" if bench.bf16 else ""
        bench.add(Row("fp8, compiled layers, w = 8,192", rate, "tokens/s", ">= 1.5 x", times))
        bench.add(Row("  peak memory", torch.cuda.max_memory_allocated() / GIB, "GiB"))
        bench.add(Row("  windows of varied lengths", bench.rate(scorer, varied=True), "tokens/s"))
        measure_text(bench, scorer, 131_072, "fp8")


def measure_several(bench: Bench, counts: list[int]) -> None:
    """One to four GPUs, one thread each."""
    scorers: list[HybridScorer] = []
    single = None
    for count in counts:
        with bench.guard(f"{count} GPUs"):
            while len(scorers) < count:
                device = torch.device("cuda", len(scorers)) if bench.cuda else bench.device
                scorers.append(bench.scorer(bench.critic(device)))
                if bench.cuda:
                    scorers[-1].compile_layers()
            rate = bench.rate(SpreadScorer(scorers), devices=count)
            single = single or (rate if count == 1 else None)
            note = f"{rate / single:.2f} x one" if single else ""
            reach = {2: ">= 1.9 x", 4: ">= 3.7 x"}.get(count, "")
            bench.add(Row(f"bf16 on {count} GPU{'s' * (count > 1)}", rate, "tokens/s", reach, note))
    if len(scorers) >= 4 or bench.tiny:
        with bench.guard("2 M tokens"):
            tokens = 4_000 if bench.tiny else 2_000_000
            measure_text(bench, SpreadScorer(scorers), tokens, f"{len(scorers)} GPUs (reach 14 s)")


def measure_mini(bench: Bench) -> None:
    with bench.guard("cprs-mini"):
        scorer = load_scorer(device=str(bench.device))
        preset = PRESETS["supporting_facts"]
        prefix = scorer.tokenizer.encode_prefix(preset.text, QUERY, preset.tags)
        rng = np.random.default_rng(1)
        room = scorer.window_tokens - len(prefix)
        count = 8 if bench.tiny else 8_000
        windows = [rng.integers(1_000, 20_000, room).astype(np.int32) for _ in range(count)]
        scorer.score(prefix, windows[: max(1, count // 8)])
        began = time.perf_counter()
        scorer.score(prefix, windows)
        rate = count * room / (time.perf_counter() - began)
        bench.add(Row("cprs-mini: windows in, scores out (512 tokens each)", rate, "tokens/s", ">= 5 M"))
        measure_text(bench, scorer, 4_000 if bench.tiny else 2_000_000, "cprs-mini (reach 1.5 M tokens/s)", "")


def _seconds(bench: Bench, run: Callable[[], Any], times: int) -> float:
    """Of one run, the mean after a warm-up."""
    for _ in range(2):
        run()
    if bench.cuda:
        torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(times):
        run()
    if bench.cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / times


def _share(bench: Bench, critic: HybridCritic, rate: float) -> str:
    if not bench.roofline:
        return ""
    return f"{rate / (bench.window - len(bench.prefix)) * bench.flops(critic) / bench.roofline:.0%} of the roofline"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=["single", "fp8", "several", "mini"], help="parts; default: all")
    parser.add_argument("--seconds", type=float, default=1.5, help="of one measurement, about")
    parser.add_argument("--tiny", action="store_true", help="a very small shape, to see that it runs")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    parts = args.only or ["single", "fp8", "several", "mini"]
    bench = Bench(args)
    print(f"{torch.cuda.device_count()} GPUs, torch {torch.__version__}", flush=True)
    if "mini" in parts:
        measure_mini(bench)
    measure_roofline(bench)
    if "single" in parts or "fp8" in parts:
        with bench.guard("7 B-shaped critic"):
            critic = bench.critic(bench.device)
            if "single" in parts:
                measure_bf16(bench, critic, measure_upstream(bench, critic))
            if "fp8" in parts:
                measure_fp8(bench, critic)
            del critic
    count = torch.cuda.device_count() if bench.cuda else 2
    if "several" in parts and count > 1:
        measure_several(bench, [number for number in (1, 2, 4, 8) if number <= count])


if __name__ == "__main__":
    main()
