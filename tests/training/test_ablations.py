"""Ablations on a corpus of a few made-up records and a tiny random critic: what a variant changes, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cprs_core.critics.checkpoint import load_critic
from cprs_core.critics.token_critic import TokenCritic
from cprs_core.scorer import LABELS, OUTSIDE
from cprs_core.selection import decode_spans
from cprs_core.training import ablations
from cprs_core.training.ablations import (
    GROUPS,
    VARIANTS,
    KeepDrop,
    PositionAlone,
    WithoutMatches,
    main,
    merge_results,
    mixture_without,
    render_table,
)
from cprs_core.training.recipe import MIXTURE


def critic_of(kind: type[TokenCritic], prepared: Path) -> TokenCritic:
    return load_critic(prepared / "base", kind)[0]


def test_every_source_of_the_mixture_is_left_out_by_exactly_one_group() -> None:
    left_out = {group: set(MIXTURE) - set(mixture_without(MIXTURE, group)) for group in GROUPS}
    assert all(left_out.values()), left_out
    assert sum(len(sources) for sources in left_out.values()) == len(MIXTURE)
    assert set().union(*left_out.values()) == set(MIXTURE)
    assert mixture_without(MIXTURE, None) == MIXTURE


def test_the_position_head_alone_does_not_look_at_tag_words(prepared: Path) -> None:
    hidden = torch.randn(5, critic_of(TokenCritic, prepared).encoder.config.hidden_size)
    rows = torch.randn(3, hidden.shape[1])
    scores = critic_of(PositionAlone, prepared)(hidden, rows)
    assert scores.shape == (5, 8)
    assert torch.equal(scores[:, :4], scores[:, 4:])
    assert not torch.equal(*critic_of(TokenCritic, prepared)(hidden, rows).split(4, dim=1))


def test_keep_or_drop_decodes_runs_of_kept_tokens(prepared: Path) -> None:
    critic = critic_of(KeepDrop, prepared)
    with torch.no_grad():
        hidden = torch.randn(200, critic.encoder.config.hidden_size)
        logits = critic.position_head(hidden)
        scores = critic(hidden, torch.zeros(2, hidden.shape[1])).numpy()
    assert torch.allclose(logits[:, LABELS.index("B")], logits[:, LABELS.index("E")])
    kept = scores[:, OUTSIDE] < 0.5
    first, last = decode_spans(scores, np.array([[0, len(scores)]]))
    decoded = np.zeros(len(scores), dtype=bool)
    for a, b in zip(first.tolist(), last.tolist(), strict=True):
        decoded[a : b + 1] = True
    assert np.array_equal(decoded, kept)
    runs = int(kept[0]) + int((kept[1:] & ~kept[:-1]).sum())
    assert len(first) == runs


def test_without_matches_no_token_is_marked(prepared: Path) -> None:
    ids = torch.tensor([[1, 5, 6, 1, 5, 6, 7]])
    parts = torch.tensor([[0, 0, 0, 0, 1, 1, 1]])
    asked = torch.tensor([[1, 3]])
    assert int(critic_of(TokenCritic, prepared).match_rows(ids, parts, asked, 0).sum()) > 0
    assert int(critic_of(WithoutMatches, prepared).match_rows(ids, parts, asked, 0).sum()) == 0


def test_variants_run_end_to_end_and_a_failing_one_does_not_stop_the_others(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken(TokenCritic):
        def match_rows(self, *args: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            raise RuntimeError("nothing works")

    broken = replace(VARIANTS["no-matches"], critic=Broken)
    monkeypatch.setitem(ablations.VARIANTS, "no-matches", broken)
    monkeypatch.setattr(ablations, "_TASKS", {"look-alikes": 8})
    out = tmp_path / "results.json"
    common = ["--prepared", str(prepared), "--steps", "3", "--batch-tokens", "768", "--out", str(out), "--workers", "0"]
    assert main([*common, "--only", "baseline,no-matches,keep-drop"]) == 0
    assert main([*common, "--only", "position-alone,within-windows,window-256,no-qed,no-teacher"]) == 0
    done = json.loads(out.read_text(encoding="utf-8"))["variants"]
    assert "nothing works" in done["no-matches"]["error"]
    others = set(done) - {"no-matches"}
    assert len(others) == 7
    assert all(done[name]["steps"] == 3 and done[name]["measures"] for name in others)
    assert "no input of exact matches" in capsys.readouterr().out
    assert render_table(merge_results([out])).count("\n") == 1 + 8


def test_no_variant_is_begun_when_no_time_is_left(prepared: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    common = ["--prepared", str(prepared), "--steps", "1", "--batch-tokens", "768", "--out", str(out), "--workers", "0"]
    assert main([*common, "--only", "baseline", "--total-minutes", "-1"]) == 0
    assert not out.exists()


@pytest.mark.parametrize(("arguments", "said"), [([], "--prepared is None"), (["--only", "nonsense"], "'nonsense'")])
def test_mistakes_are_named(
    arguments: list[str], said: str, prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--prepared", str(prepared)] if arguments else []
    with pytest.raises(SystemExit):
        main([*where, *arguments])
    assert said in capsys.readouterr().err
