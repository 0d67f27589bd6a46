"""The small critic: what its files may hold, what it computes, and how it fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cprs_core import CheckpointError, Compressor, DeviceError
from cprs_core.critics import load_scorer
from cprs_core.critics.checkpoint import load_critic, restore, shrink
from cprs_core.critics.encoder import Encoder, EncoderConfig
from cprs_core.critics.wordpiece import WordPieceTokenizer
from tests.core.tiny import save_tiny_critic, tiny_critic, tiny_tokenizer

TEXT = "Ada King signed the lease on Monday. It rained. Bob left early."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tiny_critic(tmp_path / "tiny")


def test_critic_of_a_folder_compresses(folder: Path) -> None:
    compressor = Compressor.from_pretrained(folder, device="cpu")
    result = compressor.compress(TEXT, "Who signed?", max_tokens=9)
    assert result.spans
    assert all(TEXT[span.start : span.end] == span.text for span in result.spans)


def test_critic_survives_saving_and_loading(folder: Path) -> None:
    critic, config = tiny_critic()
    loaded, loaded_config, _ = load_critic(folder)
    assert loaded_config == config
    for name, tensor in critic.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_shrunk_weights_differ_by_less_than_a_step(folder: Path) -> None:
    tensors = {"matrix": torch.randn(30, 20), "vector": torch.randn(20), "count": torch.tensor(7)}
    full = restore(shrink(tensors))
    steps = tensors["matrix"].abs().amax(dim=1, keepdim=True) / 127
    assert ((full["matrix"] - tensors["matrix"]).abs() <= 0.6 * steps).all()
    assert torch.allclose(full["vector"], tensors["vector"], atol=2e-3)
    assert full["count"] == 7


def test_shrunk_critic_scores_nearly_the_same(tmp_path: Path) -> None:
    full = Compressor.from_pretrained(save_tiny_critic(tmp_path / "full"), device="cpu").score(TEXT, "Who signed?")
    small_folder = save_tiny_critic(tmp_path / "small", small=True)
    small = Compressor.from_pretrained(small_folder, device="cpu").score(TEXT, "Who signed?")
    assert [s.score for s in small] == pytest.approx([s.score for s in full], abs=0.02)


def test_encoder_agrees_with_transformers_bert() -> None:
    from transformers import BertConfig, BertModel

    config = EncoderConfig(vocab_size=50, hidden_size=32, layers=3, heads=4, intermediate_size=48, max_positions=24)
    bert = BertModel(
        BertConfig(
            vocab_size=50,
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=48,
            max_position_embeddings=24,
        ),
        add_pooling_layer=False,
    ).eval()
    encoder = _encoder_with_weights_of(bert, config)
    lengths = [9, 9, 5, 24]
    rng = np.random.default_rng(0)
    windows = [torch.from_numpy(rng.integers(0, 50, length)) for length in lengths]
    parts = [torch.from_numpy((np.arange(length) > 2).astype(np.int64)) for length in lengths]
    with torch.inference_mode():
        packed = encoder(
            torch.cat(windows),
            torch.cat([torch.arange(length) for length in lengths]),
            torch.cat(parts),
            None,
            [(2, 9), (1, 5), (1, 24)],
        ).split(lengths)
        for window, part, ours in zip(windows, parts, packed, strict=True):
            theirs = bert(input_ids=window[None], token_type_ids=part[None]).last_hidden_state[0]
            difference = (ours - theirs).abs().max().item()
            assert difference < 1e-5, difference


def _encoder_with_weights_of(bert: torch.nn.Module, config: EncoderConfig) -> Encoder:
    theirs = bert.state_dict()
    ours = {
        "words.weight": theirs["embeddings.word_embeddings.weight"],
        "positions.weight": theirs["embeddings.position_embeddings.weight"],
        "parts.weight": theirs["embeddings.token_type_embeddings.weight"],
    }
    names = {"norm": "embeddings.LayerNorm"}
    for i in range(config.layers):
        layer = f"encoder.layer.{i}"
        names |= {
            f"layers.{i}.attention_out": f"{layer}.attention.output.dense",
            f"layers.{i}.attention_norm": f"{layer}.attention.output.LayerNorm",
            f"layers.{i}.up": f"{layer}.intermediate.dense",
            f"layers.{i}.down": f"{layer}.output.dense",
            f"layers.{i}.norm": f"{layer}.output.LayerNorm",
        }
        for kind in ("weight", "bias"):
            ours[f"layers.{i}.qkv.{kind}"] = torch.cat(
                [theirs[f"{layer}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            )
    for name, other in names.items():
        for kind in ("weight", "bias"):
            ours[f"{name}.{kind}"] = theirs[f"{other}.{kind}"]
    encoder = Encoder(config)
    difference = encoder.load_state_dict(ours, strict=False)
    assert difference.missing_keys == ["matches.weight"]  # the one thing that BERT does not have
    assert not difference.unexpected_keys
    return encoder.eval()


def _delete(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _write(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def _cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _edit_weights(edit: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        edit(tensors)
        save_file(tensors, folder / "model.safetensors")

    return damage


def _edit_config(**changes: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **changes}))

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_delete("model.safetensors"), r"cannot read the weights .*model\.safetensors.*again"),
        (_delete("config.json"), r"config\.json is missing"),
        (_delete("tokenizer.json"), r"cannot read the tokenizer .*tokenizer\.json"),
        (_cut, r"cannot read the weights .*model\.safetensors.*again"),
        (_write("model.safetensors", b""), r"cannot read the weights"),
        (_write("model.safetensors", b"\x00garbage" * 50), r"cannot read the weights"),
        (_write("config.json", b"{not json"), r"cannot read .*config\.json"),
        (_write("config.json", b"\xff\xfe"), r"cannot read .*config\.json"),
        (_write("config.json", b"[1, 2]"), r"config\.json does not describe a critic"),
        (_write("config.json", b"{}"), r"config\.json does not describe a critic"),
        (_write("tokenizer.json", b"{}"), r"cannot read the tokenizer"),
        (_edit_config(format=99), r"another program or version"),
        (_edit_config(encoder={"vocab_size": 5}), r"tokens, the critic 5"),
        (_edit_config(encoder={}), r"lacks or misnames a setting"),
        (_edit_config(colour="red"), r"lacks or misnames a setting.*colour"),
        (_edit_weights(lambda tensors: tensors.pop("position_head.bias")), r"position_head\.bias is missing"),
        (
            _edit_weights(lambda tensors: tensors.update({"position_head.bias": torch.zeros(9)})),
            r"position_head\.bias has shape \(9,\), not \(4,\)",
        ),
        (_edit_weights(lambda tensors: tensors.update(extra=torch.zeros(1))), r"extra is not part of this critic"),
    ],
)
def test_damaged_folder_is_an_error_that_names_the_file(
    folder: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        load_scorer(folder, device="cpu")


def test_folder_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none is not a folder; pass a critic's folder"):
        Compressor.from_pretrained(tmp_path / "none")


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "nonsense", "", "meta", "cpu:7"])
def test_device_that_does_not_exist_is_an_error_that_lists_those_that_do(folder: Path, device: str) -> None:
    with pytest.raises(DeviceError, match=rf"no device '{device}' here; choose 'auto' or one of: cpu"):
        load_scorer(folder, device=device)


@pytest.mark.parametrize("dtype", ["float8", "", "int4"])
def test_unknown_dtype_is_an_error_that_lists_the_known_ones(folder: Path, dtype: str) -> None:
    with pytest.raises(DeviceError, match="choose 'auto' or one of: float32"):
        load_scorer(folder, device="cpu", dtype=dtype)


def test_bfloat16_scores_are_close(folder: Path) -> None:
    full = Compressor.from_pretrained(folder, device="cpu").score(TEXT, "Who signed?")
    half = Compressor.from_pretrained(folder, device="cpu", dtype="bfloat16").score(TEXT, "Who signed?")
    assert [s.score for s in half] == pytest.approx([s.score for s in full], abs=0.05)


def test_batches_of_any_size_score_the_same(folder: Path) -> None:
    critic, config, tokenizer = load_critic(folder)
    from cprs_core.critics.runtime import CriticScorer

    expected = None
    for batch_tokens in (1, 100, 300, 100_000):
        scorer = CriticScorer(
            critic, tokenizer, window_tokens=config.window_tokens, device="cpu", batch_tokens=batch_tokens
        )
        scores = np.array([segment.score for segment in Compressor(scorer).score(TEXT * 40, "Who signed?")])
        expected = scores if expected is None else expected
        assert scores == pytest.approx(expected, abs=1e-5)


def tokenizer() -> WordPieceTokenizer:
    return WordPieceTokenizer(tiny_tokenizer())


def test_prefix_is_instruction_and_query_between_control_tokens() -> None:
    rust = tiny_tokenizer()
    ids = tokenizer().encode_prefix("Extract facts", "Who [SEP] signed?", ("fact",)).ids.tolist()
    sep, cls = rust.token_to_id("[SEP]"), rust.token_to_id("[CLS]")
    assert ids[0] == cls
    assert ids[-1] == sep
    assert ids.count(sep) == 2
    assert ids.count(cls) == 1


def test_control_tokens_in_a_text_are_ordinary_tokens() -> None:
    text = "[CLS] the lease [SEP] [PAD]"
    tokens = tokenizer().encode(text)
    rust = tiny_tokenizer()
    assert not set(tokens.ids.tolist()) & {rust.token_to_id(name) for name in ("[CLS]", "[SEP]", "[PAD]")}
    pieces = [text[start:end] for start, end in zip(tokens.starts, tokens.ends, strict=True)]
    assert pieces[:5] == ["[", "C", "L", "S", "]"]


def test_unknown_run_costs_a_token_per_four_characters() -> None:
    """Else five megabytes of an encoded image would be one token, and every budget a lie."""
    tokens = tokenizer().encode("the " + "字" * 1_001 + "x" * 3_000 + " lease")
    assert len(tokens) > 700
    assert (tokens.starts[1:] >= tokens.starts[:-1]).all()
    assert (tokens.ends - tokens.starts).max() <= 8


def test_long_text_is_tokenised_like_its_parts() -> None:
    text = "Ada King signed the lease on Monday. " * 3_000
    whole = tokenizer().encode(text)
    part = tokenizer().encode("Ada King signed the lease on Monday. ")
    assert np.array_equal(whole.ids, np.tile(part.ids, 3_000))
    assert np.array_equal(whole.starts, np.concatenate([part.starts + 37 * i for i in range(3_000)]))


def test_loading_leaves_the_callers_tokenizer_as_it_was() -> None:
    rust = tiny_tokenizer()
    rust.enable_truncation(5)
    before = rust.to_str()
    assert len(WordPieceTokenizer(rust).encode("the lease was signed by ada king on monday")) > 5
    assert rust.to_str() == before


def test_embedded_critic_is_small_and_answers(embedded: Compressor) -> None:
    from cprs_core.critics import embedded_folder

    assert sum(path.stat().st_size for path in embedded_folder().iterdir()) <= 40_000_000
    text = (
        "The roof of the east wing leaked in January. Delacroix Ltd repaired it within five weeks. "
        "The pear trees were pruned in spring. Ms Okafor planted beans in the lower beds."
    )
    best = max(embedded.score(text, "Which company repaired the roof?"), key=lambda segment: segment.score)
    assert text[best.start : best.end] == "Delacroix Ltd repaired it within five weeks."
