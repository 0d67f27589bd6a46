"""A critic of a few thousand random weights, for tests that need a real one but not a good one."""

from __future__ import annotations

import string
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from cprs_core.critics.checkpoint import CriticConfig, save_critic
from cprs_core.critics.encoder import EncoderConfig
from cprs_core.critics.token_critic import TokenCritic

_WORDS = (
    "the lease was signed by ada bob king on monday it rained left early fact name date none extract sentences".split()
)


def tiny_tokenizer() -> Tokenizer:
    """WordPiece over a few words, letters, digits and marks, normalised as BERT does."""
    letters = string.ascii_lowercase + string.digits
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_WORDS, *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {piece: id for id, piece in enumerate(dict.fromkeys([*pieces, *string.punctuation]))}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    return tokenizer


def tiny_critic(window_tokens: int = 160) -> tuple[TokenCritic, CriticConfig]:
    """Two layers of 16, the same random weights each time."""
    tokenizer = tiny_tokenizer()
    encoder = EncoderConfig(
        tokenizer.get_vocab_size(), hidden_size=16, layers=2, heads=4, intermediate_size=32, max_positions=window_tokens
    )
    outside = tokenizer.token_to_id("none")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        critic = TokenCritic(encoder, outside)
        for parameter in critic.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return critic.eval(), CriticConfig("tiny", encoder, outside, window_tokens, {"sentence": 0.4})


def save_tiny_critic(folder: Path, *, small: bool = False) -> Path:
    """A critic's folder like that of the embedded one."""
    critic, config = tiny_critic()
    save_critic(folder, critic, config, tiny_tokenizer().to_str(), small=small)
    return folder
