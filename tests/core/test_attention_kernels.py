"""Attention of whole windows: causal or both ways, and what reading in steps may not change."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from cprs_core.critics.kernels import attention_by_length, prefers_cudnn, split_attention, window_attention


def states(heads: int, key_heads: int, length: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(length)
    query = torch.randn(2, heads, length, 8, generator=generator)
    return query, *(torch.randn(2, key_heads, length, 8, generator=generator) for _ in "kv")


class WrittenOut:
    """Attention as its formula says, which remembers how many keys it saw."""

    def __init__(self) -> None:
        self.keys: list[int] = []

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, causal: bool, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.keys.append(key.shape[2])
        key, value = (part.repeat_interleave(query.shape[1] // part.shape[1], dim=1) for part in (key, value))
        scores = query @ key.mT * scale
        if causal:
            scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -torch.inf)
        return scores.softmax(dim=-1) @ value, scores.logsumexp(dim=-1)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("length", [16, 17, 23, 31, 32, 40])
def test_reading_in_steps_changes_nothing(causal: bool, length: int) -> None:
    query, key, value = states(4, 2, length)
    plain = F.scaled_dot_product_attention(query, key, value, is_causal=causal, enable_gqa=True, scale=0.3)
    prepared, ready = WrittenOut(), WrittenOut()
    found = split_attention(query, key, value, causal, 0.3, prepared, ready, 16)
    torch.testing.assert_close(found, plain)
    assert all(keys % 16 == 0 for keys in prepared.keys)
    assert ready.keys == ([] if causal or length % 16 == 0 else [length % 16])


@pytest.mark.parametrize("offset", [-300.0, 300.0])
def test_reading_in_steps_bears_scores_far_from_zero(offset: float) -> None:
    query, key, value = states(2, 2, 23)
    query[..., 0], key[..., 0] = offset, 1.0
    plain = F.scaled_dot_product_attention(query, key, value, scale=1.0)
    found = split_attention(query, key, value, False, 1.0, WrittenOut(), WrittenOut(), 16)
    torch.testing.assert_close(found, plain, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("length", [11, 4_097])
def test_compilers_may_take_attention_for_one_step(causal: bool, length: int) -> None:
    query, key, value = states(2, 1, length)
    plain = F.scaled_dot_product_attention(query, key, value, is_causal=causal, enable_gqa=True, scale=0.3)
    torch.testing.assert_close(attention_by_length(query, key, value, causal, 0.3), plain.transpose(1, 2))
    torch.library.opcheck(attention_by_length, (query, key, value, causal, 0.3))


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch is built for NVIDIA's GPUs")
def test_kernels_of_nvidia_are_for_nvidia_alone() -> None:
    """AMD's GPUs are called "cuda" as well, and their builds of torch have no cuDNN."""
    with FakeTensorMode():
        query = torch.empty(1, 4, 5_000, 128, device="cuda", dtype=torch.bfloat16)
    assert not prefers_cudnn(query)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="these kernels run on a GPU")
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("length", [300, 4_096, 4_097, 5_000, 8_191])
def test_kernels_called_by_name_find_what_torch_finds(causal: bool, length: int) -> None:
    parts = [torch.randn(1, heads, length, 128, device="cuda", dtype=torch.bfloat16) for heads in (28, 4, 4)]
    plain = F.scaled_dot_product_attention(*(part.float() for part in parts), is_causal=causal, enable_gqa=True)
    found = attention_by_length(*parts, causal, 128**-0.5).transpose(1, 2).float()
    torch.testing.assert_close(found, plain, atol=0.02, rtol=0.02)


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
