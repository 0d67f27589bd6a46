"""int8 linear layers and their threads. Most of this is skipped where a processor has no int8 dot products."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from cprs_core import Compressor
from cprs_core.critics import embedded_folder, int8, load_scorer
from cprs_core.critics.encoder import EncoderConfig, EncoderLayer
from cprs_core.critics.runtime import CriticScorer, resolve_dtype
from cprs_core.critics.threads import available_processors
from cprs_core.errors import CPRSError, DeviceError
from tests.core.tiny import save_tiny_critic

ROOT = Path(__file__).parents[2]
needs_int8 = pytest.mark.skipif(not int8.is_supported(), reason="this processor has no int8 dot products")


@pytest.fixture(scope="module")
def exact() -> CriticScorer:
    return load_scorer(device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def fast() -> CriticScorer:
    return load_scorer(device="cpu", dtype="int8")


def own_texts() -> dict[str, str]:
    """Texts of this tree under a question each."""
    return {
        "Who grants a patent licence?": (ROOT / "LICENSE").read_text(encoding="utf-8"),
        "Where is kept text sliced from?": (ROOT / "docs" / "how-it-works.md").read_text(encoding="utf-8"),
        "What happens without a budget?": (ROOT / "cprs_core" / "selection.py").read_text(encoding="utf-8"),
    }


@needs_int8
def test_int8_scores_are_within_a_hundredth_of_float32_and_keep_the_same_sentences(
    exact: CriticScorer, fast: CriticScorer
) -> None:
    differences, agreements = [], []
    for query, text in own_texts().items():
        prefix = exact.tokenizer.encode_prefix("Extract the sentences that support the answer.", query, ("fact",))
        ids = exact.tokenizer.encode(text).ids[:1_800]
        windows = [ids[at : at + 450] for at in range(0, len(ids), 450)]
        a, b = (1.0 - np.concatenate(scorer.score(prefix, windows))[:, 2] for scorer in (exact, fast))
        differences.append(np.abs(a - b))
        x, y = (
            np.array([segment.score for segment in Compressor(scorer).score(text[:7_000], query)])
            for scorer in (exact, fast)
        )
        threshold = exact.thresholds["sentence"]
        agreements.append((x >= threshold) == (y >= threshold))
    assert np.concatenate(differences).mean() <= 0.01
    assert np.concatenate(agreements).mean() >= 0.99


@needs_int8
def test_int8_weights_are_the_stored_integers(fast: CriticScorer) -> None:
    stored = load_file(embedded_folder() / "model.safetensors")
    for index, layer in enumerate(fast._critic.encoder.layers):
        assert isinstance(layer, int8.Int8EncoderLayer)
        for name in int8.LINEARS:
            assert torch.equal(getattr(layer, name).int_weight, stored[f"encoder.layers.{index}.{name}.weight"]), name


@needs_int8
def test_auto_is_int8_on_a_cpu_that_has_it_and_float32_stays_float32(fast: CriticScorer, exact: CriticScorer) -> None:
    assert resolve_dtype("auto", torch.device("cpu")) == fast.dtype == torch.int8
    assert exact.dtype == torch.float32
    assert all(isinstance(layer, EncoderLayer) for layer in exact._critic.encoder.layers)


def test_without_int8_instructions_auto_is_float32_and_int8_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cprs_core.critics.runtime.int8_is_supported", lambda: False)
    assert resolve_dtype("auto", torch.device("cpu")) == torch.float32
    with pytest.raises(DeviceError, match="cpu has no int8 instructions that this torch uses; choose 'auto' or"):
        resolve_dtype("int8", torch.device("cpu"))


@needs_int8
def test_feed_forward_is_close_for_all_rows_and_exact_for_those_that_are_too_large() -> None:
    config = EncoderConfig(vocab_size=10, hidden_size=64, heads=4, intermediate_size=128)
    torch.manual_seed(0)
    layer = EncoderLayer(config).eval()
    x = torch.randn(40, 64).clamp(-4, 4)
    x[3], x[17, 5] = 100 * x[3], 300.0
    with torch.inference_mode():
        layer.up.weight[9] *= 30.0  # what lies between the two layers goes beyond its limit too
        wanted = layer.down(F.gelu(layer.up(x)))
        fast = int8.Int8EncoderLayer(layer, {"qkv": 4.0, "attention_out": 2.0, "up": 4.0, "down": 2.0})
        found = fast._feed_forward(x)
    assert (found - wanted).abs().max() < 0.05
    assert torch.allclose(found[[3, 17]], wanted[[3, 17]], rtol=1e-5, atol=1e-5)
    beyond = F.gelu(layer.up(x)).amax(dim=1) > 2.1
    assert beyond.sum() > 5
    assert torch.allclose(found[beyond], wanted[beyond], rtol=1e-5, atol=1e-5)


@needs_int8
@pytest.mark.parametrize("largest", [0.001, 1.0, 50.0])
def test_rows_beyond_the_limit_are_as_in_float32(largest: float) -> None:
    torch.manual_seed(1)
    linear = nn.Linear(32, 48)
    x = torch.randn(6, 32).clamp(-0.9, 0.9)
    x[2, 7] = -largest if largest < 1 else largest + 1
    with torch.inference_mode():
        wanted, found = linear(x), int8.Int8Linear(linear, 1.0)(x)
    assert (found - wanted).abs().max() < 0.05
    if largest >= 1:
        assert torch.equal(found[2], F.linear(x[2:3], linear.weight, linear.bias)[0])


def test_rounding_to_bytes_is_rounding() -> None:
    x = torch.cat([torch.linspace(-127.49, 127.49, 10_001), torch.tensor([0.0, -0.4, 0.4, 0.6, -0.6, 127.0, -127.0])])
    for step in (1.0, 0.037, 12.5):
        wanted = (x.double()).round() + 128
        found = int8.to_uint8((x * step)[None], step)[0]
        assert found.dtype == torch.uint8
        assert (found.double() - wanted).abs().max() <= 1  # halves may go either way
        assert (found.double() != wanted).float().mean() < 0.001


@needs_int8
def test_batches_of_any_size_give_int8_scores_that_are_the_same(fast: CriticScorer) -> None:
    prefix = fast.tokenizer.encode_prefix("Extract facts.", "Who grants a patent licence?", ("fact",))
    ids = fast.tokenizer.encode((ROOT / "LICENSE").read_text(encoding="utf-8")).ids
    windows = [ids[:300], ids[300:420], ids[500:800], ids[900:901]]
    together = fast.score(prefix, windows)
    apart = np.concatenate(
        [np.abs(fast.score(prefix, [window])[0] - rows).ravel() for window, rows in zip(windows, together, strict=True)]
    )
    # Sums in another order may take an activation over a rounding step, which a token in doubt shows.
    assert apart.mean() < 1e-3
    assert apart.max() < 0.05


@needs_int8
def test_nan_weights_are_an_error_in_int8_too(tmp_path: Path) -> None:
    from cprs_core.critics.checkpoint import load_critic

    critic, config, tokenizer = load_critic(save_tiny_critic(tmp_path / "tiny"))
    critic.encoder.norm.weight.fill_(float("nan"))
    with pytest.raises(CPRSError, match="NaN"):
        CriticScorer(critic, tokenizer, window_tokens=config.window_tokens, device="cpu", dtype="int8")


@needs_int8
def test_int8_leaves_the_critic_that_it_was_given_as_it_was(tmp_path: Path) -> None:
    from cprs_core.critics.checkpoint import load_critic

    critic, config, tokenizer = load_critic(save_tiny_critic(tmp_path / "tiny"))
    before = list(critic.encoder.layers)
    CriticScorer(critic, tokenizer, window_tokens=config.window_tokens, device="cpu", dtype="int8")
    assert list(critic.encoder.layers) == before
    assert not any(layer.qkv._forward_pre_hooks for layer in before)


def test_loading_and_scoring_in_int8_warns_of_nothing() -> None:
    code = (
        "from cprs_core import Compressor; c = Compressor.from_pretrained(device='cpu');"
        "assert c.compress('Ada signed the lease. ' * 50, 'Who signed?', max_tokens=20).spans"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def write_version_2(groups: Path) -> None:
    (groups / "cpu.max").write_text("150000 100000\n")


def write_version_1(groups: Path) -> None:
    (groups / "cpu").mkdir()
    (groups / "cpu" / "cpu.cfs_quota_us").write_text("150000\n")
    (groups / "cpu" / "cpu.cfs_period_us").write_text("100000\n")


@pytest.mark.parametrize("write", [write_version_2, write_version_1])
def test_a_containers_quota_bounds_the_threads(tmp_path: Path, write, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    write(tmp_path)
    assert available_processors(tmp_path) == 2


@pytest.mark.parametrize("text", ["max 100000\n", "", "nonsense", "100000 0\n"])
def test_without_a_quota_the_affinity_bounds_the_threads(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 5}, raising=False)
    (tmp_path / "cpu.max").write_text(text)
    assert available_processors(tmp_path) == 3
    assert available_processors(tmp_path / "none") == 3


def test_threads_are_lowered_never_raised_and_omp_num_threads_wins() -> None:
    code = (
        "import torch; import cprs_core.critics.threads as t; torch.set_num_threads({before});"
        "t.available_processors = lambda: 2; t.bound_threads(); print(torch.get_num_threads())"
    )
    bare = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    for before, environment, after in ((5, bare, "2"), (1, bare, "1"), (5, {**bare, "OMP_NUM_THREADS": "5"}, "5")):
        run = [sys.executable, "-c", code.format(before=before)]
        done = subprocess.run(run, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == after


def test_nothing_spins_when_idle() -> None:
    fast = load_scorer(device="cpu")
    prefix = fast.tokenizer.encode_prefix("Extract facts.", "Who signed?", ("fact",))
    fast.score(prefix, [np.full(200, 2_000, np.int32)])
    time.sleep(0.1)
    began = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - began < 0.1
