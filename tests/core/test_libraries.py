"""Libraries that take some care: what their import may and may not do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_CODE = """
import os
from cprs_core.libraries import load_bm25s
print(load_bm25s("bench", "a test").seen, os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE"))
"""


@pytest.mark.parametrize(("before", "seen"), [(None, "false None"), ("true", "true true")])
def test_jax_inside_bm25s_is_asked_not_to_take_the_gpus_memory(tmp_path: Path, before: str | None, seen: str) -> None:
    (tmp_path / "bm25s.py").write_text("import os\nseen = os.environ.get('XLA_PYTHON_CLIENT_PREALLOCATE')\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.getcwd()])}
    environment.pop("XLA_PYTHON_CLIENT_PREALLOCATE", None)
    if before is not None:
        environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = before
    told = subprocess.run([sys.executable, "-c", _CODE], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == seen


def test_where_it_is_missing_the_error_names_the_extra(tmp_path: Path) -> None:
    (tmp_path / "bm25s.py").write_text("raise ImportError('not here')\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.getcwd()])}
    told = subprocess.run([sys.executable, "-c", _CODE], env=environment, capture_output=True, text=True, check=False)
    assert "cprs-integrations[bench]" in told.stderr
