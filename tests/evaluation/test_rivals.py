"""Other people's compressors rank the same segments as ours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cprs_core.errors import CheckpointError
from cprs_core.evaluation.bench import rival_systems
from cprs_core.evaluation.corpus import Corpus, Request
from cprs_core.evaluation.rivals import (
    EmbeddingsFilterSystem,
    LLMLingua2System,
    OpenProvenceSystem,
    SentenceOptimizerSystem,
)
from cprs_core.instructions import PRESETS
from cprs_core.scorer import WordTokenizer

WORDS = ("lease", "rain", "bees", "left", "signed")
TEXTS = ["It rained: rain. Ada signed the lease. They left early.", "Bees sleep. Who signed it?"]


def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    """Counts of five words, and a constant: enough to tell which sentence is nearest."""
    rows = np.array([[1e-3, *(text.lower().count(word) for word in WORDS)] for text in texts], dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def request(texts: list[str] = TEXTS, query: str = "Who signed the lease?") -> Request:
    return Request(Corpus(texts, WordTokenizer()), query, PRESETS["supporting_facts"])


def test_embeddings_filter_returns_the_nearest_piece_first() -> None:
    pytest.importorskip("langchain_classic")
    pytest.importorskip("langchain_community", reason="EmbeddingsFilter imports it, and no extra brings it")
    long = [" ".join(f"Filler sentence number {n} about rain." for n in range(40)) + " Ada signed the lease."]
    scores = EmbeddingsFilterSystem(embed).rank([request(long)])[0]
    assert scores[-1] == 1.0  # its piece is the best one
    assert len(set(scores.tolist())) > 2  # pieces, not the whole


def test_sentence_optimizer_takes_the_same_share_of_every_document() -> None:
    scores = SentenceOptimizerSystem(embed).rank([request()])[0]
    assert np.argsort(-scores[:3]).tolist()[0] == 1
    assert scores.tolist().count(1.0) == 2  # the best sentence of each document
    assert scores[4] == 1.0


def test_llmlingua_scores_are_means_over_a_segments_tokens_and_never_see_the_query(tmp_path: Path) -> None:
    save_tiny_classifier(tmp_path)
    system = LLMLingua2System(tmp_path, device="cpu")
    first, second = system.rank([request(), request(query="What did the bees do?")])
    assert first.tolist() == second.tolist()
    assert len(first) == 5
    assert ((first > 0) & (first < 1)).all()
    long = request(["Ada signed the lease. " * 300])
    assert np.isfinite(system.rank([long])[0]).all()


def save_tiny_classifier(folder: Path) -> None:
    """A BERT of two labels with random weights, as LLMLingua-2's small model has them."""
    transformers = pytest.importorskip("transformers")
    words = sorted({word for text in TEXTS for word in text.lower().replace(".", " . ").split()})
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, "."]))
    transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = transformers.BertConfig(vocab_size=len(words) + 6, num_labels=2, **shape)
    transformers.BertForTokenClassification(config).save_pretrained(folder)


class DocumentedProvence:
    """The part of OpenProvence's ``process`` that its README describes; a sentence scores by words it shares."""

    def __init__(self, lose: int = 0) -> None:
        self.lose = lose

    def process(self, *, question, context, sentence_splitter, return_sentence_metrics, **options):
        assert return_sentence_metrics
        assert options["threshold"] == 0.0
        sentences = sentence_splitter(context)
        asked = set(question.lower().split())
        shares = [len(asked & set(text.lower().split())) / len(asked) for text in sentences]
        return {"sentence_probabilities": shares[self.lose :]}


def test_openprovence_scores_the_sentences_that_all_systems_rank() -> None:
    scores = OpenProvenceSystem(DocumentedProvence()).rank([request()])[0]
    assert len(scores) == 5
    assert int(scores[:3].argmax()) == 1


def test_a_pruner_that_cuts_elsewhere_cannot_be_compared() -> None:
    with pytest.raises(CheckpointError, match="2 of 3 sentences"):
        OpenProvenceSystem(DocumentedProvence(lose=1)).rank([request()])


def test_rows_without_weights_say_where_to_put_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    systems, missing = rival_systems([], tmp_path, "cpu")
    assert systems == []
    assert {row.system: row.note for row in missing} == {
        "LLMLingua-2": f"weights not found: put them at {tmp_path / 'llmlingua-2'}",
        "OpenProvence": f"weights not found: put them at {tmp_path / 'open-provence'}",
    }
    assert all(math.isnan(row.value) for row in missing)
    monkeypatch.delenv("CPRS_WEIGHTS", raising=False)
    assert rival_systems([], None, "cpu")[1][0].note.endswith("$CPRS_WEIGHTS/llmlingua-2")
