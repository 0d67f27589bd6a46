"""The scorers of the core keep the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from cprs_core import CascadeScorer, Compressor, KeywordScorer, LexicalRanker, Scorer
from cprs_core.critics import load_scorer
from cprs_core.scale.spread import SpreadScorer
from tests.contract.scorer import ScorerContract
from tests.core.tiny import save_tiny_critic
from tests.core.tiny_hybrid import save_tiny_hybrid, tiny_config


class TestKeywordScorer(ScorerContract):
    tolerance = 0.0

    @pytest.fixture
    def scorer(self) -> Scorer:
        return KeywordScorer("lease", "signed")


class TestSmallCritic(ScorerContract):
    @pytest.fixture
    def scorer(self, tmp_path: Path) -> Scorer:
        return load_scorer(save_tiny_critic(tmp_path / "tiny"), device="cpu")


class TestEmbeddedCritic(ScorerContract):
    tolerance = 0.05  # int8, where it runs: a row's rounding may depend on how many there are

    @pytest.fixture
    def scorer(self, embedded: Compressor) -> Scorer:
        return embedded.scorer


class TestEmbeddedCriticInFloat32(ScorerContract):
    @pytest.fixture(scope="class")
    def scorer(self) -> Scorer:
        return load_scorer(None, device="cpu", dtype="float32")


class TestLexicalCascade(ScorerContract):
    tolerance = 0.0

    @pytest.fixture
    def scorer(self) -> Scorer:
        return CascadeScorer(LexicalRanker(), KeywordScorer("lease", "signed"))


class TestCascadeOfCritics(ScorerContract):
    @pytest.fixture
    def scorer(self, tmp_path: Path) -> Scorer:
        cheap = load_scorer(save_tiny_critic(tmp_path / "tiny"), device="cpu")
        return CascadeScorer(cheap, KeywordScorer("lease", "signed"))


class TestHybridCritic(ScorerContract):
    @pytest.fixture
    def scorer(self, tmp_path: Path) -> Scorer:
        return load_scorer(save_tiny_hybrid(tmp_path / "tiny"), device="cpu")


class TestHybridCriticWithTagHead(ScorerContract):
    @pytest.fixture
    def scorer(self, tmp_path: Path) -> Scorer:
        config = tiny_config("qwen3", 2, tag_head="tied", outside_word="outside")
        return load_scorer(save_tiny_hybrid(tmp_path / "tiny", config), device="cpu")


class TestSeveralScorers(ScorerContract):
    @pytest.fixture
    def scorer(self, tmp_path: Path) -> Scorer:
        folder = save_tiny_hybrid(tmp_path / "tiny")
        return SpreadScorer([load_scorer(folder, device="cpu") for _ in range(3)])
