"""The straight path: documents and a query in, the text that matters out.

join documents -> render prefix -> tokenize once -> segment -> plan windows
    -> scorer.score(prefix, windows) -> token scores -> select spans -> assemble
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from cprs_core.assembly import assemble
from cprs_core.cache import ScoreCache, cache_key
from cprs_core.context import ScoredContext, read_context
from cprs_core.deadline import Deadline
from cprs_core.errors import DeadlineError, InputError, NonFiniteScoresError, PrefixTooLongError
from cprs_core.hops import Chain, follow
from cprs_core.inputs import (
    CountTokens,
    Documents,
    as_document,
    as_documents,
    as_iterable,
    check_options,
    granularity_of,
    most_hops,
    smallest_budget,
    whole_tokens,
)
from cprs_core.instructions import PRESETS, Preset, resolve_instruction
from cprs_core.overlap import overlaps, read_overlapped
from cprs_core.reading import read_windows
from cprs_core.scored import Reading, Scored
from cprs_core.scorer import OUTSIDE, OnProgress, Prefix, Scorer, Staged, identity
from cprs_core.selection import Granularity, choose, drop_until_fits, explain
from cprs_core.stopwatch import Stopwatch
from cprs_core.streaming import Selection, Stream, StreamReader, describe
from cprs_core.types import Compression, Document, DocumentUsage, ScoredSegment, Usage
from cprs_core.windows import merge_windows, plan_windows
from cprs_core.workers import in_worker

if TYPE_CHECKING:
    from cprs_core.advice import Advice, ChatPrice, Speed

OnDeadline = Literal["return", "raise"]

# A critic that sees fewer tokens of context than this at a time cannot judge them.
MIN_CONTEXT_TOKENS = 64
DEFAULT_THRESHOLD = 0.5
# Tokens that a stream reads at a time: enough to fill a GPU, and seconds of work for a laptop.
STREAM_TOKENS = 131_072


class Compressor:
    """Keeps what an instruction and a query ask for, verbatim, and drops the rest.

    Safe to share between threads. See `cprs_core.scorer.Scorer` for what a scorer is.

    >>> from cprs_core import Compressor, KeywordScorer
    >>> compressor = Compressor(KeywordScorer("lease"))
    >>> compressor.compress("It rained. Ada signed the lease. They left.", "Who signed?").text
    'Ada signed the lease.'

    Args:
        scorer: turns windows into token scores.
        cache: where scores are kept for another call with the same documents, query and instruction.
        clock: seconds that only ever grow; deadlines are counted in them.
    """

    def __init__(
        self, scorer: Scorer, *, cache: ScoreCache | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.scorer = scorer
        self.cache = cache
        self.clock = clock

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        recall_risk: float | None = None,
        cache: ScoreCache | None = None,
    ) -> Compressor:
        """A compressor with the embedded critic, or with the one in a folder.

        Args:
            path: a critic's folder, or the name of one on the Hugging Face hub; None for `cprs-mini`, which is inside
                the package.
            device: "auto" (a GPU where there is one; large critics use all of them), "cpu", "cuda", "cuda:1", "mps".
            dtype: "auto" (what is fastest and safe on the device), "float32", "bfloat16", "float16", on CPUs
                "int8"; for hybrid critics also "fp8".
            recall_risk: the share of recall that may be lost for speed, 0.005 say: the critic then reads only windows
                that share enough with the query (`CascadeScorer`). None reads everything.
            cache: see `Compressor`.

        Raises:
            CheckpointError: files are missing or damaged; the message names them.
            DeviceError: the device does not exist here, or the critic does not fit it; the message says what would.
        """
        from cprs_core.cascade import CascadeScorer, LexicalRanker
        from cprs_core.critics import load_scorer

        scorer: Scorer = load_scorer(path, device=device, dtype=dtype)
        if recall_risk is not None:
            scorer = CascadeScorer(LexicalRanker(), scorer, recall_risk=recall_risk)
        return cls(scorer, cache=cache)

    def compress(
        self,
        documents: Documents,
        query: str = "",
        *,
        instruction: str | Preset | None = None,
        granularity: str | Granularity = "sentence",
        max_tokens: int | None = None,
        ratio: float | None = None,
        threshold: float | None = None,
        count_tokens: CountTokens | None = None,
        deadline: float | Deadline | None = None,
        on_deadline: OnDeadline = "return",
        hops: int | Literal["auto"] = 1,
        on_progress: OnProgress | None = None,
    ) -> Compression:
        """The parts of ``documents`` that ``instruction`` and ``query`` ask for.

        With ``max_tokens`` or ``ratio`` the best segments that fit are kept (both: the smaller budget holds); with
        ``threshold`` those that score at least that; with both kinds, those that pass both; with neither, those that
        reach the critic's own default threshold.

        Args:
            documents: one text or `Document`, or a sequence of them.
            query: the user's question; may be empty when the instruction says it all.
            instruction: what to extract, in words, or a `Preset` or its name; a good default per granularity.
            granularity: "keyword", "sentence", "line", "paragraph", "document", "auto" (the instruction's own), or a
                function from `ScoredContext` to `Candidates`.
            max_tokens: most tokens of ``result.text``, counted by ``count_tokens``. A hard promise.
            ratio: most tokens kept, as a share of the input's tokens, in 0..1.
            threshold: least score of a kept segment, in 0..1.
            count_tokens: tokens of a text in the caller's tokenizer; by default in the critic's.
            deadline: seconds after which an answer is wanted. Windows that share most with the query are read first; a
                budget that is not filled by then is filled with unread text that shares most with the query.
            on_deadline: "return" what was found by then (``usage.complete`` is false), or "raise".
            hops: passes at most. From the second on, what was found extends the query, and what shares a rare word with
                it is read again: for chains of facts that no single window shows. "auto": until nothing new is found.
            on_progress: called now and then with tokens scored and tokens in all. A critic on a GPU begins before all
                is tokenised; until then tokens in all are an estimate. Each reading of a later pass adds to both.

        Raises:
            InputError: neither query nor instruction, or an option out of range.
            PrefixTooLongError: instruction and query leave no room in a window.
            DeadlineError: windows were left unread or hops cut short, and ``on_deadline`` is "raise".
        """
        limit = self._deadline(deadline)
        texts = as_documents(documents)
        check_options(max_tokens, ratio, threshold)
        count_tokens = whole_tokens(count_tokens)
        if on_deadline not in ("return", "raise"):
            raise InputError(f"on_deadline is {on_deadline!r}; it must be 'return' or 'raise'")
        scored = self._score(texts, query, instruction, granularity, on_progress, limit, most_hops(hops))
        if limit is not None and not scored.complete and on_deadline == "raise":
            left = f"left {scored.windows_left:,} of {len(scored.reading.windows):,} windows unread"
            raise DeadlineError(
                f"the deadline of {limit.seconds:g} s {left if scored.windows_left else 'ended the chain of hops'}; "
                "allow more time, or pass on_deadline='return' for what was found"
            )
        watch = scored.watch
        with watch("select"):
            default = self._default_threshold(scored.preset.granularity)
            if threshold is None and max_tokens is None and ratio is None:
                threshold = default
            count = count_tokens or self.count_tokens
            document_tokens = scored.document_tokens(count_tokens)
            input_tokens = sum(document_tokens)
            budget = smallest_budget(max_tokens, ratio, input_tokens)
            cost = scored.cost if count_tokens is None else scored.cost_in(count_tokens)
            prior = scored.prior()
            kept = choose(scored.candidates, threshold=threshold, max_tokens=budget, cost=cost, prior=prior)
            fitting, (text, shortened), output_tokens = drop_until_fits(
                scored.spans(kept), budget, count, partial(assemble, texts)
            )
            spans = scored.linked(fitting)
            best = float(scored.candidates.scores.max(initial=0.0))
            notice = scored.late() or explain(
                tokens=len(scored.context.ids),
                candidates=len(scored.candidates),
                best=best,
                default=default,
                threshold=threshold,
                budget=budget,
                kept=bool(spans),
                shortest=lambda: min(map(cost, scored.reaching(threshold))),
            )
            kept_tokens = scored.kept_tokens(spans, shortened, count_tokens)
        result = Compression(
            text=text,
            documents=shortened,
            spans=spans,
            usage=Usage(
                input_tokens=input_tokens,
                output_tokens=output_tokens,
                ratio=output_tokens / input_tokens if input_tokens else 0.0,
                windows=scored.windows,
                windows_read=scored.windows_read,
                complete=scored.complete,
                cached=scored.cached,
                hops=scored.hops,
                seconds=watch.total,
                stage_seconds=dict(watch.seconds),
                documents=[
                    DocumentUsage(input_tokens=read, output_tokens=left)
                    for read, left in zip(document_tokens, kept_tokens, strict=True)
                ],
            ),
            query=query,
            instruction=scored.preset.text,
            low_confidence=best < default or not spans,
            notice=notice,
            best=None if spans else scored.best_span(budget, cost, prior),
        )
        result._sources = texts
        return result

    async def acompress(
        self,
        documents: Documents,
        query: str = "",
        *,
        instruction: str | Preset | None = None,
        granularity: str | Granularity = "sentence",
        max_tokens: int | None = None,
        ratio: float | None = None,
        threshold: float | None = None,
        count_tokens: CountTokens | None = None,
        deadline: float | Deadline | None = None,
        on_deadline: OnDeadline = "return",
        hops: int | Literal["auto"] = 1,
        on_progress: OnProgress | None = None,
    ) -> Compression:
        """`compress` on a worker thread; the event loop stays free."""
        return await in_worker(
            self.compress,
            documents,
            query,
            instruction=instruction,
            granularity=granularity,
            max_tokens=max_tokens,
            ratio=ratio,
            threshold=threshold,
            count_tokens=count_tokens,
            deadline=self._deadline(deadline),  # a call that waits for its turn waits inside its deadline
            on_deadline=on_deadline,
            hops=hops,
            on_progress=on_progress,
        )

    def compress_stream(
        self,
        documents: Iterable[str | Document],
        query: str = "",
        *,
        instruction: str | Preset | None = None,
        granularity: str | Granularity = "sentence",
        max_tokens: int | None = None,
        threshold: float | None = None,
        count_tokens: CountTokens | None = None,
        memory_tokens: int = STREAM_TOKENS,
        checkpoint: str | os.PathLike[str] | None = None,
        on_progress: OnProgress | None = None,
    ) -> Iterator[Compression]:
        """`compress` for documents that arrive one after the other and need not fit into memory.

        Gives the best selection so far after every batch; the last one is the answer, the same that `compress` gives
        for all documents together. Close the iterator to stop. In a result ``documents`` are only those that something
        is kept of; a span's ``document_index`` counts the whole stream. There is no ``ratio``: the total is not known.

        Args:
            documents: any iterable of texts or `Document`s.
            max_tokens: as in `compress`. Without it everything that reaches the threshold is kept, and held in memory.
            memory_tokens: tokens read at a time, and so held in memory beside what is kept.
            checkpoint: file that is written after every batch. If it is there already, the documents it has behind it
                are passed over (they have to be given again, in the same order) and reading goes on.
            on_progress: called now and then with tokens scored and tokens read ahead so far.

        Raises:
            InputError, PrefixTooLongError: as in `compress`, at once.
            CheckpointError: the checkpoint is damaged, or of another call or other documents.
            StreamError: ``documents`` raised an error; what was read is in the error's ``partial``.
        """
        stream = self._stream(
            query, instruction, granularity, max_tokens, threshold, count_tokens, memory_tokens, checkpoint, on_progress
        )
        return stream.run(as_iterable(documents))

    def acompress_stream(
        self,
        documents: Iterable[str | Document] | AsyncIterable[str | Document],
        query: str = "",
        *,
        instruction: str | Preset | None = None,
        granularity: str | Granularity = "sentence",
        max_tokens: int | None = None,
        threshold: float | None = None,
        count_tokens: CountTokens | None = None,
        memory_tokens: int = STREAM_TOKENS,
        checkpoint: str | os.PathLike[str] | None = None,
        on_progress: OnProgress | None = None,
    ) -> AsyncIterator[Compression]:
        """`compress_stream` on a worker thread, for ``async for``; ``documents`` may be asynchronous too."""
        stream = self._stream(
            query, instruction, granularity, max_tokens, threshold, count_tokens, memory_tokens, checkpoint, on_progress
        )
        return stream.run_async(documents if isinstance(documents, AsyncIterable) else as_iterable(documents))

    def score(
        self,
        documents: Documents,
        query: str = "",
        *,
        instruction: str | Preset | None = None,
        granularity: str | Granularity = "sentence",
        on_progress: OnProgress | None = None,
    ) -> list[ScoredSegment]:
        """Every segment with its score, in source order; nothing is dropped. Arguments as for `compress`."""
        scored = self._score(as_documents(documents), query, instruction, granularity, on_progress)
        return scored.segments()

    def measure_speed(self) -> Speed:
        """How fast this compressor reads here: a calibration of a few seconds on made-up prose."""
        from cprs_core.advice import measure_speed

        def read(text: str) -> tuple[int, float]:
            usage = self.compress(text, "Who drew the plans for the canal?", ratio=0.1).usage
            return usage.input_tokens, usage.seconds

        return measure_speed(read)

    def advise(
        self,
        tokens: int,
        *,
        price: ChatPrice | float | str,
        speed: Speed | None = None,
        keep: float | int = 0.1,
        calls: int = 1,
        machine_price: float = 0.0,
    ) -> Advice:
        """Whether compressing a context of ``tokens`` tokens pays in money and time, and from which length on.

        Arguments, formulas and errors: `cprs_core.advice.advise`. ``speed`` is measured here unless it is passed.
        """
        from cprs_core.advice import advise

        return advise(
            tokens,
            price=price,
            speed=speed or self.measure_speed(),
            keep=keep,
            calls=calls,
            machine_price=machine_price,
        )

    def _score(
        self,
        documents: list[Document],
        query: str,
        instruction: str | Preset | None,
        granularity: str | Granularity,
        on_progress: OnProgress | None,
        deadline: Deadline | None = None,
        hops: int = 1,
    ) -> Scored:
        """The straight path up to candidates."""
        watch = Stopwatch()
        with watch("tokenize"):
            preset, make_candidates, prefix = self._prepare(query, instruction, granularity)
            capacity = self.scorer.window_tokens - len(prefix)
            texts = [document.text for document in documents]
            key = self._cache_key(texts, preset, query)
            known = self.cache.get(key) if self.cache is not None and key is not None else None
        if known is not None:
            read = Reading.from_arrays(texts, known)
            if on_progress is not None:
                on_progress(len(read.context.ids), len(read.context.ids))
        else:
            read = self._read(texts, prefix, capacity, on_progress, deadline, watch)
            if self.cache is not None and key is not None and read.complete:
                with watch("cache"):
                    self.cache.put(key, read.to_arrays())
        with watch("select"):
            scored = ScoredContext(read.context, read.token_scores, read.windows, piece_tokens=capacity // 2)
        chain = None
        if hops > 1:
            with watch("hops"):
                chain = self._follow(scored, query, preset, hops, deadline, on_progress)
                scored = chain.scored
        with watch("select"):
            candidates = make_candidates(scored)
        return Scored(documents, read, candidates, preset, prefix, watch, chain)

    def _read(
        self,
        texts: list[str],
        prefix: Prefix,
        capacity: int,
        on_progress: OnProgress | None,
        deadline: Deadline | None,
        watch: Stopwatch,
    ) -> Reading:
        """The straight path from texts to token scores."""
        if deadline is None and overlaps(self.scorer, texts):
            context, windows, reading = read_overlapped(texts, self.scorer, prefix, capacity, watch, on_progress)
        else:
            with watch("tokenize"):
                context = read_context(texts, self.scorer.tokenizer)
            with watch("segment"):
                windows = plan_windows(
                    context.first_tokens(context.sentences[:, 0]), len(context.ids), capacity, overlap=capacity // 4
                )
            with watch("score"):
                slices = [context.ids[a:b] for a, b in windows.tolist()]
                try:
                    reading = read_windows(self.scorer, prefix, slices, on_progress, deadline)
                except NonFiniteScoresError as error:
                    raise context.named(error, windows) from error
        with watch("score"):
            for index, rows in enumerate(reading.rows):
                if not np.isfinite(rows).all():
                    name = getattr(self.scorer, "name", type(self.scorer).__name__)
                    dtype = str(getattr(self.scorer, "dtype", "its dtype"))
                    silent = NonFiniteScoresError(name, dtype, index, context.ids[slice(*windows[index].tolist())])
                    raise silent.in_documents(index, context.documents_of(*windows[index].tolist()))
            token_scores = merge_windows(windows, reading.rows, len(context.ids), OUTSIDE, len(self.scorer.labels))
        return Reading(context, windows, token_scores, reading.read, reading.windows_read, reading.complete)

    def _cache_key(self, texts: list[str], preset: Preset, query: str) -> bytes | None:
        """What scores are kept under; None where nothing tells one scorer from another."""
        fingerprint = getattr(self.scorer, "fingerprint", None)
        if self.cache is None or not fingerprint:
            return None
        return cache_key(fingerprint, texts, preset.text, query, *preset.tags)

    def _deadline(self, deadline: float | Deadline | None) -> Deadline | None:
        return deadline if deadline is None or isinstance(deadline, Deadline) else Deadline(deadline, self.clock)

    def _follow(
        self,
        scored: ScoredContext,
        query: str,
        preset: Preset,
        hops: int,
        deadline: Deadline | None,
        on_progress: OnProgress | None,
    ) -> Chain:
        """Passes after the first, from line to line or from sentence to sentence."""
        encode_prefix = self.scorer.tokenizer.encode_prefix
        scorer = self.scorer
        while isinstance(scorer, Staged):
            scorer = scorer.strong  # what a hop reads was chosen already
        answers = PRESETS["answers"]
        return follow(
            scored,
            scored.lines if preset.granularity == "line" else scored.sentences,
            scorer,
            query,
            lambda longer: encode_prefix(preset.text, longer, preset.tags),
            encode_answers=lambda part: encode_prefix(answers.text, part, answers.tags),
            hops=hops,
            deadline=deadline,
            on_progress=on_progress,
        )

    def _stream(
        self,
        query: str,
        instruction: str | Preset | None,
        granularity: str | Granularity,
        max_tokens: int | None,
        threshold: float | None,
        count_tokens: CountTokens | None,
        memory_tokens: int,
        checkpoint: str | os.PathLike[str] | None,
        on_progress: OnProgress | None,
    ) -> Stream:
        """The parts of a stream, put together."""
        check_options(max_tokens, None, threshold)
        count_tokens = whole_tokens(count_tokens)
        if not isinstance(memory_tokens, int) or memory_tokens < self.scorer.window_tokens:
            raise InputError(
                f"memory_tokens is {memory_tokens!r}; it must be at least one window ({self.scorer.window_tokens:,})"
            )
        preset, make_candidates, prefix = self._prepare(query, instruction, granularity)
        default = self._default_threshold(preset.granularity)
        selection = Selection(max_tokens, default if threshold is None and max_tokens is None else threshold)
        reader = StreamReader(
            self.scorer,
            prefix,
            make_candidates,
            selection,
            memory_tokens=memory_tokens,
            count_tokens=count_tokens,
            on_progress=on_progress,
        )
        count, watch = count_tokens or self.count_tokens, Stopwatch()
        name = granularity if isinstance(granularity, str) else getattr(granularity, "__qualname__", "custom")
        return Stream(
            reader,
            lambda: describe(reader, count, default, query, preset.text, watch.total),
            as_document,
            # A critic's spans and a caller's own function may look at a document as a whole, `document` does.
            whole=preset.granularity == "document" or not isinstance(granularity, str),
            checkpoint=Path(checkpoint) if checkpoint is not None else None,
            call=repr((query, preset, name, max_tokens, threshold, count_tokens is None, identity(self.scorer))),
        )

    def _prepare(
        self, query: str, instruction: str | Preset | None, granularity: str | Granularity
    ) -> tuple[Preset, Granularity, Prefix]:
        """What a call asks for, as the critic reads it."""
        name = granularity if isinstance(granularity, str) else None
        if instruction is not None and not isinstance(instruction, str | Preset):
            raise InputError(f"instruction is of type {type(instruction).__name__}; pass a str or a cprs_core.Preset")
        preset = resolve_instruction(instruction, name)
        if not preset.tags:
            raise InputError(f"the preset {preset.text!r} names no tag; give it one at least, as in tags=('fact',)")
        make_candidates = granularity_of(granularity, preset)
        if not isinstance(query, str):
            raise InputError(f"query is of type {type(query).__name__}; pass a str")
        if not query.strip() and (instruction is None or (isinstance(instruction, str) and not instruction.strip())):
            raise InputError("nothing to look for: query and instruction are both empty; pass at least one of them")
        prefix = self.scorer.tokenizer.encode_prefix(preset.text, query, preset.tags)
        if self.scorer.window_tokens - len(prefix) < MIN_CONTEXT_TOKENS:
            raise PrefixTooLongError(
                f"instruction and query take {len(prefix):,} tokens; a window holds {self.scorer.window_tokens:,}, "
                f"at least {MIN_CONTEXT_TOKENS} of them for the context; shorten the instruction or query"
            )
        return preset, make_candidates, prefix

    def _default_threshold(self, granularity: str) -> float:
        return self.scorer.thresholds.get(granularity, DEFAULT_THRESHOLD)

    def count_tokens(self, text: str) -> int:
        """Tokens of ``text`` in the critic's tokenizer: the unit of budgets and usage unless the caller brings one."""
        return len(self.scorer.tokenizer.encode(text))
