"""The scorers of the core keep the contract."""

from __future__ import annotations

import pytest

from cprs_core import Compressor, KeywordScorer, Scorer
from tests.contract.scorer import ScorerContract


class TestKeywordScorer(ScorerContract):
    tolerance = 0.0

    @pytest.fixture
    def scorer(self) -> Scorer:
        return KeywordScorer("lease", "signed")


class TestEmbeddedCritic(ScorerContract):
    @pytest.fixture
    def scorer(self, embedded: Compressor) -> Scorer:
        return embedded.scorer
