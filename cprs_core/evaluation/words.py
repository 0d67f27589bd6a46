"""Vocabulary of the evaluation's own generators. Training generators must not share it."""

from __future__ import annotations

import numpy as np

ADJECTIVES = """
    amber ancient arid brisk brittle candid chalky cobalt cordial crimson damp dapper drowsy earnest eerie fabled
    feral fluent frosty gaunt gilded glossy grainy hazy hollow humble jagged jaunty knobbly lanky limber lofty
    lucid mellow mossy nimble oblong opal pensive placid plucky quaint quiet rugged russet rustic scarlet serene
    shaggy silken sleek solemn spry sturdy tawny tepid umber vivid wistful woolly zesty
""".split()
NOUNS = """
    abbey acorn anchor anvil apron badger banjo barley beacon bellows bramble brooch canopy canteen cellar chisel
    cinder clover cobbler comet copse cradle cricket cupboard dagger dynamo easel ember falcon fiddle flagon forge
    funnel gable galleon garnet gazebo girder goblet grotto gutter hammock harvest hatchet heron inkwell jetty
    juniper kettle lantern larder lattice ledger locket magpie mantle marble mitten mortar nettle orchard otter
    paddle parapet pebble pennant pewter pigeon pillar pocket prism quarry quill radish rafter saddle satchel
    scarab scythe shutter sickle sparrow spindle stirrup tankard teapot thimble thistle timber trellis tunnel
    turnip turret vellum violin walnut weasel wicket willow
""".split()
GIVEN_NAMES = """
    Aurelio Beatrix Casimir Delphine Elspeth Florian Gudrun Hamish Ilse Joaquim Katarina Leopold Mirela Norbert
    Ottilie Percival Rosalind Sigrid Thaddeus Ursula Valentin Wilhelmina Xenia Yorick Zuzana Anselm Birgitta
    Cosmin Dagny Emeric
""".split()
SURNAMES = """
    Abernathy Bellweather Carvalho Drummond Eastlake Fairbrother Grunewald Halvorsen Iverson Jankowski Kestrel
    Lindgren Mortimer Nakagawa Ostrander Pemberton Quillfeather Rasmussen Szabados Thackeray Underhill Vandermeer
    Whitlock Yardley Zielinski Albescu Brankovic Cullinane Dietrich Eskildsen
""".split()
PLACES = """
    Ashcombe Brindlewick Calderford Dunmorrow Elmsgate Fenwick Glenharrow Hollowmere Inverlocke Juniper Kirkstead
    Larkmoor Millhaven Northolt Oakhurst Penrose Quarley Ravensholm Stonebridge Thornbury Uffington Valebrook
    Westerleigh Yarrowdale Applecross Birchington Coldwater Draycott Edgemoor Foxhollow
""".split()
FACILITIES = "archive boathouse clinic depot foundry granary laboratory library observatory warehouse".split()
CODES = ("access code", "gate code", "alarm code", "locker code", "wireless password", "door number")


def key_phrase(rng: np.random.Generator) -> str:
    """An adjective and a noun, as RULER's word keys are made: "mossy-lantern"."""
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
