"""One scorer per GPU behind one `Scorer`: a thread each, windows dealt out by token count."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from cprs_core.errors import DeviceError, InputError, NonFiniteScoresError
from cprs_core.scorer import OnProgress, Prefix, Scorer, Tokenizer

_log = logging.getLogger(__name__)


class SpreadScorer:
    """A `Scorer` whose windows run on several others at once; order and scores are those of one.

    A scorer whose device fails is left out from then on, and its windows go to the others.
    """

    def __init__(self, scorers: Sequence[Scorer]) -> None:
        """``scorers`` are copies of one critic; the first one's tokenizer, window and thresholds count for all."""
        if not scorers:
            raise InputError("scorers is empty; pass at least one scorer")
        windows = {scorer.window_tokens for scorer in scorers}
        if len(windows) > 1:
            raise InputError(f"the scorers' windows differ: {sorted(windows)} tokens; pass copies of one critic")
        self.scorers = list(scorers)
        self.name = str(getattr(scorers[0], "name", "critic"))
        self.device = getattr(scorers[0], "device", None)
        self.dtype = getattr(scorers[0], "dtype", "")
        self._alive = list(range(len(scorers)))
        self._lock = threading.Lock()

    @property
    def tokenizer(self) -> Tokenizer:
        return self.scorers[0].tokenizer

    @property
    def window_tokens(self) -> int:
        return self.scorers[0].window_tokens

    @property
    def labels(self) -> tuple[str, ...]:
        return self.scorers[0].labels

    @property
    def thresholds(self) -> Mapping[str, float]:
        return self.scorers[0].thresholds

    @property
    def batch_tokens(self) -> int:
        """Tokens that all of them run at a time."""
        return sum(int(getattr(scorer, "batch_tokens", 4_096)) for scorer in self.scorers)

    @property
    def devices(self) -> int:
        """How many of them still run."""
        with self._lock:
            return len(self._alive)

    @property
    def overlaps(self) -> bool:
        """Whether all of them leave the CPU to others; see `cprs_core.scorer.Scorer`."""
        return all(getattr(scorer, "overlaps", False) for scorer in self.scorers)

    @property
    def fingerprint(self) -> str:
        return str(getattr(self.scorers[0], "fingerprint", ""))

    def score(
        self, prefix: Prefix, windows: Sequence[NDArray[np.int32]], on_progress: OnProgress | None = None
    ) -> list[NDArray[np.float32]]:
        """Label probabilities of every window token; see `cprs_core.scorer.Scorer.score`.

        Raises:
            DeviceError: every device has failed.
            NonFiniteScoresError: a window's scores are not numbers.
        """
        results: dict[int, NDArray[np.float32]] = {}
        left = list(range(len(windows)))
        progress = _Progress(on_progress, [len(window) for window in windows])
        while left:
            with self._lock:
                alive = list(self._alive)
            if not alive:
                raise DeviceError(f"all {len(self.scorers)} devices have failed; load the critic again")
            shares = deal([len(windows[index]) + len(prefix) for index in left], len(alive))
            jobs = [(number, [left[i] for i in share]) for number, share in zip(alive, shares, strict=True) if share]
            with ThreadPoolExecutor(len(jobs), thread_name_prefix="cprs-gpu") as pool:
                futures = [
                    (number, share, pool.submit(self._run, number, prefix, [windows[i] for i in share], progress))
                    for number, share in jobs
                ]
            left = []
            for number, share, future in futures:
                try:
                    results.update(zip(share, future.result(), strict=True))
                except NonFiniteScoresError as error:
                    index = share[error.window]
                    raise NonFiniteScoresError(error.critic, error.dtype, index, error.ids) from error
                except DeviceError as error:
                    left += share
                    self._leave_out(number, len(share), error)
            left.sort()
        progress.finish()
        return [results[index] for index in range(len(windows))]

    def _run(
        self, number: int, prefix: Prefix, windows: list[NDArray[np.int32]], progress: _Progress
    ) -> list[NDArray[np.float32]]:
        return self.scorers[number].score(prefix, windows, lambda done, _: progress.report(number, done))

    def _leave_out(self, number: int, windows: int, error: DeviceError) -> None:
        with self._lock:
            if number in self._alive:
                self._alive.remove(number)
            alive = len(self._alive)
        if not alive:
            raise DeviceError(f"all {len(self.scorers)} devices have failed, the last one so: {error}") from error
        _log.warning("device %d is lost (%s); its %d windows go to the other %d", number, error, windows, alive)


class _Progress:
    """Adds up what several scorers report; what is told never falls, also where work is done again."""

    def __init__(self, on_progress: OnProgress | None, lengths: list[int]) -> None:
        self._on_progress = on_progress
        self._total = sum(lengths)
        self._of: dict[int, int] = {}
        self._told = 0
        self._lock = threading.Lock()

    def report(self, number: int, done: int) -> None:
        with self._lock:
            self._of[number] = max(done, self._of.get(number, 0))
            self._tell(sum(self._of.values()))

    def finish(self) -> None:
        with self._lock:
            if self._told < self._total:
                self._tell(self._total)

    def _tell(self, done: int) -> None:
        done = min(done, self._total)
        if self._on_progress is not None and done > self._told:
            self._told = done
            self._on_progress(done, self._total)


def deal(lengths: Sequence[int], hands: int) -> list[list[int]]:
    """Indices of ``lengths`` for each of ``hands``: the longest first, each to the hand that has least so far."""
    shares: list[list[int]] = [[] for _ in range(hands)]
    loads = np.zeros(hands, dtype=np.int64)
    for index in np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable").tolist():
        hand = int(loads.argmin())
        shares[hand].append(index)
        loads[hand] += lengths[index]
    return [sorted(share) for share in shares]
