"""What a call's instruction and granularity mean."""

from __future__ import annotations

import pytest

from cprs_core import PRESETS, Preset
from cprs_core.instructions import read_tags, resolve_instruction
from cprs_core.selection import GRANULARITIES


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_names_a_granularity_and_a_tag(name: str) -> None:
    assert PRESETS[name].granularity in GRANULARITIES
    assert PRESETS[name].tags


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_every_granularity_has_a_default_instruction(granularity: str) -> None:
    preset = resolve_instruction(None, granularity)
    assert preset.text
    assert preset.granularity == granularity


@pytest.mark.parametrize(
    ("instruction", "tags"),
    [
        ("## tagging rule:\n- tag the needles with 'needle'", ("needle",)),
        ("Tag facts with 'fact'. Tag names with 'name'.", ("fact", "name")),
        ("Mark it, tagged as “Clause”.", ("clause",)),
        ("Tag a with 'x', then tag b with 'x'", ("x",)),
        ("Find what matters; don't tag anything else.", ("fact",)),
        ("Keep 'this' and 'that'.", ("fact",)),
    ],
)
def test_tag_words_are_read_from_free_text(instruction: str, tags: tuple[str, ...]) -> None:
    assert read_tags(instruction) == tags


@pytest.mark.parametrize("instruction", [PRESETS["clauses"], "clauses", PRESETS["clauses"].text])
def test_preset_its_name_and_its_wording_mean_the_same(instruction: str | Preset) -> None:
    assert resolve_instruction(instruction, None) == PRESETS["clauses"]


def test_granularity_of_the_call_overrides_that_of_the_preset() -> None:
    assert resolve_instruction("answers", "paragraph").granularity == "paragraph"
    assert resolve_instruction("answers", "auto").granularity == "keyword"


def test_blank_instruction_is_the_default() -> None:
    assert resolve_instruction("  \n", "sentence") == PRESETS["supporting_facts"]
