"""Which attention kernel runs on a GPU: torch's own choice may need to prepare itself for every new length.

On Hopper and newer torch prefers cuDNN's kernels. They are about twice as fast as the flash kernel (one H100, 28 heads
of 128, 8,192 tokens: 0.8 ms against 1.5 where each token sees those before it, 1.4 against 2.7 where it sees all), but
spend some 80 ms on every length that is new to the thread. Windows end on segment borders, so almost every length is.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

READY = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]  # for any length at once
PREPARED = [SDPBackend.CUDNN_ATTENTION, *READY]

# From this length on, preparing pays; lengths are filled up to a multiple of so many tokens, so that there are few.
_LONG, _STEP = 4_096, 128

# Which kernels are allowed is a setting of the whole process: calls from several threads take turns.
_TURN = threading.Lock()


def attention(
    query: Tensor, key: Tensor, value: Tensor, kernels: list[SDPBackend] | None = None, **options: Any
) -> Tensor:
    """torch's attention, (w, heads, n, d) each, in the first of ``kernels`` that fits on a GPU, `READY` by default.

    Elsewhere, and where gradients are wanted, torch chooses.
    """
    if query.device.type != "cuda" or torch.is_grad_enabled():
        return F.scaled_dot_product_attention(query, key, value, **options)
    if torch.compiler.is_compiling():  # the choice becomes part of the graph
        with sdpa_kernel(kernels or READY, set_priority=True):
            return F.scaled_dot_product_attention(query, key, value, **options)
    with _TURN, sdpa_kernel(kernels or READY, set_priority=True):
        return F.scaled_dot_product_attention(query, key, value, **options)


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
    options: dict[str, Any] = {
        "dropout_p": dropout,
        "scale": scaling,
        "is_causal": causal,
        "enable_gqa": query.shape[1] != key.shape[1],
    }
    if causal and query.shape[2] >= _LONG and _prefers_cudnn(query.device):
        out = filled_attention(query, key, value, _STEP, kernels=PREPARED, **options)
    else:
        out = attention(query, key, value, **options)
    return out.transpose(1, 2).contiguous(), None


def filled_attention(query: Tensor, key: Tensor, value: Tensor, step: int, **options: Any) -> Tensor:
    """Causal attention over a length filled up to a multiple of ``step``: no token looks at what comes later."""
    length = query.shape[2]
    query, key, value = (F.pad(part, (0, 0, 0, -length % step)) for part in (query, key, value))
    return attention(query, key, value, **options)[:, :, :length]


@lru_cache
def _prefers_cudnn(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)
