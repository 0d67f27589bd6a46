"""Readers, and what they are given to read."""

from __future__ import annotations

import numpy as np
import pytest

from cprs_core.errors import InputError
from cprs_core.evaluation import reading
from cprs_core.evaluation.corpus import Corpus, Request
from cprs_core.evaluation.data import Dataset, Evidence, Record, SourceDocument
from cprs_core.evaluation.options import Options
from cprs_core.evaluation.readers import ChatReader, CriticReader
from cprs_core.evaluation.systems import CriticSystem, HeadSystem
from cprs_core.instructions import PRESETS
from cprs_core.scorer import KeywordScorer, WordTokenizer

TEXT = "It rained for days. Ada signed the lease in March. They left early. Bees slept. Rain fell."


def request() -> Request:
    return Request(Corpus([TEXT], WordTokenizer()), "Who signed the lease?", PRESETS["supporting_facts"])


def dataset(count: int = 6) -> Dataset:
    names = ["Ada", "Bo", "Cem", "Dee", "Eve", "Fay"][:count]
    things = ["lease", "letter", "treaty", "will", "cheque", "painting"]
    documents, records = {}, []
    for number, (name, thing) in enumerate(zip(names, things, strict=False)):
        text = f"Nothing happened on day {number}. {name} signed the {thing} in March."
        start = text.index(name)
        documents[str(number)] = SourceDocument(str(number), str(number), "en", text)
        facts = (
            Evidence(str(number), start, len(text), "fact"),
            Evidence(str(number), start, start + len(name), "answer"),
        )
        records.append(Record(str(number), f"Who signed the {thing}?", (str(number),), facts, (name,)))
    return Dataset(documents, tuple(records))


class EchoReader:
    """Answers with all it was given."""

    name = "echo"

    def answer(self, cases):
        return [context for context, _ in cases]


def test_critic_answers_with_a_slice_of_the_context() -> None:
    reader = CriticReader(KeywordScorer("lease"), "keyword")
    assert reader.answer([(TEXT, "Who signed?"), ("", "Who signed?")]) == ["lease", ""]


def test_chat_model_is_asked_in_full_and_its_text_is_the_answer() -> None:
    fake = pytest.importorskip("langchain_core.language_models.fake_chat_models")
    seen = []

    class Model(fake.FakeListChatModel):
        def _call(self, messages, *args, **kwargs):
            seen.append(messages[0].content)
            return super()._call(messages, *args, **kwargs)

    reader = ChatReader(Model(responses=[" Ada \n"]), "fake")
    assert reader.answer([(TEXT, "Who signed the lease?")]) == ["Ada"]
    assert TEXT in seen[0]
    assert seen[0].endswith("Question: Who signed the lease? Answer:")


def test_unknown_chat_model_is_named() -> None:
    pytest.importorskip("langchain")
    with pytest.raises(InputError, match="no-such-model"):
        ChatReader.from_name("no-such-model")


def test_kept_segments_are_laid_out_in_source_order_and_gaps_become_line_breaks() -> None:
    corpus = request().corpus
    kept = np.array([True, True, False, False, True])
    text = reading.kept_text(TEXT, corpus, kept)
    assert text == "It rained for days. Ada signed the lease in March.\nRain fell."
    assert reading.kept_text(TEXT, corpus, np.ones(5, dtype=bool)) == TEXT
    assert reading.kept_text(TEXT, corpus, np.zeros(5, dtype=bool)) == ""


def test_views_keep_to_their_tokens_and_truncation_keeps_the_ends() -> None:
    views = {view.kind + view.name: view for view in reading.make_views([CriticSystem("ours", KeywordScorer())], 10)}
    costs = request().corpus.costs
    kept = {name: view.select([request()])[0] for name, view in views.items()}
    assert kept["directfull context"].all()
    assert kept["directfirst 10 tokens"].tolist() == [True, False, False, False, False]
    assert kept["directlast 10 tokens"].tolist() == [False, False, True, True, True]
    assert kept["directboth ends, 10 tokens"].tolist() == [True, False, False, False, True]
    assert all(costs[mask].sum() <= 10 for name, mask in kept.items() if "10 tokens" in name)


def test_an_answer_is_kept_as_whole_words_only() -> None:
    assert reading.holds_answer("Ada signed the lease.", ("the Lease",)) == 1.0
    assert reading.holds_answer("Adamant.", ("Ada",)) == 0.0
    assert reading.holds_answer("Ada", ("the",)) == 0.0  # an article alone normalises to nothing


def test_reader_is_scored_on_every_view_and_gains_are_paired(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("bm25s")
    monkeypatch.setattr(reading, "read_dataset", lambda *_: dataset())
    monkeypatch.setattr(Options, "folder", None)
    systems = [CriticSystem("ours", KeywordScorer()), HeadSystem()]
    options = Options(tokens=60, questions=6, reader=EchoReader(), reader_tokens=15)
    rows = {(m.task, m.metric, m.system): m for m in reading.measure_reader(systems, options)}
    assert rows["reader: echo", "answer kept", "full context"].value == 100.0
    assert rows["reader: echo", "tokens", "first 15 tokens"].value <= 15
    gain = rows["reader: F1 points gained by ours, 1,000 tokens", "over it", "full context"]
    assert gain.value == 0.0  # 1,000 tokens hold all of so short a context
    assert gain.low == gain.high == 0.0


def test_without_a_critic_or_a_chat_model_nobody_reads() -> None:
    with pytest.raises(InputError, match="--reader"):
        reading.own_reader([HeadSystem()])
