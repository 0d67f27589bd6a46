"""The encoder's linear layers in int8, for processors with VNNI or AMX instructions; everything else stays float32.

Weights are int8 with one scale per output, which for a critic stored by `checkpoint.shrink` are the stored integers.
Activations are uint8 with one step per layer, fixed when the critic is loaded. The encoder gives a few tokens, mostly
control tokens, activations ten times as large as all others. A step that reached them would be too coarse for the
rest, so their rows, found by their size, are computed in float32. Whatever the text, no activation is ever clipped,
and a window's scores depend on its batch by rounding alone: how many rows float32 computes at once moves their last
bits.

oneDNN's int8 kernels are reached through ``torch.ops.onednn``, the operators that torch's own compiler emits for
quantised models on x86. `is_supported` tries them before they are used.
"""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cprs_core.critics.encoder import EncoderLayer, Groups, Padding
from cprs_core.critics.token_critic import TokenCritic

_Module = TypeVar("_Module", bound=nn.Module)

_log = logging.getLogger(__name__)

LINEARS = ("qkv", "attention_out", "up", "down")  # of an `EncoderLayer`

_ZERO = 128  # the uint8 that stands for 0.0
_LARGEST = 127
_GELU_MIN = -0.17  # GELU's minimum is -0.16997
# Adding 1.5 * 2**23 leaves a float32 whose low byte is the rounded summand.
_ROUNDING = 12_582_912.0 + _ZERO
# A layer's step reaches this much beyond all but this share of the rows that were read at loading.
_HEADROOM, _LARGE_ROWS = 1.25, 0.02


class Int8Linear:
    """One linear layer with int8 weights.

    Args:
        layer: the float32 layer; it is kept for rows that are too large.
        limit: the largest activation, in magnitude, that the input's step reaches.
    """

    def __init__(self, layer: nn.Linear, limit: float) -> None:
        weight = layer.weight.detach()
        scale = (weight.abs().amax(dim=1) / _LARGEST).clamp_min(1e-12)  # (out,)
        rounded = (weight / scale[:, None]).round().clamp(-_LARGEST, _LARGEST).to(torch.int8)
        self.layer = layer
        self.limit = limit
        self.int_weight = rounded  # (out, in)
        self.scale = scale
        self._packed = torch.ops.onednn.qlinear_prepack(rounded, None)
        self._zeros = torch.zeros(len(scale), dtype=torch.int32)

    def run(
        self,
        x: Tensor,
        step: float,
        zero: int,
        *,
        out_step: float = 1.0,
        out_zero: int = 0,
        out_dtype: torch.dtype = torch.float32,
        after: str = "none",
    ) -> Tensor:
        """The layer of uint8 ``x`` (rows, in), whose values are ``step * (x - zero)``."""
        output: Tensor = torch.ops.onednn.qlinear_pointwise(
            x,
            step,
            zero,
            self._packed,
            self.scale,
            self._zeros,
            self.layer.bias,
            out_step,
            out_zero,
            out_dtype,
            after,
            [],
            "none",
        )
        return output

    def __call__(self, x: Tensor) -> Tensor:
        """The layer of float32 ``x`` (rows, in)."""
        step = self.limit / _LARGEST
        y = self.run(to_uint8(x, step), step, _ZERO)
        rows = large_rows(x, self.limit)
        if len(rows):
            y[rows] = self.layer(x[rows])
        return y


class Int8EncoderLayer(nn.Module):
    """`EncoderLayer` with int8 linear layers; the feed-forward part stays in uint8 between its two.

    Args:
        layer: the float32 layer.
        limits: of each linear layer's input, by the layer's name.
    """

    def __init__(self, layer: EncoderLayer, limits: dict[str, float]) -> None:
        super().__init__()
        self.layer = layer
        self.qkv, self.attention_out, self.up, self.down = (
            Int8Linear(getattr(layer, name), limits[name]) for name in LINEARS
        )
        self._inner_step = (self.down.limit - _GELU_MIN) / 255
        self._inner_zero = round(-_GELU_MIN / self._inner_step)

    def forward(self, x: Tensor, layout: Groups | Padding) -> Tensor:
        """See `EncoderLayer.forward`."""
        attended = self.layer.attend(self.qkv(x), layout)
        x = self.layer.attention_norm(x + self.attention_out(attended))
        normed: Tensor = self.layer.norm(x + self._feed_forward(x))
        return normed

    def _feed_forward(self, x: Tensor) -> Tensor:
        step = self.up.limit / _LARGEST
        inner = self.up.run(
            to_uint8(x, step),
            step,
            _ZERO,
            out_step=self._inner_step,
            out_zero=self._inner_zero,
            out_dtype=torch.uint8,
            after="gelu",
        )  # (rows, intermediate)
        y = self.down.run(inner, self._inner_step, self._inner_zero)
        clipped = inner.amax(dim=1) == 255
        rows = large_rows(x, self.up.limit, clipped)
        if len(rows):
            y[rows] = self.layer.down(F.gelu(self.layer.up(x[rows])))
        return y


