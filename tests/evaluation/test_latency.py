"""Time to the first token: a tiny reader on a CPU takes the same path as a large one on a GPU."""

from __future__ import annotations

import pytest

from cprs_core.errors import InputError
from cprs_core.evaluation import latency
from cprs_core.evaluation.html_report import latency_curves, render_page
from cprs_core.evaluation.latency import RandomReader, measure_latency
from cprs_core.evaluation.options import Options
from cprs_core.evaluation.report import render_tables
from cprs_core.evaluation.systems import CriticSystem
from cprs_core.scorer import KeywordScorer


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Options:
    monkeypatch.setattr(latency, "SHORTEST", 256)
    monkeypatch.setattr(latency, "LONGEST_DIRECT", 512)
    return Options(tokens=2_048, shape="tiny", device="cpu")


def test_every_way_has_a_time_at_every_length(small: Options) -> None:
    rows = measure_latency([CriticSystem("ours", KeywordScorer("archive"))], small)
    ours = {m.metric: m for m in rows if m.system == "ours + reader"}
    assert list(ours) == [f"seconds at {n:,}" for n in (256, 512, 1_024, 2_048)]
    assert all(m.value > 0 for m in rows)
    direct = [m.metric for m in rows if m.system == "direct"]
    fitted = [m.metric for m in rows if m.system == "direct, fitted"]
    assert direct == ["seconds at 256", "seconds at 512"]  # what was measured
    assert fitted == ["seconds at 1,024", "seconds at 2,048"]  # and what was not, in a row of its own


def test_published_times_stand_in_a_table_of_their_own(small: Options) -> None:
    rows = measure_latency([], small)
    tables = render_tables(rows).split("\n\n")
    assert len(tables) == 2
    assert "MInference" not in tables[0]
    assert "MInference" in tables[1]
    assert len(latency_curves([m for m in rows if "published" in m.task])) == 4
    assert render_page(rows, {}).count("<svg") == 2


def test_memory_that_ends_ends_the_measured_row(small: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(self: RandomReader, tokens: int) -> float:
        if tokens > 256:
            raise MemoryError(f"{tokens:,} tokens")
        return 0.5

    monkeypatch.setattr(RandomReader, "seconds", seconds)
    monkeypatch.setattr(latency, "RETRIEVED", 100)
    rows = measure_latency([], small)
    assert [m.metric for m in rows if m.system == "direct"] == ["seconds at 256"]


def test_unknown_shapes_are_named() -> None:
    with pytest.raises(InputError, match="7b, tiny"):
        RandomReader("70b", "cpu")
