"""The history restore: users' histories and vectors put back into Redis from `histories`.

Costs no model call: a history is joined into what Redis holds, and the vectors are made again from
it. Joined, not written over, so it may run at any time, and twice.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Protocol

import structlog

from schemas.entities import EntityKey
from schemas.errors import Permanent, Transient
from schemas.history import History, HistoryRecord
from schemas.topics import Topic
from streams.engine.ports import Clock
from streams.history_log import is_over, newest_histories
from streams.lanes.shared_users import HistoryReaderPort, UserVectorsPort, put_vectors
from streams.settings import KafkaSettings

log = structlog.get_logger("freshet.histories")

BATCH = 256
"""Users put back together."""

Offsets = dict[tuple[str, int], int]
Progress = Callable[[int, int], None]


class HistoriesPort(HistoryReaderPort, Protocol):
    """Where histories go."""

    async def restore(self, rows: Sequence[tuple[EntityKey, History]]) -> list[History]:
        """Join published histories into what is stored; return the results, in order."""


class MarksPort(Protocol):
    """Which users changed, by partition."""

    async def mark(self, partition: int, users: Sequence[EntityKey]) -> None:
        """Mark users as changed."""


class HistoryRestore:
    """Puts partitions back, one at a time; memory is bounded by the keys of one.

    Args:
        kafka: where `histories` is.
        histories: where they go.
        marks: takes users whose history in Redis turns out to be more than the topic's.
        vectors: makes their vectors.
        refresh_spaces: called first: which spaces there are may have been lost, too.
        clock: tells what is idle.
        idle_ms: a user without any change for so long is left out.
        on_progress: (partitions done, partitions).
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        *,
        histories: HistoriesPort,
        marks: MarksPort,
        vectors: UserVectorsPort,
        refresh_spaces: Callable[[], Awaitable[None]],
        clock: Clock,
        idle_ms: int,
        on_progress: Progress | None = None,
    ) -> None:
        self._kafka = kafka
        self._histories = histories
        self._marks = marks
        self._vectors = vectors
        self._refresh_spaces = refresh_spaces
        self._clock = clock
        self._idle_ms = idle_ms
        self._on_progress = on_progress

    async def restore(self, partitions: set[int]) -> int:
        """Put the users of `partitions` back; return how many there were.

        Raises Transient; also for a record that does not decode, because a user left out would
        begin anew, and be published so, with the next event.
        """
        await self._refresh_spaces()
        restored = 0
        for done, partition in enumerate(sorted(partitions), start=1):
            try:
                async with aclosing(self._batches(partition)) as batches:
                    async for batch in batches:
                        await self.put_back(partition, batch)
                        restored += len(batch)
            except Permanent as error:
                raise Transient("kafka", f"{Topic.HISTORIES}: {error}") from error
            if self._on_progress is not None:
                self._on_progress(done, len(partitions))
        return restored

    async def _batches(self, partition: int) -> AsyncGenerator[list[HistoryRecord], None]:
        batch: list[HistoryRecord] = []
        now_ms = self._clock.now_ms()
        async with aclosing(newest_histories(self._kafka, partition)) as records:
            async for record in records:
                if is_over(record, now_ms, self._idle_ms):
                    continue
                batch.append(record)
                if len(batch) >= BATCH:
                    yield batch
                    batch = []
        if batch:
            yield batch

    async def put_back(self, partition: int, batch: Sequence[HistoryRecord]) -> None:
        """Put some users of a partition back; raises Transient."""
        joined = await self._histories.restore([(record.user, record.history) for record in batch])
        # Redis had more: the topic must get it, whatever became of the marks.
        await self._marks.mark(
            partition,
            [
                record.user
                for record, history in zip(batch, joined, strict=True)
                if history.rev != record.history.rev
            ],
        )
        await put_vectors(
            self._vectors,
            self._histories,
            {record.user: history for record, history in zip(batch, joined, strict=True)},
        )


class LaneRestore:
    """The restore as the behaviour lane's guard calls it.

    Args:
        topic: the lane's topic of events, with its prefix.
        restore: puts partitions back.
        watermarks: returns, of the given partitions, up to where events are in `histories`.
    """

    def __init__(
        self,
        topic: str,
        restore: HistoryRestore,
        watermarks: Callable[[set[tuple[str, int]]], Awaitable[Offsets]],
    ) -> None:
        self._topic = topic
        self._restore = restore
        self._watermarks = watermarks

    async def __call__(self, lost: set[tuple[str, int]]) -> Offsets:
        """Put back the users of lost partitions; return from where on their events are missing.

        Other topics of the lane keep nothing. Raises Transient.
        """
        own = {tp for tp in lost if tp[0] == self._topic}
        if not own:
            return {}
        # Before the topic is read: what is written to it later does no harm.
        watermarks = await self._watermarks(own)
        restored = await self._restore.restore({partition for _, partition in own})
        log.info("histories_put_back", partitions=sorted(p for _, p in own), users=restored)
        return watermarks
