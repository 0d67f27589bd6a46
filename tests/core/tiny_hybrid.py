"""A hybrid critic of a few thousand random weights in the released format, for tests that need a real one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, pre_tokenizers
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.normalizers import NFC
from tokenizers.trainers import BpeTrainer
from transformers import Qwen2Config, Qwen3Config

from cprs_core.critics.hybrid import HybridCritic
from cprs_core.critics.hybrid_checkpoint import HybridConfig, save_hybrid

QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEXT = "Ada King signed the lease on Monday. It rained all day. Extract the sentences that support. fact outside"


def tiny_chat_tokenizer() -> Tokenizer:
    """Byte-level BPE cut as Qwen does, with a few merges, chat turns, and one added word that is no control token."""
    tokenizer = Tokenizer(BPE())
    tokenizer.normalizer = NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = ByteLevelDecoder()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator([_TEXT], BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False))
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens([AddedToken("<think>", special=False)])
    return tokenizer


def tiny_config(model_type: str = "qwen2", bidirectional_from: int = 3, **options: Any) -> HybridConfig:
    """Four layers of 32, two key-value heads."""
    make = {"qwen2": Qwen2Config, "qwen3": Qwen3Config}[model_type]
    base = make(
        vocab_size=tiny_chat_tokenizer().get_vocab_size() + 5,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=512,
    )
    return HybridConfig("tiny", base, bidirectional_from, **{"window_tokens": 256, **options})


def tiny_hybrid(config: HybridConfig | None = None, outside_ids: tuple[int, ...] = ()) -> HybridCritic:
    """The same random weights each time, float32, on the CPU."""
    config = config or tiny_config()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        critic = HybridCritic(config.base, config.bidirectional_from, tag_head=config.tag_head, outside_ids=outside_ids)
        for parameter in critic.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.3)
    return critic.float().eval().requires_grad_(False)


def save_tiny_hybrid(folder: Path, config: HybridConfig | None = None, *, small: bool = False) -> Path:
    """A folder in the released format, with our settings in it."""
    config = config or tiny_config()
    save_hybrid(folder, tiny_hybrid(config), config, tiny_chat_tokenizer().to_str(), small=small)
    return folder


def change_settings(folder: Path, **changes: Any) -> None:
    """Puts settings into ``config.json``; None takes one out, at the top and in our section."""
    path = folder / "config.json"
    data = json.loads(path.read_text())
    for key, value in changes.items():
        data["cprs"].pop(key, None)
        data.pop(key, None)
        if value is not None:
            data[key] = value
    path.write_text(json.dumps(data))
