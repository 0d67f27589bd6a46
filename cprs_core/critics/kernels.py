"""Which attention kernel runs on a GPU: torch's own choice may need to prepare itself for every new length.

On Hopper and newer torch prefers cuDNN's kernels. They are about twice as fast as the flash kernel (one H100, 28 heads
of 128, 8,192 tokens: 0.8 ms against 1.5 where each token sees those before it, 1.4 against 2.7 where it sees all), but
spend some 80 ms on every length that is new to the process. Windows end on segment borders, so almost every length is.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

_READY = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]  # for any length at once
_PREPARED = [SDPBackend.CUDNN_ATTENTION, *_READY]

# From this length on, preparing pays; lengths are filled up to so many tokens, so that there are few of them.
_LONG, _STEP = 4_096, 128


def ready_kernels(device: torch.device) -> AbstractContextManager[None]:
    """Inside, attention runs in kernels that need no preparation, the fastest first; off GPUs nothing changes."""
    return sdpa_kernel(_READY, set_priority=True) if device.type == "cuda" else nullcontext()


def attend(
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
    length, causal = query.shape[2], bool(module.is_causal)
    options: dict[str, Any] = {
        "dropout_p": dropout,
        "scale": scaling,
        "is_causal": causal,
        "enable_gqa": query.shape[1] != key.shape[1],
    }
    if query.device.type != "cuda" or torch.is_grad_enabled():
        out = F.scaled_dot_product_attention(query, key, value, **options)
    elif causal and length >= _LONG and _prefers_cudnn(query.device):
        with sdpa_kernel(_PREPARED, set_priority=True):
            out = attend_filled(query, key, value, _STEP, **options)
    else:
        with sdpa_kernel(_READY, set_priority=True):
            out = F.scaled_dot_product_attention(query, key, value, **options)
    return out.transpose(1, 2).contiguous(), None


def attend_filled(query: Tensor, key: Tensor, value: Tensor, step: int, **options: Any) -> Tensor:
    """Causal attention over a length filled up to a multiple of ``step``: no token looks at what comes later."""
    length = query.shape[2]
    query, key, value = (F.pad(part, (0, 0, 0, -length % step)) for part in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value, **options)[:, :, :length]


@lru_cache
def _prefers_cudnn(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device) >= (9, 0)
