"""What people look at: failures with their text, heat maps, pictures, and the README's table."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from cprs_core.errors import InputError
from cprs_core.evaluation import cli
from cprs_core.evaluation.corpus import Corpus, Request
from cprs_core.evaluation.failures import WORST, FailureLog
from cprs_core.evaluation.html_report import depth_maps, recall_curves, render_page
from cprs_core.evaluation.metrics import Fact, Measure
from cprs_core.evaluation.needles import CURVE
from cprs_core.evaluation.options import Options
from cprs_core.evaluation.pictures import write_pictures
from cprs_core.evaluation.readme import BEGIN, END, render_measured, update_readme
from cprs_core.evaluation.report import render_tables
from cprs_core.evaluation.suite import measure_grid
from cprs_core.evaluation.systems import CriticSystem, HeadSystem
from cprs_core.instructions import PRESETS
from cprs_core.scorer import KeywordScorer, WordTokenizer

TEXT = "It rained <b>. Ada signed the lease in March. They left."


def bench(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    cli.add_bench_parser(parser.add_subparsers(required=True))
    args = parser.parse_args(["bench", *arguments])
    return args.run(args)


def log_of(*scores: tuple[float, float, float]) -> FailureLog:
    corpus = Corpus([TEXT], WordTokenizer())
    fact = Fact.locate(corpus, TEXT.index("Ada"), TEXT.index(" They"))
    log = FailureLog()
    for row in scores:
        values = np.array(row, dtype=np.float32)
        kept = values == values.max()
        request = Request(corpus, "Who signed?", PRESETS["supporting_facts"])
        log.add("t", "k", "ours", request, [fact], values, kept, missed=not fact.found(kept))
    return log


def test_failures_say_what_was_needed_and_what_came_instead() -> None:
    failure = log_of((0.9, 0.2, 0.1)).worst[0]
    assert failure.missed == "Ada signed the lease in March."
    assert failure.instead == "It rained <b>."
    assert failure.gap == pytest.approx(0.7)


def test_only_the_worst_failures_are_kept_and_all_are_counted() -> None:
    log = log_of((0.1, 0.9, 0.1), *((0.5 + 0.1 * n, 0.2, 0.1) for n in range(WORST + 1)))
    assert log.counts == {("t", "k", "ours"): [WORST + 1, WORST + 2]}
    assert [round(failure.gap, 1) for failure in log.worst] == [0.6, 0.5, 0.4]
    assert f"{WORST + 1} of {WORST + 2}" in log.render()
    assert FailureLog().render() == ""


def test_failures_survive_a_round_trip() -> None:
    log = log_of((0.9, 0.2, 0.1))
    back = FailureLog.from_rows(json.loads(json.dumps(log.to_rows())))
    assert back.worst == log.worst
    assert back.counts == log.counts


def test_page_shows_failures_as_text_never_as_markup() -> None:
    page = render_page([], {}, failures=log_of((0.9, 0.2, 0.1)))
    assert "1 of 1" in page
    assert "It rained &lt;b&gt;." in page


@pytest.fixture(scope="module")
def grid() -> list[Measure]:
    options = Options(tokens=400)
    return measure_grid([CriticSystem("ours", KeywordScorer()), HeadSystem()], options)


def test_grid_has_a_cell_per_depth_and_length(grid: list[Measure]) -> None:
    maps = depth_maps(grid)
    assert set(maps) == {"ours", "first tokens"}
    assert len(maps["ours"]) == 15
    assert {length for _, length in maps["ours"]} == {400}
    assert maps["first tokens"][0.0, 400] == 100.0  # truncation finds what stands first
    assert maps["first tokens"][1.0, 400] == 0.0


def test_curves_and_cells_are_drawn_but_not_tabulated(grid: list[Measure]) -> None:
    table = render_tables(grid)
    assert "recall@60" in table
    assert "depth 0.50" not in table
    assert "recall@128" not in table
    assert len(recall_curves(grid)["ours"]) >= len(CURVE)
    page = render_page(grid, {})
    assert "area" in page
    assert page.count("<table>") == 3  # measures and two heat maps


def test_pictures_are_written_per_task(grid: list[Measure], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [*grid, *(Measure("calibration", f"right at {x:.2f}", "ours", 100 * x, n=50) for x in (0.1, 0.9))]
    rows += [Measure("latency", f"seconds at {n:,}", "direct", n / 9_000, n=3) for n in (16_384, 32_768)]
    written = write_pictures(tmp_path / "png", rows)
    names = {"needle-grid-recall.png", "needle-grid-depth.png", "calibration-calibration.png", "latency-latency.png"}
    assert {path.name for path in written} == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)


def haystack() -> list[Measure]:
    return [Measure("haystack", f"recall@{n:,}", "ours", 97.0, 95.0, 99.0, 300) for n in (512, 1_024, 4_096)]


def test_measured_table_goes_between_its_marks_and_nothing_else_changes(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    absent = Measure("haystack", "recall@512", "theirs", float("nan"), note="weights not found")
    update_readme(page, render_measured([*haystack(), absent], {"device": "cpu"}))
    text = page.read_text()
    assert "theirs" not in text
    assert text.startswith(f"before\n{BEGIN}\n| kept tokens")
    assert text.endswith(f"(device cpu).\n{END}\nafter\n")
    assert "old" not in text


def test_our_readme_has_the_marks() -> None:
    page = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert page.count(BEGIN) == page.count(END) == 1
    assert page.index(BEGIN) < page.index(END)


def test_readme_without_marks_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("nothing here")
    with pytest.raises(InputError, match="bench: begin"):
        update_readme(page, "table")
    assert page.read_text() == "nothing here"
    with pytest.raises(InputError, match="no haystack"):
        render_measured([], {})


def test_report_joins_runs_and_draws_them_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(cli, "load_critics", lambda args: {"keyword": KeywordScorer()})
    outs = [tmp_path / "a.json", tmp_path / "b.json"]
    common = ["--no-baselines", "--device", "cpu", "--tokens", "300", "--questions", "8"]
    assert bench("quick", "--only", "grid", *common, "--out", str(outs[0])) == 0
    assert bench("quick", "--only", "look-alikes", *common, "--out", str(outs[1])) == 0
    capsys.readouterr()
    page, folder = tmp_path / "page.html", tmp_path / "png"
    assert bench("report", *map(str, outs), "--html", str(page), "--png", str(folder)) == 0
    text = capsys.readouterr().out
    assert "needle grid" in text
    assert "look-alikes" in text
    assert "<svg" in page.read_text()
    assert (folder / "needle-grid-depth.png").exists()


def test_report_names_a_file_that_holds_no_results(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("{}")
    with pytest.raises(InputError, match="no results"):
        bench("report", str(path))
    with pytest.raises(InputError, match="at least one"):
        bench("report")
    with pytest.raises(InputError, match="--out"):
        bench("quick", "--readme", str(path))
