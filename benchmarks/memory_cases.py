"""Cases for `memory.py`: dialogues with a turn that answers, tool outputs with lines that matter, a long agent run."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from cprs_core.evaluation.data import read_dataset
from cprs_integrations.ranking import words_of
from tests.integrations.memory.outputs import CITIES, MAKERS, NAMES, Output

_RESULT = re.compile(r"TOOL RESULT \((\w+)\): (.*)")
_CALL = re.compile(r"TOOL CALL: (\w+) (.*)")
_TELLING = re.compile(r"[A-Z]{2,4}\d{2,}|\d{2}:\d{2}|\d{3,}|[a-z]+_[a-z]+_\d+|[A-Z0-9]{6}\b")

# Facts that people let fall in a conversation, and how somebody asks for them later, in other words.
_FACTS = [
    ("My sister {name} was born on the {day}th of {month}.", "When is the birthday of {name}?"),
    ("I left the spare key under the {thing} by the back door.", "Where can I find the second key?"),
    ("We pay {number} a month for the flat in {city}.", "How much is the rent in {city}?"),
    ("{name} only eats fish since the operation.", "What diet does {name} follow?"),
    ("The code of the garage is {number}.", "Which digits open the garage?"),
    ("Our train to {city} leaves at {hour}:{minute}.", "What is the departure time to {city}?"),
    ("{name} works for the harbour office in {city} now.", "Who employs {name}?"),
    ("The doctor moved the appointment to {month} {day}.", "On which date do I see the doctor?"),
    ("I promised {name} to bring the {thing} back.", "What do I have to return to {name}?"),
    ("The blue folder with the contract is at {name}'s place.", "Who has the contract?"),
]
_TALK = [
    "How was the weekend in {city}?",
    "{name} sends greetings, by the way.",
    "It rained all {month} long.",
    "I saw a {thing} like that in {city}.",
    "Shall we meet at {hour} tomorrow?",
    "{name} told the story about the {thing} again.",
    "That cost me {number} last time.",
    "Nothing new here, only work.",
    "The office in {city} is closed in {month}.",
    "We took the train at {hour}:{minute} and still came late.",
    "I never liked the {thing} anyway.",
    "Do you remember {name} from {city}?",
]
_MONTHS = ["January", "March", "May", "June", "August", "October", "December"]
_THINGS = ["flowerpot", "drill", "ladder", "lamp", "book", "tent", "bicycle", "pan", "camera", "suitcase"]


@dataclass(frozen=True)
class Dialogue:
    """A history of turns, a question, and the turns any of which answers it."""

    turns: list[str]
    question: str
    gold: frozenset[int]


def sgd_dialogues(data: Path, number: int, seed: int = 1) -> list[Dialogue]:
    """Histories of 300-700 turns, SGD dev dialogues end to end; each question's domain occurs in one dialogue only."""
    corpus = read_dataset(data, "sgd", "dev")
    by_document: dict[str, list[Any]] = {}
    for record in corpus.records:
        by_document.setdefault(record.document_ids[0], []).append(record)
    documents = corpus.documents
    rng = Random(seed)
    found: list[Dialogue] = []
    while len(found) < number:
        turns: list[str] = []
        parts: list[tuple[str, int]] = []
        target = rng.randrange(300, 700)
        for id in rng.sample(sorted(documents), 60):
            if len(turns) >= target:
                break
            parts.append((id, len(turns)))
            turns += documents[id].text.split("\n")
        domains = Counter(domain for id, _ in parts for domain in {_domain(r.id) for r in by_document.get(id, [])})
        asked = [
            Dialogue(turns, record.query, _gold_turns(record, documents[id].text, base))
            for id, base in parts
            for record in by_document.get(id, [])
            if domains[_domain(record.id)] == 1
        ]
        found += rng.sample(asked, min(2, len(asked)))
    return found[:number]


def generated_dialogues(number: int, seed: int = 2, facts: int = 30) -> list[Dialogue]:
    """Small talk of 300-700 turns of our own, in which facts are let fall and one is asked for in other words.

    Half of the other facts are of the same kind, about other people and places: topic alone does not find the answer.
    """
    rng = Random(seed)
    found: list[Dialogue] = []
    while len(found) < number:
        said = [
            [_filled(rng, line)[0] for line in rng.sample(_TALK, rng.randrange(1, 4))]
            for _ in range(rng.randrange(300, 700))
        ]
        statement, question = rng.choice(_FACTS)
        answer, values = _filled(rng, statement)
        asked, _ = _filled(rng, question, values)
        places = rng.sample(range(len(said)), facts)
        said[places[0]].insert(rng.randrange(2), answer)
        for number_of_fact, place in enumerate(places[1:]):
            other, about = (statement, question) if number_of_fact % 2 else rng.choice(_FACTS)
            text, values = _filled(rng, other)
            if _filled(rng, about, values)[0] != asked:
                said[place].insert(rng.randrange(2), text)
        turns = [f"{_speaker(place)}: {' '.join(lines)}" for place, lines in enumerate(said)]
        found.append(Dialogue(turns, asked, frozenset({places[0]})))
    return found