def to_uint8(x: Tensor, step: float) -> Tensor:
    """uint8, the shape of ``x``: ``x / step`` rounded, plus 128. Results beyond a byte wrap around."""
    rounded = torch.add(torch.tensor(_ROUNDING), x, alpha=1.0 / step).view(torch.int32)
    return rounded.to(torch.int8).view(torch.uint8)  # to int8 first: torch has a fast path for it


def large_rows(x: Tensor, limit: float, also: Tensor | None = None) -> Tensor:
    """int64: rows of ``x`` (rows, n) with a value that is not within ``limit`` (NaN is not), and rows ``also`` true."""
    large = ~(torch.maximum(x.amax(dim=1), -x.amin(dim=1)) <= limit)
    return (large if also is None else large | also).nonzero()[:, 0]


def with_int8_layers(critic: TokenCritic, read: Callable[[TokenCritic], object]) -> TokenCritic:
    """A critic that shares all parameters with ``critic`` and runs its encoder's linear layers in int8.

    Args:
        critic: float32, on the CPU; it is left as it is.
        read: reads ordinary text with a critic; the size of the activations met on the way sets the steps.
    """
    layers = [layer for layer in critic.encoder.layers if isinstance(layer, EncoderLayer)]
    seen: dict[tuple[int, str], list[Tensor]] = {}
    hooks = [
        getattr(layer, name).register_forward_pre_hook(
            lambda _, args, key=(index, name): seen.setdefault(key, []).append(args[0].abs().amax(dim=1))
        )
        for index, layer in enumerate(layers)
        for name in LINEARS
    ]
    try:
        read(critic)
    finally:
        for hook in hooks:
            hook.remove()
    limits = {
        key: max(_HEADROOM * float(torch.cat(largest).quantile(1.0 - _LARGE_ROWS)), 1e-6)
        for key, largest in seen.items()
    }
    quantized = _shallow(critic)
    quantized.encoder = _shallow(critic.encoder)
    quantized.encoder.layers = nn.ModuleList(
        Int8EncoderLayer(layer, {name: limits[index, name] for name in LINEARS}) for index, layer in enumerate(layers)
    )
    return quantized.eval()


def _shallow(module: _Module) -> _Module:
    """The module over again, with the same parameters and parts, which may then be exchanged."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    return twin


@functools.cache
def is_supported() -> bool:
    """Whether this processor has int8 dot products and this torch has the operators, and they compute what they should.

    Without the instructions oneDNN falls back to code that is slower than float32, or that saturates.
    """
    if not _has_int8_dot_products():
        return False
    try:
        layer = nn.Linear(64, 96)
        x = torch.linspace(-1.0, 1.0, 8 * 64).view(8, 64)
        with torch.inference_mode():
            nn.init.uniform_(layer.weight, -1.0, 1.0, generator=torch.Generator().manual_seed(0))
            linear = Int8Linear(layer, 1.0)
            exact = F.gelu(layer(x))
            step = 1.0 / _LARGEST
            inner = linear.run(
                to_uint8(x, step), step, _ZERO, out_step=0.2, out_zero=1, out_dtype=torch.uint8, after="gelu"
            )
            error = float((0.2 * (inner.float() - 1) - exact).abs().max()) if inner.dtype == torch.uint8 else 1e9
            error = max(error - 0.1, float((linear(x) - layer(x)).abs().max()))
    except (AttributeError, RuntimeError, NotImplementedError, TypeError) as failure:
        _log.info("int8 operators do not run here (%s); the critic stays in float32", failure)
        return False
    if error > 0.1:
        _log.info("int8 operators are off by %.3f here; the critic stays in float32", error)
    return error <= 0.1


def _has_int8_dot_products() -> bool:
    # The last two are its names in older torch; where none is there, the critic stays in float32.
    for name in ("_is_vnni_supported", "_is_cpu_support_vnni", "_is_cpu_support_avx512_vnni"):
        check = getattr(torch.cpu, name, None)
        if check is not None:
            return bool(check())
    return False
