"""Languages without training data: English records whose letters are exchanged for those of another script.

What is learnt so is not the language but that words of the query which stand in a sentence speak for it, even where the
vocabulary spells them letter by letter.
"""

from __future__ import annotations

import random
import re

from cprs_core.training.records import Evidence, EvidenceSet, Record

_LATIN = "abcdefghijklmnopqrstuvwxyz"
_SCRIPTS = {
    "el": "αβγδεζηθικλμνξοπρστυφχψω",
    "ru": "абвгдежзиклмнопрстуфхцчшщыэюя",
    "ar": "ابتثجحخدذرزسشصضطظعغفقكلمنهوي",
    "hi": "अआइउएओकखगघचछजझटठडढणतथदधनपफबभमयरलवशसह",
    "th": "กขคงจฉชซญฐณดตถทธนบปผฝพฟภมยรลวศษสหอ",
    "la": _LATIN,
}


def cipher_records(one: EvidenceSet, count: int, seed: int) -> EvidenceSet:
    """``count`` records of ``one`` and their documents, each under a letter exchange of its own; positions hold.

    Letters for vowels are not kept apart from others: what the critic can learn here is likeness of spelling.
    """
    rng = random.Random(seed)
    result = EvidenceSet("cipher")
    for record in rng.sample(one.records, min(count, len(one.records))):
        language = rng.choice(list(_SCRIPTS))
        letters = list(_SCRIPTS[language])
        rng.shuffle(letters)
        image = {letter: letters[i % len(letters)] for i, letter in enumerate(_LATIN)}
        table = str.maketrans(image | {letter.upper(): target for letter, target in image.items()})
        source = record.documents[0]
        text = one.texts[source].translate(table)
        query = _inflect(rng, record.query.translate(table), letters)
        if language == "th":
            # Thai is written without blanks inside a sentence. A blank is exchanged for a letter that is never spoken,
            # so that positions hold and words have no borders.
            text, query = _WITHIN.sub("\u0e4c", text), query.replace(" ", "\u0e4c")
        document = result.add_document(text, one.groups[source], language)
        evidence = tuple(Evidence(document, e.start, e.end, e.tag) for e in record.evidence if e.document == source)
        result.records.append(Record(query, (document,), evidence))
    return result


# A blank that does not follow a full stop.
_WITHIN = re.compile(r"(?<=[^\s.?!;:]) (?=\S)")


def _inflect(rng: random.Random, query: str, letters: list[str]) -> str:
    """Some words with another ending, as in languages that decline and conjugate."""
    words = query.split(" ")
    for i, word in enumerate(words):
        if len(word) > 5 and word.isalpha() and rng.random() < 0.35:
            stem = word[: len(word) - rng.randint(1, 2)]
            words[i] = stem + "".join(rng.choices(letters, k=rng.randint(0, 2)))
    return " ".join(words)
