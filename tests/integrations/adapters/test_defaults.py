"""What an adapter does when nobody says how much to keep, and how many calls begin at once."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from cprs_core import Compressor
from cprs_integrations.adapting import approximate_tokens, take_turn
from cprs_integrations.langchain import CPRSDocumentCompressor
from cprs_integrations.llama_index import CPRSNodePostprocessor
from cprs_integrations.prompts import ChatOptions, MessageText, Request

from .conftest import LEASE, QUESTION, RENT, WEATHER

LONG = [f"The wind of day {n} came from the west. Nobody saw the sun on day {n}." for n in range(400)]


def kept_tokens(compressor: Compressor, texts: list[str], **options: Any) -> int:
    adapter = CPRSDocumentCompressor(compressor=compressor, **options)
    kept = adapter.compress_documents([Document(text) for text in texts], QUESTION)
    return sum(document.metadata["cprs"]["kept_tokens"] for document in kept)


def test_of_a_long_text_the_best_tenth_stays_and_the_evidence_with_it(compressor: Compressor) -> None:
    texts = [*LONG[:200], LEASE, *LONG[200:]]
    tokens = sum(map(compressor.count_tokens, texts))
    kept = CPRSDocumentCompressor(compressor=compressor).compress_documents([Document(t) for t in texts], QUESTION)
    assert any("Ada signed the lease in May." in document.page_content for document in kept)
    assert tokens / 20 < sum(document.metadata["cprs"]["kept_tokens"] for document in kept) <= tokens / 8


def test_a_short_text_stays_whole(compressor: Compressor) -> None:
    texts = [LEASE, WEATHER, RENT]
    assert kept_tokens(compressor, texts) == sum(map(compressor.count_tokens, texts))


def test_a_text_in_between_keeps_256_tokens(compressor: Compressor) -> None:
    assert 230 <= kept_tokens(compressor, LONG[:60]) <= 256


@pytest.mark.parametrize("options", [{"threshold": 0.05}, {"max_tokens": 20}, {"ratio": 0.01}])
def test_any_limit_replaces_the_default(compressor: Compressor, options: dict[str, Any]) -> None:
    assert kept_tokens(compressor, [*LONG[:60], LEASE], **options) <= 20


@pytest.mark.parametrize("granularity", ["keyword", "paragraph", "document", "auto"])
def test_other_granularities_keep_what_reaches_the_critics_threshold(granularity: str, compressor: Compressor) -> None:
    options = CPRSDocumentCompressor(compressor=compressor, granularity=granularity).selection([])
    assert options["max_tokens"] is options["ratio"] is options["threshold"] is None


def test_tokens_are_guessed_without_a_tokenizer() -> None:
    assert approximate_tokens("four and twenty blackbirds") == 7
    assert approximate_tokens("誰簽了租約") == 5


class Counting:
    """A compressor that notes in which round of the loop a call reached it."""

    def __init__(self, inner: Compressor) -> None:
        self.inner = inner
        self.rounds: list[int] = []
        self.round = 0

    def compress(self, *arguments: Any, **options: Any) -> Any:
        return self.inner.compress(*arguments, **options)

    async def acompress(self, *arguments: Any, **options: Any) -> Any:
        self.rounds.append(self.round)
        return self.compress(*arguments, **options)


@pytest.mark.parametrize("kind", ["documents", "nodes", "messages"])
async def test_calls_that_come_at_once_begin_one_per_round_of_the_loop(kind: str, compressor: Compressor) -> None:
    counting = Counting(compressor)
    adapter = CPRSDocumentCompressor(compressor=counting)
    postprocessor = CPRSNodePostprocessor(compressor=counting)
    options = ChatOptions(compressor=counting, min_chars=10)

    async def call() -> Any:
        if kind == "documents":
            return await adapter.acompress_documents([Document(LEASE)], QUESTION)
        if kind == "nodes":
            nodes = [NodeWithScore(node=TextNode(text=LEASE))]
            return await postprocessor.apostprocess_nodes(nodes, QueryBundle(QUESTION))
        return await Request(options, [MessageText("tool", LEASE), MessageText("user", QUESTION)]).ashorten()

    async def count_rounds() -> None:
        while len(counting.rounds) < 30:
            counting.round += 1
            await asyncio.sleep(0)

    counter = asyncio.create_task(count_rounds())
    results = await asyncio.gather(*(call() for _ in range(30)))
    await counter
    assert len(results) == 30
    assert max(counting.rounds.count(number) for number in counting.rounds) <= 2


def test_a_loop_that_has_ended_is_not_remembered() -> None:
    async def several() -> weakref.ref[asyncio.AbstractEventLoop]:
        await asyncio.gather(*(take_turn() for _ in range(3)))
        return weakref.ref(asyncio.get_running_loop())

    ended = asyncio.run(several())
    gc.collect()
    assert ended() is None
