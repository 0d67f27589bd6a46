"""The training kit on a handful of made-up records."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cprs_core import Compressor, InputError
from cprs_core.critics import embedded_folder
from cprs_core.critics.checkpoint import restore, shrink
from cprs_core.critics.matching import match_runs
from cprs_core.scorer import LABELS, WordTokenizer
from cprs_core.training.cipher import cipher_records
from cprs_core.training.cli import by_tag, views_of
from cprs_core.training.corpus import NEGATIVES, Corpus, build_corpus
from cprs_core.training.losses import competition, keep_logits
from cprs_core.training.negatives import mine_negatives
from cprs_core.training.records import Evidence, EvidenceSet, Record, read_inline
from cprs_core.training.sampling import IGNORED, Batch, WindowSampler
from cprs_core.training.synthetic import make_synthetic
from cprs_core.training.tasks import NO_AUGMENTATION, Augmentation, Source, TaskMaker, Vocabulary
from cprs_core.training.teacher import most_alike
from cprs_core.training.views import VIEWS
from cprs_core.training.vocabulary import extend_vocabulary

PARAGRAPHS = [
    "The mill stood by the river. Its wheel turned day and night. The miller slept little.",
    "A ferry crossed at noon. It carried salt and mail. Nobody paid in silver.",
    "Snow fell on the pass. The mules waited below. The guide smoked a pipe.",
]


def write_records(path: Path, count: int = 12) -> Path:
    rows = []
    for number in range(count):
        fact = f"Warden {number} keeps the brass key of tower {number}."
        text = f"{PARAGRAPHS[number % 3]} {fact} {PARAGRAPHS[(number + 1) % 3]}"
        start = text.index(fact)
        rows.append(
            {
                "query": f"Who keeps the key of tower {number}?",
                "documents": [{"id": "d", "text": text}],
                "evidence": [{"document_id": "d", "start": start, "end": start + len(fact), "tag": "fact"}],
            }
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def word_corpus(sets: list[EvidenceSet]) -> tuple[Corpus, WordTokenizer]:
    texts = [text for one in sets for text in (*one.texts, *(record.query for record in one.records))]
    words = dict.fromkeys(word.casefold() for text in texts for word in re.findall(r"\w+|[^\w\s]", text))
    tokenizer = WordTokenizer({word: number for number, word in enumerate(words)})  # ids of a small vocabulary
    none = [np.full((len(one.records), NEGATIVES), -1, dtype=np.int32) for one in sets]
    return build_corpus(sets, tokenizer, none), tokenizer


def word_vocabulary(size: int) -> Vocabulary:
    rows = np.array([1, 2], dtype=np.int32)
    words = {word: 3 + i for i, word in enumerate(sorted({w for view in VIEWS.values() for w in view.tag_words}))}
    return Vocabulary(
        cls=0,
        sep=1,
        outside=2,
        unknown=size,
        instructions={name: [rows] for name in VIEWS},
        own_instructions=[rows],
        tag_words=words,
        content=np.ones(size, dtype=bool),
        continues=np.zeros(size, dtype=bool),
        neighbours=np.full((size, 4), -1, dtype=np.int32),
    )


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not JSON"),
        ("[]", "must be an object"),
        ('{"query": "q", "documents": []}', "'documents' must be a list"),
        ('{"query": "", "documents": [{"id": "a", "text": "t"}]}', "'query' must be a non-empty string"),
        (
            '{"query": "q", "documents": [{"id": "a", "text": "t"}],'
            ' "evidence": [{"document_id": "a", "start": 0, "end": 9}]}',
            "does not lie in its document",
        ),
        (
            '{"query": "q", "documents": [{"id": "a", "text": "t"}],'
            ' "evidence": [{"document_id": "b", "start": 0, "end": 1}]}',
            "must name one of the record's documents",
        ),
    ],
)
def test_a_bad_record_is_named_by_line_and_reason(tmp_path: Path, line: str, reason: str) -> None:
    path = write_records(tmp_path / "mine.jsonl", 2)
    path.write_text(path.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"mine\.jsonl line 3: .*") as error:
        read_inline(path)
    assert reason in str(error.value)


def test_sampled_labels_cover_exactly_the_evidence(tmp_path: Path) -> None:
    one = read_inline(write_records(tmp_path / "mine.jsonl"), "mine")
    corpus, tokenizer = word_corpus([one])
    sampler = WindowSampler(corpus, word_vocabulary(500), [Source("mine", "fact", 1.0)], 3, NO_AUGMENTATION)
    batch = sampler.batch(length=96, groups=8, windows=2)
    words = {id: word for word, id in tokenizer.vocabulary.items()}
    kept = [
        " ".join(words[int(id)] for id in batch.ids[row][(batch.labels[row] >= 0) & (batch.labels[row] != 2)])
        for row in range(0, 16, 2)
    ]
    assert all(text.startswith("warden") and text.endswith(".") for text in kept), kept
    assert all((batch.labels[row] == LABELS.index("B")).sum() == 1 for row in range(0, 16, 2))
    assert batch.sentence_kept.sum() == 8  # the second window of a group holds no evidence


def sampled(corpus: Corpus, source: Source, augmentation: Augmentation, content: np.ndarray | None = None) -> Batch:
    vocabulary = word_vocabulary(500)
    vocabulary = vocabulary if content is None else replace(vocabulary, content=content)
    return WindowSampler(corpus, vocabulary, [source], 3, augmentation).batch(length=96, groups=8, windows=1)


def texts_of(batch: Batch, tokenizer: WordTokenizer) -> list[str]:
    words = {id: word for word, id in tokenizer.vocabulary.items()}
    return [" ".join(words[int(id)] for id in row[part > 0]) for row, part in zip(batch.ids, batch.parts, strict=True)]


def test_cut_evidence_leaves_its_document_without_an_answer(tmp_path: Path) -> None:
    corpus, tokenizer = word_corpus([read_inline(write_records(tmp_path / "mine.jsonl"), "mine")])
    cut = replace(NO_AUGMENTATION, cut_evidence=1.0)
    batch = sampled(corpus, Source("mine", "fact", 1.0), cut)
    assert not batch.sentence_kept.any()
    # Twelve documents hold one sentence each about a warden; the one that was asked for shows its other sentences.
    assert all(text.count("warden") < 12 for text in texts_of(batch, tokenizer))


def test_lone_evidence_stands_without_the_text_around_it(tmp_path: Path) -> None:
    one = read_inline(write_records(tmp_path / "mine.jsonl", 1), "mine")
    for number in range(6):
        one.add_document(f"Rain fell on day {number}. The street was empty. A dog slept.", f"g{number}")
    corpus, tokenizer = word_corpus([one])
    batch = sampled(corpus, Source("mine", "fact", 1.0), replace(NO_AUGMENTATION, lone_evidence=1.0))
    first_sentence = texts_of(batch, tokenizer)
    assert all("warden 0 keeps the brass key" in text and "mill stood" not in text for text in first_sentence)
    assert batch.sentence_kept.sum() == 8


def test_two_joined_queries_keep_the_evidence_of_both(tmp_path: Path) -> None:
    one = EvidenceSet("mine")
    document = one.add_document("Ada signed the lease. It rained. Bo paid the fee.", "g")
    for query, start, end in (("Who signed the lease?", 0, 21), ("Who paid the fee?", 33, 49)):
        one.records.append(Record(query, (document,), (Evidence(document, start, end, "fact"),)))
    one.add_document("The street was empty. A dog slept. " * 8, "h")
    corpus, _ = word_corpus([one])
    batch = sampled(corpus, Source("mine", "fact", 1.0), replace(NO_AUGMENTATION, joined=1.0))
    assert set(np.bincount(batch.sentence_windows[batch.sentence_kept], minlength=8).tolist()) == {1, 2}


def test_a_stated_question_ends_with_its_answer() -> None:
    one = EvidenceSet("mine")
    document = one.add_document("Ada signed the lease.", "g")
    evidence = (Evidence(document, 0, 21, "fact"), Evidence(document, 0, 3, "answer"))
    one.records.append(Record("Who signed the lease?", (document,), evidence))
    corpus, tokenizer = word_corpus([one])
    content = np.ones(500, dtype=bool)
    content[tokenizer.vocabulary["?"]] = False
    vocabulary = replace(word_vocabulary(500), content=content)
    tasks = TaskMaker(corpus, vocabulary, [Source("mine", "claim", 1.0, stated=True)], NO_AUGMENTATION)
    words = {id: word for word, id in tokenizer.vocabulary.items()}
    query = tasks.draw(np.random.default_rng(1)).query
    assert [words[int(id)] for id in query] == ["who", "signed", "the", "lease", "ada"]


def test_queries_of_few_shared_words_are_those_that_speak_otherwise() -> None:
    one = EvidenceSet("mine")
    for number, query in enumerate(["Ada signed the lease 0", "Ada signed lease", "the lease", "Whose contract is it"]):
        document = one.add_document(f"Ada signed the lease {number}.", f"g{number}")
        one.records.append(Record(query, (document,), (Evidence(document, 0, 23, "fact"),)))
    corpus, _ = word_corpus([one])
    source = Source("mine", "fact", 1.0, few_shared=True)
    tasks = TaskMaker(corpus, word_vocabulary(500), [source], NO_AUGMENTATION)
    rng = np.random.default_rng(1)
    assert {tasks.draw(rng).document for _ in range(20)} == {3}


def test_windows_of_likeness_teach_nothing_but_likeness() -> None:
    one = EvidenceSet("mine")
    for number in range(6):
        document = one.add_document(f"Ada signed lease number {number}. The street was empty then.", f"g{number}")
        one.records.append(Record("Who signed it?", (document,), (Evidence(document, 0, 25, "fact"),)))
    corpus, _ = word_corpus([one])
    likeness = replace(NO_AUGMENTATION, likeness=1.0)
    mixture = [Source("mine", "fact", 1.0)]
    batch = WindowSampler(corpus, word_vocabulary(500), mixture, 3, likeness, frozenset({"mine"})).batch(48, 4, 2)
    assert (batch.labels == IGNORED).all()
    assert not batch.competing.any()
    assert (batch.teacher_queries >= 0).all()


def test_the_most_alike_sentences_are_of_other_documents() -> None:
    sentences = torch.eye(4).half()
    queries = torch.tensor([[0.9, 0.4, 0.1, 0.0], [0.0, 0.0, 0.6, 0.8]]).half()
    found = most_alike(queries, sentences, np.array([0, 3]), np.array([0, 1, 2, 3]), count=2)
    assert found[:, 0].tolist() == [1, 2]
    assert 0 not in found[0]
    assert 3 not in found[1]


def test_two_samplers_with_one_seed_draw_the_same(tmp_path: Path) -> None:
    one = read_inline(write_records(tmp_path / "mine.jsonl"), "mine")
    corpus, _ = word_corpus([one])
    draw = [
        WindowSampler(corpus, word_vocabulary(500), [Source("mine", "fact", 1.0)], 5).batch(64, 4, 2).ids
        for _ in range(2)
    ]
    assert np.array_equal(draw[0], draw[1])


def test_a_corpus_survives_its_file(tmp_path: Path) -> None:
    corpus, _ = word_corpus([read_inline(write_records(tmp_path / "mine.jsonl"), "mine")])
    corpus.save(tmp_path / "corpus.xz")
    again = Corpus.load(tmp_path / "corpus.xz")
    assert np.array_equal(again.evidence, corpus.evidence)
    assert again.names == corpus.names


def test_synthetic_evidence_is_a_whole_planted_line() -> None:
    made = make_synthetic(90, PARAGRAPHS, seed=4)
    spans = [made.texts[e.document][e.start : e.end] for record in made.records for e in record.evidence]
    assert len(spans) > 60
    assert all(span == span.strip() and len(span) > 5 for span in spans)
    assert any(not record.evidence for record in made.records)


def test_exchanged_letters_leave_positions_as_they_were() -> None:
    one = EvidenceSet("plain")
    document = one.add_document("Ada signed the lease. It rained.", "g")
    one.records.append(Record("Who signed the lease?", (document,), (Evidence(document, 0, 21, "fact"),)))
    exchanged = cipher_records(one, 1, seed=2)
    assert len(exchanged.texts[0]) == len(one.texts[0])
    assert exchanged.texts[0] != one.texts[0]
    assert exchanged.records[0].evidence[0].end == 21


def test_unknown_tags_get_a_view_of_their_own() -> None:
    one = EvidenceSet("mine")
    document = one.add_document("A text.", "g")
    one.records.append(Record("q", (document,), (Evidence(document, 0, 1, "liability"),)))
    views, names = views_of([one])
    assert names == {"mine": ["liability"]}
    assert views["liability"].tag_words == ("liability",)


def test_new_characters_come_after_the_old_vocabulary() -> None:
    small = {"model": {"vocab": {"[PAD]": 0, "a": 1}}, "truncation": {"max_length": 9}, "padding": None}
    data = json.loads(extend_vocabulary(json.dumps(small)))
    vocabulary = data["model"]["vocab"]
    assert vocabulary["a"] == 1
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    assert {"中", "ก", "##ก", "の"} <= vocabulary.keys()
    assert data["truncation"] is None


def brute_force_runs(context: list[int], query: list[int], limit: int) -> list[int]:
    longest = [0] * len(context)
    for length in range(1, limit + 1):
        shared = {tuple(query[i : i + length]) for i in range(len(query) - length + 1)}
        for start in range(len(context) - length + 1):
            if tuple(context[start : start + length]) in shared:
                for i in range(start, start + length):
                    longest[i] = max(longest[i], length)
    return longest


def test_match_runs_agree_with_brute_force() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        context, query = rng.integers(0, 4, size=25).tolist(), rng.integers(0, 4, size=9).tolist()
        of_context, of_query = match_runs(torch.tensor([context]), torch.tensor([query]), 5)
        assert of_context[0].tolist() == brute_force_runs(context, query, 5)
        assert of_query[0].tolist() == brute_force_runs(query, context, 5)


def test_competition_is_won_by_the_kept_sentence_or_by_nothing() -> None:
    kept = torch.tensor([True, False, False, False])
    groups = torch.tensor([0, 0, 1, 1])
    everywhere = torch.ones(4, dtype=torch.bool)
    good = competition(torch.tensor([8.0, -8.0, -8.0, -8.0]), kept, groups, everywhere)
    bad = competition(torch.tensor([-8.0, 8.0, 8.0, -8.0]), kept, groups, everywhere)
    assert good < 0.01
    assert bad > 5.0


def test_keep_logit_is_the_log_odds_of_not_outside() -> None:
    logits = torch.randn(5, 4)
    probability = 1 - logits.softmax(1)[:, LABELS.index("O")]
    assert torch.allclose(keep_logits(logits).sigmoid(), probability, atol=1e-6)


def test_shrunk_matrices_come_back_within_half_a_step() -> None:
    matrix = torch.randn(50, 64)
    again = restore(shrink({"w": matrix}))["w"]
    step = matrix.abs().amax(dim=1, keepdim=True) / 127
    assert bool(((again - matrix).abs() <= 0.51 * step + 1e-3 * matrix.abs()).all())


@pytest.mark.skipif(not (embedded_folder() / "model.safetensors").exists(), reason="the embedded critic is not here")
def test_a_fine_tuned_critic_loads_and_compresses(tmp_path: Path) -> None:
    pytest.importorskip("bm25s", reason="needs the extra 'train'")
    from cprs_core.cli import main

    data = write_records(tmp_path / "mine.jsonl")
    out = tmp_path / "critic"
    code = main(["train", "--data", str(data), "--out", str(out), "--steps", "2", "--batch-tokens", "1536"])
    assert code == 0
    result = Compressor.from_pretrained(out, device="cpu").compress(
        "Warden 3 keeps the brass key of tower 3. It rained.", "Who keeps the key of tower 3?", max_tokens=11
    )
    assert result.text == "Warden 3 keeps the brass key of tower 3."
    summary = json.loads((out / "training.json").read_text(encoding="utf-8"))
    assert summary["steps"] == 2
    assert 0 < summary["storage_difference"] < 0.01  # what the rounding of stored weights does to scores


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"evidence": {"start": 0}}, "'evidence' must be a list"),
        ({"evidence": [{"document_id": ["a"], "start": 0, "end": 2}]}, "must name one of the record's documents"),
        ({"evidence": [{"document_id": "a", "start": 1, "end": 2}]}, "is blank"),
        ({"evidence": [{"document_id": "a", "start": True, "end": 2}]}, "does not lie in its document"),
        ({"answers": [3]}, "'answers' must be a list of strings"),
        ({"tag": 5}, "'tag' must be a non-empty string"),
        ({"instruction": ["x"]}, "'instruction' must be a non-empty string"),
        ({"documents": [{"id": "a", "text": "x"}, {"id": "a", "text": "y"}]}, "a string of its own"),
        ({"documents": [{"id": "a", "text": "  "}]}, "'text' must be a non-empty string"),
        ({"query": "  "}, "'query' must be a non-empty string"),
    ],
)
def test_a_record_that_would_teach_nonsense_is_refused(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    row = {"query": "q", "documents": [{"id": "a", "text": "t u"}]} | change
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"mine\.jsonl line 1: ") as error:
        read_inline(path)
    assert reason in str(error.value)


def test_several_bad_records_are_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text("{\n" * 9, encoding="utf-8")
    with pytest.raises(InputError, match=r"line 1: .*line 5: .*and 4 more bad records"):
        read_inline(path)


def test_files_that_are_not_records_are_named(tmp_path: Path) -> None:
    (tmp_path / "latin.jsonl").write_bytes(b'{"query": "\xe9"}\n')
    (tmp_path / "cut.jsonl.gz").write_bytes(b"\x1f\x8b\x08\x00")
    for name, reason in (
        ("latin.jsonl", "not UTF-8"),
        ("cut.jsonl.gz", "gzip"),
        ("none.jsonl", "not a file"),
        (".", "not a file"),
    ):
        with pytest.raises(InputError, match=reason):
            read_inline(tmp_path / name)


def test_one_text_in_many_records_is_one_document_and_never_its_own_wrong_neighbour(tmp_path: Path) -> None:
    pytest.importorskip("bm25s", reason="needs the extra 'train'")
    text = "Ada signed the lease. Bob paid the rent."
    rows = [
        {
            "query": query,
            "documents": [{"id": "x", "text": text}],
            "evidence": [{"document_id": "x", "start": a, "end": b}],
        }
        for query, a, b in (("Who signed the lease?", 0, 21), ("Who paid the rent?", 22, 40))
    ]
    rows.append({"query": "Who signed?", "documents": [{"id": "y", "text": "Nobody signed the rent."}]})
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    one = read_inline(path)
    assert len(one.texts) == 2
    assert mine_negatives(one)[0, :2].tolist() == [1, -1]


def test_evidence_in_several_documents_stays_where_it_was_written(tmp_path: Path) -> None:
    texts = {"a": "It rained. Ada came.", "b": "Nothing here.", "c": "Ada left at noon."}
    marks = [("a", 11, 20), ("c", 0, 17)]
    row = {
        "query": "What did Ada do?",
        "documents": [{"id": id, "text": text} for id, text in texts.items()],
        "evidence": [{"document_id": id, "start": a, "end": b} for id, a, b in marks],
    }
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    one = read_inline(path)
    (record,) = one.records
    marked = [one.texts[item.document][item.start : item.end] for item in record.evidence]
    assert marked == [texts[id][a:b] for id, a, b in marks]
    assert {item.document for item in record.evidence} == {record.documents[0]}
    assert texts["b"] in one.texts


def test_records_of_one_tag_are_not_taken_for_those_of_another() -> None:
    one = EvidenceSet("mine")
    document = one.add_document("Ada pays. Bob swims.", "g")
    one.records.append(Record("q1", (document,), (Evidence(document, 0, 9, "payment"),)))
    one.records.append(Record("q2", (document,), (Evidence(document, 10, 20, "sport"),)))
    one.records.append(Record("q3", (document,), ()))
    payment, sport = by_tag([one])
    assert [record.query for record in payment.records] == ["q1", "q3"]
    assert [record.query for record in sport.records] == ["q2", "q3"]
    views, names = views_of([payment, sport])
    assert [views[name].tag_words for one_name in names.values() for name in one_name] == [("payment",), ("sport",)]


def test_a_query_that_is_asked_of_many_documents_is_right_in_each_of_them(tmp_path: Path) -> None:
    one = EvidenceSet("reports")
    for number, part in enumerate(("pump", "belt", "fan")):
        text = f"We came early. The {part} was cracked. We left."
        document = one.add_document(text, str(number))
        one.records.append(
            Record("What broke?", (document,), (Evidence(document, 15, text.index(" We left"), "finding"),))
        )
    views, _ = views_of([one])
    assert views["finding"].shared
    corpus, tokenizer = word_corpus([one])
    vocabulary = replace(
        word_vocabulary(500),
        instructions={"finding": [np.array([1], np.int32)]},
        tag_words={"finding": 3, "a": 4, "b": 5, "c": 6},
    )
    sampler = WindowSampler(corpus, vocabulary, [Source("reports", "finding", 1.0)], 3, NO_AUGMENTATION, views=views)
    batch = sampler.batch(length=64, groups=4, windows=2)
    names = {id: word for word, id in tokenizer.vocabulary.items()}
    for row in range(len(batch.ids)):
        cracked = [names[int(id)] == "cracked" for id in batch.ids[row]]
        assert all(batch.labels[row][cracked] != LABELS.index("O"))
    assert not views_of([EvidenceSet("one", one.texts, one.groups, one.languages, one.records[:1])])[0][
        "finding"
    ].shared


def test_a_tokenizer_with_ids_too_large_for_a_corpus_is_refused(tmp_path: Path) -> None:
    one = read_inline(write_records(tmp_path / "mine.jsonl"), "mine")
    with pytest.raises(InputError, match="a corpus holds up to 65,535"):
        build_corpus([one], WordTokenizer(), [np.full((12, NEGATIVES), -1, dtype=np.int32)])
