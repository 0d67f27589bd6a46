"""Generated contexts: the published protocols, the asked length, and gold where it says it is."""

from __future__ import annotations

import itertools
import json
import re

import numpy as np
import pytest

from cprs_core.critics import embedded_folder
from cprs_core.critics.wordpiece import WordPieceTokenizer
from cprs_core.evaluation.bench import SUITE, TASKS
from cprs_core.evaluation.data import Dataset, Evidence, Record, SourceDocument
from cprs_core.evaluation.options import Options
from cprs_core.evaluation.systems import CriticSystem
from cprs_core.evaluation.tasks import everyday, infinitebench, ruler
from cprs_core.evaluation.tasks.questions import make_questions
from cprs_core.evaluation.tasks.sample import Sample, essay_from, place_lines
from cprs_core.scorer import KeywordScorer, WordTokenizer

TOKENS = 2_000


def gold_texts(sample: Sample) -> list[str]:
    return [sample.text[start:end] for start, end in sample.gold]


@pytest.mark.parametrize("name", ruler.NEEDLE_TASKS)
def test_needles_of_the_asked_keys_are_gold(name: str) -> None:
    sample = ruler.make_needles(name, WordTokenizer(), TOKENS, seed=5)
    task = ruler.NEEDLE_TASKS[name]
    assert len(sample.gold) == task.queries * task.values
    for line, answer in zip(gold_texts(sample), sample.answers, strict=True):
        key, value = re.fullmatch(r"One of the special magic \w+ for (\S+) is: (\S+)\.", line).groups()
        assert key in sample.query
        assert value == answer


@pytest.mark.parametrize("name", ruler.NEEDLE_TASKS)
def test_needle_contexts_fill_but_never_exceed_their_length(name: str) -> None:
    tokens = len(WordTokenizer().encode(ruler.make_needles(name, WordTokenizer(), TOKENS, seed=5).text))
    assert 0.9 * TOKENS < tokens <= TOKENS


def test_distractor_needles_never_have_the_asked_key() -> None:
    sample = ruler.make_needles("niah_multikey_2", WordTokenizer(), TOKENS, seed=5)
    key = sample.query.split(" for ")[1].split(" mentioned")[0]
    assert sample.text.count("special magic") > 50
    assert sample.text.count(f"for {key} is") == 1


def test_variable_chain_is_whole_ordered_and_starts_at_the_value() -> None:
    sample = ruler.make_variables(WordTokenizer(), TOKENS, seed=3, chains=2)
    value = re.search(r"value (\d+) ", sample.query).group(1)
    lines = gold_texts(sample)
    assert lines[0] == f"VAR {sample.answers[0]} = {value}"
    assert lines[1:] == [f"VAR {b} = VAR {a}" for a, b in itertools.pairwise(sample.answers)]
    assert [start for start, _ in sample.gold] == sorted(start for start, _ in sample.gold)
    assert sample.text.count("VAR ") == 18  # two chains: 2 first lines of one VAR each, 8 of two


@pytest.mark.parametrize("make", [infinitebench.make_pass_key, infinitebench.make_number])
def test_either_statement_of_the_value_is_enough(make) -> None:
    sample = make(WordTokenizer(), TOKENS, 7)
    assert sample.any_of
    assert all(sample.answers[0] in text for text in gold_texts(sample))
    corpus = sample.request(WordTokenizer()).corpus
    facts = sample.facts(corpus)
    kept = np.zeros(len(corpus.segments), dtype=bool)
    assert sample.recall(facts, kept) == 0.0
    kept[facts[1].segments] = True
    assert sample.recall(facts, kept) == 1.0


def test_number_has_ten_digits_with_repetitions() -> None:
    number = infinitebench.make_number(WordTokenizer(), TOKENS, 7).answers[0]
    assert len(number) == 10
    assert any(a == b for a, b in itertools.pairwise(number))


def test_key_value_gold_is_the_line_of_the_asked_key() -> None:
    sample = infinitebench.make_key_values(WordTokenizer(), TOKENS, 7)
    key = re.search(r'"([0-9a-f-]{36})"', sample.query).group(1)
    assert gold_texts(sample) == [f'"{key}": "{sample.answers[0]}",']


def test_code_chain_calls_from_the_asked_function_to_the_last() -> None:
    sample = infinitebench.make_code_run(WordTokenizer(), TOKENS, 7, depth=4)
    lines = gold_texts(sample)
    called = re.search(r"func_(\d+)\(", sample.query).group(1)
    for line in lines[:-1]:
        name, callee = re.fullmatch(r"def func_(\d+)\(x\): return func_(\d+)\(x\) [+-] \d+", line).groups()
        assert name == called
        called = callee
    assert re.fullmatch(rf"def func_{called}\(x\): return x [+-] \d+", lines[-1])


def test_aggregation_tasks_say_that_nothing_can_be_left_out() -> None:
    tokenizer = WordTokenizer()
    samples = [
        ruler.make_common_words(tokenizer, TOKENS, 1),
        ruler.make_frequent_words(tokenizer, TOKENS, 1),
        infinitebench.make_math_find(tokenizer, TOKENS, 1),
    ]
    for sample in samples:
        assert not sample.compressible
        assert sample.gold == ((0, len(sample.text)),)
    counts = {word: samples[0].text.count(f" {word}") for word in samples[0].answers}
    assert min(counts.values()) >= 30


