"""Streams of many millions of tokens: memory, time per token, needles found; and a grid of needles by length and depth.

    python benchmarks/streams.py stream --tokens 10000000 [--data DIR] [--device cuda]
    python benchmarks/streams.py grid --lengths 32768 131072 1048576 10000000 --json grid.json
    python benchmarks/streams.py grid --rows 0 1 2 --json part.json    # several processes may share the work
    python benchmarks/streams.py picture grid.json more.json --png grid.png

Without a data folder (--data or CPRS_DATA) the hay is the package's own plain sentences, with one it is books.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cprs_core import Compressor, Document, KeywordScorer
from cprs_core.context import read_context
from cprs_core.errors import InputError
from cprs_core.evaluation.data import data_folder
from cprs_core.evaluation.needles import book_essay
from cprs_core.evaluation.options import Options
from cprs_core.evaluation.tasks.ruler import needle_line
from cprs_core.evaluation.words import key_phrase
from cprs_core.instructions import PRESETS
from cprs_core.windows import plan_windows

DOCUMENT_SENTENCES = 80
BASE_TOKENS = 131_072
NEEDLE_EVERY = 500_000
BORDER_NEEDLES = 200
DEPTHS = 15
GRID_TOKENS = 60
PADDING = " indeed"
MOST_PADDING = 12  # tokens


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    stream = commands.add_parser("stream", help="peak memory, time per token, needles found")
    stream.add_argument("--tokens", type=int, default=10_000_000)
    stream.add_argument("--borders", type=int, default=BORDER_NEEDLES, help="needles first or last in a window")
    stream.add_argument("--every", type=int, default=NEEDLE_EVERY, help="tokens from one other needle to the next")
    grid = commands.add_parser("grid", help="one needle at every depth of every length")
    grid.add_argument("--lengths", type=int, nargs="+", default=[32_768, 131_072, 524_288, 1_048_576, 10_000_000])
    grid.add_argument("--depths", type=int, default=DEPTHS)
    grid.add_argument("--rows", type=int, nargs="+", metavar="N", help="only these depths, counted from 0")
    picture = commands.add_parser("picture", help="draw the cells of results files")
    picture.add_argument("parts", type=Path, nargs="+", metavar="FILE")
    picture.add_argument("--png", type=Path, required=True, help="where to (needs matplotlib)")
    for command in (stream, grid):
        command.add_argument("--data", help="the evidence data folder; its books are the hay")
        command.add_argument("--device", default="auto")
        command.add_argument("--critic", help="a critic's folder; 'keywords' for a scorer that costs nothing")
        command.add_argument("--recall-risk", type=float, help="read only windows that may matter, at this risk")
        command.add_argument("--seed", type=int, default=42)
        command.add_argument("--json", type=Path, help="write the numbers there")
    args = parser.parse_args()
    if args.command == "picture":
        draw_grid([cell for part in args.parts for cell in json.loads(part.read_text())["cells"]], args.png)
        return 0
    if args.critic == "keywords":
        compressor = Compressor(KeywordScorer("special", "magic"))
    else:
        compressor = Compressor.from_pretrained(args.critic, device=args.device, recall_risk=args.recall_risk)
    numbers = measure_stream(compressor, args) if args.command == "stream" else measure_grid(compressor, args)
    print(json.dumps(numbers, indent=2))
    if args.json:
        args.json.write_text(json.dumps(numbers, indent=2))
    return 0


class Hay:
    """Documents of running text without end, in a seeded order."""

    def __init__(self, args: argparse.Namespace, compressor: Compressor) -> None:
        try:
            data = data_folder(args.data)
        except InputError:
            data = None
        self._essay = book_essay(Options(data=data, tokenizer=compressor.scorer.tokenizer))
        self._seed = args.seed

    def sentences(self, number: int) -> list[str]:
        """Those of the n-th document."""
        rng = np.random.default_rng([self._seed, number])
        return self._essay(rng, DOCUMENT_SENTENCES)[:DOCUMENT_SENTENCES]


def resident_mib() -> float:
    """Memory of this process now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def peak_mib() -> float:
    """Most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def measure_stream(compressor: Compressor, args: argparse.Namespace) -> dict[str, object]:
    """One long stream, and 131,072 tokens of the same text in one call, before it and after it: machines drift."""
    hay = Hay(args, compressor)
    rng = np.random.default_rng(args.seed)
    key = key_phrase(rng)
    query = f"What are all the special magic numbers for {key} mentioned in the provided text?"
    instruction = PRESETS["needles"]
    values = rng.choice(np.arange(1_000_000, 10_000_000), args.borders + args.tokens // args.every + 2, replace=False)
    needles = [needle_line("numbers", key, str(value)) for value in values.tolist()]
    texts = documents_up_to(compressor, hay, min(3 * BASE_TOKENS, args.tokens))  # room for all needles on borders
    planted = plant_on_borders(compressor, texts, query, needles[: args.borders])
    base = texts[: max(1, len(texts) // 3)]
    budget = 2 * sum(compressor.count_tokens(needle) + 1 for needle in [*planted, *needles[args.borders :]])
    compressor.compress(base[:3], query, instruction=instruction, max_tokens=budget)  # warm
    before = resident_mib()

    def per_token() -> tuple[int, float]:
        began = time.perf_counter()
        tokens = compressor.compress(base, query, instruction=instruction, max_tokens=budget).usage.input_tokens
        return tokens, (time.perf_counter() - began) / tokens

    base_tokens, early = per_token()
    hidden: list[str] = list(planted)
    per_document = base_tokens / len(base)

    def documents() -> Iterator[Document]:
        yield from (Document(text) for text in texts)
        tokens, number, next_needle = int(per_document * len(texts)), len(texts), args.every
        while tokens < args.tokens:
            sentences = hay.sentences(number)
            if tokens >= next_needle:
                needle = needles[args.borders + next_needle // args.every - 1]
                sentences.insert(len(sentences) // 2, needle)
                hidden.append(needle)
                next_needle += args.every
            yield Document(" ".join(sentences))
            number += 1
            tokens += int(per_document)

    began = time.perf_counter()
    *_, result = compressor.compress_stream(documents(), query, instruction=instruction, max_tokens=budget)
    seconds = time.perf_counter() - began
    peak = peak_mib()
    _, late = per_token()
    of_call = 2 * seconds / result.usage.input_tokens / (early + late)
    found = [needle for needle in hidden if needle in result.text]
    return {
        "tokens": result.usage.input_tokens,
        "seconds": round(seconds, 1),
        "tokens per second": round(result.usage.input_tokens / seconds),
        "time per token against one call of 131,072": round(of_call, 3),
        "calls before and after, tokens per second": [round(1 / early), round(1 / late)],
        "resident MiB before": round(before),
        "peak MiB above that": round(peak - before),
        "needles on window borders": f"{len([n for n in planted if n in result.text])} of {len(planted)}",
        "needles": f"{len(found)} of {len(hidden)}",
        "kept tokens": result.usage.output_tokens,
    }


def documents_up_to(compressor: Compressor, hay: Hay, tokens: int) -> list[str]:
    """Texts of hay documents of about so many tokens in all."""
    texts: list[str] = []
    total = 0
    while total < tokens:
        texts.append(" ".join(hay.sentences(len(texts))))
        total += compressor.count_tokens(texts[-1])
    return texts


def plant_on_borders(compressor: Compressor, texts: list[str], query: str, needles: list[str]) -> list[str]:
    """Put needles in place of sentences that are first or last in a window.

    They are padded to the same number of tokens, so that the windows stay where they are. Changes ``texts``.

    Returns:
        the needles that found a place, with their padding.
    """
    preset = PRESETS["needles"]
    tokenizer = compressor.scorer.tokenizer
    prefix = tokenizer.encode_prefix(preset.text, query, preset.tags)
    capacity = compressor.scorer.window_tokens - len(prefix)
    context = read_context(texts, tokenizer)
    sentences = context.sentences
    first = context.first_tokens(sentences[:, 0])
    last = context.first_tokens(sentences[:, 1])
    windows = plan_windows(first, len(context.ids), capacity, overlap=capacity // 4)
    planted: list[tuple[int, int, str]] = []
    waiting = list(needles)
    used: set[int] = set()
    for side, (start, end) in enumerate(windows[1:-1].tolist()):
        if not waiting:
            break
        sentence = int(np.searchsorted(last, end)) if side % 2 else int(np.searchsorted(first, start))
        if sentence >= len(sentences) or sentence in used:
            continue
        room = int(last[sentence] - first[sentence])
        needle = waiting[0]
        short = room - compressor.count_tokens(needle)
        if not 0 <= short <= MOST_PADDING:
            continue
        padded = needle[:-1] + PADDING * short + "."
        if compressor.count_tokens(padded) != room:
            continue
        used.add(sentence)
        waiting.pop(0)
        planted.append((int(sentences[sentence, 0]), int(sentences[sentence, 1]), padded))
    for start, end, padded in reversed(planted):
        index = int(context.document_of(np.array([start]))[0])
        at = int(context.document_bounds[index])
        texts[index] = texts[index][: start - at] + padded + texts[index][end - at :]
    return [padded for _, _, padded in planted]


def measure_grid(compressor: Compressor, args: argparse.Namespace) -> dict[str, object]:
    """Whether a needle is kept within 60 tokens, for every length and depth."""
    hay = Hay(args, compressor)
    cells: list[dict[str, object]] = []
    per_document = np.mean([compressor.count_tokens(" ".join(hay.sentences(n))) for n in range(8)])
    for length in args.lengths:
        documents = max(1, round(length / per_document))
        for row in args.rows or range(args.depths):
            rng = np.random.default_rng([args.seed, length, row])
            key = key_phrase(rng)
            needle = needle_line("numbers", key, str(rng.integers(1_000_000, 10_000_000)))
            depth = row / max(1, args.depths - 1)
            at = round(depth * (documents * DOCUMENT_SENTENCES))

            def stream(documents: int = documents, at: int = at, needle: str = needle) -> Iterator[Document]:
                for number in range(documents):
                    sentences = hay.sentences(number)
                    if number == min(at // DOCUMENT_SENTENCES, documents - 1):
                        sentences.insert(at - number * DOCUMENT_SENTENCES, needle)
                    yield Document(" ".join(sentences))

            query = f"What is the special magic number for {key} mentioned in the provided text?"
            *_, result = compressor.compress_stream(
                stream(), query, instruction=PRESETS["needles"], max_tokens=GRID_TOKENS
            )
            cells.append({"length": length, "depth": round(depth, 4), "found": needle in result.text})
            print(f"{length:,} tokens, depth {row + 1} of {args.depths}: {needle in result.text}", file=sys.stderr)
    return {"found": f"{sum(bool(cell['found']) for cell in cells)} of {len(cells)}", "cells": cells}


def draw_grid(cells: list[dict[str, float]], path: Path) -> None:
    """A heat map: green where the needle was kept, white where nothing was measured."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lengths, depths = (sorted({cell[name] for cell in cells}) for name in ("length", "depth"))
    found = np.full((len(depths), len(lengths)), np.nan)
    for cell in cells:
        found[depths.index(cell["depth"]), lengths.index(cell["length"])] = cell["found"]
    figure, axes = pyplot.subplots(figsize=(1.2 * len(lengths) + 2, 5))
    axes.imshow(found, cmap="RdYlGn", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(lengths)), [f"{length / 1_000:,.0f} K" for length in lengths])
    axes.set_yticks(range(len(depths)), [f"{depth:.0%}" for depth in depths])
    axes.set_xlabel("tokens")
    axes.set_ylabel("depth of the needle")
    axes.set_title(f"kept within {GRID_TOKENS} tokens: {np.nanmean(found):.1%} of cells", fontsize=10)
    axes.hlines(np.arange(len(depths) - 1) + 0.5, -0.5, len(lengths) - 0.5, colors="white", linewidth=1)
    axes.vlines(np.arange(len(lengths) - 1) + 0.5, -0.5, len(depths) - 0.5, colors="white", linewidth=1)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
