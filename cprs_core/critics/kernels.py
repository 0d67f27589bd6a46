"""Which attention kernel runs on a GPU: torch's own choice may need to prepare itself for every new length.

On Hopper and newer torch prefers cuDNN's kernels. They are about twice as fast as the flash kernel (one H100, 28 heads
of 128, 8,192 tokens: 0.8 ms against 1.5 where each token sees those before it, 1.4 against 2.7 where it sees all), but
spend some 80 ms on every length that is new to the thread. Windows end on segment borders, so almost every length is.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

_READY = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]  # for any length at once

# From this length on, preparing pays; lengths are filled up to a multiple of so many tokens, so that there are few.
_LONG, _STEP = 4_096, 128

# Which kernels are allowed is a setting of the whole process: calls from several threads take turns. Their order is
# left alone: once it was set, torch would not go back to its own choice, in the caller's other models too.
_TURN = threading.Lock()


def attention(query: Tensor, key: Tensor, value: Tensor, prepared: bool = False, **options: Any) -> Tensor:
    """torch's attention over (w, heads, n, d).

    Args:
        prepared: in the kernel that torch prefers; else, on a GPU and unless gradients are wanted, in one that is ready
            for any length at once.
    """
    if query.device.type != "cuda" or torch.is_grad_enabled():
        return F.scaled_dot_product_attention(query, key, value, **options)
    with _TURN, nullcontext() if prepared else sdpa_kernel(_READY):
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


@torch.library.custom_op("cprs::causal_attention", mutates_args=())
def causal_attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Causal attention in the kernel that torch prefers, over a length that is filled up.

    For a compiler it is one step that it does not look into: it would choose the kernel by itself.

    Args:
        query (w, heads, n, d), key, value (w, key heads, n, d).

    Returns:
        (w, n, heads, d).
    """
    options = {"is_causal": True, "scale": scale, "enable_gqa": query.shape[1] != key.shape[1]}
    return filled_attention(query, key, value, _STEP, prepared=True, **options).transpose(1, 2).contiguous()


@causal_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
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
    causal, length, size = bool(module.is_causal), query.shape[2], query.shape[3]
    scale = size**-0.5 if scaling is None else scaling
    if causal and length >= _LONG and not torch.is_grad_enabled() and _prefers_cudnn(query.device):
        return causal_attention(query, key, value, scale), None
    gqa = query.shape[1] != key.shape[1]
    attend = F.scaled_dot_product_attention if torch.compiler.is_compiling() else attention  # compiled, it is flash
    found = attend(query, key, value, dropout_p=dropout, scale=scale, is_causal=causal, enable_gqa=gqa)
    return found.transpose(1, 2).contiguous(), None


def filled_attention(query: Tensor, key: Tensor, value: Tensor, step: int, **options: Any) -> Tensor:
    """Causal attention over a length filled up to a multiple of ``step``: no token looks at what comes later."""
    length = query.shape[2]
    query, key, value = (F.pad(part, (0, 0, 0, -length % step)) for part in (query, key, value))
    return attention(query, key, value, **options)[:, :, :length]


def _prefers_cudnn(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)
