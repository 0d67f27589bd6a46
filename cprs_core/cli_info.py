"""``cprs info``: what is installed, what it runs on, and which critic answers."""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from typing import Any

from cprs_core import __version__
from cprs_core.cli_compress import add_critic_options

_PACKAGES = ("torch", "transformers", "tokenizers", "pydantic", "langchain-core", "llama-index-core", "sentencex")


def add_info_parser(commands: Any) -> None:
    """Adds ``info`` to a command line's subcommands."""
    parser = commands.add_parser("info", help="versions, device and critic")
    add_critic_options(parser)
    parser.set_defaults(run=run_info)


def run_info(args: argparse.Namespace) -> int:
    """One ``cprs info``; what is known is shown before the critic is loaded."""
    for name, value in _environment():
        _show(name, value)
    began = time.perf_counter()
    compressor = args.load_compressor(args.critic, device=args.device, dtype=args.dtype)
    seconds = time.perf_counter() - began
    for name, value in _critic(compressor.scorer, args.critic, seconds):
        _show(name, value)
    return 0


def _show(name: str, value: str) -> None:
    sys.stdout.write(f"{name:<18}{value}\n")
    sys.stdout.flush()


def _environment() -> Iterator[tuple[str, str]]:
    yield "cprs", __version__
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    for package in _PACKAGES:
        try:
            yield package, metadata.version(package)
        except metadata.PackageNotFoundError:
            yield package, "not installed"


def _critic(scorer: Any, critic: str | None, seconds: float) -> Iterator[tuple[str, str]]:
    import torch

    from cprs_core.critics import critic_folder

    folder = critic_folder(critic)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    yield "critic", getattr(scorer, "name", type(scorer).__name__)
    yield "folder", f"{folder} ({size / 1e6:.1f} MB)"
    yield "loaded in", f"{seconds:.1f} s"
    yield "window", f"{scorer.window_tokens:,} tokens"
    yield "thresholds", ", ".join(f"{name} {value:.2f}" for name, value in scorer.thresholds.items()) or "0.50"
    device = getattr(scorer, "device", None)
    if device is not None:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
        yield "device", f"{device} ({name})"
        dtype = str(getattr(scorer, "dtype", "")).removeprefix("torch.")
        yield "dtype", "int8 linear layers, float32 elsewhere" if dtype == "int8" else dtype
