"""Burial: records on their way to the dead letters, sent until the broker has them."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from schemas.dead_letter import DeadLetter
from schemas.errors import Permanent, Transient
from schemas.reasons import Reason
from streams.engine.circuits import RetrySchedule
from streams.engine.coalescer import Unit
from streams.engine.lane import Record
from streams.engine.offset_ledger import Position
from streams.engine.ports import Clock, DeadLetterSink
from streams.engine.uncancelled import uncancelled

T = TypeVar("T")
Token = TypeVar("Token")

RECORDS_A_SEND = 256


@dataclass(slots=True)
class Condemned(Generic[T, Token]):
    """A record that no retry will help; `unit` when it got as far as a handler."""

    record: Record
    position: Position[Token]
    error: Permanent
    stage: str
    attempts: int = 1
    unit: Unit[T, Token] | None = None


class Burial(Generic[T, Token]):
    """Sends dead letters in order and reports them once acknowledged; one send at a time."""

    def __init__(
        self,
        sink: DeadLetterSink,
        schedule: RetrySchedule,
        *,
        group: str,
        clock: Clock,
        jitter: Callable[[], float],
        buried: Callable[[Sequence[Condemned[T, Token]]], None],
        retried: Callable[[Transient, int], None],
    ) -> None:
        self._sink = sink
        self._schedule = schedule
        self._group = group
        self._clock = clock
        self._jitter = jitter
        self._buried = buried
        self._retried = retried
        self._queue: list[Condemned[T, Token]] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether letters are still to be sent."""
        return bool(self._queue)

    def add(self, condemned: Condemned[T, Token]) -> None:
        """Queue a record; `start` sends it."""
        self._queue.append(condemned)

    def start(self, group: asyncio.TaskGroup) -> None:
        """Send what is queued, unless a send is under way."""
        if self._queue and self._task is None:
            self._task = group.create_task(self._send_all(self._queue), name="bury")

    def abandon(self) -> None:
        """Forget everything: the records will come again."""
        # A new list: a send that ends in spite of its cancellation must not touch what comes next.
        self._queue = []
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _send_all(self, queue: list[Condemned[T, Token]]) -> None:
        attempt = 0
        while queue:
            batch = queue[:RECORDS_A_SEND]
            letters = [letter for condemned in batch for letter in self._letters(condemned)]
            failure: Transient | None = None
            try:
                await uncancelled(self._sink.send(letters), "the dead-letter sink")
            except Transient as error:
                failure = error
            if queue is not self._queue:
                return  # abandoned meanwhile
            if failure is None:
                attempt = 0
                del queue[: len(batch)]
                self._buried(batch)
            else:
                attempt += 1
                self._retried(failure, len(batch))
                await asyncio.sleep(self._schedule.delay(attempt, self._jitter()))
        self._task = None

    def _letters(self, condemned: Condemned[T, Token]) -> Iterator[DeadLetter]:
        """Yield a letter for each record whose content would be lost: mostly the one."""
        yield self._letter(condemned, condemned.record, condemned.position)
        if condemned.unit is not None:
            for passenger in condemned.unit.passengers:
                if passenger.record is not None:
                    yield self._letter(condemned, passenger.record, passenger.position)

    def _letter(
        self, condemned: Condemned[T, Token], record: Record, position: Position[Token]
    ) -> DeadLetter:
        waited_ms = round((self._clock.monotonic() - position.opened_at) * 1000)
        letter = DeadLetter(
            key=record.key,
            value=record.value,
            headers=record.headers,
            reason=condemned.error.reason,
            detail=condemned.error.detail,
            stage=condemned.stage,
            attempts=condemned.attempts,
            first_seen_ms=self._clock.now_ms() - waited_ms,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            group=self._group,
        )
        return letter.cut_to_head() if condemned.error.reason is Reason.TOO_LARGE else letter
