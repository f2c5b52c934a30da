"""Which rows share a forward pass: those that come within a few milliseconds, whatever their task and their request.

The event loop collects rows. One thread cuts them into sub-words, which tokenizers do not let several do at once;
another one computes. While it computes, the next batch gathers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import final

from ptv2kit.data.rows import Row
from ptv2kit.errors import DataError
from ptv2kit.serve.meters import Meters
from ptv2kit.serve.settings import Settings
from ptv2kit.training.mixed import MixedPredictor, Prompted, Question, encode
from ptv2kit.training.predict import Answer

_NOTES = logging.getLogger("ptv2kit.serve")


@final
class QueueFullError(Exception):
    """More rows wait than the server allows."""


@final
class StoppingError(Exception):
    """The server ends before the row was answered."""


@final
@dataclass(frozen=True, eq=False)
class _Asked:
    """A question that waits, and who waits for it."""

    question: Question
    answer: asyncio.Future[Answer]
    since: float = field(default_factory=time.monotonic)

    @property
    def tokens(self) -> int:
        """Tokens of all its inputs, padded to its longest."""
        return sum(feature.length * len(feature.inputs) for feature in self.question.features)


@final
class Batcher:
    """Answers rows in batches.

    Args:
        predictor: of the backbone that all prompts share.
        settings: the latency bound, the size of a batch, the length of the queue.
        meters: told of each batch.
    """

    def __init__(self, predictor: MixedPredictor, settings: Settings, meters: Meters) -> None:
        self._predictor = predictor
        self._settings = settings
        self._meters = meters
        self._encoding = ThreadPoolExecutor(1, "encode")
        self._computing = ThreadPoolExecutor(1, "compute")
        self._queue: deque[_Asked] = deque()
        self._came = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._held = 0
        self._ended = asyncio.Event()

    @property
    def alive(self) -> bool:
        """Whether rows are answered."""
        return self._loop is not None and not self._loop.done()

    def start(self) -> None:
        """Begin to answer; within a running event loop."""
        self._loop = asyncio.create_task(self._answer_all())

    def drain(self, seconds: float) -> None:
        """Refuse what still waits after `seconds`; for a server that is about to end."""
        asyncio.get_running_loop().call_later(seconds, self._ended.set)

    async def stop(self) -> None:
        """End; who still waits is refused."""
        self._ended.set()
        assert self._loop is not None
        self._loop.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._loop
        self._queue.clear()
        for executor in (self._encoding, self._computing):
            executor.shutdown(wait=True, cancel_futures=True)

    async def ask(self, rows: Sequence[tuple[Prompted, Row]]) -> list[list[Answer]]:
        """For each row its answers, several if its task makes several rows of one, or its fault.

        Raises:
            QueueFullError: too many rows wait already.
            StoppingError: the server ends.
        """
        if self._ended.is_set():
            raise StoppingError
        if self._held + len(rows) > self._settings.queue:
            raise QueueFullError
        self._hold(len(rows))
        answering, ended = asyncio.create_task(self._ask(rows)), asyncio.create_task(self._ended.wait())
        try:
            await asyncio.wait((answering, ended), return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                raise StoppingError
            return answering.result()
        finally:
            for task in (answering, ended):
                task.cancel()
            self._hold(-len(rows))

    def _hold(self, change: int) -> None:
        self._held += change
        self._meters.waiting.set(self._held)

    async def _ask(self, rows: Sequence[tuple[Prompted, Row]]) -> list[list[Answer]]:
        running = asyncio.get_running_loop()
        encoded = await running.run_in_executor(self._encoding, _encode_all, rows)
        waiting: list[Answer | asyncio.Future[Answer]] = []
        for found in encoded:
            if isinstance(found, Answer):
                waiting.append(found)
                continue
            asked = [_Asked(question, running.create_future()) for question in found]
            self._queue.extend(asked)
            waiting += [each.answer for each in asked]
        self._came.set()
        futures = [each for each in waiting if isinstance(each, asyncio.Future)]
        done = iter(await asyncio.gather(*futures, return_exceptions=True))
        answers = [each if isinstance(each, Answer) else next(done) for each in waiting]
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        whole = iter(answer for answer in answers if isinstance(answer, Answer))
        return [[next(whole) for _ in range(1 if isinstance(found, Answer) else len(found))] for found in encoded]

    async def _answer_all(self) -> None:
        while True:
            await self._came.wait()
            batch = await self._collect()
            if batch:
                await self._compute(batch)

    async def _collect(self) -> list[_Asked]:
        """The rows that came first, as many as make a batch; without a full one after `max_wait`, those that came."""
        while self._queue:
            left = self._queue[0].since + self._settings.max_wait - time.monotonic()
            if left <= 0 or sum(asked.tokens for asked in self._queue) >= self._settings.batch_tokens:
                break
            self._came.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._came.wait(), left)
        batch: list[_Asked] = []
        room = self._settings.batch_tokens
        while self._queue and room > 0:
            asked = self._queue.popleft()
            if not asked.answer.done():  # else the client has gone
                batch.append(asked)
                room -= asked.tokens
        if not self._queue:
            self._came.clear()
        return batch

    async def _compute(self, batch: Sequence[_Asked]) -> None:
        """Compute a batch; if that fails, each of its rows alone, so that one cannot spoil the others."""
        running = asyncio.get_running_loop()
        began = time.monotonic()
        questions = [asked.question for asked in batch]
        try:
            answers = await running.run_in_executor(self._computing, self._predictor.answers, questions)
        except Exception as error:  # noqa: BLE001 - whatever a model raises is answered to the client
            _NOTES.warning("a batch of %d rows failed: %s: %s", len(batch), type(error).__name__, error)
            if len(batch) == 1:
                if not batch[0].answer.done():
                    batch[0].answer.set_exception(error)
                return
            for asked in batch:
                await self._compute([asked])
            return
        for asked, answer in zip(batch, answers, strict=True):
            if not asked.answer.done():
                asked.answer.set_result(answer)
        self._meters.batch_seconds.observe(time.monotonic() - began)
        self._meters.batch_rows.observe(len(batch))
        self._meters.batch_prompts.observe(len({question.prompted for question in questions}))


def _encode_all(rows: Sequence[tuple[Prompted, Row]]) -> list[list[Question] | Answer]:
    """The questions of each row, or its fault."""
    found: list[list[Question] | Answer] = []
    for prompted, row in rows:
        try:
            found.append(encode(prompted, row))
        except DataError as error:
            found.append(Answer(row.location, None, error))
    return found
