"""Languages without training data: English records whose letters are exchanged for those of another script.

What is learnt so is not the language but that words of the query which stand in a sentence speak for it, even where the
vocabulary spells them letter by letter.
"""

from __future__ import annotations

import random

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
    """``count`` records of ``one`` and their documents, each under a letter exchange of its own; positions hold."""
    rng = random.Random(seed)
    result = EvidenceSet("cipher")
    for record in rng.sample(one.records, min(count, len(one.records))):
        language = rng.choice(list(_SCRIPTS))
        letters = list(_SCRIPTS[language])
        rng.shuffle(letters)
        image = {letter: letters[i % len(letters)] for i, letter in enumerate(_LATIN)}
        table = str.maketrans(image | {letter.upper(): target for letter, target in image.items()})
        source = record.documents[0]
        document = result.add_document(one.texts[source].translate(table), one.groups[source], language)
        evidence = tuple(Evidence(document, e.start, e.end, e.tag) for e in record.evidence if e.document == source)
        result.records.append(Record(record.query.translate(table), (document,), evidence))
    return result
