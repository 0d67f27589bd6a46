"""docs/instructions.md tells the truth: its examples print what stands below them, and none shows a wrong output."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cprs_core import Compressor
from cprs_core.instructions import PRESETS
from tests.pages import run_page

PAGE = Path(__file__).parent.parent.parent / "docs" / "instructions.md"


@pytest.fixture(scope="module")
def examples(embedded: Compressor) -> list[tuple[str, str, str]]:
    """The fixture `embedded` is here for its skip: the page loads the critic itself."""
    return run_page(PAGE)


def test_every_example_prints_what_stands_below_it(examples: list[tuple[str, str, str]]) -> None:
    wrong = [f"{code}\non the page:\n{page}\nnow:\n{now}" for code, page, now in examples if page != now]
    assert not wrong, "\n".join(wrong)


def test_there_is_an_example_of_every_preset(examples: list[tuple[str, str, str]]) -> None:
    with_output = " ".join(code for code, output, _ in examples if output)
    assert {name for name in PRESETS if f'"{name}"' not in with_output} == set()
    for name, preset in PRESETS.items():
        assert re.search(rf"`{name}` \| {re.escape(preset.text)}", PAGE.read_text(encoding="utf-8")), name


@pytest.mark.parametrize(
    ("call", "right"),
    [
        ('keep(bridge, "Who replaced the girders?")', "[fact] The Nordvik company replaced both girders."),
        ('keep(bridge, "Who found the cracks?", instruction="answers")', "[answer] Inspector Dana Holt"),
        ('keep(contract, "Cap on liability: does', "[clause] 5. Limitation of Liability."),
        (
            'keep(log, "Why did billing fail?", instruction="errors")',
            "[error] 2026-03-03 08:04:11 ERROR billing:",
        ),
    ],
)
def test_outputs_on_the_page_are_the_right_ones(examples: list[tuple[str, str, str]], call: str, right: str) -> None:
    """Held apart from the page, so that rewriting its outputs cannot make a wrong one pass."""
    assert any(call in code and right in output for code, output, _ in examples)


def test_one_text_and_query_give_different_outputs_under_different_instructions(
    examples: list[tuple[str, str, str]],
) -> None:
    outputs: dict[tuple[str, str], set[str]] = {}
    for code, output, _ in examples:
        for text, query in re.findall(r'keep\((\w+), "([^"]+)"', code):
            outputs.setdefault((text, query), set()).add(output)
    assert len(outputs[("lease", "Who signed the lease?")]) >= 2
    assert len(outputs[("program", "gross_price")]) >= 2
