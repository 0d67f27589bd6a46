"""Attention over rows filled up to one length finds what attention over one length at a time finds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cprs_core import CPRSError
from cprs_core.critics.encoder import EncoderConfig, EncoderLayer, Padding
from cprs_core.critics.in_flight import Running, finished, to_device
from cprs_core.critics.kernels import takes_packed
from cprs_core.critics.runtime import CriticScorer, _padded_batches
from cprs_core.critics.wordpiece import WordPieceTokenizer
from tests.core.tiny import tiny_critic, tiny_tokenizer

CRITIC, CONFIG = tiny_critic()
TOKENIZER = WordPieceTokenizer(tiny_tokenizer())
PREFIX = TOKENIZER.encode_prefix("Extract sentences.", "Who signed the lease?", ("fact", "name"))

mixes = st.lists(st.integers(1, 60), min_size=1, max_size=12).map(lambda lengths: sorted(lengths, reverse=True))


def scorer_of(padded: bool, batch_tokens: int = 1_000) -> CriticScorer:
    critic, config = tiny_critic()
    return CriticScorer(
        critic,
        TOKENIZER,
        window_tokens=config.window_tokens,
        device="cpu",
        dtype="float32",
        batch_tokens=batch_tokens,
        padded_attention=padded,
    )


GROUPED, PADDED = scorer_of(False), scorer_of(True)


def windows_of(lengths: list[int]) -> list[NDArray[np.int32]]:
    rng = np.random.default_rng(len(lengths))
    return [rng.integers(5, 60, length).astype(np.int32) for length in lengths]


def padding_of(lengths: list[int], length: int) -> Padding:
    places = np.concatenate([row * length + np.arange(n) for row, n in enumerate(lengths)])
    return Padding.of(torch.tensor(lengths), torch.from_numpy(places), length)


@given(mixes, st.integers(0, 20))
@settings(max_examples=100, deadline=None)
def test_padded_and_grouped_attention_agree(lengths: list[int], more: int) -> None:
    layer, total = CRITIC.encoder.layers[0], sum(lengths)
    groups = [(lengths.count(n), n) for n in sorted(set(lengths), reverse=True)]
    qkv = torch.randn(total, 48, generator=torch.Generator().manual_seed(total))
    with torch.inference_mode():
        padded = layer.attend(qkv, padding_of(lengths, max(lengths) + more))
        difference = (padded - layer.attend(qkv, groups)).abs().max().item()
    assert difference < 1e-6


@given(mixes)
@settings(max_examples=50, deadline=None)
def test_borders_are_where_windows_begin_and_end(lengths: list[int]) -> None:
    assert padding_of(lengths, max(lengths)).borders.tolist() == [0, *np.cumsum(lengths).tolist()]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernel for packed windows runs on a GPU")
@pytest.mark.parametrize("lengths", [[1], [512] * 7, [511, 300, 17, 1]])
def test_packed_and_grouped_attention_agree_on_a_gpu(lengths: list[int]) -> None:
    layer = EncoderLayer(EncoderConfig(100, hidden_size=64, heads=2))
    groups = [(lengths.count(n), n) for n in sorted(set(lengths), reverse=True)]
    qkv = torch.randn(sum(lengths), 192, generator=torch.Generator().manual_seed(1))
    on_gpu = Padding(*(part.cuda() for part in vars(padding_of(lengths, max(lengths))).values()))
    with torch.inference_mode():
        found = layer.attend(qkv.cuda().bfloat16(), on_gpu).float().cpu()
        assert takes_packed(torch.empty(1, 32, dtype=torch.bfloat16, device="cuda"))
        assert (found - layer.attend(qkv, groups)).abs().max().item() < 0.03


@given(mixes, st.integers(0, 20))
@settings(max_examples=50, deadline=None)
def test_packing_undoes_padding(lengths: list[int], more: int) -> None:
    padding = padding_of(lengths, max(lengths) + more)
    x = torch.arange(sum(lengths))
    rows = padding.pad(x)
    assert torch.equal(padding.pack(rows), x)
    assert torch.equal(rows[padding.is_token], x)


@given(st.lists(st.integers(1, 130), max_size=20))
@settings(max_examples=40, deadline=None)
def test_scores_are_the_same_either_way(lengths: list[int]) -> None:
    windows = windows_of(lengths)
    for rows, wanted in zip(PADDED.score(PREFIX, windows), GROUPED.score(PREFIX, windows), strict=True):
        assert rows == pytest.approx(wanted, abs=2e-6)


def test_what_is_no_number_stays_in_its_window() -> None:
    lengths = [30, 20, 20, 5]
    qkv = torch.randn(sum(lengths), 48)
    qkv[30:50] = torch.nan
    with torch.inference_mode():
        attended = CRITIC.encoder.layers[0].attend(qkv, padding_of(lengths, 32))
    assert attended.isnan().any(dim=1).nonzero()[:, 0].tolist() == list(range(30, 50))


def test_nan_scores_are_an_error_with_padded_attention_too() -> None:
    scorer = scorer_of(True)
    with torch.no_grad():
        scorer._critic.encoder.words.weight[7] = torch.nan
    with pytest.raises(CPRSError, match="returned NaN scores"):
        scorer.score(PREFIX, [*windows_of([40, 12, 3]), np.array([7], dtype=np.int32)])


def test_progress_counts_tokens_without_filling() -> None:
    seen: list[tuple[int, int]] = []
    scorer_of(True, 256).score(PREFIX, windows_of([40, 3, 100, 40]), lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (183, 183)


@given(st.lists(st.integers(1, 480), max_size=400), st.integers(64, 4_000))
@settings(max_examples=100, deadline=None)
def test_padded_batches_hold_every_window_once_and_little_filling(lengths: list[int], batch_tokens: int) -> None:
    batches = _padded_batches(lengths, 30, batch_tokens)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        needs = [lengths[index] + 30 for index in batch]
        row = -(-max(needs) // 64) * 64
        assert needs == sorted(needs, reverse=True)
        assert len(batch) == 1 or len(batch) * row <= batch_tokens
        assert len(batch) == 1 or len(batch) * row - sum(needs) <= 0.25 * batch_tokens


def test_full_batches_have_one_shape() -> None:
    rng = np.random.default_rng(0)
    batches = _padded_batches(rng.integers(430, 480, 3_000).tolist(), 30, 131_072)
    assert {len(batch) for batch in batches[:-1]} == {256}


def test_batches_come_back_in_order() -> None:
    sent = (Running.of([index], torch.full((2,), float(index))) for index in range(5))
    assert [(batch, scores.tolist()) for batch, scores in finished(sent)] == [([i], [i, i]) for i in range(5)]


def test_arrays_go_to_the_device_together_and_come_out_apart() -> None:
    parts = to_device(torch.device("cpu"), np.array([1, 2], dtype=np.int32), np.empty(0, np.int64), np.array([7]))
    assert [part.tolist() for part in parts] == [[1, 2], [], [7]]
    assert all(part.dtype == torch.int64 for part in parts)
