"""The page shows the source with the kept text marked, whatever the text holds."""

from __future__ import annotations

import time
from html.parser import HTMLParser

import pytest

from cprs_core import Compression, Compressor, Document, KeywordScorer
from tests.core.texts import NASTY


class Page(HTMLParser):
    """Elements, marked text and all text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.marked: list[str] = []
        self.text = ""
        self._in_mark = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        if tag == "mark":
            self._in_mark = True
            self.marked.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_mark = self._in_mark and tag != "mark"

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._in_mark:
            self.marked[-1] += data


def test_kept_text_is_marked_inside_its_source(lease: Compressor) -> None:
    page = Page(lease.compress("It rained. Ada signed the lease. Bob left.", "Who signed?").to_html())
    assert page.marked == ["Ada signed the lease."]
    assert "It rained. Ada signed the lease. Bob left." in page.text
    assert "Who signed?" in page.text


def test_markup_in_texts_names_and_queries_is_shown_and_never_run(lease: Compressor) -> None:
    attack = '<script>alert("lease")</script>'
    document = Document(f"{attack} It rained.", id='"><img src=x>', title="<b>&amp;</b>")
    page = Page(lease.compress(document, attack, instruction=attack).to_html())
    assert "script" not in page.elements
    assert "img" not in page.elements
    assert "b" in page.elements  # our own, around the query
    assert attack in page.text
    assert "<b>&amp;</b>" in page.text


@pytest.mark.parametrize("name", NASTY)
def test_page_of_nasty_text_can_be_written_as_utf8(lease: Compressor, name: str) -> None:
    document = Document(NASTY[name], id=NASTY[name])
    html = lease.compress(document, NASTY[name], instruction="errors").to_html()
    assert "\x00" not in html
    assert "lease" in "".join(Page(html.encode("utf-8").decode("utf-8")).marked)


def test_long_dropped_text_is_shortened_on_the_page(lease: Compressor) -> None:
    page = Page(lease.compress("It rained. " * 10_000 + "Ada signed the lease.", "Who signed?").to_html())
    assert len(page.text) < 5_000
    assert "characters ...]" in page.text
    assert page.marked == ["Ada signed the lease."]


def test_page_of_many_documents_takes_time_in_proportion(lease: Compressor) -> None:
    result = lease.compress([f"The lease {number}." for number in range(20_000)], "Who signed?")
    began = time.perf_counter()
    html = result.to_html()
    assert time.perf_counter() - began < 5
    assert html.count("<mark") == 20_000


def test_notice_is_on_the_page_when_nothing_was_kept(lease: Compressor) -> None:
    result = lease.compress("It rained.", "Who signed?")
    assert result.notice is not None
    assert result.notice in Page(result.to_html()).text


def test_result_read_from_json_still_shows_what_was_kept(lease: Compressor) -> None:
    result = lease.compress("It rained. Ada signed the lease.", "Who signed?")
    page = Page(Compression.model_validate_json(result.model_dump_json()).to_html())
    assert "Ada signed the lease." in page.text


def test_notebooks_show_a_fragment_without_a_page_around_it() -> None:
    result = Compressor(KeywordScorer("lease")).compress("The lease.", "q")
    fragment = result._repr_html_()
    assert "<html" not in fragment
    assert Page(fragment).marked == ["The lease."]
