"""The part of `freshet sweep` that is about users: idle histories and old marks leave the topic.

Redis forgets them by itself, after the same time. Safe against a user who comes back at that very
moment: only what Redis holds nothing newer of is nulled, and once the nulls are acknowledged Redis
is read again; whoever has a history by then is marked, so that the behaviour lane publishes it
after our null.
"""

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

from schemas.errors import Permanent, Transient
from schemas.history import HistoryRecord
from schemas.topics import Topic
from streams.emitter import Emitter
from streams.history_log import is_over, newest_histories, no_history_message
from streams.redis_clients import OpenRedis
from streams.settings import Settings
from streams.user_parts import history_store
from workers.live.dirty_histories import DirtyHistories

_BATCH = 500


@dataclass(frozen=True, slots=True)
class SweptHistories:
    """`marks` are of erasures; `changed` have something newer in Redis and stay."""

    idle: int = 0
    marks: int = 0
    changed: int = 0

    def plus(self, other: "SweptHistories") -> "SweptHistories":
        """Return both together."""
        return SweptHistories(
            self.idle + other.idle, self.marks + other.marks, self.changed + other.changed
        )


async def sweep_histories(
    settings: Settings, redis: OpenRedis, emitter: Emitter | None, *, now_ms: int
) -> SweptHistories:
    """Null what is over in every partition; without an emitter only count. Raises Transient."""
    swept = SweptHistories()
    idle_ms = settings.behaviour.idle_ms
    sweep = _Sweep(settings, redis, emitter)
    try:
        for partition in range(settings.kafka.partitions):
            due: list[HistoryRecord] = []
            async with aclosing(newest_histories(settings.kafka, partition)) as records:
                async for record in records:
                    if is_over(record, now_ms, idle_ms):
                        due.append(record)
                    if len(due) == _BATCH:
                        swept = swept.plus(await sweep.take(partition, due))
                        due = []
            swept = swept.plus(await sweep.take(partition, due))
    except Permanent as error:
        raise Transient("kafka", f"{Topic.HISTORIES}: {error}") from error
    return swept


class _Sweep:
    def __init__(self, settings: Settings, redis: OpenRedis, emitter: Emitter | None) -> None:
        self._histories = history_store(settings.behaviour, redis.client, redis.keys)
        self._marks = DirtyHistories(redis.client, redis.keys)
        self._emitter = emitter

    async def take(self, partition: int, due: Sequence[HistoryRecord]) -> SweptHistories:
        """Null records of one partition; return what became of them."""
        stored = await self._histories.load([record.user for record in due])
        over = [
            record
            for record, history in zip(due, stored, strict=True)
            if history is None or history.rev <= record.history.rev
        ]
        if self._emitter is not None and over:
            await self._emitter.emit(
                [no_history_message(record.user, partition=partition) for record in over]
            )
            after = await self._histories.load([record.user for record in over])
            await self._marks.mark(
                partition,
                [
                    record.user
                    for record, history in zip(over, after, strict=True)
                    if history is not None and history.rev > record.history.rev
                ],
            )
        marks = sum(not record.history.events for record in over)
        return SweptHistories(len(over) - marks, marks, len(due) - len(over))
