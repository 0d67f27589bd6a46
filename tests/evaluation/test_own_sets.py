"""The sets that we wrote ourselves: what they promise is what they hold."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest

from cprs_core.evaluation import words
from cprs_core.evaluation.baselines import terms
from cprs_core.evaluation.lookalikes import KINDS, make_cases, measure_lookalikes
from cprs_core.evaluation.needles import measure_needles
from cprs_core.evaluation.options import Options
from cprs_core.evaluation.own_data import measure_own
from cprs_core.evaluation.pairs import excerpt, insert_sentence, measure_pairs, read_pairs
from cprs_core.evaluation.speed import measure_speed, prose
from cprs_core.evaluation.systems import CriticSystem, HeadSystem
from cprs_core.instructions import PRESETS
from cprs_core.scorer import KeywordScorer, WordTokenizer


def test_there_are_at_least_sixty_different_pairs() -> None:
    pairs = read_pairs()
    assert len({pair.question for pair in pairs}) == len({pair.evidence for pair in pairs}) == len(pairs) >= 60
    assert len({pair.topic for pair in pairs}) == 7


@pytest.mark.parametrize("pair", read_pairs(), ids=lambda pair: pair.question)
def test_question_and_evidence_share_no_content_word(pair) -> None:
    asked, told = set(terms(pair.question)), set(terms(pair.evidence))
    assert not asked & told
    assert not {word[:4] for word in asked if len(word) > 3} & {word[:4] for word in told if len(word) > 3}


@pytest.mark.parametrize("depth", [0.0, 0.5, 1.0])
def test_evidence_stands_between_sentences_at_its_depth(depth: float) -> None:
    text = "One came. Two came. Three came. Four came."
    longer, at = insert_sentence(text, "It rained.", depth)
    assert longer[at:].startswith("It rained. ")
    assert longer.replace("It rained. ", "") == text
    assert at == [0, 20, 32][round(2 * depth)]


def test_excerpt_is_whole_sentences_of_the_asked_length() -> None:
    text = " ".join(f"Sentence number {number} stands here." for number in range(400))
    piece = excerpt(text, WordTokenizer(), 300, seed=2)
    assert piece in text
    assert piece.startswith("Sentence")
    assert piece.endswith("here.")
    assert 250 < len(WordTokenizer().encode(piece)) <= 300


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_lookalikes_differ_from_the_right_line_which_can_be_left_out(kind) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        case = kind(rng)
        assert case.similar
        assert case.right not in (*case.similar, *case.filler)
        with_right, at = case.text(rng, with_right=True)
        without, nowhere = case.text(rng, with_right=False)
        assert with_right[at : at + len(case.right)] == case.right
        assert nowhere == -1
        assert case.right not in without
        assert all(line in without for line in case.similar)


def test_cases_take_the_kinds_in_turn_and_repeat_by_seed() -> None:
    cases = make_cases(16, seed=3)
    assert len({case.kind for case in cases}) == len(KINDS)
    assert cases == make_cases(16, seed=3) != make_cases(16, seed=4)


def test_a_critic_that_keeps_nothing_is_empty_everywhere_and_keeps_no_right_line() -> None:
    silent = CriticSystem("silent", KeywordScorer("zzyzx"))
    values = {m.metric: m.value for m in measure_lookalikes([silent], Options(questions=16))}
    assert values["empty without it"] == 100.0
    assert values["right one kept"] == 0.0


def test_needles_count_only_what_is_kept() -> None:
    finder = CriticSystem("finder", KeywordScorer("special", "magic"))
    measures = measure_needles([finder, HeadSystem()], Options(tokens=600, questions=60))
    values = {(m.system, m.metric): m.value for m in measures}
    assert values["finder", "niah_single_1"] == 100.0
    assert values["first tokens", "niah_single_1"] < 50.0


def test_no_word_list_is_shared_with_the_training_generators() -> None:
    source = importlib.util.find_spec("cprs_core.training.synthetic")
    if source is None or source.origin is None:
        pytest.skip("the training generators are not installed")
    training = set(re.findall(r"[\w-]+", Path(source.origin).read_text(encoding="utf-8")))
    own = {*words.ADJECTIVES, *words.NOUNS, *words.GIVEN_NAMES, *words.SURNAMES, *words.PLACES, *words.FACILITIES}
    assert own & training == set()


def test_speed_splits_the_time_by_stage() -> None:
    measures = measure_speed([CriticSystem("keyword", KeywordScorer())], Options(tokens=400))
    values = {m.metric: m.value for m in measures if m.system == "keyword"}
    stages = sum(values[f"{stage}, s"] for stage in ("tokenize", "segment", "score", "select"))
    assert 0 < stages <= values["seconds"]
    assert values["tokens/s"] == pytest.approx(values["tokens"] / values["seconds"])


def test_prose_has_the_asked_length_and_repeats_by_seed() -> None:
    assert len(prose(3_000, 1)) == 3_000
    assert prose(3_000, 1) == prose(3_000, 1) != prose(3_000, 2)


def test_what_look_alikes_and_pairs_miss_stands_in_the_report_with_its_text() -> None:
    """A critic that counts shared words keeps look-alikes, and no evidence in other words."""
    options = Options(tokens=2_000, questions=8)
    critic = CriticSystem("ours", KeywordScorer())
    measure_lookalikes([critic], options)
    measure_pairs([critic], options)
    worst = options.failures.worst
    wrong = [failure for failure in worst if failure.kind.endswith("nothing right")]
    assert wrong
    assert all(failure.missed == "" and failure.instead and failure.gap > 0 for failure in wrong)
    unseen = [failure for failure in worst if failure.task == "no-shared-word"]
    assert {failure.missed for failure in unseen} <= {pair.evidence for pair in read_pairs()}
    assert sum(cases for (task, _, _), (_, cases) in options.failures.counts.items() if task == "no-shared-word") == 8


class RecordingSystem:
    """Ranks nothing above anything, and remembers what it was asked."""

    name = "recording"

    def __init__(self) -> None:
        self.asked: list = []

    def rank(self, requests):
        self.asked = [request.preset for request in requests]
        return [np.zeros(len(request.corpus.segments), dtype=np.float32) for request in requests]


def test_own_records_are_asked_in_the_words_that_training_teaches(tmp_path: Path) -> None:
    text = "It rained. The supplier pays for late delivery. They left."
    span = {"document_id": "a", "start": 11, "end": 47}
    record = {"query": "late delivery", "documents": [{"id": "a", "text": text}]}
    rows = [
        {**record, "evidence": [{**span, "tag": "liability"}]},
        {**record, "evidence": [{**span, "tag": "clause"}]},
        {**record, "evidence": [span]},
        {**record, "evidence": [{**span, "tag": "liability"}], "instruction": "Find the duties; tag them with 'duty'."},
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    system = RecordingSystem()
    measure_own(path, [system], Options())
    assert [preset.tags for preset in system.asked] == [("liability",), ("clause",), ("fact",), ("duty",)]
    assert system.asked[1].text == PRESETS["clauses"].text
    assert system.asked[2].text == PRESETS["supporting_facts"].text
