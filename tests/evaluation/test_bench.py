"""The frame: one run over tasks and systems, on a data folder of three tiny texts."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import pytest

from cprs_core.errors import InputError
from cprs_core.evaluation.bench import run_tasks
from cprs_core.evaluation.data import data_folder, read_dataset
from cprs_core.evaluation.haystack import build_haystack
from cprs_core.evaluation.metrics import Measure
from cprs_core.evaluation.options import Options
from cprs_core.evaluation.report import read_results, render_tables, write_results
from cprs_core.scorer import KeywordScorer, WordTokenizer

TEXTS = {
    "a": "The harbour froze in 1893. Ships waited outside. Ada signed the lease in March.",
    "b": "Bees sleep at night. The keeper counted forty hives.",
    "c": "Rain fell. Nobody came.",
}
QUESTIONS = [
    ("a", "Who signed the lease?", "Ada signed the lease in March.", "Ada"),
    ("b", "How many hives?", None, ""),
]


def write_rows(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    documents = [{"id": name, "group": name, "title": None, "lang": "en", "text": text} for name, text in TEXTS.items()]
    queries = []
    for number, (document, query, fact, answer) in enumerate(QUESTIONS):
        evidence = []
        if fact is not None:
            for tag, text in (("answer", answer), ("fact", fact)):
                start = TEXTS[document].index(text)
                span = {"document_id": document, "start": start, "end": start + len(text), "tag": tag}
                evidence.append(span)
        row = {"id": str(number), "query": query, "document_ids": [document], "evidence": evidence}
        queries.append({**row, "answers": [answer], "answerable": fact is not None})
    for dataset in ("squad", "qed"):
        write_rows(tmp_path / dataset / "dev.documents.jsonl.gz", documents)
        write_rows(tmp_path / dataset / "dev.queries.jsonl.gz", queries)
    return tmp_path


def test_haystack_holds_the_documents_of_its_questions(folder: Path) -> None:
    haystack = build_haystack(read_dataset(folder, "squad", "dev"), WordTokenizer(), 1_000, 10, seed=1)
    text = "".join(haystack.corpus.texts)
    assert haystack.queries == ("Who signed the lease?",)
    assert [text[a:b] for a, b in haystack.ranges[0]] == ["Ada signed the lease in March."]
    assert [text[a:b] for a, b in haystack.answers[0]] == ["Ada"]


def test_haystack_is_as_long_as_asked_and_the_same_for_the_same_seed(folder: Path) -> None:
    dataset = read_dataset(folder, "squad", "dev")
    first, again = (build_haystack(dataset, WordTokenizer(), 20, 10, seed=4) for _ in range(2))
    assert first.corpus.tokens <= 20
    assert first.corpus.texts == again.corpus.texts


def test_run_measures_every_system_on_the_same_cases(folder: Path) -> None:
    measures = run_tasks(["haystack", "qed"], {"ours": KeywordScorer()}, Options(folder, seed=1), baselines=False)
    assert {measure.system for measure in measures} == {"ours", "chance"}
    found = {measure.metric: measure.value for measure in measures if measure.task == "haystack"}
    assert found["recall@512"] == 100.0
    first = [m.value for m in measures if (m.task, m.system, m.metric) == ("qed", "ours", "right sentence first")]
    assert first == [100.0]
    assert "F2 at default threshold" in {m.metric for m in measures if m.task == "qed"}


def test_absent_embedding_weights_give_a_row_that_says_so(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("bm25s")
    measures = run_tasks(["qed"], {}, Options(folder), minilm=tmp_path / "nowhere")
    row = next(measure for measure in measures if measure.system == "MiniLM embeddings")
    assert math.isnan(row.value)
    assert "weights not found" in render_tables(measures)


def test_unknown_task_is_named(folder: Path) -> None:
    with pytest.raises(InputError, match="'speling'"):
        run_tasks(["speling"], {}, Options(folder), baselines=False)


def test_missing_data_folder_says_how_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--data"):
        data_folder(tmp_path / "nowhere")
    with pytest.raises(InputError, match="CPRS_DATA"):
        run_tasks(["qed"], {}, Options(), baselines=False)


def test_what_cannot_run_later_is_a_row_that_says_why() -> None:
    """Without data and without a critic that reads, what was measured before is not lost."""
    names = ["look-alikes", "questions", "reader"]
    measures = run_tasks(names, {"ours": KeywordScorer()}, Options(questions=8), baselines=False)
    assert any(m.task == "look-alikes" and m.value >= 0 for m in measures)
    rows = {m.task: m.note for m in measures if math.isnan(m.value)}
    assert set(rows) == {"questions", "reader"}
    assert all("--data" in note for note in rows.values())


def test_results_survive_a_round_trip(tmp_path: Path) -> None:
    measures = [Measure("t", "m", "s", 97.5, 95.0, 99.0, 200), Measure("t", "m", "r", math.nan, note="absent")]
    write_results(tmp_path / "run.json", measures, {"cpus": "2"}, {"seed": 42})
    back = read_results(tmp_path / "run.json")
    assert back[0] == measures[0]
    assert math.isnan(back[1].value)
    assert "97.5 [95.0, 99.0]" in render_tables(back)
