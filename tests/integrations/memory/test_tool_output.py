"""Shortened tool output keeps its structure, its budget and the lines that the request needs."""

from __future__ import annotations

import csv
import io
import json
import re
import time
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cprs_core import Compressor, Document, InputError, KeywordScorer
from cprs_integrations.ranking import Goal
from cprs_integrations.tool_output import MIN_TOOL_TOKENS, detect_kind, shorten_output

from .outputs import MAKERS, Output, any_output

COMPRESSOR = Compressor(KeywordScorer())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=12) | st.dictionaries(st.text(max_size=12), inner, max_size=12),
    max_leaves=150,
)


def tokens(text: str) -> int:
    return len(COMPRESSOR.scorer.tokenizer.encode(text))


def shorten(text: str, request: str = "Where is the lease?", max_tokens: int = 200, **options: str) -> str:
    return shorten_output(text, Goal(request), compressor=COMPRESSOR, max_tokens=max_tokens, **options)


@pytest.mark.parametrize("maker", MAKERS)
def test_the_lines_that_matter_stay_while_nine_tenths_go(maker):
    output: Output = maker(Random(7))
    short = shorten(output.text, output.request, tokens(output.text) // 10)
    assert tokens(short) <= tokens(output.text) // 10
    missing = [line for line in output.gold if line not in short]
    assert not missing


@pytest.mark.parametrize("maker", MAKERS)
def test_kinds_are_detected(maker):
    output: Output = maker(Random(3))
    assert detect_kind(output.text) == output.kind


@given(st.integers(0, 2**32).map(Random), st.integers(MIN_TOOL_TOKENS, 600))
@settings(max_examples=25, deadline=None)
def test_the_budget_holds_and_a_second_time_changes_nothing(rng, budget):
    output = any_output(rng, rng.randrange(8, 200))
    short = shorten(output.text, output.request, budget)
    assert tokens(short) <= budget or short == output.text
    assert shorten(short, "Another question altogether?", budget) == short


@given(JSON, st.integers(MIN_TOOL_TOKENS, 300), st.sampled_from([None, 1, 4]), st.booleans())
@settings(max_examples=80, deadline=None)
def test_json_stays_json_and_keeps_whole_values(value, budget, indent, ascii_only):
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    short = shorten(text, "Which lease is it?", budget)
    parsed = json.loads(short)
    if isinstance(value, list) and short != text:
        known = [json.dumps(record) for record in value]
        whole = [record for record in parsed if json.dumps(record) in known]
        assert len(parsed) - len(whole) <= 1 + sum(isinstance(record, list | dict | str) for record in value)


def test_records_of_a_json_list_are_kept_whole():
    records = [{"id": n, "city": "Oslo", "note": f"row {n}"} for n in range(300)]
    records[217]["city"] = "Reykjavik"
    kept = json.loads(shorten(json.dumps(records), "Who lives in Reykjavik?"))
    assert records[217] in kept
    assert all(record in records for record in kept[:-1])
    assert "of 300 records" in kept[-1]["_cprs"]


def test_plain_values_name_the_record_that_a_kept_value_stands_in():
    pages = [{"title": f"page {n}", "rows": [{"k": i, "v": "x" * 40} for i in range(40)]} for n in range(5)]
    pages[3]["rows"][20]["v"] = "the lease of Ada"
    kept = json.loads(shorten(json.dumps({"pages": pages}), "Where is the lease of Ada?"))
    assert {"title": "page 3", "rows": [{"k": 20, "v": "the lease of Ada"}]} in [
        {**page, "rows": [row for row in page.get("rows", []) if "lease" in row["v"]]} for page in kept["pages"]
    ]


def test_a_long_string_inside_json_is_shortened_by_its_own_structure():
    log = (
        "\n".join(f"2031-01-01 10:00:{n % 60:02d} INFO step {n}" for n in range(400)) + "\n2031-01-01 ERROR lease lost"
    )
    kept = json.loads(shorten(json.dumps({"exit_code": 1, "stdout": log}), "Why was the lease lost?"))
    assert kept["exit_code"] == 1
    assert "2031-01-01 ERROR lease lost" in kept["stdout"].splitlines()


def test_json_lines_stay_json_lines():
    text = "\n".join(json.dumps({"n": n, "what": "lease" if n == 40 else "none"}) for n in range(200))
    kept = [json.loads(line) for line in shorten(text).splitlines()]
    assert {"n": 40, "what": "lease"} in kept


def test_a_stack_trace_stays_whole_with_the_line_that_led_to_it():
    trace = [
        "2031-01-01 10:00:00 ERROR worker died",
        "Traceback (most recent call last):",
        '  File "a.py", line 3, in work',
        "    step()",
        "ValueError: empty lease",
    ]
    noise = [f"2031-01-01 10:00:00 INFO beat {n}" for n in range(300)]
    assert "\n".join(trace) in shorten("\n".join([*noise, *trace, *noise]), "Why did the worker die?", 150)


def test_chained_java_traces_are_one_record():
    trace = [
        "java.lang.IllegalStateException: no lease",
        "\tat app.Lease.open(Lease.java:10)",
        "\tat app.Main.main(Main.java:3)",
        "Caused by: java.io.IOException: disk",
        "\tat app.Disk.read(Disk.java:77)",
        "\t... 2 more",
    ]
    noise = [f"10:00:{n % 60:02d} INFO app beat {n}" for n in range(300)]
    assert "\n".join(trace) in shorten("\n".join([*noise, *trace, *noise]), "Which lease failed?", 150)


def test_gaps_in_logs_count_the_lines_they_stand_for():
    lines = [f"2031-01-01 10:00:{n % 60:02d} INFO beat {n}" for n in range(300)]
    lines[150] = "2031-01-01 10:02:30 ERROR lease lost"
    short = shorten("\n".join(lines), "lease?", 100)
    left_out = sum(int(n) for n in re.findall(r"\[… (\d+) lines\]", short))
    assert left_out + sum(line in lines for line in short.splitlines()) == 300


def test_code_keeps_the_signatures_around_what_is_kept_and_names_the_line_numbers_of_gaps():
    body = "\n".join(f"        value_{n} = compute(value_{n})" for n in range(60))
    first, second = f"    def first(self):\n{body}\n", f"    def sign(self, who):\n{body}\n        self.signer = who\n"
    code = f"import os\n\n\nclass Lease:\n{first}\n{second}"
    assert detect_kind(code) == "code"
    short = shorten(code, "Who is the signer?", 200).splitlines()
    assert "        self.signer = who" in short
    assert {"class Lease:", "    def sign(self, who):"} <= set(short)
    numbers = [match for line in short if (match := re.fullmatch(r"\[… lines ([\d,]+)-([\d,]+)\]", line))]
    lines = code.splitlines()
    kept = [line for line in short if not line.startswith("[")]
    gone = sum(sum(bool(line.strip()) for line in lines[int(match[1]) - 1 : int(match[2])]) for match in numbers)
    assert gone + len([line for line in kept if line.strip()]) == sum(bool(line.strip()) for line in lines)


def test_code_that_came_with_line_numbers_keeps_them():
    code = "\n".join(f"{n:6d}\tvalue_{n} = read('{'lease' if n == 77 else 'key'}_{n}')" for n in range(1, 200))
    short = shorten(f"     0\timport os\n{code}", "Where is the lease read?", kind="code")
    assert "    77\tvalue_77 = read('lease_77')" in short


def test_a_diff_keeps_whole_hunks_under_their_headers():
    def file(name: str, word: str) -> str:
        hunks = "\n".join(f"@@ -{n},2 +{n},2 @@\n context {n}\n-old {n}\n+new {word} {n}" for n in range(1, 40))
        return f"diff --git a/{name} b/{name}\nindex 1..2 100644\n--- a/{name}\n+++ b/{name}\n{hunks}"

    diff = "\n".join([file("a.py", "apple"), file("b.py", "pear")])
    diff = diff.replace("+new pear 20", "+new lease 20")
    assert detect_kind(diff) == "diff"
    short = shorten(diff, "What changed about the lease?")
    assert "@@ -20,2 +20,2 @@\n context 20\n-old 20\n+new lease 20" in short
    assert "--- a/b.py\n+++ b/b.py" in short
    hunks = re.findall(r"@@ .+ @@\n context \d+\n-old \d+\n\+new \w+ \d+", short)
    assert len(hunks) == short.count("\n@@ ") >= 2
    assert all(hunk in diff for hunk in hunks)


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("| name | city |\n|---|---|", "| person {n} | {city} |"),
        ("name,city,number", "person {n},{city},{n}"),
        ("NAME      CITY      AGE", "person-{n}    {city}    {n}"),
    ],
)
def test_a_table_keeps_its_header(header, row):
    rows = [row.format(n=n, city="Oslo" if n != 90 else "Reykjavik") for n in range(200)]
    text = "\n".join([header, *rows])
    assert detect_kind(text) == "table"
    short = shorten(text, "Who is in Reykjavik?", 120).splitlines()
    assert short[: len(header.splitlines())] == header.splitlines()
    assert rows[90] in short
    assert list(csv.reader(io.StringIO(rows[90])))


