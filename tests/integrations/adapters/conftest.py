"""What the adapters' tests share: a compressor with obvious behaviour and a few documents about a lease."""

from __future__ import annotations

import os

# Before any framework is imported: no telemetry, no hub.
os.environ.setdefault("LANGSMITH_TRACING", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest

from cprs_core import Compressor, KeywordScorer

LEASE = "It rained all day. Ada signed the lease in May. Everybody went home."
WEATHER = "The sky was grey. The wind came from the west."
RENT = "The rent is low. The lease ends in June, as the lease says. Cats are allowed."
QUESTION = "Who signed the lease?"


@pytest.fixture
def compressor() -> Compressor:
    """Keeps sentences that hold the word lease when the threshold is 0.05."""
    return Compressor(KeywordScorer("lease"))
