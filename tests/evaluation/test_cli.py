"""``cprs bench`` from its arguments to its exit code."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from cprs_core.critics import embedded_folder
from cprs_core.errors import InputError
from cprs_core.evaluation import cli
from cprs_core.evaluation.compare import compare_runs, render_changes
from cprs_core.evaluation.metrics import Measure, mean_measure
from cprs_core.evaluation.published import PUBLISHED, render_published
from cprs_core.evaluation.report import read_results, write_results
from cprs_core.evaluation.targets import TARGETS, render_summary
from cprs_core.scorer import KeywordScorer


def bench(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    cli.add_bench_parser(parser.add_subparsers(required=True))
    args = parser.parse_args(["bench", *arguments])
    return args.run(args)


@pytest.fixture
def keyword_critic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "load_critics", lambda args: {"keyword": KeywordScorer()})


@pytest.fixture
def results(tmp_path: Path):
    def write(name: str, value: float, metric: str = "recall") -> str:
        path = tmp_path / name
        write_results(path, [Measure("t", metric, "keyword", value, value - 2, value + 2, 100)], {}, {})
        return str(path)

    return write


@pytest.mark.usefixtures("keyword_critic")
def test_quick_needs_no_data_and_writes_its_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run.json"
    arguments = ["--tokens", "500", "--questions", "8", "--no-baselines", "--device", "cpu", "--out", str(out)]
    assert bench("--quick", *arguments) == 0
    report = capsys.readouterr().out
    assert "| keyword" in report
    assert "look-alike present, right one absent: empty" in report
    assert {m.task for m in read_results(out)} == {"look-alikes", "needles", "no-shared-word", "promises"}
    assert json.loads(out.read_text())["machine"]["device"] == "cpu"


@pytest.mark.usefixtures("keyword_critic")
def test_falling_below_an_earlier_run_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run.json"
    arguments = ["quick", "--only", "look-alikes", "--questions", "8", "--no-baselines", "--device", "cpu"]
    assert bench(*arguments, "--out", str(out)) == 0
    assert bench(*arguments, "--against", str(out)) == 0
    better = tmp_path / "better.json"
    rows = [Measure(m.task, m.metric, m.system, m.value + 150, m.low + 150, m.high + 150) for m in read_results(out)]
    write_results(better, rows, {}, {})
    assert bench(*arguments, "--against", str(better)) == 1
    assert "worse" in capsys.readouterr().out


@pytest.mark.usefixtures("keyword_critic")
def test_an_earlier_run_of_another_critic_is_not_passed_over(tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    write_results(other, [Measure("look-alikes", "right one first", "somebody", 90.0, 80.0, 100.0)], {}, {})
    arguments = ["quick", "--only", "look-alikes", "--questions", "8", "--no-baselines", "--device", "cpu"]
    with pytest.raises(InputError, match="holds nothing of keyword"):
        bench(*arguments, "--against", str(other))


@pytest.mark.usefixtures("keyword_critic")
def test_earlier_results_that_are_missing_show_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(FileNotFoundError):
        bench("quick", "--no-baselines", "--against", str(tmp_path / "none.json"))
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("keyword_critic")
def test_own_records_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "It rained for days and days. Ada signed the lease in March. They left early."
    start = text.index("Ada")
    rows = [
        {
            "query": "Who signed the lease?",
            "documents": [{"id": "a", "text": text * 3}],
            "evidence": [{"document_id": "a", "start": start, "end": text.index(" They")}],
            "answers": ["Ada"],
        },
        {"query": "zzyzx", "documents": [{"id": "b", "text": text}], "evidence": []},
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert bench("--data", str(path), "--no-baselines", "--device", "cpu") == 0
    report = capsys.readouterr().out
    assert "mine.jsonl" in report
    assert "recall at 20%" in report
    assert "empty without evidence" in report
    head = next(line for line in report.splitlines() if line.startswith("| mine.jsonl"))
    metrics = [cell.strip() for cell in head.strip("|").split("|")]
    assert {"answer kept at 10%", "precision at default threshold", "F2 at default threshold"} <= set(metrics)
    assert {"tokens in", "tokens kept"} <= set(metrics)


def test_compare_tells_noise_from_change(results, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("compare", results("a", 90.0), results("b", 91.0)) == 0
    assert "same" in capsys.readouterr().out
    bench("compare", results("a", 90.0), results("b", 80.0))
    assert "worse" in capsys.readouterr().out
    bench("compare", results("a", 90.0, "tokens kept"), results("b", 80.0, "tokens kept"))
    assert "better" in capsys.readouterr().out


def test_compare_makes_no_verdict_of_a_handful_of_cases() -> None:
    """Three of three, then two of three: every share between is in both intervals."""
    before, after = (mean_measure("t", "m", "s", values) for values in ([1.0, 1.0, 1.0], [1.0, 1.0, 0.0]))
    assert not compare_runs([before], [after])[0].significant
    before, after = (mean_measure("t", "m", "s", [value]) for value in (1.0, 0.0))
    assert not compare_runs([before], [after])[0].worse
    before, after = (mean_measure("t", "m", "s", [value] * 12) for value in (1.0, 0.0))
    assert compare_runs([before], [after])[0].worse


def test_compare_says_nothing_of_times_which_have_no_interval() -> None:
    """A slower run is no better one, and a millisecond is no change."""
    before, after = (Measure("latency", "seconds at 16,384", "ours", value, n=2) for value in (1.0, 3.0))
    change = compare_runs([before], [after])[0]
    assert not change.significant
    assert "no interval" in render_changes([change])
    assert "+2 " in render_changes([change])


def test_a_folder_reads_as_the_critic_in_it() -> None:
    parser = argparse.ArgumentParser()
    cli.add_bench_parser(parser.add_subparsers(required=True))
    folder = embedded_folder()
    args = parser.parse_args(["bench", "reader", "--reader", str(folder), "--device", "cpu"])
    reader = cli.load_reader(args)
    assert reader is not None
    assert reader.name == f"{folder.name}, best span"
    assert reader.answer([("It rained. Ada King signed the lease.", "Who signed the lease?")]) == ["Ada King"]
    assert cli.load_reader(parser.parse_args(["bench", "reader"])) is None


def test_compare_wants_two_files() -> None:
    with pytest.raises(InputError, match="two results files"):
        bench("compare")
    with pytest.raises(InputError, match="unexpected argument"):
        bench("quick", "stray.json")


def test_changes_of_other_systems_are_not_mixed_up() -> None:
    before, after = (Measure("t", "m", name, 50.0, 49.0, 51.0, 9) for name in ("a", "b"))
    assert compare_runs([before], [after]) == []
    assert render_changes([]).count("\n") == 1


def test_summary_shows_ours_the_best_rival_and_the_target() -> None:
    rows = [Measure("qed", "right sentence first", "BM25", 53.0, 50.0, 56.0, 100)]
    rows.append(Measure("qed", "right sentence first", "MiniLM", 56.0, 53.0, 59.0, 100))
    rows.append(Measure("qed", "right sentence first", "ours", 81.0, 78.0, 84.0, 100))
    line = render_summary(rows, ["ours"]).splitlines()[2]
    assert [cell.strip() for cell in line.strip("|").split("|")][1:] == [
        "81.0 [78.0, 84.0]",
        "56.0 (MiniLM)",
        "80",
        "86",
    ]


def test_our_own_variants_are_no_baselines() -> None:
    rows = [Measure("haystack", "recall@512", name, 99.0, 98.0, 100.0, 9) for name in ("ours", "ours, cascade")]
    rows.append(Measure("haystack", "recall@512", "BM25", 90.0, 88.0, 92.0, 9))
    assert "90.0 (BM25)" in render_summary(rows, ["ours"])


def test_ambitions_are_never_below_what_must_be_reached() -> None:
    assert all(target.ambition >= target.reach for target in TARGETS)


def test_targets_over_bm25_are_points_above_its_score() -> None:
    rows = [Measure("xquad-others", "right sentence first", "BM25", 70.0, 69.0, 71.0, 100)]
    assert "| 75    | 80" in render_summary(rows, [])


def test_published_numbers_name_their_source() -> None:
    assert all(item.source and item.value for item in PUBLISHED)
    assert render_published().splitlines()[0].startswith("| published, on other data")


@pytest.mark.parametrize("arguments", [["--tokens", "-5"], ["--questions", "0"], ["--reader-tokens", "0"]])
def test_sizes_that_hold_nothing_are_named_before_anything_is_loaded(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "load_critics", lambda args: pytest.fail("loaded a critic"))
    with pytest.raises(InputError, match=f"{arguments[0]} is {arguments[1]}"):
        bench("quick", *arguments)


@pytest.mark.usefixtures("keyword_critic")
def test_tasks_that_cannot_be_compressed_are_reported_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    """The words of the question are not in the list, so the right output says that nothing stands out."""
    arguments = ["--only", "aggregation", "--tokens", "500", "--questions", "12", "--no-baselines", "--device", "cpu"]
    assert bench("suite", *arguments) == 0
    report = capsys.readouterr().out
    assert "aggregation" in report
    assert {"cwe", "fwe", "math_find"} <= set(report.replace("|", " ").split())