def test_sentences_of_a_page_come_with_their_heading():
    sections = [f"# Chapter {n}\n\nIt was a quiet year number {n}. Nothing happened in the valley." for n in range(80)]
    sections[40] = "# The lease\n\nAda signed it in May. Nothing else happened in the valley."
    short = shorten("\n\n".join(sections), "When did Ada sign?", 80)
    assert "# The lease" in short
    assert "Ada signed it in May." in short


def test_scripts_and_tags_of_a_web_page_are_left_out():
    page = (
        "<html><script>lease()</script><body>"
        + "<p>Nothing here.</p>" * 200
        + "<p>The lease is <b>signed</b>.</p></body>"
    )
    short = shorten(page, "Is the lease signed?", 100)
    assert "The lease is <b>signed</b>." in short
    assert "lease()" not in short


@pytest.mark.parametrize("text", ["\x00\x01\x02" * 5_000, "a" * 50_000, "\ud800" * 3_000 + " lease", "​\n" * 9_000])
def test_what_has_no_structure_still_fits_the_budget(text):
    short = shorten(text, max_tokens=100)
    assert tokens(short) <= 100 or short == text


def test_a_result_of_twenty_megabytes_is_read_in_part_and_its_telling_line_found():
    step = "did its step without trouble, " * 10
    lines = [f"2031-01-01 10:00:00 INFO worker {n} {step}" for n in range(60_000)]
    lines[42_345] = "2031-01-01 10:00:00 INFO worker 42345 lost the lease of building seven"
    text = "\n".join(lines)
    assert len(text) > 20_000_000
    scorer = KeywordScorer()
    short = shorten_output(
        text, Goal("Who lost the lease of building seven?"), compressor=Compressor(scorer), max_tokens=500
    )
    assert lines[42_345] in short
    assert scorer.windows_scored < 500


