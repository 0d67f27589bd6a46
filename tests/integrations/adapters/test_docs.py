"""The examples in the docs run as they stand, from top to bottom."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from cprs_core import Compressor

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize("page", ["langchain.md", "llama-index.md"])
def test_the_examples_of_a_page_run(page: str, embedded: Compressor) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) >= 3
    printed = io.StringIO()
    names: dict[str, object] = {"__name__": "example"}
    with contextlib.redirect_stdout(printed):
        for block in blocks:
            exec(compile(block, page, "exec"), names)
    assert "Ada signed the lease in May." in printed.getvalue()
    assert "It rained all day." not in printed.getvalue()


def test_links_between_pages_lead_somewhere() -> None:
    for page in ("langchain.md", "llama-index.md", "chat-models.md", "which-hook-sees-what.md", "migration.md"):
        for target in re.findall(r"\]\(([\w-]+\.md)\)", (DOCS / page).read_text(encoding="utf-8")):
            assert (DOCS / target).is_file(), f"{page} links to {target}"
