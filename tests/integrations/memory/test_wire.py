"""Trimmed histories on the wire: the providers' protocols accept every one of them."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cprs_core import Compressor, KeywordScorer
from cprs_integrations.langchain import cprs_trim_messages
from tests.integrations.adapters.loopback import Loopback
from tests.integrations.adapters.protocols import Chat, Messages

from .histories import random_history

COMPRESSOR = Compressor(KeywordScorer())


def trimmed(rng, budget, *, unique_ids=False):
    history = random_history(rng, turns=8, begins_with_user=True, unique_ids=unique_ids)
    return cprs_trim_messages(history, max_tokens=budget, tool_tokens=150, compressor=COMPRESSOR)


@given(st.integers(0, 2**32).map(Random), st.integers(100, 2_000))
@settings(max_examples=12, deadline=None)
def test_openai_accepts_every_trimmed_history(rng, budget):
    openai = pytest.importorskip("langchain_openai")
    model = openai.ChatOpenAI(model="gpt-4o", api_key="k")
    assert Chat().problem(model._get_request_payload(trimmed(rng, budget))) is None


@given(st.integers(0, 2**32).map(Random), st.integers(100, 2_000))
@settings(max_examples=12, deadline=None)
def test_anthropic_accepts_every_trimmed_history(rng, budget):
    anthropic = pytest.importorskip("langchain_anthropic")
    model = anthropic.ChatAnthropic(model="claude-sonnet-4-5", api_key="k", max_tokens=64)
    body = model._get_request_payload(trimmed(rng, budget))
    assert Messages().problem(body) is None


@given(st.integers(0, 2**32).map(Random), st.integers(100, 2_000))
@settings(max_examples=6, deadline=None)
def test_gemini_accepts_every_trimmed_history(rng, budget):
    google = pytest.importorskip("langchain_google_genai")
    with Loopback() as server:
        model = google.ChatGoogleGenerativeAI(model="gemini-2.5-pro", base_url=server.url, api_key="k", max_retries=0)
        model.invoke(trimmed(rng, budget, unique_ids=True))
        assert [request.status for request in server.received] == [200]
