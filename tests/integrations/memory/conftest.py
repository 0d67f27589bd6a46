"""What the tests of agent memory share: compressors with obvious behaviour."""

from __future__ import annotations

import os

# Before any framework is imported: no telemetry, no hub.
os.environ.setdefault("LANGSMITH_TRACING", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest

from cprs_core import Compressor, KeywordScorer


@pytest.fixture
def compressor() -> Compressor:
    """Finds the words of the query that are longer than three letters."""
    return Compressor(KeywordScorer())
