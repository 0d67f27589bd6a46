"""Shared by the core's tests: one loaded copy of the embedded critic."""

from __future__ import annotations

import pytest

from cprs_core import Compressor, KeywordScorer
from cprs_core.critics import embedded_folder


@pytest.fixture(scope="session")
def embedded() -> Compressor:
    """The embedded critic, loaded once."""
    if not embedded_folder().is_dir():
        pytest.skip("the embedded critic's weights are not in this tree yet")
    return Compressor.from_pretrained(device="cpu")


@pytest.fixture
def lease() -> Compressor:
    """Keeps what holds the word "lease"."""
    return Compressor(KeywordScorer("lease"))
