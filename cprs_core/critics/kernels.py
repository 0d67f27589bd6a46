"""Which attention kernel runs on a GPU: the fastest one has to prepare itself for every new length.

On Hopper and newer that is cuDNN's. It is about twice as fast as the flash kernel (one H100, 28 heads of 128, 8,192
tokens: 0.8 ms against 1.5 where each token sees those before it, 1.4 against 2.7 where it sees all), but spends some
50 ms on every length that is new to the thread. Windows end on segment borders, so almost every length is.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

# (query, key, value, causal, scale) -> what was found, and per query the logarithm of its sum of exponentials, float32
# (w, heads, n).
Kernel = Callable[[Tensor, Tensor, Tensor, bool, float], tuple[Tensor, Tensor]]

_READY = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]  # for any length at once

# From this length on, preparing pays; it is done for multiples of so many tokens, so that there are few.
_LONG, _STEP = 4_096, 128
_WIDEST_HEAD = 128  # that cuDNN's kernels are fast for

# Which kernels are allowed is a setting of the whole process: calls from several threads take turns. Their order is
# left alone: once it was set, torch would not go back to its own choice, in the caller's other models too.
_TURN = threading.Lock()


def attention(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
    """torch's attention over (w, heads, n, d); on a GPU, unless gradients are wanted, ready for any length at once."""
    if query.device.type != "cuda" or torch.is_grad_enabled():
        return F.scaled_dot_product_attention(query, key, value, **options)
    with _TURN, sdpa_kernel(_READY):
        return F.scaled_dot_product_attention(query, key, value, **options)


def takes_packed(x: Tensor) -> bool:
    """Whether `packed_attention` can run on queries like ``x`` (..., d) here."""
    if x.device.type != "cuda" or torch.is_grad_enabled():
        return False
    if x.dtype not in (torch.bfloat16, torch.float16) or x.shape[-1] % 8:
        return False
    return torch.cuda.get_device_capability(x.device) >= (8, 0) and _packed_kernel() is not None


def packed_attention(query: Tensor, key: Tensor, value: Tensor, borders: Tensor, longest: int) -> Tensor:
    """Attention inside each of several windows that lie end to end, in the flash kernel, without filling.

    Args:
        query, key, value (float16 or bfloat16, (total, heads, d)): on a GPU, see `takes_packed`.
        borders (int32, (windows + 1,)): where each window begins, and the end of the last.
        longest: tokens of a window at most.

    Returns:
        (total, heads, d).
    """
    kernel = _packed_kernel()
    assert kernel is not None  # `takes_packed` said so
    found: Tensor = kernel(query, key, value, borders, borders, longest, longest)
    return found


@functools.cache
def _packed_kernel() -> Callable[..., Any] | None:
    """torch's attention over packed windows, None before torch 2.10; it brings torch's compiler, so not at import."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn


@torch.library.custom_op("cprs::attention_by_length", mutates_args=())
def attention_by_length(query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float) -> Tensor:
    """Attention in the flash kernel; where the length is worth it, in cuDNN's (`split_attention`).

    The kernels are called by name: which ones torch may choose is a setting of the whole process, and several threads
    would wait for each other. For a compiler it is one step that it does not look into: by itself it would take cuDNN's
    kernel for every length.

    Args:
        query (float16 or bfloat16, (w, heads, n, d)), key, value (the same, (w, key heads, n, d)).

    Returns:
        (w, n, heads, d).
    """
    prepared, ready = (_cudnn, _flash) if query.device.type == "cuda" else (_flash_on_cpu, _flash_on_cpu)
    if query.shape[2] < _LONG:
        found, _ = ready(query, key, value, causal, scale)
    else:
        found = split_attention(query, key, value, causal, scale, prepared, ready, _STEP)
    return found.transpose(1, 2).contiguous()


@attention_by_length.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float) -> Tensor:
    w, heads, n, d = query.shape
    return query.new_empty((w, n, heads, d))


def window_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of whole windows for transformers' layers: causal where ``module.is_causal``, else both ways.

    Args:
        query (w, heads, n, d), key, value (w, key heads, n, d): equally long windows, without filling.
        attention_mask: must be None.

    Returns:
        (w, n, heads, d), and None in place of the attention weights.
    """
    if attention_mask is not None:
        raise ValueError("windows are run without a mask; a mask would make every layer causal")
    causal = bool(module.is_causal)
    scale = query.shape[3] ** -0.5 if scaling is None else scaling
    if not torch.is_grad_enabled() and prefers_cudnn(query):
        return attention_by_length(query, key, value, causal, scale), None
    gqa = query.shape[1] != key.shape[1]
    attend = F.scaled_dot_product_attention if torch.compiler.is_compiling() else attention  # settings are not traced
    found = attend(query, key, value, dropout_p=dropout, scale=scale, is_causal=causal, enable_gqa=gqa)
    return found.transpose(1, 2).contiguous(), None


def split_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    causal: bool,
    scale: float,
    prepared: Kernel,
    ready: Kernel,
    step: int,
) -> Tensor:
    """Attention of which ``prepared`` sees multiples of ``step`` tokens alone.

    Causal, the length is filled up: no token looks at what comes later. Both ways, ``ready`` attends to the keys beyond
    the last multiple, and the two are put together by their sums of exponentials, which is exact.

    Args:
        query (w, heads, n, d), key, value (w, key heads, n, d): ``n`` is at least ``step``.

    Returns:
        (w, heads, n, d).
    """
    length = query.shape[2]
    whole = length // step * step
    fill = (0, 0, 0, -length % step)
    if causal:
        return prepared(F.pad(query, fill), F.pad(key, fill), F.pad(value, fill), True, scale)[0][:, :, :length]
    found, log_sum = prepared(F.pad(query, fill), key[:, :, :whole], value[:, :, :whole], False, scale)
    found, log_sum = found[:, :, :length], log_sum[:, :, :length]
    if whole == length:
        return found
    rest, log_sum_of_rest = ready(query, key[:, :, whole:], value[:, :, whole:], False, scale)
    share = (log_sum_of_rest - log_sum).sigmoid()[..., None]  # of the rest
    return torch.lerp(found, rest, share.to(found.dtype))


def _cudnn(query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    run = torch.ops.aten._scaled_dot_product_cudnn_attention.default
    found, log_sum, *_ = run(query, key, value, None, not causal, 0.0, causal, False, scale=scale)
    return found, log_sum if causal else log_sum.view(query.shape[:3])  # causal, nobody asks for it


def _flash(query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    run = torch.ops.aten._scaled_dot_product_flash_attention.default
    found, log_sum, *_ = run(query, key, value, 0.0, causal, False, scale=scale)
    return found, log_sum


def _flash_on_cpu(query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    run = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
    found, log_sum = run(query, key, value, 0.0, causal, scale=scale)
    return found, log_sum


def prefers_cudnn(query: Tensor) -> bool:
    """Whether torch, left alone, would take cuDNN's kernel for such queries (..., d)."""
    if torch.version.cuda is None:  # a build for CPUs alone, or for AMD's GPUs, which are called "cuda" as well
        return False
    if query.device.type != "cuda" or query.dtype not in (torch.bfloat16, torch.float16):
        return False
    if query.shape[-1] % 8 or query.shape[-1] > _WIDEST_HEAD:
        return False
    return torch.cuda.get_device_capability(query.device) >= (9, 0)
