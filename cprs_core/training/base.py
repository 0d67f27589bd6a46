"""What a fine-tune starts from: a critic's folder as it is, or a BERT-shaped encoder that gets a critic's heads.

Fits: folders in Hugging Face's layout (``config.json``, ``model.safetensors``, ``tokenizer.json``) with ``model_type``
"bert", a WordPiece vocabulary and GELU: BERT, MiniLM, E5 (English), BGE and GTE of that shape.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from cprs_core.critics.checkpoint import KIND, CriticConfig, save_critic
from cprs_core.critics.encoder import EncoderConfig
from cprs_core.critics.token_critic import TokenCritic
from cprs_core.critics.wordpiece import WordPieceTokenizer
from cprs_core.errors import CheckpointError

_FITS = "what fits: a critic's folder, or an encoder of type 'bert' with WordPiece (BERT, MiniLM, English E5, BGE, GTE)"
_WIDEST_VOCABULARY = int(np.iinfo(np.uint16).max) + 1  # a corpus keeps token ids in 16 bits
_LONGEST_WINDOW = 512

# Words for "nothing of the kind", best first: the tag head weighs every tag word against this one.
_OUTSIDE_WORDS = ("outside", "none", "[MASK]")


def prepare_base(base: Path, work: Path) -> Path:
    """A critic's folder to start from: ``base`` if it is one, else ``work`` with the encoder's weights and new heads.

    Raises:
        CheckpointError: ``base`` is neither; the message says what it is and what fits.
    """
    settings = _read_settings(base)
    if settings.get("kind") == KIND:
        return base
    _check_encoder(base, settings)
    tokenizer_json = (base / "tokenizer.json").read_text(encoding="utf-8")
    if json.loads(tokenizer_json).get("model", {}).get("type") != "WordPiece":
        raise CheckpointError(f"{base / 'tokenizer.json'} is not a WordPiece vocabulary; {_FITS}")
    tokenizer = WordPieceTokenizer.from_file(base / "tokenizer.json")
    if tokenizer.vocab_size > _WIDEST_VOCABULARY:
        raise CheckpointError(
            f"{base} has a vocabulary of {tokenizer.vocab_size:,} tokens; training reads up to {_WIDEST_VOCABULARY:,}"
        )
    try:
        tensors = load_file(base / "model.safetensors")
    except Exception as error:  # a cut file, a header that is not JSON
        raise CheckpointError(f"cannot read {base / 'model.safetensors'}: {error}; download it again") from error
    save_untrained(work, tensors, encoder_config(settings, tokenizer), tokenizer_json)
    return work


def _read_settings(base: Path) -> dict[str, Any]:
    if not base.is_dir():
        raise CheckpointError(f"the base {base} is not a folder; pass 'embedded' or a folder; {_FITS}")
    try:
        settings = json.loads((base / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{base} has no config.json; {_FITS}") from None
    except ValueError as error:
        raise CheckpointError(f"cannot read {base / 'config.json'}: {error}; download it again") from None
    if not isinstance(settings, dict):
        raise CheckpointError(f"{base / 'config.json'} is not an object; {_FITS}")
    return settings


def _check_encoder(base: Path, settings: dict[str, Any]) -> None:
    kind = settings.get("model_type")
    if kind != "bert":
        raise CheckpointError(f"{base} is a model of type {kind!r}; {_FITS}")
    for key, fits in (("hidden_act", "gelu"), ("position_embedding_type", "absolute")):
        if settings.get(key, fits) != fits:
            raise CheckpointError(f"{base} has {key} {settings[key]!r}; the critic's encoder has {fits!r}; {_FITS}")
    if settings.get("is_decoder"):
        raise CheckpointError(f"{base} is a decoder; {_FITS}")
    if not (base / "tokenizer.json").exists():
        raise CheckpointError(
            f"{base} has no tokenizer.json; write it with AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
        )
    if not (base / "model.safetensors").exists():
        raise CheckpointError(
            f"{base} has no model.safetensors (pickled weights are never read); "
            "write it with AutoModel.from_pretrained(folder).save_pretrained(folder)"
        )


def encoder_config(settings: dict[str, Any], tokenizer: WordPieceTokenizer) -> EncoderConfig:
    """The shape that a BERT model's ``config.json`` describes, with the tokenizer's vocabulary."""
    try:
        return EncoderConfig(
            vocab_size=tokenizer.vocab_size,
            hidden_size=settings["hidden_size"],
            layers=settings["num_hidden_layers"],
            heads=settings["num_attention_heads"],
            intermediate_size=settings["intermediate_size"],
            max_positions=settings["max_position_embeddings"],
            layer_norm_eps=settings.get("layer_norm_eps", 1e-12),
        )
    except KeyError as error:
        raise CheckpointError(f"the base model's config.json lacks {error}; {_FITS}") from None


def save_untrained(
    folder: Path,
    tensors: dict[str, torch.Tensor],
    config: EncoderConfig,
    tokenizer_json: str,
    *,
    small: bool = False,
) -> None:
    """Write a critic's folder with an encoder's weights and heads that know nothing yet (always the same ones).

    ``small`` stores matrices as int8, see `cprs_core.critics.checkpoint.shrink`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
    tokenizer = WordPieceTokenizer.from_file(folder / "tokenizer.json")
    rows = (int(tokenizer.word_ids(word)[0]) for word in _OUTSIDE_WORDS)
    outside = next((row for row in rows if row != tokenizer.unknown_id), tokenizer.prefix_ids[1])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        critic = TokenCritic(config, outside)
    weights = from_bert(tensors, config)
    try:
        critic.encoder.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"the base model's weights do not have the shapes of its config.json: {error}") from None
    with torch.no_grad():
        critic.tag_scale.fill_(config.hidden_size**-0.5)
    window = min(_LONGEST_WINDOW, config.max_positions)
    save_critic(folder, critic, CriticConfig("base", config, outside, window), tokenizer_json, small=small)


