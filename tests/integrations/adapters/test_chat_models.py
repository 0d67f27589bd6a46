"""Every model family through its real client: the server receives the compressed text, and nothing else changes."""

from __future__ import annotations

import pytest

from .chat_cases import CLIENTS, MODES, Client, check

EXTRA = "needs the package {!r}: pip install 'cprs-integrations[clients]'"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: f"{client.framework}-{client.label}")
async def test_the_server_receives_the_compressed_text_and_all_else_unchanged(client: Client, mode: str) -> None:
    pytest.importorskip(client.module, reason=EXTRA.format(client.module))
    assert await check(client, mode) > 8_000
