"""Every model family through its real client: the server receives the compressed text, and nothing else changes."""

from __future__ import annotations

import pytest

from .chat_cases import CLIENTS, MODES, Client, check
from .chat_table import BEGIN, END, PAGE, row_head

EXTRA = "needs the package {!r}: pip install 'cprs-integrations[clients]'"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: f"{client.framework}-{client.label}")
async def test_the_server_receives_the_compressed_text_and_all_else_unchanged(client: Client, mode: str) -> None:
    pytest.importorskip(client.module, reason=EXTRA.format(client.module))
    full, short = await check(client, mode)
    assert full - short > 8_000


def test_the_table_in_the_docs_names_every_client_that_is_tested() -> None:
    page = PAGE.read_text(encoding="utf-8")
    table = page[page.index(BEGIN) : page.index(END)]
    for client in CLIENTS:
        assert row_head(client) in table
    assert table.count("\n|") == len(CLIENTS) + 2
