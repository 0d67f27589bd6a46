"""What the recipe must never train on."""

from __future__ import annotations

from cprs_core.evaluation import words
from cprs_core.training import synthetic_words
from cprs_core.training.recipe import MEASURED_SPLITS, TRAINING_SPLITS, without_sentences
from cprs_core.training.records import Evidence, EvidenceSet, Record

SHARED = "The river that runs through the old town was diverted in that year."
TEXTS = ["It rained. Nobody came to the fair that spring.", f"It rained. {SHARED}", "A text about bees and mills."]


def word_lists(module) -> set[str]:
    lists = (value for name, value in vars(module).items() if name.isupper() and isinstance(value, list | tuple))
    return {word for one in lists for word in one if isinstance(word, str)}


def test_documents_that_hold_a_measured_sentence_go_with_their_records() -> None:
    records = [Record(f"q{n}", (n,), (Evidence(n, 0, 8, "fact"),)) for n in range(3)]
    one = EvidenceSet("squad/train", list(TEXTS), ["a", "b", "c"], ["en"] * 3, records)
    # Blanks and capitals differ; the short sentence "It rained." is no evidence of anything.
    left = without_sentences(one, {SHARED.lower(), "it rained."})
    assert left.texts == [TEXTS[0], TEXTS[2]]
    assert left.groups == ["a", "c"]
    assert [(r.query, r.documents, r.evidence[0].document) for r in left.records] == [("q0", (0,), 0), ("q2", (1,), 1)]


def test_nothing_measured_is_trained_on() -> None:
    assert not set(MEASURED_SPLITS) & set(TRAINING_SPLITS)
    splits = {split for folder, split in TRAINING_SPLITS if folder != "drcd"}  # DRCD's test part is not among our data
    assert splits == {"train", "trial"}
    assert not {"xquad", "wice", "haystack"} & {folder for folder, _ in TRAINING_SPLITS}


def test_made_up_records_share_no_word_lists_with_the_benchmarks() -> None:
    assert not word_lists(words) & word_lists(synthetic_words)
