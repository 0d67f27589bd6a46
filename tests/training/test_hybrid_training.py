"""Training hybrid critics: made-up windows, losses that fall, and a Qwen base that becomes a critic."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cprs_core import Compressor, InputError
from cprs_core.cli import main
from cprs_core.critics.chat_tokenizer import ChatTokenizer
from cprs_core.scorer import LABELS, OUTSIDE
from cprs_core.training.hybrid import HybridBatch, HybridTraining, TagWords, fit, hybrid_losses, init_matching
from cprs_core.training.hybrid_records import RecordWindows
from cprs_core.training.needles import TAGS, UNCOUNTED, make_examples
from cprs_core.training.records import Evidence, EvidenceSet, Record
from tests.core.tiny_hybrid import save_tiny_hybrid, tiny_chat_tokenizer, tiny_config, tiny_hybrid
from tests.training.test_training import write_records

TOKENIZER = ChatTokenizer(tiny_chat_tokenizer())
CPU = torch.device("cpu")


def spelled(ids: np.ndarray) -> str:
    return tiny_chat_tokenizer().decode(ids.tolist(), skip_special_tokens=False)


@pytest.mark.parametrize("tag", TAGS)
def test_made_up_windows_have_one_length_and_whole_lines_as_spans(tag: str) -> None:
    examples = make_examples(TOKENIZER, 8, 900, seed=3, tags=(tag,))
    assert examples.ids.shape == examples.labels.shape == (8, 900)
    found = 0
    for ids, labels in zip(examples.ids, examples.labels, strict=True):
        for first in np.flatnonzero(labels == LABELS.index("B")).tolist():
            last = first + int(np.flatnonzero(labels[first:] == LABELS.index("E"))[0])
            line = spelled(ids[first : last + 1])
            assert line.strip().startswith({"needle": "One of the", "pair": '"', "chain": "VAR"}[tag])
            assert "\n" not in line.strip()
            found += 1
    assert found


def test_the_prefix_of_a_made_up_window_does_not_count() -> None:
    examples = make_examples(TOKENIZER, 3, 900, seed=3)
    for labels, prefix in zip(examples.labels, examples.prefixes.tolist(), strict=True):
        assert (labels[:prefix] == UNCOUNTED).all()
        assert (labels[prefix:] == OUTSIDE).any()


def test_the_same_seed_makes_the_same_windows() -> None:
    one, two = (make_examples(TOKENIZER, 6, 900, seed=7) for _ in range(2))
    assert np.array_equal(one.ids, two.ids)


def toy_batch(seed: int) -> HybridBatch:
    """Token 9 is the span."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(10, 200, (8, 24), generator=generator)
    places = torch.randint(4, 20, (8,), generator=generator)
    ids[torch.arange(8), places] = 9
    labels = torch.full((8, 24), OUTSIDE)
    labels[torch.arange(8), places] = LABELS.index("B")
    return HybridBatch(ids, labels, torch.zeros(8, dtype=torch.long))


@pytest.mark.parametrize("focal", [0.0, 2.0])
@pytest.mark.parametrize("tag_head", [None, "tied"])
def test_losses_fall_until_the_label_is_right(tag_head: str | None, focal: float) -> None:
    critic = tiny_hybrid(tiny_config(tag_head=tag_head), outside_ids=(8,) if tag_head else ())
    init_matching(critic, seed=1)
    words = TagWords([torch.tensor([5])], torch.tensor([8]) if tag_head else None)
    fit(
        critic,
        (toy_batch(seed) for seed in range(200)),
        words,
        HybridTraining(steps=40, learning_rate=1e-2, focal=focal),
    )
    batch = toy_batch(999)
    rows = critic.tag_rows(words.tags)
    labels = critic.scores(critic(batch.ids).flatten(0, 1), rows).argmax(-1)
    assert (labels == batch.labels.flatten()).float().mean() > 0.98


def test_positions_that_do_not_count_change_no_loss() -> None:
    critic, batch = tiny_hybrid(), toy_batch(1)
    words, config = TagWords([torch.tensor([5])], None), HybridTraining(outside=1.1)
    labels = batch.labels.clone()
    labels[:, 20:] = UNCOUNTED
    part = HybridBatch(batch.ids, labels, batch.tags)
    other = HybridBatch(batch.ids, torch.where(labels == UNCOUNTED, UNCOUNTED, labels), batch.tags)
    assert hybrid_losses(critic, part, words, config)["loss"] == hybrid_losses(critic, other, words, config)["loss"]
    assert hybrid_losses(critic, part, words, config)["loss"] != hybrid_losses(critic, batch, words, config)["loss"]


def test_record_windows_are_full_and_hold_their_evidence() -> None:
    one = EvidenceSet("x")
    text = "It rained all day. " * 30 + "Ada signed the lease. " + "Bob left early. " * 30
    document = one.add_document(text, "a")
    one.add_document("Nothing here, really.", "b")
    start = text.index("Ada")
    one.records.append(Record("Who signed?", (document,), (Evidence(document, start, start + 21, "fact"),)))
    batch = RecordWindows([one], TOKENIZER, ["fact"], 256, seed=1).batch(6, CPU)
    assert batch.ids.shape == (6, 256)
    for ids, labels in zip(batch.ids, batch.labels, strict=True):
        inside = ((labels >= 0) & (labels != OUTSIDE)).numpy()
        assert "Ada" in spelled(ids.numpy()[inside])


def test_a_record_that_fills_a_window_is_refused() -> None:
    one = EvidenceSet("x")
    document = one.add_document("It rained.", "a")
    one.records.append(Record("who? " * 300, (document,), ()))
    with pytest.raises(InputError, match="shorten the query"):
        RecordWindows([one], TOKENIZER, ["fact"], 256, seed=1).batch(1, CPU)


def base_folder(folder: Path) -> Path:
    """A Qwen model as it is published: no critic's head, no settings of ours."""
    save_tiny_hybrid(folder)
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("cls_head")}
    save_file(kept, folder / "model.safetensors")
    data = json.loads((folder / "config.json").read_text())
    data = {key: value for key, value in data.items() if key not in ("cprs", "name")}
    (folder / "config.json").write_text(json.dumps(data | {"tie_word_embeddings": True}))
    return folder


def test_a_qwen_base_becomes_a_critic_that_loads(tmp_path: Path) -> None:
    base = base_folder(tmp_path / "base")
    records = write_records(tmp_path / "records.jsonl")
    out = tmp_path / "mine"
    command = ["train", "--base", str(base), "--data", str(records), "--out", str(out), "--steps", "3"]
    assert main([*command, "--batch-tokens", "512"]) == 0
    settings = json.loads((out / "config.json").read_text())["cprs"]
    assert settings["bidirectional_from"] == 3
    assert settings["tag_head"] == "tied"
    assert settings["labels"] == list(LABELS)
    assert json.loads((out / "training.json").read_text())["steps"] == 3
    compressor = Compressor.from_pretrained(out, device="cpu")
    assert compressor.compress("Warden 1 keeps the key. It rained.", "Who keeps the key?", max_tokens=20).text
