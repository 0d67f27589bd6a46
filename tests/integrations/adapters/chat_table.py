"""Writes the table of model families into the docs, from the checks that the tests run.

python -m tests.integrations.adapters.chat_table
"""

from __future__ import annotations

import asyncio
import importlib.metadata
from pathlib import Path

from .chat_cases import CLIENTS, MODES, Client, check

PAGE = Path(__file__).parents[3] / "docs" / "chat-models.md"
BEGIN, END = "<!-- table begins -->", "<!-- table ends -->"


def row_head(client: Client) -> str:
    """The first columns of a client's row, without what changes from release to release."""
    note = f" ({client.note})" if client.note else ""
    return f"| {client.family} | {client.framework} `{client.name}`{note} |"


def version(client: Client) -> str:
    """The distribution that the client comes from, and its version."""
    name = client.module.replace("llama_index.llms.", "llama-index-llms-").replace("_", "-")
    return f"{name} {importlib.metadata.version(name)}"


async def row(client: Client) -> str:
    """One row: what the wrapper took off the requests, in each mode that passes."""
    cells = []
    for mode in MODES:
        try:
            full, short = await check(client, mode)
            cells.append(f"−{100 * (full - short) / full:.0f} %")
        except ImportError:
            cells.append("not installed")
    return f"{row_head(client)} {version(client)} | {' | '.join(cells)} |"


async def table() -> str:
    """The table as Markdown."""
    lines = [f"| family | client | package | {' | '.join(MODES)} |", "|---|---|---|" + "---:|" * len(MODES)]
    for client in CLIENTS:
        lines.append(await row(client))
    return "\n".join(lines)


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n{asyncio.run(table())}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
