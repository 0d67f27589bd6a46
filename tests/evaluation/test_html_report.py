"""The page: whole, self-contained, and true to its numbers."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from cprs_core.evaluation.html_report import area_under, render_page
from cprs_core.evaluation.metrics import Measure
from cprs_core.evaluation.published import render_published

VOID = {"meta", "line", "polyline", "circle"}


def run() -> list[Measure]:
    rows = [
        Measure("haystack", f"recall@{budget:,}", name, value, value - 1, value + 1, 500)
        for name, values in {"ours <1>": (90.0, 95.0, 99.0), "BM25": (80.0, 85.0, 90.0)}.items()
        for budget, value in zip((512, 1_024, 2_048), values, strict=True)
    ]
    rows.append(Measure("haystack", "recall@512", "MiniLM", math.nan, note="weights not found"))
    rows += [Measure("calibration", f"right at {x:.2f}", "ours <1>", 100 * x, n=50) for x in (0.1, 0.5, 0.9)]
    return rows


class Balance(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.loads += [name for name, _ in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def test_page_is_well_formed_and_loads_nothing() -> None:
    page = Balance()
    page.feed(render_page(run(), {"cpus": "2"}))
    assert page.open == []
    assert page.loads == []


def test_page_shows_values_reasons_curves_and_machine() -> None:
    page = render_page(run(), {"cpus": "2"}, "| measure | ours |\n|---|---|\n| QED | 81.0 |")
    assert "90.0 [89.0, 91.0]" in page
    assert "weights not found" in page
    assert "ours &lt;1&gt; (area 94.8)" in page
    assert page.count("<svg") == 2
    assert "<td>QED</td>" in page
    assert "cpus 2" in page


def test_area_is_the_mean_height() -> None:
    assert area_under([(0.0, 10.0), (1.0, 20.0), (3.0, 20.0)]) == pytest.approx(55 / 3)


def test_times_stand_at_powers_of_ten_that_say_what_they_are() -> None:
    rows = [Measure("latency", f"seconds at {n:,}", "ours", t, n=2) for n, t in ((16_384, 0.2), (65_536, 40.0))]
    page = render_page(rows, {})
    labels = re.findall(r'text-anchor="end">([^<]+)<', page)
    heights = [float(y) for y in re.findall(r'y="([\d.]+)" font-size="11" text-anchor="end"', page)]
    assert labels == ["0.1", "1", "10", "100"]
    assert np.diff(heights).tolist() == pytest.approx([heights[1] - heights[0]] * 3, abs=0.2)
    near = [Measure("latency", f"seconds at {n:,}", "ours", t, n=2) for n, t in ((16_384, 1.5), (65_536, 7.0))]
    assert re.findall(r'text-anchor="end">([^<]+)<', render_page(near, {})) == ["1", "2", "5", "10"]


def test_twenty_systems_can_be_told_apart() -> None:
    rows = [
        Measure("haystack", f"recall@{budget:,}", f"system {number}", 90.0, 89.0, 91.0, 9)
        for number in range(16)
        for budget in (512, 1_024, 2_048)
    ]
    page = render_page(rows, {})
    lines = re.findall(r'<polyline [^>]*stroke="[^"]+"[^>]*>', page)
    looks = {re.sub(r'points="[^"]*"', "", line) for line in lines}
    assert len(looks) == len(lines) == 16
    height = float(re.search(r'viewBox="0 0 940 (\d+)"', page).group(1))
    assert all(float(y) < height for y in re.findall(r'<text [^>]*y="([\d.]+)"', page))


def test_page_holds_what_others_published_and_how_the_run_was_made() -> None:
    page = render_page(run(), {"run": "suite; seed 42"}, published=render_published())
    assert "What others published" in page
    assert "<td>LongLLMLingua</td>" in page
    assert "seed 42" in page
