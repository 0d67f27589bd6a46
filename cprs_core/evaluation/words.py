"""Vocabulary of the evaluation's own generators. Training generators must not share it."""

from __future__ import annotations

import numpy as np

ADJECTIVES = """
    ancient arid ashen brisk brittle candid cerise chalky cordial creaky damp dapper drowsy earnest eerie fabled
    feral fluent frosty gaunt gilded glossy grainy hazy hollow humble jagged jaunty knobbly lanky limber lofty
    lucid mellow mossy nimble oblong opal pensive placid plucky quaint quiet rugged russet rustic scarlet serene
    shaggy silken sleek solemn spry sturdy tawny tepid umber vivid wistful woolly zesty
""".split()
NOUNS = """
    abacus abbey acorn anvil apron badger banjo barley bellows bobbin bramble brooch canopy canteen cellar chisel
    cinder clover cobbler copse cricket crocus cupboard dagger dowel dynamo easel ember ferret fiddle flagon forge
    funnel gable galleon garnet gazebo girder goblet grotto gutter hammock harvest hatchet heron inkwell jetty
    juniper kennel larder lattice ledger locket loom magpie mallet mantle mitten mortar nettle oriole otter pagoda
    parapet pennant pewter plover pommel poppy pouch prism quarry quill radish rafter satchel scarab scythe
    sextant shutter sickle sparrow spindle stirrup tankard teapot thimble thistle timber trellis trowel turnip
    turret vellum violin weasel wharf wicket willow
""".split()
GIVEN_NAMES = """
    Anselm Aurelio Beatrix Birgitta Casimir Cosmin Dagny Delphine Elspeth Emeric Florian Gudrun Hamish Ilse
    Joaquim Katarina Leopold Melisande Norbert Ottilie Percival Rosalind Sigrid Thaddeus Ursula Valentin
    Wilhelmina Xaviera Yorick Zuzana
""".split()
SURNAMES = """
    Abernathy Albescu Bellweather Brankovic Carvalho Cullinane Dietrich Drummond Eastlake Eskildsen Fairbrother
    Grunewald Halvorsen Iverson Jankowski Kestrel Lindgren Mortimer Nakagawa Ostrander Pemberton Quillfeather
    Rasmussen Szabados Thackeray Underhill Vandermeer Whitlock Yardley Zielinski
""".split()
PLACES = """
    Applecross Ashcombe Birchington Brindlewick Calderford Coldwater Draycott Dunmorrow Edgemoor Elmsgate Fenwick
    Foxhollow Glenharrow Hollowmere Inverlocke Juniper Kirkstead Larkmoor Millhaven Northolt Oakhurst Penrose
    Quarley Ravensholm Stonebridge Thornbury Uffington Valebrook Westerleigh Yarrowdale
""".split()
FACILITIES = "archive boathouse clinic depot foundry granary laboratory library observatory waterworks".split()
CODES = ("entry code", "gate code", "alarm code", "locker code", "wireless password", "door number")


def key_phrase(rng: np.random.Generator) -> str:
    """An adjective and a noun, as RULER's word keys are made: "mossy-lattice"."""
    return f"{pick(rng, ADJECTIVES)}-{pick(rng, NOUNS)}"


def pick(rng: np.random.Generator, words: list[str] | tuple[str, ...]) -> str:
    """One of ``words``."""
    return words[int(rng.integers(len(words)))]


def pick_two(rng: np.random.Generator, words: list[str] | tuple[str, ...]) -> tuple[str, str]:
    """Two different ones of ``words``."""
    first, second = rng.choice(len(words), size=2, replace=False).tolist()
    return words[first], words[second]


def uuid(rng: np.random.Generator) -> str:
    """A random version 4 UUID's text."""
    digits = "".join(f"{byte:02x}" for byte in rng.bytes(16))
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


_SUBJECTS = (
    "The {adjective} {noun}",
    "A {noun} from {place}",
    "{given} {surname}",
    "The {facility} at {place}",
    "Every {adjective} {noun}",
    "The owner of the {noun}",
)
_ACTIONS = (
    "was repainted before the summer",
    "stood beside the {noun} for most of the afternoon",
    "had been mended twice since the move",
    "appears in an old photograph of the {facility}",
    "reminded the visitors of a {adjective} {noun}",
    "was carried down to the harbour in {place}",
    "never came up again at the meeting",
    "cost more than the {noun} that it replaced",
    "was described in the newsletter as {adjective} but useful",
    "arrived a week later than the letter from {place}",
    "belonged to the {surname} family for three generations",
    "still smells faintly of the {adjective} {noun}",
)
_ENDINGS = ("", "", " without anyone noticing", " according to the caretaker", " despite the rain", " all the same")


def plain_sentence(rng: np.random.Generator) -> str:
    """A sentence that holds no code, number or answer: the hay of our own haystacks."""
    template = f"{pick(rng, _SUBJECTS)} {pick(rng, _ACTIONS)}{pick(rng, _ENDINGS)}."
    return template.format(
        adjective=pick(rng, ADJECTIVES),
        noun=pick(rng, NOUNS),
        place=pick(rng, PLACES),
        facility=pick(rng, FACILITIES),
        given=pick(rng, GIVEN_NAMES),
        surname=pick(rng, SURNAMES),
    )
