"""What several files train on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cprs_core.critics.checkpoint import load_critic, save_critic
from cprs_core.training.corpus import NEGATIVES, build_corpus
from cprs_core.training.records import read_inline
from tests.core.tiny import tiny_critic, tiny_tokenizer
from tests.training.test_training import write_records


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A folder as the recipe prepares it: two sets of twelve records, and an untrained base."""
    folder = tmp_path / "prepared"
    critic, config = tiny_critic(window_tokens=512)
    save_critic(folder / "base", critic, config, tiny_tokenizer().to_str(), small=False)
    _, _, tokenizer = load_critic(folder / "base")
    records = write_records(tmp_path / "mine.jsonl")
    sets = [read_inline(records, "squad/train"), read_inline(records, "qed/train")]
    none = [np.full((len(one.records), NEGATIVES), -1, dtype=np.int32) for one in sets]
    build_corpus(sets, tokenizer, none).save(folder / "corpus.xz")
    return folder
