"""Running a hybrid critic: memory that runs out, scores that are no numbers, several devices."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import _symbolic_trace

from cprs_core import Compressor, CPRSError, DeviceError, InputError, KeywordScorer, Prefix, PrefixTooLongError
from cprs_core.critics.chat_tokenizer import ChatTokenizer
from cprs_core.critics.hybrid import HybridCritic
from cprs_core.critics.hybrid_runtime import HybridScorer
from cprs_core.errors import NonFiniteScoresError
from cprs_core.scale.spread import SpreadScorer, deal
from cprs_core.scorer import OnProgress
from tests.core.tiny_hybrid import tiny_chat_tokenizer, tiny_hybrid

TOKENIZER = ChatTokenizer(tiny_chat_tokenizer())
PREFIX = TOKENIZER.encode_prefix("Extract facts.", "Who signed?", ("fact",))


def windows_of(*lengths: int) -> list[NDArray[np.int32]]:
    rng = np.random.default_rng(1)
    return [rng.integers(0, 250, length).astype(np.int32) for length in lengths]


def scorer_of(critic: HybridCritic | None = None, **options: int) -> HybridScorer:
    return HybridScorer(critic or tiny_hybrid(), TOKENIZER, window_tokens=256, **options)


class SmallMemory(HybridCritic):
    """Runs out of memory with more than ``most`` windows at a time."""

    most = 2

    def forward(self, ids: Tensor) -> Tensor:
        if len(ids) > self.most:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return super().forward(ids)


def small_memory(most: int) -> HybridScorer:
    critic = tiny_hybrid()
    critic.__class__ = SmallMemory
    critic.most = most  # type: ignore[assignment]
    return scorer_of(critic, batch_tokens=4_096)


def test_out_of_memory_halves_the_batch_and_goes_on_with_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    windows = windows_of(*[20] * 9, 11)
    with caplog.at_level(logging.WARNING):
        scores = small_memory(2).score(PREFIX, windows)
    assert "ran out of memory with 9 windows" in caplog.text
    for rows, wanted in zip(scores, scorer_of().score(PREFIX, windows), strict=True):
        assert rows == pytest.approx(wanted, abs=1e-5)


def test_the_smaller_batch_is_kept_for_later_calls(caplog: pytest.LogCaptureFixture) -> None:
    scorer = small_memory(2)
    scorer.score(PREFIX, windows_of(*[20] * 8))
    caplog.clear()
    scorer.score(PREFIX, windows_of(*[20] * 8))
    assert not caplog.text


def test_one_window_that_does_not_fit_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(DeviceError, match=r"no memory left for one window of .* tokens.*fp8"):
        small_memory(0).score(PREFIX, windows_of(20))


def broken_critic() -> HybridCritic:
    """Token 7 makes it return NaN."""
    critic = tiny_hybrid()
    with torch.no_grad():
        critic.model.embed_tokens.weight[7] = torch.nan
    return critic


def clean_windows(*lengths: int) -> list[NDArray[np.int32]]:
    return [np.where(window == 7, 8, window).astype(np.int32) for window in windows_of(*lengths)]


def test_nan_scores_name_the_window() -> None:
    windows = clean_windows(20, 30, 20)
    windows[1][4] = 7
    with pytest.raises(NonFiniteScoresError, match="NaN scores in float32 for window 1") as caught:
        scorer_of(broken_critic()).score(PREFIX, windows)
    assert caught.value.window == 1
    with pytest.raises(NonFiniteScoresError) as caught:
        SpreadScorer([scorer_of(broken_critic()), scorer_of(broken_critic())]).score(PREFIX, windows)
    assert caught.value.window == 1


def test_nan_scores_name_the_document() -> None:
    critic = tiny_hybrid()
    bad = int(TOKENIZER.encode("~").ids[0])
    with torch.no_grad():
        critic.model.embed_tokens.weight[bad] = torch.nan
    texts = ["It rained all day. " * 12, "Ada signed. " * 12, "Bob left ~ early. " * 12]
    with pytest.raises(NonFiniteScoresError, match=r"for window \d+, in documents\[\d\]( to documents\[2\])?;"):
        Compressor(scorer_of(critic)).compress(texts, "Who signed?", instruction="Extract.")


def test_a_scorer_that_returns_nan_silently_is_caught_by_the_compressor() -> None:
    class Silent(KeywordScorer):
        def score(
            self, prefix: Prefix, windows: object, on_progress: OnProgress | None = None
        ) -> list[NDArray[np.float32]]:
            return [np.full_like(rows, np.nan) for rows in super().score(prefix, windows, on_progress)]  # type: ignore[arg-type]

    with pytest.raises(CPRSError, match=r"'Silent' returned NaN.*documents\[0\]"):
        Compressor(Silent("lease")).compress("The lease.", "lease?")


def test_a_prefix_longer_than_the_window_is_an_error() -> None:
    with pytest.raises(PrefixTooLongError, match="a window holds 256"):
        Compressor(scorer_of()).compress("The lease.", "who? " * 200)


def test_overhead_tells_prefix_tokens_from_useful_ones() -> None:
    scorer = scorer_of()
    scorer.score(PREFIX, windows_of(20, 30))
    assert scorer.overhead.context_tokens == 50
    assert scorer.overhead.prefix_tokens == 2 * len(PREFIX)


def test_compiled_layers_give_the_same_scores(caplog: pytest.LogCaptureFixture) -> None:
    """With a backend that needs no C compiler."""
    scorer, windows = scorer_of(), windows_of(20, 30, 20)
    before = scorer.score(PREFIX, windows)
    with caplog.at_level(logging.INFO):
        assert scorer.compile_layers(backend="eager") > 0
    assert "compiling the 4 layers" in caplog.text
    for rows, wanted in zip(scorer.score(PREFIX, windows), before, strict=True):
        assert rows == pytest.approx(wanted, abs=1e-5)


def test_layers_of_all_devices_share_their_graphs() -> None:
    compiled: list[int] = []

    def counting(graph: torch.fx.GraphModule, _: object) -> object:
        compiled.append(1)
        return graph.forward

    torch._dynamo.register_backend(counting, name="counting")
    torch._dynamo.reset()
    scorers = [scorer_of() for _ in range(3)]
    for scorer in scorers:
        scorer.compile_layers(backend="counting")
    first = len(compiled)
    SpreadScorer(scorers).score(PREFIX, windows_of(*range(20, 90)))
    assert 0 < first == len(compiled)


def test_compiled_layers_wait_while_another_thread_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, windows = scorer_of(), windows_of(20, 30, 20)
    before = scorer.score(PREFIX, windows)
    scorer.compile_layers(backend="eager")
    with ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(_symbolic_trace, "_is_fx_tracing_flag", True)  # torch's mark is the process's
        scores = pool.submit(scorer.score, PREFIX, windows)
        time.sleep(0.2)
        assert not scores.done()
        monkeypatch.setattr(_symbolic_trace, "_is_fx_tracing_flag", False)
        for rows, wanted in zip(scores.result(timeout=60), before, strict=True):
            assert rows == pytest.approx(wanted, abs=1e-5)


class Lost(KeywordScorer):
    """Fails as a device does that went away, from the ``after``-th call on."""

    def __init__(self, *words: str, after: int = 0) -> None:
        super().__init__(*words)
        self._calls_left = after

    def score(
        self, prefix: Prefix, windows: object, on_progress: OnProgress | None = None
    ) -> list[NDArray[np.float32]]:
        self._calls_left -= 1
        if self._calls_left < 0:
            raise DeviceError("cuda:1 failed")
        return super().score(prefix, windows, on_progress)  # type: ignore[arg-type]


class TestSeveralDevices:
    windows = windows_of(40, 5, 17, 40, 40, 3, 21, 8)

    def test_order_and_scores_are_those_of_one_device(self) -> None:
        one = scorer_of(batch_tokens=1)
        several = SpreadScorer([scorer_of(batch_tokens=1) for _ in range(3)])
        for rows, wanted in zip(several.score(PREFIX, self.windows), one.score(PREFIX, self.windows), strict=True):
            assert np.array_equal(rows, wanted)

    def test_windows_are_dealt_out_by_token_count(self) -> None:
        lengths = [100, 10, 10, 10, 10, 60]
        shares = deal(lengths, 2)
        assert sorted(index for share in shares for index in share) == list(range(6))
        assert [sum(lengths[index] for index in share) for share in shares] == [100, 100]

    def test_every_device_works(self) -> None:
        scorers = [KeywordScorer("lease") for _ in range(4)]
        prefix = scorers[0].tokenizer.encode_prefix("x", "lease", ("fact",))
        SpreadScorer(scorers).score(prefix, windows_of(*[10] * 8))
        assert [scorer.windows_scored for scorer in scorers] == [2, 2, 2, 2]

    def test_windows_of_a_lost_device_go_to_the_others(self, caplog: pytest.LogCaptureFixture) -> None:
        whole = KeywordScorer("lease")
        prefix = whole.tokenizer.encode_prefix("x", "lease", ("fact",))
        several = SpreadScorer([KeywordScorer("lease"), Lost("lease", after=1), KeywordScorer("lease")])
        for scorer in several.scorers:
            scorer.tokenizer = whole.tokenizer  # type: ignore[misc]
        wanted = whole.score(prefix, self.windows)
        for _ in range(3):
            for rows, same in zip(several.score(prefix, self.windows), wanted, strict=True):
                assert np.array_equal(rows, same)
        assert caplog.text.count("is lost") == 1

    def test_progress_never_falls_and_ends_with_every_token_although_a_device_is_lost(self) -> None:
        several = SpreadScorer([KeywordScorer("lease"), Lost("lease")])
        prefix = several.tokenizer.encode_prefix("x", "lease", ("fact",))
        seen: list[tuple[int, int]] = []
        several.score(prefix, self.windows, lambda done, total: seen.append((done, total)))
        total = sum(len(window) for window in self.windows)
        assert seen == sorted(set(seen))
        assert seen[-1] == (total, total)

    def test_all_devices_lost_is_an_error(self) -> None:
        several = SpreadScorer([Lost("lease"), Lost("lease")])
        prefix = several.tokenizer.encode_prefix("x", "lease", ("fact",))
        for _ in range(2):  # and stays one for the calls after it
            with pytest.raises(DeviceError, match="all 2 devices have failed"):
                several.score(prefix, self.windows)

    def test_scorers_that_are_no_copies_are_refused(self) -> None:
        with pytest.raises(InputError, match="windows differ"):
            SpreadScorer([KeywordScorer("a"), KeywordScorer("a", window_tokens=128)])
        with pytest.raises(InputError, match="empty"):
            SpreadScorer([])
