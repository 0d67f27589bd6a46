"""What trimming saves, counted fairly: notes and fetched originals cost, and so does every broken prompt cache.

The unit is a provider's price of one fresh input token. A cached token costs ``cache_price`` of it. Beside every
request stands the one that would have been sent without trimming; that one only ever grows, so all of it but its newest
part would have come from the cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

# Cached input tokens cost a tenth at most providers.
CACHE_PRICE = 0.1

_LISTED_TURNS = 1_000  # of a long run only the newest are listed; the total covers all


@dataclass(frozen=True)
class TrimUsage:
    """What one trim did. Tokens are counted as `HistoryTrimmer.count` counts them.

    ``input_tokens`` and ``output_tokens`` of the history before and after; ``fetched_tokens`` of the input that are
    originals fetched back, and the calls for them; ``note_tokens`` of the notes inside the output; ``shortened``
    messages; ``left_out`` messages (over all compactions); ``compactions`` that the history has seen; ``repaired``
    messages (added, moved or removed so that calls and results pair); ``over_budget`` when what must stay is more than
    ``max_tokens``; ``store_failures`` of the store so far.
    """

    input_tokens: int
    output_tokens: int
    note_tokens: int = 0
    fetched_tokens: int = 0
    shortened: int = 0
    left_out: int = 0
    compactions: int = 0
    repaired: int = 0
    over_budget: bool = False
    store_failures: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data that serialises to JSON."""
        return asdict(self)


@dataclass(frozen=True)
class TurnAccount:
    """One request to the model.

    Attributes:
        input_tokens: tokens of the history had nothing been trimmed.
        sent_tokens: tokens that were sent, notes and fetched originals included.
        note_tokens: the part of ``sent_tokens`` that are notes.
        expanded_tokens: the part of ``sent_tokens`` that are originals fetched back, and the calls for them.
        cached_input_tokens, cached_tokens: the part of each that the request before began with.
        broken_tokens: tokens of the request before that this one does not begin with: the cache that was lost.
        saved_tokens: ``input_tokens - sent_tokens``.
        saved_cost: what trimming saved in fresh input tokens, cached ones at their price; negative where it cost more.
        over_budget: what must stay was more than the budget.
    """

    input_tokens: int
    sent_tokens: int
    note_tokens: int
    expanded_tokens: int
    cached_input_tokens: int
    cached_tokens: int
    broken_tokens: int
    saved_tokens: int
    saved_cost: float
    over_budget: bool = False


@dataclass
class Ledger:
    """The accounts of one conversation; plain data in and out, so that it can live in a checkpoint.

    >>> ledger = Ledger()
    >>> ledger.record([("a", 10)], input_tokens=50).saved_tokens
    40
    """

    cache_price: float = CACHE_PRICE
    turns: list[TurnAccount] = field(default_factory=list)
    totals: dict[str, float] = field(default_factory=dict)
    _sent: list[tuple[str, int]] = field(default_factory=list)
    _input_tokens: int = 0

    def record(
        self,
        sent: Sequence[tuple[str, int]],
        *,
        input_tokens: int,
        note_tokens: int = 0,
        expanded_tokens: int = 0,
        over_budget: bool = False,
    ) -> TurnAccount:
        """Account for one request.

        Args:
            sent: (digest, tokens) of every message that is sent, in order.
            input_tokens: tokens of the history had nothing been trimmed or fetched back.
        """
        sent_tokens = sum(tokens for _, tokens in sent)
        cached = common_prefix_tokens(self._sent, sent)
        cached_input = min(self._input_tokens, input_tokens)
        cost = sent_tokens - (1 - self.cache_price) * cached
        untrimmed_cost = input_tokens - (1 - self.cache_price) * cached_input
        account = TurnAccount(
            input_tokens=input_tokens,
            sent_tokens=sent_tokens,
            note_tokens=note_tokens,
            expanded_tokens=expanded_tokens,
            cached_input_tokens=cached_input,
            cached_tokens=cached,
            broken_tokens=sum(tokens for _, tokens in self._sent) - cached,
            saved_tokens=input_tokens - sent_tokens,
            saved_cost=round(untrimmed_cost - cost, 3),
            over_budget=over_budget,
        )
        self.turns = [*self.turns, account][-_LISTED_TURNS:]
        for name, value in asdict(account).items():
            self.totals[name] = self.totals.get(name, 0) + value
        self.totals["requests"] = self.totals.get("requests", 0) + 1
        self._sent, self._input_tokens = list(sent), input_tokens
        return account

    @property
    def total(self) -> dict[str, float]:
        """Sums over all requests, with the share of sent tokens that began as the request before: ``cached_share``.

        The share leaves out what is new in each request, which no cache can hold.
        """
        reusable = self.totals.get("cached_tokens", 0) + self.totals.get("broken_tokens", 0)
        share = self.totals.get("cached_tokens", 0) / reusable if reusable else 1.0
        return {**self.totals, "cached_share": round(share, 4)}

    def to_dict(self) -> dict[str, Any]:
        """Plain data that serialises to JSON: ``total``, ``turns``, and what `from_dict` needs to go on."""
        return {
            "total": self.total,
            "turns": [asdict(turn) for turn in self.turns],
            "cache_price": self.cache_price,
            "last_request": {"sent": [list(pair) for pair in self._sent], "input_tokens": self._input_tokens},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any] | None) -> Ledger:
        """The ledger that `to_dict` wrote; an empty one for None or an empty mapping."""
        if not data:
            return cls()
        totals = {name: value for name, value in data["total"].items() if name != "cached_share"}
        last = data["last_request"]
        return cls(
            data["cache_price"],
            [TurnAccount(**turn) for turn in data["turns"]],
            totals,
            [(digest, tokens) for digest, tokens in last["sent"]],
            last["input_tokens"],
        )


def common_prefix_tokens(before: Sequence[tuple[str, int]], now: Sequence[tuple[str, int]]) -> int:
    """Tokens of the messages with which both requests begin."""
    tokens = 0
    for (old, _), (new, size) in zip(before, now, strict=False):
        if old != new:
            break
        tokens += size
    return tokens
