"""Importing the packages costs nothing: neither torch nor a framework comes along."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.core.tiny import save_tiny_critic

HEAVY = (
    "torch",
    "transformers",
    "tokenizers",
    "accelerate",
    "numpy",
    "langchain_core",
    "langchain",
    "llama_index",
    "pydantic",
)


def modules_after(code: str) -> set[str]:
    """Top-level names in ``sys.modules`` of a fresh interpreter after ``code``."""
    program = f"{code}\nimport json, sys\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("package", ["cprs_core", "cprs_integrations"])
def test_import_brings_neither_torch_nor_a_framework(package: str) -> None:
    assert modules_after(f"import {package}").isdisjoint(HEAVY)


@pytest.mark.parametrize("arguments", ["--help", "--version", "compress --help", "info --help"])
def test_help_of_the_command_line_does_not_load_torch(arguments: str) -> None:
    code = (
        "from cprs_core.cli import main\n"
        f"try:\n    main({arguments.split()!r})\nexcept SystemExit as stop:\n    assert not stop.code"
    )
    assert modules_after(code).isdisjoint(HEAVY)


def test_compressing_with_a_scorer_of_ones_own_does_not_load_torch() -> None:
    code = "from cprs_core import *\nassert Compressor(KeywordScorer('lease')).compress('The lease.', 'q').text"
    loaded = modules_after(code)
    assert "cprs_core" in loaded
    assert loaded.isdisjoint({"torch", "transformers", "accelerate", "langchain_core", "llama_index"})


def test_loading_and_running_a_critic_does_not_import_torchs_compiler(tmp_path: Path) -> None:
    """It would take longer than torch itself."""
    save_tiny_critic(tmp_path / "tiny")
    code = (
        "import sys\nfrom cprs_core import Compressor\n"
        f"assert Compressor.from_pretrained({str(tmp_path / 'tiny')!r}, device='cpu').score('The lease.', 'q')\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    assert modules_after(code).isdisjoint({"sympy", "transformers", "accelerate", "langchain_core", "llama_index"})


def test_every_public_name_can_be_imported() -> None:
    import cprs_core

    for name in cprs_core.__all__:
        assert getattr(cprs_core, name) is not None
    assert set(cprs_core.__all__) == set(dir(cprs_core))


def test_unknown_names_are_attribute_errors() -> None:
    import cprs_core

    with pytest.raises(AttributeError, match="nonsense"):
        cprs_core.nonsense  # noqa: B018