def nested(levels: int, inside: object) -> str:
    return '{"a": ' * levels + json.dumps(inside) + "}" * levels


@pytest.mark.parametrize(
    "text",
    [
        " " * 300_000 + "\n" + "the lease\n" * 200,
        "\n" * 3_000_000 + "the lease\n" * 200,
        "<html><p>The lease is signed.</p>" + "<script " * 40_000,
        "<html><p>The lease is signed.</p>" + "<!-- a " * 40_000,
        "<html><p>The lease is signed.</p>" + "<p " * 100_000,
        nested(300, ["so many words in here"] * 20_000),
    ],
    ids=["blanks", "line breaks", "open scripts", "open comments", "open tags", "nested JSON"],
)
def test_the_time_grows_with_the_length_of_a_result_and_not_with_its_square(text):
    began = time.perf_counter()
    short = shorten(text, max_tokens=100)
    assert tokens(short) <= 100
    assert time.perf_counter() - began < 10  # the square takes minutes


@pytest.mark.parametrize(
    "text", ["0a1b2c3d" * 4_000, " " * 40_000, "\n" * 40_000, "x" * 5_000_000, "\x00" * 40_000, "\ufffd\udcff" * 20_000]
)
def test_what_the_tokenizer_of_a_critic_swallows_is_not_free(text):
    assert len(shorten(text, max_tokens=100)) < 1_000


@pytest.mark.parametrize("levels", [400, 700, 900, 990, 5_000])
def test_json_may_be_nested_as_deep_as_it_likes(levels):
    short = shorten(nested(levels, ["so many words in here"] * 100), max_tokens=100)
    assert tokens(short) <= 100


def test_one_enormous_line_among_lines_that_look_like_a_table_is_no_error():
    lines = ["name,size", "x" * 140_000 + ",1", *["the lease,2", "a,3"] * 100]
    assert tokens(shorten("\n".join(lines), max_tokens=100)) <= 100


def test_of_lines_that_differ_in_numbers_only_a_few_are_read():
    lines = [f"2031-01-01 10:00:00 INFO worker {n} did its step" for n in range(5_000)]
    scorer = KeywordScorer()
    short = shorten_output("\n".join(lines), Goal("What about 3210?"), compressor=Compressor(scorer), max_tokens=200)
    assert lines[3_210] in short
    assert scorer.windows_scored < 5


def test_a_kind_that_was_told_wrongly_falls_back_to_text():
    short = shorten("One sentence about a lease. " + "Another one about rain. " * 200, kind="json", max_tokens=80)
    assert "One sentence about a lease." in short


def test_options_out_of_range_say_what_fits():
    with pytest.raises(InputError, match="at least 64"):
        shorten("text", max_tokens=5)
    with pytest.raises(InputError, match="'auto' or one of"):
        shorten("text", kind="poem")


class RemoteCompressor:
    """A compressor that only has `compress`, as a client of a server has it."""

    async def acompress(self, documents, query="", **options):
        return COMPRESSOR.compress(documents, query, **options)

    def compress(self, documents: list[Document], query: str = "", **options):
        return COMPRESSOR.compress(documents, query, **options)


def test_a_remote_compressor_serves_as_well():
    lines = [f"2031-01-01 10:00:00 INFO beat {n}" for n in range(300)]
    lines[120] = "2031-01-01 10:00:00 INFO the lease is void"
    short = shorten_output(
        "\n".join(lines), Goal("What about the lease?"), compressor=RemoteCompressor(), max_tokens=200
    )
    assert lines[120] in short


def test_of_a_stack_trace_longer_than_the_budget_the_error_stays():
    frames = "".join(f'  File "/app/step{n}.py", line {n}, in run\n    step({n})\n' for n in range(300))
    trace = f"Traceback (most recent call last):\n{frames}ValueError: the lease was lost\n"
    java = "java.lang.StackOverflowError: the lease was lost\n" + "".join(
        f"\tat a.B.c(B.java:{n})\n" for n in range(900)
    )
    for inside in (trace, java):
        short = shorten("INFO start\n" * 200 + inside + "INFO end\n" * 200, "Why did it fail?", 300)
        assert "the lease was lost" in short
        assert tokens(short) <= 300
