"""The kinds of extraction that are taught: which evidence counts, how it is asked for, and which words name it."""

from __future__ import annotations

from dataclasses import dataclass

from cprs_core.instructions import PRESETS


@dataclass(frozen=True)
class View:
    """One way to look at a set of records.

    Attributes:
        tag: evidence with this tag is to be kept ("entity" stands for all types; "document" for the whole document
            that the query was written for).
        instructions: wordings; a record's own instruction comes before them.
        tag_words: words that name what is kept.
        shared: whether one query is asked of many documents, so that evidence lies in neighbours too.
        by_sentence: whether whole sentences are kept, so that sentences compete with each other for the query.
    """

    tag: str
    instructions: tuple[str, ...]
    tag_words: tuple[str, ...]
    by_sentence: bool = True
    shared: bool = False


def _preset(name: str, *wordings: str) -> tuple[str, ...]:
    return (PRESETS[name].text, PRESETS[name].text, *wordings)  # the preset's own wording is seen most


_FACTS = _preset(
    "supporting_facts",
    "Find the sentences in the context that support answering the question.",
    "extract some sentences from the documents as the supporting facts of the user's question. "
    "tag the supporting facts with 'fact'",
    "Which sentences answer the question?",
    "Keep the sentences needed to answer.",
)

VIEWS: dict[str, View] = {
    "fact": View("fact", _FACTS, ("fact", "fact", "evidence", "support", "proof", "answer")),
    "claim": View(
        "fact",
        _preset("claims", "Find the evidence for the claim.", "Which sentences say whether this is true?"),
        ("fact", "evidence", "proof"),
    ),
    "answer": View(
        "answer",
        _preset("answers", "Extract the keywords according to the user's query.", "Give the shortest answer span."),
        ("answer", "answer", "keyword", "name", "value"),
        by_sentence=False,
    ),
    "document": View(
        "document",
        _preset(
            "paragraphs",
            "Retrieve chunks or paragraphs from the document that are related to the user's query.",
            "Keep the paragraphs about the question.",
            PRESETS["documents"].text,
        ),
        ("passage", "paragraph", "chunk"),
    ),
    "passage": View(
        "passage",
        _preset("paragraphs", PRESETS["turns"].text, "Keep the part of the meeting that the query is about."),
        ("passage", "turn", "paragraph"),
    ),
    "clause": View(
        "clause",
        _preset("clauses", "Find the clause of this contract.", "Extract the parts of the agreement that say this."),
        ("clause", "clause", "term", "provision"),
        by_sentence=False,
        shared=True,
    ),
    "turn": View(
        "fact",
        _preset("turns", "Which turns of the conversation answer this?"),
        ("turn", "fact", "message"),
        shared=True,
    ),
    "entity": View(
        "entity",
        _preset("entities", "Extract the keywords according to the user's query.", "Mark every mention."),
        ("entity", "entity", "name", "keyword"),
        by_sentence=False,
        shared=True,
    ),
    "needle": View(
        "needle",
        _preset(
            "needles",
            "extract the 'needles' from the documents to answer user's question. tag the needles with 'needle'",
            "Extract the {key}:{value} pair for the key in user's question",
            *_FACTS[1:3],
        ),
        ("needle", "needle", "fact", "value", "key"),
    ),
    "chain": View(
        "chain",
        (
            "Extract the variable assignments that the question needs.",
            "extract the assignment chains like 'VAR XXX1 = XXX2' from the documents to answer the question of the "
            "user. tag the assignment chains with 'chain'",
            PRESETS["needles"].text,
            _FACTS[0],
        ),
        ("chain", "chain", "assignment"),
    ),
    "error": View("error", _preset("errors", "Which lines explain the failure?"), ("error", "error", "cause")),
    "code": View("code", _preset("code", "Find where this is defined.", _FACTS[0]), ("code", "code", "definition")),
    "remark": View(
        "remark",
        _preset("turns", "Which turns of the conversation answer this?", _FACTS[0]),
        ("turn", "fact", "message"),
    ),
    "profile": View("fact", _FACTS, ("fact", "evidence", "support")),
}

# The first view of each evidence tag: how records of that tag are taught where nothing else is said.
NAME_OF_TAG = {view.tag: name for name, view in reversed(VIEWS.items())}


def view_of_tag(tag: str) -> View:
    """How evidence of a tag is taught; one that `VIEWS` does not know as whole sentences, under the tag's own word."""
    if tag in NAME_OF_TAG:
        return VIEWS[NAME_OF_TAG[tag]]
    return View(tag, (f"Extract the sentences about the query; tag them with '{tag}'.",), (tag,))


# Words for kinds of names whose label in the data is not one.
KIND_WORDS = {
    "academicjournal": "journal",
    "astronomicalobject": "star",
    "chemicalcompound": "compound",
    "chemicalelement": "element",
    "creative-work": "work",
    "literarygenre": "style",
    "metrics": "metric",
    "musicalartist": "artist",
    "musicalinstrument": "instrument",
    "musicgenre": "genre",
    "politicalparty": "party",
    "programlang": "language",
}

# What stands before and after the tag word.
TAGGING = (
    ("Tag them with '", "'."),
    ("Tag each of them with '", "'."),
    ("; tag it with '", "'"),
    ("## tagging rule: - tag the spans with '", "'"),
    ("and tag what you find as '", "'."),
    ("tag with '", "'"),
)

# What stands before and after a query in an instruction that says it all.
REQUESTS = (
    ("", ""),
    ("", ""),
    ("Extract the sentences that answer the question:", ""),
    ("Find the text about this:", ""),
    ("Keep whatever answers '", "'."),
    ("Extract what the documents say about", "."),
)
