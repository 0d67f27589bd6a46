"""Which device, or how many, a hybrid critic is loaded on: one GPU, a copy per GPU, or its layers over all of them."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from cprs_core.critics.chat_tokenizer import ChatTokenizer
from cprs_core.critics.hybrid import HybridCritic
from cprs_core.critics.hybrid_checkpoint import HybridConfig, digest, load_hybrid, open_hybrid
from cprs_core.critics.hybrid_runtime import HybridScorer
from cprs_core.critics.memory import GIB, WeightFormat, free_bytes, weight_bytes, window_bytes
from cprs_core.critics.runtime import resolve_device
from cprs_core.errors import DeviceError
from cprs_core.scale.spread import SpreadScorer
from cprs_core.scorer import Scorer

_log = logging.getLogger(__name__)

# Compiling takes about a minute and makes a large critic a quarter faster; a small one is fast enough without.
_COMPILED_FROM = 1_000_000_000  # weights


def load_hybrid_scorer(
    folder: Path, *, device: str = "auto", dtype: str = "auto", compile_layers: bool | None = None
) -> Scorer:
    """The scorer of a hybrid critic's folder.

    Args:
        device: "auto" puts a copy on every GPU of the host and deals the windows out; where none is large enough its
            layers are spread over all of them. Or the name of one device.
        dtype: "auto", "float32", "bfloat16", "float16" or "fp8".
        compile_layers: whether layers are compiled at once, which logs how long it takes; by default on GPUs for
            critics of a billion weights or more.

    Raises:
        CheckpointError: the folder is damaged, or its parts do not belong together.
        DeviceError: the device does not exist or has too little memory.
    """
    if device == "auto" and torch.cuda.device_count() > 1:
        devices = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    else:
        devices = [resolve_device(device)]
    form = WeightFormat.resolve(dtype, devices[0])
    if len(devices) > 1:
        config, _, critic, _ = open_hybrid(folder)
        need = weight_bytes(critic, form) + window_bytes(critic, config.window_tokens, form)
        free = [free_bytes(one) or 0 for one in devices]
        devices = [one for one, room in zip(devices, free, strict=True) if room >= need]
        if not devices and form.is_fp8:
            raise DeviceError(
                f"{config.name} fits no GPU here even in fp8 ({need / GIB:.1f} GiB); use dtype='bfloat16'"
            )
        if not devices:
            _log.info("%s needs %.1f GiB, more than any GPU has free; its layers are spread", config.name, need / GIB)
            room: dict[int | str, int] = {index: int(0.9 * bytes) for index, bytes in enumerate(free)}
            return load_sharded_scorer(folder, form, room)
    scorers = []
    for one in devices:
        critic, config, tokenizer = load_hybrid(folder, one, form)
        scorers.append(_scorer(folder, critic, config, tokenizer, form))
        large = sum(parameter.numel() for parameter in critic.parameters()) >= _COMPILED_FROM
        if compile_layers or (compile_layers is None and large and one.type == "cuda"):
            scorers[-1].compile_layers()
    return scorers[0] if len(scorers) == 1 else SpreadScorer(scorers)


def load_sharded_scorer(folder: Path, dtype: WeightFormat, max_memory: dict[int | str, int]) -> HybridScorer:
    """A critic whose layers lie on several devices, for one that is too large for each of them.

    Args:
        max_memory: bytes that may be used on each GPU (by number) and on the "cpu".

    Raises:
        DeviceError: together they are too small.
    """
    from accelerate import dispatch_model, infer_auto_device_map

    config, _, empty, _ = open_hybrid(folder)
    layer = type(empty.layers[0]).__name__
    device_map = infer_auto_device_map(
        empty, max_memory=max_memory, no_split_module_classes=[layer], dtype=dtype.torch_dtype
    )
    if "disk" in device_map.values():
        together = sum(max_memory.values()) / GIB
        raise DeviceError(
            f"{config.name} needs {weight_bytes(empty, dtype) / GIB:.1f} GiB in {dtype.name}; the devices together "
            f"have {together:.1f} GiB free; use more of them"
        )
    critic, config, tokenizer = load_hybrid(folder, device_map, dtype)
    dispatch_model(critic, device_map, force_hooks=True)
    return _scorer(folder, critic, config, tokenizer, dtype)


def _scorer(
    folder: Path, critic: HybridCritic, config: HybridConfig, tokenizer: ChatTokenizer, dtype: WeightFormat
) -> HybridScorer:
    return HybridScorer(
        critic,
        tokenizer,
        name=config.name,
        window_tokens=config.window_tokens,
        thresholds=config.thresholds,
        dtype=dtype.name,
        digest=digest(folder),
    )
