"""Reads a partition again, between two offsets, into the lane's handler; commits nothing.

For a lane whose effects in Redis were lost after Kafka had committed past them. Invalid records are
skipped: they went to the dead letters the first time.
"""

import asyncio
from collections.abc import Sequence
from typing import Generic, TypeVar

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from schemas.entities import EntityKey
from schemas.errors import Permanent, Transient
from streams.engine.circuits import RetrySchedule
from streams.engine.lane import Lane, Record
from streams.engine.ports import Clock
from streams.kafka_clients import KafkaConnection
from streams.settings import KafkaSettings

T = TypeVar("T")

log = structlog.get_logger("freshet.view")

ANSWER_SECONDS = 30.0
ATTEMPTS = 8
POLL_MS = 500


class InputReplay(Generic[T]):
    """Replays one lane's input.

    `not_from_earliest` are topics of which nothing is needed when there is no offset to begin at:
    what they bring is made good by whatever was put back first.
    """

    def __init__(
        self,
        lane: Lane[T],
        kafka: KafkaSettings,
        schedule: RetrySchedule,
        clock: Clock,
        *,
        max_batch: int,
        not_from_earliest: frozenset[str] = frozenset(),
    ) -> None:
        self._lane = lane
        self._kafka = kafka
        self._schedule = schedule
        self._clock = clock
        self._max_batch = max_batch
        self._not_from_earliest = not_from_earliest
        self._settled = 0

    async def replay(self, tp: tuple[str, int], start: int | None, end: int) -> int:
        """Handle the records from `start` (None: the earliest) up to `end`; return their number.

        Raises Transient when Kafka stops answering, or the handler's dependency does.
        """
        if start is None and tp[0] in self._not_from_earliest:
            return 0
        self._settled = 0
        consumer = AIOKafkaConsumer(
            **KafkaConnection.of(self._kafka).options(), group_id=None, enable_auto_commit=False
        )
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await consumer.start()
            return await self._read(consumer, TopicPartition(*tp), start, end)
        except KafkaError as error:
            raise Transient("kafka", str(error) or type(error).__name__) from error
        except TimeoutError as error:
            raise Transient("kafka", f"no answer within {ANSWER_SECONDS:g} s") from error
        finally:
            await consumer.stop()

    async def _read(
        self, consumer: AIOKafkaConsumer, tp: TopicPartition, start: int | None, end: int
    ) -> int:
        consumer.assign([tp])
        earliest = (await consumer.beginning_offsets([tp]))[tp]
        end = min(end, (await consumer.end_offsets([tp]))[tp])
        position = max(earliest, start or 0)
        consumer.seek(tp, position)
        records = 0
        quiet_since = self._clock.monotonic()
        while position < end:
            fetched = await consumer.getmany(tp, timeout_ms=POLL_MS, max_records=self._max_batch)
            batch = [record for record in fetched.get(tp, ()) if record.offset < end]
            await self._handle(
                [
                    Record(
                        tp.topic,
                        tp.partition,
                        record.offset,
                        record.key,
                        record.value,
                        tuple(record.headers),
                        record.timestamp,
                    )
                    for record in batch
                ]
            )
            records += len(batch)
            # The position, not the last offset: compaction leaves gaps at the end of a log too.
            moved_to = await consumer.position(tp)
            now = self._clock.monotonic()
            if moved_to > position:
                quiet_since = now
            elif now - quiet_since > ANSWER_SECONDS:
                raise Transient("kafka", f"{tp.topic}-{tp.partition} gave nothing")
            position = moved_to
        return records

    async def _handle(self, records: Sequence[Record]) -> None:
        waiting: dict[EntityKey, T] = {}
        for record in records:
            try:
                value = self._lane.decode(record, self._clock.now_ms())
            except Permanent:
                continue
            key = self._lane.key(value)
            known = waiting.get(key)
            waiting[key] = value if known is None else self._lane.absorb(known, value).value
        values = list(waiting.values())
        for attempt in range(1, ATTEMPTS + 1):
            if not values:
                return
            results = await self._lane.handle(values)
            failed = [
                (value, result)
                for value, result in zip(values, results, strict=True)
                if isinstance(result, Transient)
            ]
            self._settled += len(values) - len(failed)
            if failed and attempt == ATTEMPTS:
                self._give_up([error for _, error in failed])
            elif failed:
                await asyncio.sleep(self._schedule.delay(attempt, 0.5))
            values = [value for value, _ in failed]

    def _give_up(self, errors: Sequence[Transient]) -> None:
        # What failed alone the first time, and so went to the dead letters, does so again. Only
        # if nothing was answered at all is it the dependency.
        if not self._settled:
            raise errors[0]
        log.warning("replay_skipped", records=len(errors), detail=str(errors[0]))
