"""Word lists of the made-up records. They are for training alone; benchmarks bring their own."""

from __future__ import annotations

COLOURS = (
    "amber azure beige bronze coral crimson cyan ebony fuchsia golden indigo ivory khaki lilac maroon ochre".split()
)
NOUNS = """
    anchor basket beacon bridge candle canyon castle cobalt comet copper cradle desert dragon engine falcon feather
    forest garden glacier hammer harbor hazel island jacket kettle ladder lantern lagoon magnet marble meadow mirror
    nectar needle orchard oyster paddle pebble pepper pigeon pillar pocket quartz rabbit ribbon saddle sailor shovel
    spider temple thunder tunnel turtle valley velvet walnut window winter zipper
""".split()
FIRST = """
    Agnes Bruno Carla Dmitri Elena Farid Greta Hassan Ingrid Jonas Katya Lorenzo Mirela Nikhil Olga Pavel Quentin Rosa
    Stefan Tamara Ulrich Viktor Wanda Xenia Yusuf Zofia Amara Boris Chen Dalia Emeka Fatima Goran Hana Ivan Jamila
""".split()
LAST = """
    Abadi Bergman Castro Dvorak Eriksen Fontaine Gupta Hoffmann Ibsen Jansen Kovacs Larsen Moreno Novak Okafor Petrov
    Quist Romero Schmidt Takeda Ueda Varga Weber Xiang Yilmaz Zeman Almeida Brandt Conti Duarte
""".split()
CITIES = "Graz Turku Porto Lodz Ghent Bergen Malaga Trieste Izmir Sofia Tampere Lyon Basel Cork Varna Oulu Bari".split()
JOBS = "welder surgeon botanist carpenter notary pilot plumber librarian geologist baker tailor chemist".split()
THINGS = "router invoice shipment turbine reactor warehouse ticket account sensor server contract parcel".split()
UNITS = [
    *("access code", "serial number", "opening password", "gate number"),
    *("tracking id", "locker combination", "badge number", "room key"),
]
SERVICES = "billing search upload payment session catalog mailer scheduler gateway indexer exporter".split()
VERBS = "load parse merge render fetch encode filter update validate export resolve rotate".split()
OBJECTS = "header invoice matrix profile token image schema record bundle widget report cursor".split()
FAULTS = [
    *("connection refused by {host}", "disk quota exceeded on {host}", "certificate of {host} has expired"),
    *("out of memory while reading {host}", "permission denied for {host}", "timeout after {n} ms waiting for {host}"),
]
CALM = [
    *("request {n} served in {m} ms", "cache warmed with {n} entries", "heartbeat ok", "user {n} signed in"),
    *("job {n} finished", "connected to {host}", "flushed {n} rows", "retry queue is empty"),
]

EVENTS = "concert auction marathon exhibition parade congress regatta tournament gala rally fete bazaar".split()
SITES = "bridge tower dam lighthouse stadium tunnel museum cathedral windmill reservoir palace station".split()
_OFFICES = """
    survey team, harbour authority, grain exchange, tax bureau, weather service, road department, coin cabinet,
    forest agency, ferry company, land registry, night watch, film archive, salt works, rowing club, postal museum,
    glass factory, music school, fire brigade, seed bank, map room
"""
OFFICES = [" ".join(name.split()) for name in _OFFICES.split(",")]
ROOMS = "attic pantry garage balcony hallway bedroom study stable greenhouse workshop chapel office".split()
GOODS = "umbrella cello kettle suitcase hammer scarf vase telescope parcel lamp diary crown".split()
SETTINGS = "depth width speed retry size level port batch colour mode budget weight age rate".split()