@pytest.mark.parametrize("seed", range(7))
def test_seven_questions_about_numbers_come_in_turn_and_are_answered_right(seed: int) -> None:
    sample = infinitebench.make_math_find(WordTokenizer(), TOKENS, seed)
    numbers = json.loads(sample.text)
    apart = sorted(set(numbers))
    middle = float(np.median(numbers))
    expected = [apart[-1], apart[-2], apart[-3], apart[0], apart[1], apart[2], middle][seed]
    assert sample.answers == (f"{expected:g}",)
    names = ["largest", "second largest", "third largest", "smallest", "second smallest", "third smallest", "median"]
    assert f"the {names[seed]} " in sample.query


@pytest.mark.parametrize("tokens", [4_096, 16_384])
def test_a_list_of_words_is_as_long_as_asked(tokens: int) -> None:
    tokenizer = WordPieceTokenizer.from_file(embedded_folder() / "tokenizer.json")
    sample = ruler.make_common_words(tokenizer, tokens, 3)
    assert 0.85 * tokens < len(tokenizer.encode(sample.text)) < 1.05 * tokens


def test_second_questions_are_those_of_another_set() -> None:
    pytest.importorskip("bm25s")
    assert make_questions(squad_like(), WordTokenizer(), 80, 1, 2, "qa_2")[0].task == "qa_2"


def test_same_seed_same_text_other_seed_other_text() -> None:
    first, again, other = (ruler.make_needles("niah_single_2", WordTokenizer(), 500, seed) for seed in (1, 1, 2))
    assert first == again
    assert first.text != other.text


def test_lines_are_found_where_they_were_placed() -> None:
    text, ranges = place_lines(["aa", "bb", "cc"], ["X", "YY", "Z"], [3, 0, 1], "\n")
    assert text == "YY\naa\nZ\nbb\ncc\nX"
    assert [text[start:end] for start, end in ranges] == ["X", "YY", "Z"]


def test_essay_goes_round_at_its_end() -> None:
    hay = essay_from(["one", "two"])(np.random.default_rng(0), 5)
    assert len(hay) == 5
    assert set(hay) == {"one", "two"}


def squad_like() -> Dataset:
    towns = ["Ashby", "Brill", "Corfe", "Dunster", "Ely"]
    texts = {town: f"The mill at {town} is old. Its owner, named Mr {town}son, sells flour." for town in towns}
    documents = {name: SourceDocument(name, name, "en", text) for name, text in texts.items()}
    start = texts["Corfe"].index("Its owner")
    fact = Evidence("Corfe", start, len(texts["Corfe"]), "fact")
    return Dataset(documents, (Record("q", "Who owns the mill at Corfe?", ("Corfe",), (fact,), ("Mr Corfeson",)),))


def test_question_stands_among_the_documents_that_bm25_confuses_with_its_own() -> None:
    pytest.importorskip("bm25s")
    sample = make_questions(squad_like(), WordTokenizer(), 80, 1, seed=2)[0]
    assert gold_texts(sample) == ["Its owner, named Mr Corfeson, sells flour."]
    assert sample.text.startswith("Document 1:\n")
    assert 2 <= sample.text.count("Document ") < 5


def test_a_bridge_question_does_not_name_what_its_second_fact_is_about() -> None:
    sample = everyday.make_two_hops(WordTokenizer(), TOKENS, seed=3)
    first, second = gold_texts(sample)
    site = re.fullmatch(r"The (.+) was designed by (.+)\.", first)
    assert site.group(1) in sample.query
    assert second.startswith(f"{site.group(2)} grew up in ")
    assert site.group(2) not in sample.query


def test_a_comparison_needs_both_sides() -> None:
    sample = everyday.make_two_hops(WordTokenizer(), TOKENS, seed=4)
    assert len(gold_texts(sample)) == 2
    assert all(line.split(" opened")[0].removeprefix("The ") in sample.query for line in gold_texts(sample))


@pytest.mark.parametrize("seed", range(8))
def test_a_dialogue_holds_what_the_user_said_once(seed: int) -> None:
    sample = everyday.make_dialogue(WordTokenizer(), TOKENS, seed)
    (turn,) = gold_texts(sample)
    assert turn.startswith("User: By the way, ")
    assert sample.text.count(turn) == 1
    assert all(re.match(r"User: |Assistant: ", line) for line in sample.text.splitlines())


def test_tool_output_is_json_lines_with_one_row_of_the_asked_number() -> None:
    sample = everyday.make_tool_output(WordTokenizer(), TOKENS, 5)
    rows = [json.loads(line) for line in sample.text.splitlines()]
    asked = re.search(r"CN-\d+", sample.query).group()
    assert [row["consignment"] for row in rows].count(asked) == 1
    assert json.loads(gold_texts(sample)[0])["consignment"] == asked


@pytest.mark.parametrize("task", SUITE)
def test_every_long_task_measures_a_critic(task: str) -> None:
    if task == "questions":
        pytest.skip("needs the data folder; its generator is tested above")
    measures = TASKS[task]([CriticSystem("keyword", KeywordScorer())], Options(tokens=700, questions=12))
    assert measures
    assert all(0.0 <= measure.value <= 100.0 for measure in measures if not measure.metric.startswith("tokens "))
