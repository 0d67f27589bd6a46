"""Chains across windows: their generators, and the rows that measure them."""

from __future__ import annotations

import re

import numpy as np
import pytest

from cprs_core.evaluation.baselines import BM25System
from cprs_core.evaluation.bench import QUALITY, TASKS
from cprs_core.evaluation.chains import measure_chains, whole_chains
from cprs_core.evaluation.data import Dataset, Evidence, Record, SourceDocument
from cprs_core.evaluation.options import Options
from cprs_core.evaluation.systems import CriticSystem, HopSystem
from cprs_core.evaluation.tasks.infinitebench import make_code_run
from cprs_core.evaluation.tasks.movement import make_movement
from cprs_core.evaluation.tasks.two_hops import make_two_hop_questions
from cprs_core.scorer import KeywordScorer, WordTokenizer


@pytest.mark.parametrize("facts", [2, 3])
@pytest.mark.parametrize("seed", range(8))
def test_a_moved_object_is_where_its_last_owner_went_last(facts: int, seed: int) -> None:
    sample = make_movement(WordTokenizer(), 2_000, seed, facts)
    lines = [sample.text[start:end] for start, end in sample.gold]
    assert len(lines) == facts
    assert [start for start, _ in sample.gold] == sorted(start for start, _ in sample.gold)
    owner, thing = lines[0].split()[0], re.search(r"the (\w+)", sample.query).group(1)
    assert lines[0].endswith(f"{thing}.")
    assert sample.text.count(f"the {thing}.") >= 1
    own = [line for line in re.findall(r"[^.]+\.", sample.text[sample.gold[0][0] :]) if line.split()[0] == owner]
    walks = [line.strip() for line in own if not re.search(r"collected|pocketed|carried|let go|handed", line)]
    walks = [line for line in walks if re.search(r"(strolled|made for|headed|set off)", line)]
    assert walks == lines[1:] if facts == 3 else walks[-1:] == lines[1:]
    if facts == 3:
        assert sample.query.endswith(f"before the {lines[2].rsplit('the ', 1)[1][:-1]}?")
    assert lines[1].endswith(f"{sample.answers[0]}.")


def test_stories_fill_but_never_exceed_their_length() -> None:
    tokens = len(WordTokenizer().encode(make_movement(WordTokenizer(), 2_000, 1).text))
    assert 1_800 < tokens <= 2_000


def record(number: int, query: str, text: str, answer: str) -> tuple[SourceDocument, Record]:
    document = SourceDocument(f"d{number}", "g", "en", f"Some words first. {text} And more.")
    start = document.text.index(text)
    at = document.text.index(answer)
    evidence = (
        Evidence(document.id, start, start + len(text), "fact"),
        Evidence(document.id, at, at + len(answer), "answer"),
    )
    return document, Record(f"q{number}", query, (document.id,), evidence, (answer,))


@pytest.fixture
def dataset() -> Dataset:
    rows = [
        record(0, "Who painted the old pier?", "Ada Novak painted the old pier.", "Ada Novak"),
        record(1, "Where did the Ada Novak of our tale, Ada Novak, live?", "Ada Novak lived in Turku.", "Turku"),
        record(2, "When did the mill burn?", "The mill burnt in 1911.", "1911"),
        record(3, "When was the dam built?", "The dam was built in 1924.", "1924"),
    ]
    return Dataset({document.id: document for document, _ in rows}, tuple(record for _, record in rows))


def test_a_bridge_replaces_a_name_by_the_question_for_it(dataset: Dataset) -> None:
    (sample,) = make_two_hop_questions(dataset, WordTokenizer(), 500, 5, 0, "bridge")
    asked = "the answer to “Who painted the old pier”"
    assert sample.query == f"Where did {asked} of our tale, {asked}, live?"
    assert [sample.text[start:end] for start, end in sample.gold] == [
        "Ada Novak painted the old pier.",
        "Ada Novak lived in Turku.",
    ]
    assert sample.answers == ("Turku",)


def test_a_comparison_asks_for_two_years(dataset: Dataset) -> None:
    (sample,) = make_two_hop_questions(dataset, WordTokenizer(), 500, 5, 0, "comparison")
    assert sample.query.startswith("Which is earlier: “When ")
    assert sorted(sample.text[start:end] for start, end in sample.gold) == [
        "The dam was built in 1924.",
        "The mill burnt in 1911.",
    ]


def test_hops_keep_call_chains_that_one_pass_and_bm25_lose() -> None:
    scorer = KeywordScorer(window_tokens=256)
    systems = [HopSystem("ours", scorer), CriticSystem("ours", scorer), BM25System()]
    samples = [make_code_run(scorer.tokenizer, 8_000, seed, 5) for seed in range(2)]
    measures = whole_chains("calls", samples, systems, Options(tokenizer=scorer.tokenizer), 0.02)
    whole = {m.system: m.value for m in measures if m.metric.startswith("whole chains at 2%")}
    assert whole == {"ours, hops": 100.0, "ours": 0.0, "BM25": 0.0}


def test_a_chain_counts_only_if_all_of_it_is_kept() -> None:
    class Half:
        name = "half"

        def rank(self, requests):
            scores = []
            for request in requests:
                lines = [part.startswith(f"def {sample_names[0]}(") for part in request.corpus.segment_texts]
                scores.append(np.array(lines, dtype=np.float32))
            return scores

    sample = make_code_run(WordTokenizer(), 2_000, 1, 2)
    sample_names = [line.split("(")[0].removeprefix("def ") for line in sample.answers]
    measures = whole_chains("calls", [sample], [Half()], Options(), 10)
    assert {m.metric: m.value for m in measures} == {"whole chains at 10 tokens": 0.0, "links kept": 50.0}


def test_all_kinds_of_chains_run_at_a_small_size_and_without_data() -> None:
    scorer = KeywordScorer(window_tokens=256)
    options = Options(tokenizer=scorer.tokenizer, tokens=1_500, questions=12)
    measures = measure_chains([CriticSystem("critic", scorer)], options)
    assert {m.task for m in measures} == {"call chains", "variable chains", "movement", "two-hop questions"}
    assert {m.system for m in measures} == {"critic, hops", "critic", "all"}
    (missing,) = (m for m in measures if m.task == "two-hop questions")
    assert "data folder" in missing.note


def test_chains_are_a_measurement_of_their_own() -> None:
    assert "chains" in TASKS
    assert "chains" not in QUALITY