def generated_outputs(number: int, seed: int = 3) -> list[Output]:
    """Logs, search hits, JSON lists and web pages in equal numbers."""
    rng = Random(seed)
    return [MAKERS[n % len(MAKERS)](rng) for n in range(number)]


def transcript_outputs(data: Path, number: int, seed: int = 4) -> list[Output]:
    """Results of recorded agents, 30 calls of one tool as one JSON list; gold is what the agent then quotes of one.

    Where another result of the list holds every word of the request that the gold one holds, nobody could tell which
    of them is wanted: such lists are drawn again.
    """
    results: dict[str, list[tuple[Any, str, str]]] = {}  # by tool: (result, request, what the agent said next)
    for document in read_dataset(data, "haystack", "transcripts").documents.values():
        for tool, result, request, answer in _recorded_calls(document.text):
            results.setdefault(tool, []).append((result, request, answer))
    rng = Random(seed)
    made: list[Output] = []
    tools = sorted(tool for tool, calls in results.items() if len(calls) >= 40)
    while len(made) < number:
        tool = rng.choice(tools)
        chosen = rng.sample(results[tool], 30)
        texts = [json.dumps(result) for result, _, _ in chosen]
        at = rng.randrange(30)
        _, request, answer = chosen[at]
        others = "".join(text for place, text in enumerate(texts) if place != at)
        asked = set(words_of(request))
        named = asked & set(words_of(texts[at]))
        if any(named <= set(words_of(text)) for place, text in enumerate(texts) if place != at):
            continue
        gold = {match for match in _TELLING.findall(answer) if match in texts[at] and match not in others}
        text = json.dumps([result for result, _, _ in chosen])
        if gold and request and len(text) > 8_000:
            made.append(Output("json", text, request, tuple(sorted(gold))))
    return made


@dataclass(frozen=True)
class Step:
    """One request to an agent: the output of the tool that it calls for it, or None where it should still know."""

    request: str
    output: str | None
    gold: tuple[str, ...]


def agent_script(requests: int = 33, seed: int = 6) -> list[Step]:
    """Requests to an agent; every fifth goes back to an output that it saw several requests before."""
    rng = Random(seed)
    steps: list[Step] = []
    later: list[Step] = []
    for n in range(requests):
        if n % 5 == 4 and len(later) > 1:
            steps.append(later.pop(0))
            continue
        orders = [
            {"order_id": f"W{rng.randrange(10**6, 10**7)}", "customer": rng.choice(NAMES), "city": rng.choice(CITIES)}
            | {
                "total": f"{rng.randrange(500)}.{rng.randrange(10, 99)}",
                "items": [rng.randrange(10**5) for _ in range(9)],
            }
            for _ in range(110)
        ]
        if n % 2:
            output = MAKERS[n % len(MAKERS)](rng)
            steps.append(Step(output.request, output.text, output.gold))
            continue
        now, then = rng.sample(orders, 2)
        text = json.dumps({"orders": orders})
        steps.append(Step(f"What did order {now['order_id']} cost?", text, (str(now["total"]),)))
        later.append(
            Step(f"And what did order {then['order_id']} cost?", None, (str(then["order_id"]), str(then["total"])))
        )
    return steps


def _domain(record_id: str) -> str:
    """The domain of an SGD question: "Buses" of "sgd-dev-12_00037-u-Buses_1-to_location"."""
    return record_id.split("-")[4].split("_")[0]


def _gold_turns(record: Any, text: str, base: int) -> frozenset[int]:
    answers = record.tagged("answer")
    return frozenset(base + text.count("\n", 0, evidence.start) for evidence in answers)


def _recorded_calls(text: str) -> Iterator[tuple[str, Any, str, str]]:
    """(tool, result, request and arguments, what the agent said next) of every call in a transcript."""
    request = arguments = ""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if line.startswith("USER: "):
            request = line[6:]
        elif call := _CALL.match(line):
            arguments = " ".join(_plain_values(json.loads(call[2])))
        elif found := _RESULT.match(line):
            try:
                result = json.loads(found[2])
            except ValueError:
                continue
            said = [later for later in lines[number + 1 : number + 30] if later and not later.startswith("TOOL")]
            yield found[1], result, f"{request} {arguments}", "\n".join(said)


def _plain_values(value: Any) -> list[str]:
    if isinstance(value, dict):
        value = list(value.values())
    return [text for part in value for text in _plain_values(part)] if isinstance(value, list) else [str(value)]


def _speaker(turn: int) -> str:
    return ("USER", "ASSISTANT")[turn % 2]


def _filled(rng: Random, template: str, values: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
    values = values or {
        "name": rng.choice(NAMES),
        "city": rng.choice(CITIES),
        "month": rng.choice(_MONTHS),
        "thing": rng.choice(_THINGS),
        "day": rng.randrange(4, 21),
        "number": rng.randrange(1_000, 10_000),
        "hour": rng.randrange(6, 23),
        "minute": rng.randrange(10, 60),
    }
    return template.format(**values), values
