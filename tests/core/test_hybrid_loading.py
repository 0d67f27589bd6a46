"""Hybrid critics on disk: what loads, and what is said about what does not."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cprs_core import CheckpointError, Compressor, DeviceError
from cprs_core.critics import load_scorer, memory
from cprs_core.critics.hybrid_checkpoint import HybridConfig, load_hybrid, save_hybrid
from cprs_core.critics.hybrid_loading import load_sharded_scorer
from cprs_core.critics.hybrid_runtime import HybridScorer
from cprs_core.critics.memory import WeightFormat
from cprs_core.scorer import LABELS
from tests.core.tiny_hybrid import change_settings, save_tiny_hybrid, tiny_chat_tokenizer, tiny_config, tiny_hybrid

TEXT = "It rained all day. Ada King signed the lease on Monday. Bob left early."
QUERY = "Who signed the lease?"
CPU, FLOAT32 = torch.device("cpu"), WeightFormat(torch.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tiny_hybrid(tmp_path / "hybrid")


def change_weights(folder: Path, **changes: torch.Tensor | None) -> None:
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in changes.items():
        key = name.replace("__", ".")
        tensors.pop(key, None)
        if tensor is not None:
            tensors[key] = tensor
    save_file(tensors, folder / "model.safetensors")


def scores(folder: Path, **options: str) -> list[float]:
    compressor = Compressor.from_pretrained(folder, device="cpu", **options)
    return [segment.score for segment in compressor.score(TEXT, QUERY)]


def test_a_folder_loads_with_its_own_settings(folder: Path) -> None:
    scorer = load_scorer(folder, device="cpu")
    assert isinstance(scorer, HybridScorer)
    assert (scorer.name, scorer.window_tokens, scorer.dtype) == ("tiny", 256, "float32")
    flags = [layer.self_attn.is_causal for layer in scorer._critic.layers]
    assert flags == [True, True, True, False]
    wanted = tiny_hybrid().state_dict()
    for name, tensor in scorer._critic.state_dict().items():
        assert torch.equal(tensor, wanted[name]), name


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
def test_saving_and_loading_keeps_every_score(tmp_path: Path, kind: str) -> None:
    first = save_tiny_hybrid(tmp_path / "a", tiny_config(kind, 2, tag_head="tied", outside_word="outside"))
    critic, config, tokenizer = load_hybrid(first, CPU, FLOAT32)
    save_hybrid(tmp_path / "b", critic, config, tokenizer.to_json())
    assert scores(first) == scores(tmp_path / "b")


def test_int8_weights_load_nearly_the_same(tmp_path: Path) -> None:
    save_tiny_hybrid(tmp_path / "full")
    save_tiny_hybrid(tmp_path / "small", small=True)
    assert scores(tmp_path / "small") == pytest.approx(scores(tmp_path / "full"), abs=0.1)


@pytest.mark.parametrize("place", ["top", "nested"])
def test_bidirectional_from_counts_wherever_it_stands(folder: Path, place: str) -> None:
    change_settings(folder, bidirectional_from=None)
    change_settings(
        folder, **({"bidirectional_from": 1} if place == "top" else {"x": {"y": [{"bidirectional_from": 1}]}})
    )
    critic, config, _ = load_hybrid(folder, CPU, FLOAT32)
    assert config.bidirectional_from == 1
    assert [layer.self_attn.is_causal for layer in critic.layers] == [True, False, False, False]


def test_without_the_key_the_top_quarter_is_bidirectional_and_a_warning_says_so(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    change_settings(folder, bidirectional_from=None)
    assert HybridConfig.from_folder(folder).bidirectional_from == 3
    assert "bidirectional_from" in caplog.text
    change_settings(folder, num_hidden_layers=28, layer_types=None)
    assert HybridConfig.from_folder(folder).bidirectional_from == 21


def test_the_released_format_needs_no_settings_of_ours(folder: Path) -> None:
    """A Qwen2 config, `model.*` and `cls_head.*` in several files with an index, and the tokenizer."""
    data = json.loads((folder / "config.json").read_text())
    data = {key: value for key, value in data.items() if key not in ("cprs", "name")}
    data |= {"bidirectional_from": 3, "auto_map": {"AutoModel": "evil.Model"}}
    (folder / "config.json").write_text(json.dumps(data))
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, chosen in parts.items():
        save_file({name: tensors[name] for name in chosen}, folder / file)
    weight_map = {name: file for file, chosen in parts.items() for name in chosen}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    scorer = load_scorer(folder, device="cpu")
    assert scorer.labels == LABELS
    assert scorer.window_tokens == 512  # what the base's positions allow
    assert Compressor(scorer).compress(TEXT, QUERY, max_tokens=40).text
    (folder / "model-2.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks model-2\.safetensors"):
        load_scorer(folder, device="cpu")


def test_labels_may_stand_in_any_order(tmp_path: Path) -> None:
    folder = save_tiny_hybrid(tmp_path / "a")
    wanted = scores(folder)
    tensors = load_file(folder / "model.safetensors")
    order = [2, 0, 1, 3]  # O, B, I, E
    change_weights(
        folder, cls_head__weight=tensors["cls_head.weight"][order], cls_head__bias=tensors["cls_head.bias"][order]
    )
    change_settings(folder, labels=["O", "B", "I", "E"])
    assert scores(folder) == pytest.approx(wanted, abs=1e-6)


def test_a_language_model_head_in_the_weights_is_used(folder: Path) -> None:
    weight = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    change_weights(folder, lm_head__weight=weight)
    change_settings(folder, outside_word="outside")
    scorer = load_scorer(folder, device="cpu")
    assert scorer._critic.tag_head == "lm_head"
    alone = Compressor(scorer).score(TEXT, QUERY, instruction="Tag the facts with 'fact'.")
    assert all(0.0 <= segment.score <= 1.0 for segment in alone)


class TestErrors:
    def test_every_tensor_that_does_not_fit_is_named(self, folder: Path) -> None:
        change_weights(
            folder,
            model__norm__weight=None,
            model__surplus=torch.zeros(2),
            cls_head__weight=torch.zeros(4, 7),
        )
        with pytest.raises(CheckpointError) as caught:
            load_scorer(folder, device="cpu")
        message = str(caught.value)
        assert "model.norm.weight is missing" in message
        assert "model.surplus is not part of this critic" in message
        assert "cls_head.weight has shape (4, 7), not (4, 32)" in message

    def test_a_base_model_without_a_head_is_told_from_a_damaged_one(self, folder: Path) -> None:
        change_weights(folder, cls_head__weight=None, cls_head__bias=None)
        with pytest.raises(CheckpointError, match=r"base model without a critic's head.*cprs train"):
            load_scorer(folder, device="cpu")

    def test_pickled_weights_are_never_read(self, folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        with pytest.raises(CheckpointError, match="pickled weights are never read"):
            load_scorer(folder, device="cpu")

    def test_cut_weights(self, folder: Path) -> None:
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:1_000])
        with pytest.raises(CheckpointError, match="cannot read the weights"):
            load_scorer(folder, device="cpu")

    @pytest.mark.parametrize("size", [280, 5_000])
    def test_a_tokenizer_of_another_model(self, folder: Path, size: int) -> None:
        change_settings(folder, vocab_size=size)
        with pytest.raises(CheckpointError, match="do not belong together"):
            load_scorer(folder, device="cpu")

    def test_a_tokenizer_without_chat_turns(self, folder: Path) -> None:
        data = json.loads((folder / "tokenizer.json").read_text())
        data["added_tokens"] = [token for token in data["added_tokens"] if "im_" not in token["content"]]
        vocabulary = data["model"]["vocab"]
        data["model"]["vocab"] = {word: id for word, id in vocabulary.items() if "im_" not in word}
        (folder / "tokenizer.json").write_text(json.dumps(data))
        with pytest.raises(CheckpointError, match=r"<\|im_start\|>"):
            load_scorer(folder, device="cpu")

    def test_a_missing_or_damaged_tokenizer(self, folder: Path) -> None:
        (folder / "tokenizer.json").write_text("{")
        with pytest.raises(CheckpointError, match="cannot read the tokenizer"):
            load_scorer(folder, device="cpu")

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"model_type": "gpt2"}, "'gpt2'.*qwen2, qwen3"),
            ({"bidirectional_from": 9}, "bidirectional_from is 9.*from 0 to 4"),
            ({"bidirectional_from": "top"}, "bidirectional_from is 'top'"),
            ({"bidirectional_from": True}, "bidirectional_from is True"),
            ({"labels": ["B", "I", "O"]}, "labels are"),
            ({"window_tokens": -1}, "window_tokens is -1"),
            ({"tag_head": "both"}, "tag_head is 'both'"),
        ],
    )
    def test_settings_that_make_no_sense(self, folder: Path, changes: dict[str, object], words: str) -> None:
        change_settings(folder, **changes)
        with pytest.raises(CheckpointError, match=words):
            load_scorer(folder, device="cpu")

    def test_a_setting_that_is_said_twice_and_differently(self, folder: Path) -> None:
        data = json.loads((folder / "config.json").read_text())
        data["bidirectional_from"] = 1
        (folder / "config.json").write_text(json.dumps(data))
        with pytest.raises(CheckpointError, match="several times and not the same"):
            load_scorer(folder, device="cpu")

    def test_a_hub_name_without_a_network_says_what_was_tried_and_what_to_do(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(CheckpointError, match=r"no-such/critic.*from the hub failed.*local folder") as caught:
            Compressor.from_pretrained("no-such/critic", device="cpu")
        assert "\n" not in str(caught.value)

    def test_a_path_that_does_not_exist(self, tmp_path: Path) -> None:
        with pytest.raises(
            CheckpointError, match=r"is not a folder; pass a critic's folder, the name of one on the hub"
        ):
            Compressor.from_pretrained(tmp_path / "nothing", device="cpu")


class TestMemory:
    def test_loading_says_what_is_needed_and_what_is_free(self, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO):
            load_scorer(folder, device="cpu")
        assert "tiny needs" in caplog.text
        assert "GiB free" in caplog.text

    def test_what_cannot_fit_is_refused_before_any_weight_is_read(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(memory, "free_bytes", lambda device: 100_000)
        with pytest.raises(DeviceError, match=r"needs .* GiB in float32.*cpu has .* GiB free; what fits|nothing here"):
            load_scorer(folder, device="cpu")

    def test_the_estimate_of_a_7b_critic_is_near_what_was_measured(self) -> None:
        """17.6 GiB peak with the unused language-model head; weights alone are 13.2 GiB."""
        config = tiny_config()
        base = type(config.base)(
            vocab_size=152_064, hidden_size=3_584, intermediate_size=18_944, num_hidden_layers=28,
            num_attention_heads=28, num_key_value_heads=4,
        )  # fmt: skip
        with torch.device("meta"):
            from cprs_core.critics.hybrid import HybridCritic

            critic = HybridCritic(base, 21)
        bfloat16, fp8 = WeightFormat(torch.bfloat16), WeightFormat(torch.bfloat16, True)
        assert memory.weight_bytes(critic, bfloat16) / memory.GIB == pytest.approx(13.2, abs=0.1)
        assert memory.weight_bytes(critic, fp8) / memory.GIB == pytest.approx(7.1, abs=0.2)
        assert 0.5 < memory.window_bytes(critic, 8_192, bfloat16) / memory.GIB < 4.4

    def test_fp8_without_such_a_gpu_says_what_to_choose(self, folder: Path) -> None:
        with pytest.raises(DeviceError, match=r"fp8 needs an NVIDIA GPU.*bfloat16"):
            load_scorer(folder, device="cpu", dtype="fp8")


def test_a_dtype_that_hybrid_critics_do_not_have(folder: Path) -> None:
    with pytest.raises(DeviceError, match=r"no dtype 'int8' for hybrid critics; choose one of: 'auto'.*'fp8'"):
        load_scorer(folder, device="cpu", dtype="int8")


def test_layers_on_several_devices_give_the_same_scores(folder: Path) -> None:
    sharded = load_sharded_scorer(folder, FLOAT32, {"cpu": 10**9})
    whole = load_scorer(folder, device="cpu")
    prefix = whole.tokenizer.encode_prefix("Extract facts.", QUERY, ("fact",))
    window = whole.tokenizer.encode(TEXT).ids
    assert sharded.score(prefix, [window])[0] == pytest.approx(whole.score(prefix, [window])[0], abs=1e-6)


def test_layers_that_fit_nowhere_are_refused(folder: Path) -> None:
    with pytest.raises(DeviceError, match=r"the devices together have 0\.0 GiB free"):
        load_sharded_scorer(folder, FLOAT32, {"cpu": 1_000})


def test_vocabulary_files_without_tokenizer_json(folder: Path) -> None:
    rust = tiny_chat_tokenizer()
    data = json.loads(rust.to_str())
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(data["model"]["vocab"]))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in data["model"]["merges"]]
    added = {token["id"]: {"content": token["content"], "special": token["special"]} for token in data["added_tokens"]}
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    scorer = load_scorer(folder, device="cpu")
    assert scorer.tokenizer.encode(TEXT).ids.tolist() == rust.encode(TEXT).ids
