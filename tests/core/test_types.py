"""Results are frozen data that survive JSON."""

from __future__ import annotations

import json
from datetime import date

import pytest
from pydantic import ValidationError

from cprs_core import Compression, Compressor, Document, KeywordScorer, Span
from cprs_core.types import replace_surrogates


def test_document_takes_its_text_first() -> None:
    document = Document("Ada signed.", "lease", title="Lease", metadata={"page": 3})
    assert (document.text, document.id, document.title, document.metadata) == (
        "Ada signed.",
        "lease",
        "Lease",
        {"page": 3},
    )


def test_documents_without_metadata_do_not_share_one_dictionary() -> None:
    assert Document("a").metadata is not Document("b").metadata


def test_results_cannot_be_changed() -> None:
    span = Span(document_id=None, document_index=0, start=0, end=1, text="a", score=1.0, tag="fact")
    with pytest.raises(ValidationError, match="frozen"):
        span.start = 5


def test_compression_survives_json(lease: Compressor) -> None:
    source = Document("It rained. Ada signed the lease.", id="d", title="t", metadata={"page": 3})
    result = lease.compress(source, "Who signed?")
    loaded = Compression.model_validate_json(result.model_dump_json())
    assert loaded.model_dump() == result.model_dump()


def test_compression_with_lone_surrogates_everywhere_still_serialises() -> None:
    broken = "lease \ud800"
    compressor = Compressor(KeywordScorer("lease"))
    document = Document(f"The {broken}.", id=broken, title=broken)
    result = compressor.compress(document, broken, instruction=f"{broken}: tag it with 'fact'")
    loaded = json.loads(result.model_dump_json())
    assert result.text == f"The {broken}."
    assert result.query == broken
    assert loaded["text"] == "The lease \ufffd."
    assert loaded["spans"][0]["document_id"] == "lease \ufffd"


def test_metadata_with_surrogates_is_kept_and_becomes_json() -> None:
    metadata = {"path": "n\udcffame", "tags": ["\ud800"], "day": date(2024, 1, 2), "page": 3}
    result = Compressor(KeywordScorer("lease")).compress(Document("The lease.", metadata=metadata), "Who signed?")
    assert result.documents[0].metadata == metadata
    assert json.loads(result.model_dump_json())["documents"][0]["metadata"] == {
        "path": "n\ufffdame",
        "tags": ["\ufffd"],
        "day": "2024-01-02",
        "page": 3,
    }
    assert result.model_dump()["documents"][0]["metadata"] == metadata


def test_replacing_surrogates_keeps_every_position() -> None:
    text = "a\ud800b\udfff👍c"
    assert replace_surrogates(text) == "a\ufffdb\ufffd👍c"
    assert replace_surrogates("plain 👍") == "plain 👍"


@pytest.mark.parametrize("wrong", [None, 5, b"bytes", ["a"]])
def test_document_refuses_what_is_not_text(wrong: object) -> None:
    with pytest.raises(ValidationError, match="pass a str"):
        Document(wrong)  # type: ignore[arg-type]


def test_ids_are_text_or_nothing() -> None:
    assert Document("a", id=None).id is None
    with pytest.raises(ValidationError):
        Document("a", id=7)  # type: ignore[arg-type]


def test_json_schema_says_that_texts_are_strings() -> None:
    properties = Document.model_json_schema()["properties"]
    assert properties["text"]["type"] == "string"
    assert {"type": "string"} in properties["id"]["anyOf"]
