"""Attention of whole windows: causal or both ways, and what filling a length up may not change."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from cprs_core.critics.kernels import causal_attention, filled_attention, window_attention


def states(heads: int, key_heads: int, length: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(length)
    query = torch.randn(2, heads, length, 8, generator=generator)
    return query, *(torch.randn(2, key_heads, length, 8, generator=generator) for _ in "kv")


@pytest.mark.parametrize("length", [1, 7, 15, 16, 17, 40])
def test_filling_a_causal_length_up_changes_nothing(length: int) -> None:
    query, key, value = states(4, 2, length)
    plain = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    filled = filled_attention(query, key, value, 16, is_causal=True, enable_gqa=True)
    torch.testing.assert_close(filled, plain)


def test_compilers_may_take_causal_attention_for_one_step() -> None:
    query, key, value = states(4, 2, 11)
    plain = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True, scale=0.3)
    torch.testing.assert_close(causal_attention(query, key, value, 0.3), plain.transpose(1, 2))
    torch.library.opcheck(causal_attention, (query, key, value, 0.3))


@pytest.mark.parametrize("causal", [True, False])
def test_the_layers_own_flag_says_whether_later_tokens_are_seen(causal: bool) -> None:
    query, key, value = states(4, 4, 9)
    layer = SimpleNamespace(is_causal=causal)
    before, weights = window_attention(layer, query, key, value, None)
    key[:, :, -1] += 1.0
    after, _ = window_attention(layer, query, key, value, None)
    assert weights is None
    assert before.shape == (2, 9, 4, 8)
    assert torch.equal(before[:, :-1], after[:, :-1]) == causal


def test_a_mask_is_refused_since_it_would_make_every_layer_causal() -> None:
    with pytest.raises(ValueError, match="without a mask"):
        window_attention(SimpleNamespace(is_causal=True), *states(2, 2, 4), torch.ones(4, 4))