def from_bert(tensors: dict[str, torch.Tensor], config: EncoderConfig) -> dict[str, torch.Tensor]:
    """A BERT checkpoint's tensors under our encoder's names; words beyond its vocabulary start near the mean word.

    Raises:
        CheckpointError: the checkpoint is not BERT-like; the missing tensor is named.
    """
    tensors = {name.removeprefix("bert."): tensor.float() for name, tensor in tensors.items()}
    try:
        words = tensors["embeddings.word_embeddings.weight"]
        extra = max(0, config.vocab_size - len(words))
        noise = torch.randn(extra, words.shape[1], generator=torch.Generator().manual_seed(1)) * words.std()
        ours = {
            "words.weight": torch.cat([words, words.mean(dim=0) + noise])[: config.vocab_size],
            "positions.weight": tensors["embeddings.position_embeddings.weight"][: config.max_positions],
            "parts.weight": tensors["embeddings.token_type_embeddings.weight"],
            "matches.weight": torch.zeros(config.match_kinds, config.hidden_size),
            "norm.weight": tensors["embeddings.LayerNorm.weight"],
            "norm.bias": tensors["embeddings.LayerNorm.bias"],
        }
        for layer in range(config.layers):
            old, new = f"encoder.layer.{layer}", f"layers.{layer}"
            for kind in ("weight", "bias"):
                qkv = [tensors[f"{old}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
                ours[f"{new}.qkv.{kind}"] = torch.cat(qkv)
                for theirs, name in _LAYER_NAMES:
                    ours[f"{new}.{name}.{kind}"] = tensors[f"{old}.{theirs}.{kind}"]
    except KeyError as error:
        raise CheckpointError(f"the base model has no tensor {error}; it is not a BERT-like encoder") from None
    return ours


_LAYER_NAMES: Sequence[tuple[str, str]] = (
    ("attention.output.dense", "attention_out"),
    ("attention.output.LayerNorm", "attention_norm"),
    ("intermediate.dense", "up"),
    ("output.dense", "down"),
    ("output.LayerNorm", "norm"),
)
