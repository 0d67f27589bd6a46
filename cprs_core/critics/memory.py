"""How much memory a hybrid critic needs, what is free, and the number formats of its weights."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import nn

from cprs_core.critics.hybrid import HybridCritic
from cprs_core.errors import DeviceError, MissingExtraError

_log = logging.getLogger(__name__)

GIB = 2**30
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class WeightFormat:
    """A number format: fp8 keeps everything but the layers' linear weights in bfloat16."""

    torch_dtype: torch.dtype
    is_fp8: bool = False

    @classmethod
    def resolve(cls, dtype: str, device: torch.device) -> WeightFormat:
        """The format that a name means on a device. Raises DeviceError where the device cannot use it."""
        if dtype == "auto":
            has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
            return cls(torch.bfloat16 if has_bfloat16 else torch.float32)
        if dtype in _DTYPES:
            return cls(_DTYPES[dtype])
        if dtype != "fp8":
            names = ", ".join(repr(name) for name in ("auto", *_DTYPES, "fp8"))
            raise DeviceError(f"there is no dtype {dtype!r} for hybrid critics; choose one of: {names}")
        if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 9):
            raise DeviceError(
                f"fp8 needs an NVIDIA GPU of compute capability 8.9 or more, {device} is none; "
                "choose dtype='auto', 'bfloat16' or 'float32'"
            )
        try:
            import torchao  # noqa: F401
        except ImportError:
            raise MissingExtraError("torchao", "fp8", "dtype='fp8'") from None
        return cls(torch.bfloat16, True)

    @property
    def name(self) -> str:
        return "fp8" if self.is_fp8 else str(self.torch_dtype).removeprefix("torch.")

    def quantize(self, module: nn.Module) -> None:
        """Replaces the linear weights of a module by fp8 ones: one scale per row, activations scaled as they come."""
        from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, PerRow, quantize_

        quantize_(module, Float8DynamicActivationFloat8WeightConfig(granularity=PerRow()))


def weight_bytes(critic: nn.Module, dtype: WeightFormat) -> int:
    """Bytes of a critic's weights, which may be on the meta device."""
    size = dtype.torch_dtype.itemsize
    total = sum(parameter.numel() for parameter in critic.parameters()) * size
    if dtype.is_fp8 and isinstance(critic, HybridCritic):
        linears = [module for module in critic.layers.modules() if isinstance(module, nn.Linear)]
        total -= sum(module.weight.numel() for module in linears) * (size - 1)
    return total


def window_bytes(critic: HybridCritic, window_tokens: int, dtype: WeightFormat) -> int:
    """Bytes that one window takes on its way through a layer, at most."""
    base = critic.model.config
    per_token = 3 * base.intermediate_size + 8 * base.hidden_size
    return int(window_tokens * per_token * dtype.torch_dtype.itemsize)


def free_bytes(device: torch.device) -> int | None:
    """Bytes free on a device; None where that cannot be known."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "cpu":
        import psutil

        return int(psutil.virtual_memory().available)
    return None


def check_memory(
    critic: HybridCritic, name: str, window_tokens: int, device: torch.device, dtype: WeightFormat
) -> None:
    """Says how much a critic needs and what is free.

    Raises:
        DeviceError: it cannot fit; the message says what would.
    """
    weights, window = weight_bytes(critic, dtype), window_bytes(critic, window_tokens, dtype)
    free = free_bytes(device)
    if free is None:
        return
    _log.info(
        "%s needs %.2f GiB in %s (weights %.2f, one window %.2f); %s has %.2f GiB free",
        *(name, (weights + window) / GIB, dtype.name, weights / GIB, window / GIB, device, free / GIB),
    )
    if weights + window <= free:
        return
    raise DeviceError(
        f"{name} needs {(weights + window) / GIB:.1f} GiB in {dtype.name} (weights {weights / GIB:.1f}, one window of "
        f"{window_tokens:,} tokens {window / GIB:.1f}); {device} has {free / GIB:.1f} GiB free; "
        f"{_what_fits(critic, window_tokens, device, dtype)}"
    )


def _what_fits(critic: HybridCritic, window_tokens: int, device: torch.device, dtype: WeightFormat) -> str:
    choices: list[tuple[str, torch.device, WeightFormat]] = []
    if device.type == "cuda" and not dtype.is_fp8:
        choices.append(("dtype='fp8'", device, WeightFormat(torch.bfloat16, True)))
    if dtype.torch_dtype.itemsize > 2:
        choices.append(("dtype='bfloat16'", device, WeightFormat(torch.bfloat16)))
    choices += [
        (f"device='cuda:{index}'", torch.device("cuda", index), dtype)
        for index in range(torch.cuda.device_count())
        if torch.device("cuda", index) != device
    ]
    if device.type != "cpu":
        choices.append(("device='cpu'", torch.device("cpu"), WeightFormat(torch.bfloat16)))
    fitting = []
    for words, where, form in choices:
        need = weight_bytes(critic, form) + window_bytes(critic, window_tokens, form)
        free = free_bytes(where)
        if free is None or need <= free:
            fitting.append(f"{words} ({need / GIB:.1f} GiB)")
    everything = sum(free_bytes(torch.device("cuda", index)) or 0 for index in range(torch.cuda.device_count()))
    if torch.cuda.device_count() > 1 and weight_bytes(critic, dtype) < 0.9 * everything:
        fitting.append(f"device='auto' (its layers over {torch.cuda.device_count()} GPUs)")
    if fitting:
        return f"what fits: {', '.join(fitting)}"
    smallest = WeightFormat(torch.bfloat16, is_fp8=True)
    need = weight_bytes(critic, smallest) + window_bytes(critic, window_tokens, smallest)
    return f"nothing here is large enough; a GPU with {need / GIB:.1f} GiB free holds it with dtype='fp8'"
