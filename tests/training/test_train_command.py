"""``cprs train`` as a user meets it: other bases, a kill in the middle, and calls that cannot work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel

from cprs_core import Compressor
from cprs_core.cli import main
from cprs_core.critics.checkpoint import load_critic
from cprs_core.training.base import prepare_base
from tests.core.tiny import save_tiny_critic, tiny_tokenizer
from tests.training.test_training import write_records

pytest.importorskip("bm25s", reason="needs the extra 'train'")
QUICK = ["--steps", "2", "--batch-tokens", "640"]


def save_encoder(folder: Path, **changes: object) -> Path:
    """A random BERT in Hugging Face's layout."""
    folder.mkdir(parents=True)
    tokenizer = tiny_tokenizer()
    settings = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
    config = BertConfig(vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=160, **settings)
    torch.manual_seed(1)
    BertModel(config, add_pooling_layer=True).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(described | changes), encoding="utf-8")
    return folder


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the command says about a call that cannot work."""
    assert main(["train", *arguments]) == 2
    return capsys.readouterr().err


def test_an_encoder_folder_becomes_a_critic_that_reads_as_the_encoder_did(tmp_path: Path) -> None:
    encoder = save_encoder(tmp_path / "encoder")
    critic, config, _ = load_critic(prepare_base(encoder, tmp_path / "base"))
    ids = torch.tensor([[2, 6, 7, 3]])
    with torch.no_grad():
        theirs = BertModel.from_pretrained(encoder, attn_implementation="eager")(ids).last_hidden_state[0]
        ours = critic.encoder(ids[0], torch.arange(4), torch.zeros(4, dtype=torch.long), None, [(1, 4)])
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert config.window_tokens == 160


def test_a_critic_is_trained_from_an_encoder_folder(tmp_path: Path) -> None:
    data, out = write_records(tmp_path / "mine.jsonl"), tmp_path / "critic"
    encoder = save_encoder(tmp_path / "encoder")
    assert main(["train", "--data", str(data), "--base", str(encoder), "--out", str(out), *QUICK]) == 0
    kept = Compressor.from_pretrained(out, device="cpu").compress("The lease. It rained.", "lease", max_tokens=3).text
    assert kept in ("The lease.", "It rained.")
    assert sorted(path.name for path in out.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "training.json",
    ]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_type": "roberta"}, "is a model of type 'roberta'; what fits: "),
        ({"model_type": "modernbert"}, "is a model of type 'modernbert'"),
        ({"hidden_act": "relu"}, "has hidden_act 'relu'"),
        ({"position_embedding_type": "relative_key"}, "has position_embedding_type 'relative_key'"),
        ({"is_decoder": True}, "is a decoder"),
        ({"num_hidden_layers": 3}, "no tensor 'encoder.layer.2"),
        ({"hidden_size": 32}, "do not have the shapes"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused_with_what_fits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, object], reason: str
) -> None:
    data = write_records(tmp_path / "mine.jsonl")
    encoder = save_encoder(tmp_path / "encoder", **changes)
    assert reason in said(capsys, "--data", str(data), "--base", str(encoder), "--out", str(tmp_path / "out"), *QUICK)


def test_missing_parts_of_a_base_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_records(tmp_path / "mine.jsonl")
    call = ["--data", str(data), "--out", str(tmp_path / "out"), *QUICK]
    encoder = save_encoder(tmp_path / "encoder")
    whole = (encoder / "model.safetensors").read_bytes()
    (encoder / "model.safetensors").write_bytes(whole[:100])
    assert "cannot read" in said(capsys, *call, "--base", str(encoder))
    (encoder / "model.safetensors").unlink()
    assert "pickled weights are never read" in said(capsys, *call, "--base", str(encoder))
    (encoder / "tokenizer.json").unlink()
    assert "no tokenizer.json" in said(capsys, *call, "--base", str(encoder))
    (encoder / "config.json").write_text("{", encoding="utf-8")
    assert "cannot read" in said(capsys, *call, "--base", str(encoder))
    assert "is not a folder" in said(capsys, *call, "--base", str(tmp_path / "nothing"))


def test_a_vocabulary_that_is_no_wordpiece_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_records(tmp_path / "mine.jsonl")
    encoder = save_encoder(tmp_path / "encoder")
    described = json.loads((encoder / "tokenizer.json").read_text(encoding="utf-8"))
    described["model"] = {"type": "BPE", "vocab": {}, "merges": []}
    (encoder / "tokenizer.json").write_text(json.dumps(described), encoding="utf-8")
    call = ["--data", str(data), "--base", str(encoder), "--out", str(tmp_path / "out"), *QUICK]
    assert "is not a WordPiece vocabulary" in said(capsys, *call)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--steps", "0"], "--steps is 0"),
        (["--learning-rate", "0"], "--learning-rate is 0.0"),
        (["--minutes", "-1"], "--minutes is -1.0"),
        (["--out", "BASE"], "is the base itself"),
        (["--out", "DATA"], "is a file; name a folder"),
        (["--data", "nothing.jsonl"], "not a file of records"),
    ],
)
def test_calls_that_cannot_work_say_what_to_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    data, base = write_records(tmp_path / "mine.jsonl"), save_tiny_critic(tmp_path / "base")
    places = {"BASE": str(base), "DATA": str(data)}
    changed = [places.get(argument, argument) for argument in arguments]
    call = ["--data", str(data), "--base", str(base), "--out", str(tmp_path / "out"), *changed]
    assert reason in said(capsys, *call)
    assert not (tmp_path / "out").exists()


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, base, out = write_records(tmp_path / "mine.jsonl"), save_tiny_critic(tmp_path / "base"), tmp_path / "out"
    call = ["train", "--data", str(data), "--base", str(base), "--out", str(out), "--batch-tokens", "640"]
    call += ["--save-minutes", "0.003"]
    program = [sys.executable, "-m", "cprs_core.cli", *call, "--steps", "1000000"]
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ))
    try:
        until = time.monotonic() + 120
        while not (out / "state" / "average.pt").exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    state = next(folder for folder in (out / "state", out / "state.old") if folder.exists())
    step = torch.load(state / "average.pt", weights_only=True)["step"]
    assert step > 0
    assert not (out / "model.safetensors").exists()
    if (out / "state").exists():
        assert "add --resume" in said(capsys, *call[1:], "--steps", str(step + 3))
    other = ["--seed", "7", "--steps", str(step + 3), "--resume"]
    assert "other records, another base or other settings" in said(capsys, *call[1:], *other)
    assert main([*call, "--steps", str(step + 3), "--resume"]) == 0
    assert json.loads((out / "training.json").read_text(encoding="utf-8"))["steps"] == step + 3
    assert Compressor.from_pretrained(out, device="cpu").score("The lease.", "lease")
    assert not (out / "state").exists()


def test_progress_tells_loss_and_held_out_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, base, out = write_records(tmp_path / "mine.jsonl"), save_tiny_critic(tmp_path / "base"), tmp_path / "out"
    call = ["train", "--data", str(data), "--base", str(base), "--out", str(out), "--batch-tokens", "640"]
    assert main([*call, "--steps", "50"]) == 0
    told = capsys.readouterr().err
    assert "loss " in told
    assert "held-out sentence kept" in told
    summary = json.loads((out / "training.json").read_text(encoding="utf-8"))
    assert 0.0 <= summary["held_out"]["sentence"]["evidence_kept"] <= 1.0


def test_a_tag_of_ones_own_gets_a_threshold_from_its_records(tmp_path: Path) -> None:
    data, base, out = write_records(tmp_path / "mine.jsonl"), save_tiny_critic(tmp_path / "base"), tmp_path / "out"
    rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row["evidence"][0]["tag"] = "warden"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert main(["train", "--data", str(data), "--base", str(base), "--out", str(out), *QUICK]) == 0
    assert "sentence" in json.loads((out / "training.json").read_text(encoding="utf-8"))["held_out"]
