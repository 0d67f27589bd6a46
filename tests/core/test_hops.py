"""Hops: what was found asks for more, across windows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cprs_core import Compression, Compressor, DeadlineError, InputError, KeywordScorer
from cprs_core.cascade import CascadeScorer, LexicalRanker
from cprs_core.errors import NonFiniteScoresError
from cprs_core.evaluation.tasks import infinitebench, ruler
from cprs_core.evaluation.words import plain_sentence
from cprs_core.hops import FOLLOWED, MAX_HOPS, READ_WINDOWS, Link, nested_question, parts_of, place_links
from cprs_core.instructions import PRESETS
from cprs_core.scorer import OUTSIDE, Prefix, WordTokenizer
from cprs_core.segmentation import segment_lines, segment_sentences
from cprs_core.selection import GRANULARITIES
from cprs_core.words import find_words
from tests.core.texts import NASTY, any_text

SURVEY = "The survey team reports to the harbour council."
MOVED = "Last spring the harbour council left for Oslo."


def hay(sentences: int, seed: int = 0) -> str:
    rng = np.random.default_rng(seed)
    return " ".join(plain_sentence(rng) for _ in range(sentences))


def far_apart(*facts: str) -> str:
    """Facts with many windows of other text between them."""
    return " ".join(itertools.chain.from_iterable((hay(60, seed), fact) for seed, fact in enumerate(facts)))


@pytest.fixture
def asker() -> Compressor:
    """Keeps what shares a long word with the query."""
    return Compressor(KeywordScorer(window_tokens=128))


def kept(result: Compression) -> list[str]:
    return [span.text for span in result.spans]


def test_what_was_found_leads_to_what_shares_no_word_with_the_query(asker: Compressor) -> None:
    text = far_apart(MOVED, SURVEY)
    query = "To whom does the survey team answer?"
    assert MOVED not in asker.compress(text, query, max_tokens=40).text
    result = asker.compress(text, query, max_tokens=40, hops=2)
    moved, survey = (kept(result).index(fact) for fact in (MOVED, SURVEY))
    assert (result.spans[survey].hop, result.spans[survey].follows) == (1, None)
    assert (result.spans[moved].hop, result.spans[moved].follows) == (2, survey)
    assert result.usage.hops == 2


def test_one_pass_is_the_default_and_leaves_everything_as_it_was(asker: Compressor) -> None:
    text = far_apart(MOVED, SURVEY)
    plain, one = (asker.compress(text, "the survey team?", max_tokens=60, **o) for o in ({}, {"hops": 1}))
    assert plain.spans == one.spans
    assert (plain.usage.hops, plain.usage.windows) == (1, one.usage.windows)
    assert all((span.hop, span.follows) == (1, None) for span in plain.spans)


def test_a_chain_is_as_strong_as_its_weakest_link(asker: Compressor) -> None:
    result = asker.compress(far_apart(MOVED, SURVEY), "To whom does the survey team answer?", max_tokens=40, hops=2)
    moved, survey = (next(span for span in result.spans if span.text == fact) for fact in (MOVED, SURVEY))
    others = [span.score for span in result.spans if span.text not in (MOVED, SURVEY)]
    assert max(others) < moved.score < survey.score


def test_auto_ends_when_nothing_new_is_found(asker: Compressor) -> None:
    facts = [
        "A zarf sits on a quern.",
        "Any quern needs one dibber.",
        "Her dibber fell upon a peavey.",
        "Peavey: gimlet!",
    ]
    text = far_apart(*reversed(facts))
    result = asker.compress(text, "zarf", instruction="?", threshold=1e-6, hops="auto")
    assert kept(result) == facts[::-1]
    assert [(span.hop, span.follows) for span in result.spans] == [(4, 1), (3, 2), (2, 3), (1, None)]
    assert 4 <= result.usage.hops < MAX_HOPS
    two = asker.compress(text, "zarf", instruction="?", threshold=1e-6, hops=2)
    assert (kept(two), two.usage.hops) == (facts[1::-1], 2)


@pytest.mark.parametrize("depth", [2, 5, 10])
def test_every_function_of_a_call_chain_is_kept(depth: int) -> None:
    compressor = Compressor(KeywordScorer(window_tokens=256))
    sample = infinitebench.make_code_run(compressor.scorer.tokenizer, 12_000, depth, depth)
    result = compressor.compress(
        sample.text, sample.query, instruction=PRESETS["code"], granularity="line", ratio=0.02, hops="auto"
    )
    assert set(sample.answers) <= set(kept(result))
    by_text = {span.text: span for span in result.spans}
    for caller, callee in itertools.pairwise(sample.answers):
        assert by_text[callee].hop == by_text[caller].hop + 1
        follows = by_text[callee].follows
        assert follows is not None
        assert result.spans[follows].text == caller


def test_every_variable_of_an_assignment_chain_is_kept() -> None:
    compressor = Compressor(KeywordScorer(window_tokens=256))
    sample = ruler.make_variables(compressor.scorer.tokenizer, 6_000, 3)
    once = compressor.compress(sample.text, sample.query, granularity="line", max_tokens=60)
    chain = compressor.compress(sample.text, sample.query, granularity="line", max_tokens=60, hops="auto")
    lines = {sample.text[start:end] for start, end in sample.gold}
    assert lines <= set(kept(chain))
    assert not lines <= set(kept(once))


def test_the_embedded_critic_follows_a_chain(embedded: Compressor) -> None:
    text = far_apart("\nVAR PLMOK = VAR QWERT\n", "Ada grew roses.", "\nVAR QWERT = 45123\n")
    result = embedded.compress(
        text, "Find all variables that are assigned the value 45123.", granularity="line", max_tokens=40, hops="auto"
    )
    assert any("PLMOK = VAR QWERT" in line for line in kept(result))


class AskedTokenizer(WordTokenizer):
    """Remembers the queries that it was asked to write."""

    def encode_prefix(self, instruction: str, query: str, tags: tuple[str, ...]) -> Prefix:
        self.__dict__.setdefault("queries", []).append(query)
        return super().encode_prefix(instruction, query, tags)


def test_a_hop_asks_with_the_query_a_blank_and_the_text_it_follows() -> None:
    scorer = KeywordScorer(window_tokens=128)
    scorer.tokenizer = AskedTokenizer()
    Compressor(scorer).compress(far_apart(MOVED, SURVEY), "the survey team?", max_tokens=40, hops=2)
    first, *later = scorer.tokenizer.__dict__["queries"]
    assert first == "the survey team?"
    assert f"the survey team? {SURVEY}" in later
    assert len(later) <= FOLLOWED


def test_a_long_found_text_is_cut_and_leaves_room_for_the_context() -> None:
    scorer = KeywordScorer(window_tokens=256)
    scorer.tokenizer = AskedTokenizer()
    long = "The survey team " + "and so on " * 30 + "reports to the harbour council."
    Compressor(scorer).compress(f"{long} {hay(30)} {MOVED}", "the survey team?", hops=2)
    assert max(len(scorer.tokenizer.encode(query)) for query in scorer.tokenizer.__dict__["queries"]) < 256 // 2


def test_only_windows_that_new_words_make_plausible_are_read_again(asker: Compressor) -> None:
    text = far_apart(MOVED, SURVEY) + " " + hay(600, seed=9)
    once = asker.compress(text, "the survey team?", max_tokens=40)
    twice = asker.compress(text, "the survey team?", max_tokens=40, hops=2)
    assert once.usage.windows < twice.usage.windows <= once.usage.windows + FOLLOWED * READ_WINDOWS
    assert twice.usage.windows < 1.5 * once.usage.windows


def test_words_that_everything_holds_lead_nowhere(asker: Compressor) -> None:
    text = " ".join(f"The mill number {n} stands beside the river." for n in range(400))
    result = asker.compress(text, "the survey mill?", max_tokens=40, hops="auto")
    assert result.usage.hops <= 2
    assert all(span.hop == 1 for span in result.spans)


def test_nothing_found_ends_after_one_pass(asker: Compressor) -> None:
    result = asker.compress(hay(50), "xylograph", instruction="?", hops="auto")
    assert (result.spans, result.usage.hops) == ([], 1)


@given(
    st.lists(any_text, max_size=4),
    st.sampled_from([*GRANULARITIES, "auto"]),
    st.none() | st.integers(1, 30),
)
@settings(max_examples=60, deadline=None)
def test_hops_keep_the_promises_of_one_pass(texts: list[str], granularity: str, max_tokens: int | None) -> None:
    compressor = Compressor(KeywordScorer(window_tokens=96))
    texts = [*texts, "Ada signed the lease for Borrowdale. Borrowdale burnt down."]
    result = compressor.compress(texts, "signed", granularity=granularity, max_tokens=max_tokens, hops="auto")
    for index, span in enumerate(result.spans):
        assert texts[span.document_index][span.start : span.end] == span.text
        assert 0 <= span.score <= 1 + 1e-6
        assert (span.hop == 1) == (span.follows is None) or span.follows is None
        assert span.follows is None or (span.follows != index and 0 <= span.follows < len(result.spans))
    if max_tokens is not None:
        assert compressor.count_tokens(result.text) <= max_tokens


@pytest.mark.parametrize("name", NASTY)
def test_nasty_text_survives_hops(name: str) -> None:
    texts = [NASTY[name], "Ada signed the lease."]
    result = Compressor(KeywordScorer(window_tokens=128)).compress(texts, NASTY[name], hops="auto")
    for span in result.spans:
        assert texts[span.document_index][span.start : span.end] == span.text


async def test_acompress_hops_too(asker: Compressor) -> None:
    text = far_apart(MOVED, SURVEY)
    assert (await asker.acompress(text, "the survey team?", max_tokens=40, hops=2)).spans == (
        asker.compress(text, "the survey team?", max_tokens=40, hops=2).spans
    )


def test_no_hop_begins_after_the_deadline() -> None:
    now = itertools.count()
    compressor = Compressor(KeywordScorer(window_tokens=128), clock=lambda: float(next(now)))
    text = far_apart(MOVED, SURVEY)
    hurried = compressor.compress(text, "the survey team?", max_tokens=40, hops="auto", deadline=1)
    assert hurried.usage.hops == 1
    assert not hurried.usage.complete
    assert compressor.compress(text, "the survey team?", max_tokens=40, hops="auto", deadline=1e6).usage.hops > 1


class Ticking(KeywordScorer):
    """Takes a second for every window."""

    now = 0.0
    batch_tokens = 64

    def score(self, prefix, windows, on_progress=None):  # type: ignore[no-untyped-def]
        self.now += len(windows)
        return super().score(prefix, windows, on_progress)


QUERY = "To whom does the survey team answer?"


def ticking() -> tuple[Ticking, Compressor]:
    scorer = Ticking(window_tokens=128)
    return scorer, Compressor(scorer, clock=lambda: scorer.now)


def test_a_hop_under_way_ends_with_the_deadline() -> None:
    text = " ".join(far_apart(MOVED, SURVEY) for _ in range(6))

    def seconds(**options: object) -> tuple[float, Compression]:
        scorer, compressor = ticking()
        result = compressor.compress(text, QUERY, max_tokens=40, **options)  # type: ignore[arg-type]
        return scorer.now, result

    first, _ = seconds()
    unhurried, whole = seconds(hops="auto", deadline=1e6, on_deadline="raise")
    assert whole.usage.complete
    for extra in (1.0, 3.0, 5.0):
        assert unhurried > first + extra + 1.0
        taken, result = seconds(hops="auto", deadline=first + extra)
        assert result.usage.hops == 2
        assert not result.usage.complete
        assert "the deadline ended the chain in hop 2" in str(result.notice)
        assert first < taken <= first + extra + 1.0  # late by one window at most


def test_hops_that_a_deadline_cut_short_raise_on_demand() -> None:
    text = " ".join(far_apart(MOVED, SURVEY) for _ in range(6))
    scorer, compressor = ticking()
    compressor.compress(text, QUERY, max_tokens=40)
    with pytest.raises(DeadlineError, match="ended the chain of hops; allow more time"):
        ticking()[1].compress(text, QUERY, max_tokens=40, hops="auto", deadline=scorer.now + 1, on_deadline="raise")


class SilentLater(KeywordScorer):
    """Its scores are no numbers where a query holds a whole sentence."""

    def score(self, prefix, windows, on_progress=None):  # type: ignore[no-untyped-def]
        if SURVEY in prefix.query:
            raise NonFiniteScoresError("double", "float32", 0, windows[0])
        return super().score(prefix, windows, on_progress)


def test_scores_of_a_hop_that_are_no_numbers_name_the_document() -> None:
    compressor = Compressor(SilentLater(window_tokens=128))
    with pytest.raises(NonFiniteScoresError, match=r"in documents\[0\]"):
        compressor.compress(["It rained. " + MOVED, SURVEY], QUERY, max_tokens=40, hops=2)


def test_a_cascade_hops_too(asker: Compressor) -> None:
    text = far_apart(MOVED, SURVEY)
    cascade = Compressor(CascadeScorer(LexicalRanker(), asker.scorer))
    result = cascade.compress(text, "To whom does the survey team answer?", max_tokens=40, hops=2)
    assert {MOVED, SURVEY} <= set(kept(result))


@pytest.mark.parametrize("hops", [0, -1, 1.5, "all", True, None])
def test_senseless_hops_are_refused(asker: Compressor, hops: object) -> None:
    with pytest.raises(InputError, match=r"hops is .*; it must be 1"):
        asker.compress("text", "query", hops=hops)  # type: ignore[arg-type]


def test_a_span_follows_the_nearest_segment_that_is_kept() -> None:
    links = [Link(10, 20, 2, (0, 5)), Link(30, 40, 3, (10, 20))]
    assert place_links(links, [(0, 5), (10, 20), (30, 40)]) == [(1, None), (2, 0), (3, 1)]
    assert place_links(links, [(0, 5), (30, 40)]) == [(1, None), (3, 0)]
    assert place_links(links, [(30, 40)]) == [(3, None)]
    assert place_links(links, [(0, 20), (30, 40)]) == [(2, None), (3, 0)]
    assert place_links([], [(0, 5)]) == [(1, None)]
    assert place_links(links, []) == []


# ---- words


@given(st.text(st.sampled_from("abAB12_ .\n-éÉß"), max_size=60), st.text(st.sampled_from("abAB12_ ."), max_size=20))
@settings(max_examples=150, deadline=None)
def test_words_are_the_runs_of_word_characters(text: str, other: str) -> None:
    import re

    segments = segment_lines(text)
    words = find_words([text], segments)
    runs = [re.findall(r"\w+", text[start:end].lower()) for start, end in segments.tolist()]
    for segment, run in enumerate(runs):
        assert len(words.of_segment(segment)) == len(set(run))
    assert len(words.hashes) == len({word for run in runs for word in run})
    shared = {word for run in runs for word in run} & set(re.findall(r"\w+", other.lower()))
    assert len(words.of_text(other)) == len(shared)


def test_identifiers_and_names_are_told_from_words() -> None:
    text = "def func_57(x): return camelCase + 45123\nHamish met the QWERTY of NASA in 1912."
    words = find_words([text], segment_lines(text))

    def marks(word: str) -> tuple[bool, bool]:
        (index,) = words.of_text(word).tolist()
        return bool(words.is_identifier[index]), bool(words.is_name[index])

    assert marks("func_57") == (True, False)
    assert marks("camelcase") == (True, False)
    assert marks("45123") == (True, False)
    assert marks("qwerty") == (True, True)
    for name in ("hamish", "nasa"):
        assert marks(name) == (False, True)
    for word in ("def", "the", "1912", "x"):
        assert marks(word) == (False, False)


def test_scripts_without_blanks_have_pairs_of_characters_as_words() -> None:
    text = "测量队向港务局报告。\n港务局搬到了奥斯陆。"
    words = find_words([text], segment_sentences(text))
    assert len(words.of_text("港务局")) == 2
    assert [int(words.segments_of_word[word]) for word in words.of_text("港务局")] == [2, 2]
    assert len(words.of_text("x")) == 0


def test_words_end_where_documents_do() -> None:
    texts = ["one", "two"]
    words = find_words(texts, np.array([[0, 3], [3, 6]]))
    assert len(words.of_text("onetwo")) == 0
    assert len(words.of_text("one two")) == 2


def test_a_first_word_is_the_first_name_or_identifier_of_its_segment() -> None:
    text = "def func_1(x): return func_2(x)"
    words = find_words([text], segment_lines(text))
    firsts = {name: words.occurrences(int(words.of_text(name)[0]))[1].tolist() for name in ("func_1", "func_2", "def")}
    assert firsts == {"func_1": [True], "func_2": [False], "def": [False]}


class OneThing(KeywordScorer):
    """Sees to the first of its words that the query asks for, and to no other."""

    def score(self, prefix, windows, on_progress=None):  # type: ignore[no-untyped-def]
        wanted = [word for word in self._words if word in prefix.query]
        first = sorted(wanted, key=prefix.query.index)[:1]
        return KeywordScorer(*first, window_tokens=self.window_tokens).score(prefix, windows, on_progress)


class OnceNamed(KeywordScorer):
    """Knows where somebody went once the query says who, and finds nothing before."""

    def score(self, prefix, windows, on_progress=None):  # type: ignore[no-untyped-def]
        words = ("strolled",) if "Ada" in prefix.query else ("unheard",)
        return KeywordScorer(*words, window_tokens=self.window_tokens).score(prefix, windows, on_progress)


def test_a_first_link_that_is_no_answer_is_found_by_the_rare_words_of_the_question() -> None:
    took, went = "Ada pocketed the poppy.", "Ada strolled over to the garage."
    text = far_apart(took, went)
    compressor = Compressor(OnceNamed(window_tokens=128))
    assert went not in compressor.compress(text, "Where is the poppy?", max_tokens=30).text
    result = compressor.compress(text, "Where is the poppy?", max_tokens=30, hops=2)
    first, second = (kept(result).index(fact) for fact in (took, went))
    assert (result.spans[second].hop, result.spans[second].follows) == (2, first)


MILL, FERRY = "The mill opened in the spring of 1871.", "The ferry began to run in 1902."


@pytest.mark.parametrize(
    "query",
    [
        "Which is earlier: “when the mill was opened” or “when the ferry began to run”?",
        "When was the old mill opened? And when did the ferry begin to run?",
    ],
)
def test_questions_inside_a_question_are_asked_by_themselves_too(query: str) -> None:
    compressor = Compressor(OneThing("mill", "ferry", window_tokens=128))
    text = far_apart(FERRY, MILL)
    assert FERRY not in compressor.compress(text, query, max_tokens=30).text
    result = compressor.compress(text, query, max_tokens=30, hops=2)
    ferry, mill = (next(span for span in result.spans if fact in span.text) for fact in (FERRY, MILL))
    assert (mill.hop, ferry.hop, ferry.follows) == (1, 2, None)


class Answering(KeywordScorer):
    """Knows where Ada went if asked for Ada alone, and her name if asked for the words of an answer."""

    def score(self, prefix, windows, on_progress=None):  # type: ignore[no-untyped-def]
        words = {"answer": "Ada"}.get(prefix.tags[0], "strolled" if prefix.query == "Where did Ada go?" else "pocketed")
        return KeywordScorer(words, window_tokens=self.window_tokens).score(prefix, windows, on_progress)


def test_a_question_inside_a_question_is_answered_and_the_answer_put_in_its_place() -> None:
    took, went = "Ada pocketed the poppy.", "Ada strolled over to the garage."
    query = "Where did “the one who pocketed the poppy” go?"
    compressor = Compressor(Answering(window_tokens=128))
    text = far_apart(took, went)
    for hops in (1, 2):
        assert went not in compressor.compress(text, query, threshold=0.1, hops=hops).text
    result = compressor.compress(text, query, threshold=0.1, hops="auto")
    first, second = (kept(result).index(fact) for fact in (took, went))
    assert (result.spans[second].hop, result.spans[second].follows) == (3, first)


@pytest.mark.parametrize(
    ("query", "answered"),
    [
        ("Where did “the one who pocketed the poppy” go?", "Where did Ada go?"),
        ("Wo ging „wer die Blume genommen hat“ hin?", "Wo ging Ada hin?"),
        ("谁住在「昨天拿走那朵花的人」隔壁？", "谁住在Ada隔壁？"),
        ("Which is earlier: “when the mill was opened” or “when it was shut”?", None),  # nothing to put in place
        ("What does “carpe diem” mean?", None),
        ("“Who pocketed the poppy of Ada?”", None),
        ("Who pocketed the poppy? And where is she?", None),
        ("", None),
    ],
)
def test_one_question_in_quotation_marks_is_nested(query: str, answered: str | None) -> None:
    nested = nested_question(query)
    assert (nested and nested.answered("Ada")) == answered


def test_a_quotation_that_the_text_holds_too_is_no_question() -> None:
    told, went = "Ada wrote “How the poppy was pocketed” in May.", "Ada strolled over to the garage."
    asked: list[str] = []

    class Listening(Answering):
        def score(self, prefix, windows, on_progress=None):  # type: ignore[no-untyped-def]
            asked.append(prefix.query)
            return super().score(prefix, windows, on_progress)

    query = "Where did the author of “How the poppy was pocketed” go?"
    Compressor(Listening(window_tokens=128)).compress(far_apart(told, went), query, max_tokens=30, hops="auto")
    assert "Where did the author of Ada go?" not in asked
    assert "How the poppy was pocketed" in asked


def test_a_nested_question_that_nothing_answers_is_left_alone() -> None:
    class Silent(Answering):
        def score(self, prefix, windows, on_progress=None):  # type: ignore[no-untyped-def]
            words = "unheard" if prefix.tags[0] == "answer" else "pocketed"
            return KeywordScorer(words, window_tokens=self.window_tokens).score(prefix, windows, on_progress)

    query = "Where did “the one who pocketed the poppy” go?"
    text = far_apart("Ada pocketed the poppy.", hay(3))
    result = Compressor(Silent(window_tokens=128)).compress(text, query, max_tokens=30, hops="auto")
    assert "pocketed" in result.text
    assert all(span.hop == 1 for span in result.spans if "pocketed" in span.text)


def test_later_passes_report_their_progress(asker: Compressor) -> None:
    seen: list[tuple[int, int]] = []
    text = far_apart(MOVED, SURVEY)
    result = asker.compress(
        text, "the survey team?", max_tokens=40, hops="auto", on_progress=lambda done, total: seen.append((done, total))
    )
    done, total = zip(*seen, strict=True)
    assert result.usage.hops > 1
    assert list(done) == sorted(done)
    assert all(tokens <= most for tokens, most in seen)
    assert done[-1] == total[-1] > result.usage.input_tokens


@pytest.mark.parametrize(
    ("query", "parts"),
    [
        ("Who signed the lease?", []),
        ("What does “carpe diem” mean?", []),  # a quotation, not a question
        ("First: “when A was born in Oslo” or “when B died”?", ["when A was born in Oslo"]),
        ("When was A born? And when did B die?", ["When was A born?", "And when did B die?"]),
        ("租约是谁签署的？租约何时到期结束？", ["租约是谁签署的？", "租约何时到期结束？"]),
        ("Why? Who signed the lease?", ["Who signed the lease?"]),
        ("", []),
    ],
)
def test_a_question_holds_others_in_quotation_marks_or_one_after_the_other(query: str, parts: list[str]) -> None:
    assert parts_of(query) == parts


class SurerOfParts(KeywordScorer):
    """Half sure where the query holds two questions."""

    def score(self, prefix, windows, on_progress=None):  # type: ignore[no-untyped-def]
        scores = super().score(prefix, windows, on_progress)
        if prefix.query.count("?") > 1:
            for rows in scores:
                hit = rows[:, OUTSIDE] < 1.0
                rows[hit] *= 0.5
                rows[hit, OUTSIDE] = 0.5
        return scores


def test_a_part_does_not_claim_what_the_first_pass_found() -> None:
    compressor = Compressor(SurerOfParts("mill", "opened", "spring", window_tokens=128))
    query = "When was the old mill opened? And who was it opened by?"
    result = compressor.compress(far_apart(MILL), query, max_tokens=30, hops=2)
    assert [span.hop for span in result.spans if MILL in span.text] == [1]


def test_the_parts_of_a_long_query_take_time_in_proportion() -> None:
    assert parts_of("word " * 200_000) == []
    assert parts_of("“" * 200_000 + "?" * 200_000) == []


def test_an_identifier_that_is_everywhere_says_little_of_each_place() -> None:
    plain = " ".join(f"The engine{number}X9 stood in hall {number}." for number in range(40))
    text = far_apart("Only the rareK7 was sold.", " ".join(f"A busyK8 came on day {n}." for n in range(30)), plain)
    segments = Compressor(KeywordScorer("sold", window_tokens=128)).compress(
        text, "What of rareK7 and busyK8?", max_tokens=200, hops=2
    )
    scores = {span.text: span.score for span in segments.spans}
    rare = max(score for kept_text, score in scores.items() if "rareK7" in kept_text)
    busy = max((score for kept_text, score in scores.items() if "busyK8" in kept_text), default=0.0)
    assert rare > 2 * busy
