"""The hybrid critic: which layers see what, against dense masks written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as RustTokenizer
from torch import Tensor

from cprs_core.critics.chat_tokenizer import ChatTokenizer
from cprs_core.critics.hybrid import HybridCritic
from cprs_core.critics.hybrid_runtime import HybridScorer
from cprs_core.scorer import LABELS, Prefix
from cprs_core.types import replace_surrogates
from tests.core.texts import any_text
from tests.core.tiny_hybrid import tiny_chat_tokenizer, tiny_config, tiny_hybrid

KINDS = ("qwen2", "qwen3")
BIDIRECTIONAL_FROM = 3


def rotate(states: Tensor, theta: float) -> Tensor:
    """Rotary positions in complex numbers: (heads, n, d)."""
    _, n, d = states.shape
    angles = torch.arange(n)[:, None] * theta ** (-torch.arange(0, d, 2) / d)
    turned = torch.complex(states[..., : d // 2], states[..., d // 2 :]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([turned.real, turned.imag], dim=-1)


def norm(states: Tensor, weight: Tensor, eps: float) -> Tensor:
    return states * (states.square().mean(-1, keepdim=True) + eps).rsqrt() * weight


def oracle(critic: HybridCritic, ids: Tensor, first_bidirectional: int) -> Tensor:
    """Last hidden states of one window, every attention as a dense L x L matrix: (n,) -> (n, hidden)."""
    config = critic.model.config
    theta = 10_000.0
    n, heads, groups = len(ids), config.num_attention_heads, config.num_key_value_heads
    states = critic.model.embed_tokens.weight[ids]
    for index, layer in enumerate(critic.layers):
        attention, eps = layer.self_attn, config.rms_norm_eps
        x = norm(states, layer.input_layernorm.weight, eps)
        q, k, v = (
            (x @ part.weight.T + (0 if part.bias is None else part.bias)).view(n, -1, config.head_dim).transpose(0, 1)
            for part in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        if hasattr(attention, "q_norm"):
            q, k = norm(q, attention.q_norm.weight, eps), norm(k, attention.k_norm.weight, eps)
        q, k = rotate(q, theta), rotate(k, theta)
        k, v = (part.repeat_interleave(heads // groups, dim=0) for part in (k, v))
        allowed = torch.ones(n, n, dtype=torch.bool)
        if index < first_bidirectional:
            allowed = allowed.tril()
        weights = (q @ k.transpose(1, 2) / config.head_dim**0.5).masked_fill(~allowed, -torch.inf).softmax(-1)
        states = states + (weights @ v).transpose(0, 1).reshape(n, -1) @ attention.o_proj.weight.T
        x = norm(states, layer.post_attention_layernorm.weight, eps)
        gate, up = x @ layer.mlp.gate_proj.weight.T, x @ layer.mlp.up_proj.weight.T
        states = states + (torch.nn.functional.silu(gate) * up) @ layer.mlp.down_proj.weight.T
    return norm(states, critic.model.norm.weight, config.rms_norm_eps)


def random_ids(*shape: int) -> Tensor:
    return torch.randint(0, 250, shape, generator=torch.Generator().manual_seed(3))


@pytest.fixture(params=KINDS)
def critic(request: pytest.FixtureRequest) -> HybridCritic:
    return tiny_hybrid(tiny_config(request.param, BIDIRECTIONAL_FROM))


@pytest.mark.parametrize("neighbours", [0, 3])
def test_dense_masks_give_the_same_hidden_states_for_every_window_length(critic: HybridCritic, neighbours: int) -> None:
    for length in range(1, 65):
        ids = random_ids(neighbours + 1, length)
        states = critic(ids)
        row = length % (neighbours + 1)
        wanted = oracle(critic, ids[row], BIDIRECTIONAL_FROM)
        torch.testing.assert_close(states[row], wanted, atol=2e-4, rtol=2e-4)


def test_the_oracle_tells_the_variants_apart(critic: HybridCritic) -> None:
    ids = random_ids(1, 20)
    states = critic(ids)[0]
    for first in (0, 2, 4):
        assert (states - oracle(critic, ids[0], first)).abs().max() > 0.05


def test_scores_agree_with_dense_masks_through_the_scorer() -> None:
    critic = tiny_hybrid()
    tokenizer = ChatTokenizer(tiny_chat_tokenizer())
    scorer = HybridScorer(critic, tokenizer, window_tokens=256)
    prefix = tokenizer.encode_prefix("Extract facts.", "Who signed?", ("fact",))
    windows = [np.asarray(random_ids(length), dtype=np.int32) for length in (9, 40, 9, 9, 64, 1)]
    for window, rows in zip(windows, scorer.score(prefix, windows), strict=True):
        ids = torch.from_numpy(np.concatenate([prefix.ids, window]).astype(np.int64))
        states = oracle(critic, ids, BIDIRECTIONAL_FROM)[len(prefix) :]
        wanted = (states @ critic.cls_head.weight.T + critic.cls_head.bias).softmax(-1)
        assert rows == pytest.approx(wanted.numpy(), abs=1e-4)


@pytest.mark.parametrize(("first", "sees"), [(4, False), (3, True), (0, True)])
def test_a_late_token_changes_early_states_through_bidirectional_layers_only(first: int, sees: bool) -> None:
    critic = tiny_hybrid(tiny_config("qwen2", first))
    ids = random_ids(1, 30)
    changed = ids.clone()
    changed[0, -1] = (changed[0, -1] + 1) % 250
    difference = (critic(ids) - critic(changed))[0, :-1].abs().max()
    assert (difference > 1e-4) == sees
    assert (difference == 0) != sees


def test_layers_below_the_bidirectional_ones_do_not_see_a_late_token() -> None:
    critic = tiny_hybrid(tiny_config("qwen2", 3))
    seen: list[Tensor] = []
    critic.layers[2].register_forward_hook(lambda module, inputs, output: seen.append(output))
    ids = random_ids(1, 30)
    changed = ids.clone()
    changed[0, -1] = (changed[0, -1] + 1) % 250
    critic(ids)
    critic(changed)
    before, after = (output[0] if isinstance(output, tuple) else output for output in seen)
    assert torch.equal(before[0, :-1], after[0, :-1])


class TestTagHead:
    def hidden(self) -> Tensor:
        return torch.randn(7, 32, generator=torch.Generator().manual_seed(1))

    def test_without_a_language_model_head_positions_decide_alone(self) -> None:
        critic = tiny_hybrid()
        assert critic.tag_rows([torch.tensor([5])]) is None
        scores = critic.scores(self.hidden(), None, tags=2)
        assert scores.shape == (7, 8)
        torch.testing.assert_close(scores[:, :4], critic.cls_head(self.hidden()).softmax(-1))

    @pytest.mark.parametrize("head", ["tied", "lm_head"])
    def test_tag_probability_comes_from_the_tag_words_rows_of_the_full_logits(self, head: str) -> None:
        critic = tiny_hybrid(tiny_config(tag_head=head), outside_ids=(8,))
        rows = critic.tag_rows([torch.tensor([5]), torch.tensor([6, 7])])
        assert rows is not None
        scores = critic.scores(self.hidden(), rows, tags=2).view(7, 2, 4)
        weight = critic.model.embed_tokens.weight if head == "tied" else critic.lm_head.weight  # type: ignore[union-attr]
        full = self.hidden() @ weight.T  # (7, vocabulary)
        named = torch.stack([full[:, 8], full[:, 5], full[:, 6:8].mean(1)], dim=1).softmax(-1)
        positions = critic.cls_head(self.hidden()).softmax(-1)
        for label in (0, 1, 3):
            torch.testing.assert_close(scores[:, :, label], positions[:, label : label + 1] * named[:, 1:])
        torch.testing.assert_close(scores.sum(-1), torch.ones(7, 2))

    def test_the_full_vocabulary_is_never_multiplied(self) -> None:
        critic = tiny_hybrid(tiny_config(tag_head="lm_head"), outside_ids=(8,))
        assert critic.lm_head is not None
        critic.lm_head.register_forward_hook(lambda *_: pytest.fail("the language-model head ran"))
        tokenizer = ChatTokenizer(tiny_chat_tokenizer())
        prefix = tokenizer.encode_prefix("Extract facts.", "Who?", ("fact",))
        (rows,) = HybridScorer(critic, tokenizer).score(prefix, [np.arange(9, dtype=np.int32)])
        assert rows.shape == (9, len(LABELS))


def test_prefix_is_written_as_chat_turns_and_the_last_one_stays_open() -> None:
    rust = tiny_chat_tokenizer()
    prefix = ChatTokenizer(rust).encode_prefix("Extract facts.", "Who signed?", ("fact",))
    text = rust.decode(prefix.ids.tolist(), skip_special_tokens=False)
    assert text == (
        "<|im_start|>system\nExtract facts.<|im_end|>\n<|im_start|>user\nWho signed?<|im_end|>\n<|im_start|>context\n"
    )
    begin, end = prefix.asked
    assert rust.decode(prefix.ids[begin:end].tolist()) == "Who signed?"


def test_prefix_ids_are_those_of_a_parser_of_the_whole_prompt() -> None:
    rust = tiny_chat_tokenizer()
    text = "<|im_start|>system\nExtract.<|im_end|>\n<|im_start|>user\nWho?<|im_end|>\n<|im_start|>context\n"
    prefix: Prefix = ChatTokenizer(rust).encode_prefix("Extract.", "Who?", ("fact",))
    assert prefix.ids.tolist() == rust.encode(text).ids


@pytest.mark.parametrize("text", ["<|im_start|>system\nYou<|im_end|>", "a <think> b", "<|endoftext|>"])
def test_control_and_added_tokens_in_texts_are_text(text: str) -> None:
    rust = tiny_chat_tokenizer()
    tokens = ChatTokenizer(rust).encode(text)
    assert set(tokens.ids.tolist()).isdisjoint(
        rust.token_to_id(word) for word in ("<|im_start|>", "<|im_end|>", "<think>", "<|endoftext|>")
    )
    assert rust.decode(tokens.ids.tolist()) == text


def test_a_long_text_has_the_tokens_of_one_piece() -> None:
    rust = tiny_chat_tokenizer()
    text = (
        "It rained all day, 12 times. Ada's lease\n\n  was signed!\nBob left\r\n\tearly \u00e9t\u00e9 \u4e0b\u96e8.\n"
        * 900
    )
    tokens = ChatTokenizer(rust).encode(text)
    assert tokens.ids.tolist() == rust.encode(text).ids
    whole = [text[a:b].strip() for a, b in rust.encode(text).offsets]
    ours = [text[a:b].strip() for a, b in zip(tokens.starts.tolist(), tokens.ends.tolist(), strict=True)]
    assert ours == whole


ODD = (
    "ab \n\t.,'\u00e9\u00df\u4e2d\u6587\u304b\U0001f642\u200d\u0e01\u0e48\u0939\u093f\u0301e\u212a\u2126"
    "<|im_start|>\r\x85\ud800"
)


@given(st.text(ODD) | any_text)
@settings(max_examples=300, deadline=None)
def test_offsets_that_are_counted_are_those_of_the_library(text: str) -> None:
    """Also where a character is many tokens, and where the tokenizer normalises the text."""
    rust = tiny_chat_tokenizer()
    tokens = ChatTokenizer(rust).encode(text)
    plain = RustTokenizer.from_str(rust.to_str())
    plain.encode_special_tokens = True
    whole = plain.encode(replace_surrogates(text))
    assert tokens.ids.tolist() == whole.ids
    ours = [text[a:b].strip() for a, b in zip(tokens.starts.tolist(), tokens.ends.tolist(), strict=True)]
    assert ours == [text[a:b].strip() for a, b in whole.offsets]


def test_tokens_are_read_back_as_text() -> None:
    tokenizer = ChatTokenizer(tiny_chat_tokenizer())
    assert tokenizer.decode(tokenizer.encode("Ada signed, été.").ids) == "Ada signed, été."


def test_tokens_begin_at_their_first_visible_character() -> None:
    text = "It rained.  Ada signed."
    tokens = ChatTokenizer(tiny_chat_tokenizer()).encode(text)
    assert text.index("Ada") in tokens.starts
    pieces = [text[start:end] for start, end in zip(tokens.starts, tokens.ends, strict=True)]
    assert not any(piece[0].isspace() and piece.strip() for piece in pieces)
