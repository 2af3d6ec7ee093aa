"""The history flush: changed histories go from Redis to the compacted `histories` topic.

Once in a while the owner of a partition of `user.behaviour` notes how far the partition is settled,
takes over the users marked as changed until then, produces their histories, and takes the marks
away once the broker has acknowledged them. Then it commits what it noted as the partition's
watermark: everything before it is in the topic, so that a Redis that is lost costs one pass over
the topic and the events since the watermark.

A crash at any point leaves marks behind that are already flushed, never a change without a mark.

Two owners around a rebalance do no harm. Marks taken over by one are seen and finished by the
other; a mark goes only with the revision that was produced, so a later change keeps its own; and a
watermark that goes back means more to read again, nothing else. Their records may cross: an owner
that was paused may produce an older revision after its successor's newer one. Readers fold by
revision, and the user's next change mends the topic for good. Until then compaction may leave the
older record alone: that is what `freshet audit` finds and marks again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

import structlog

from schemas.entities import EntityKey
from schemas.errors import Transient
from schemas.history import History
from streams.emitter import Emitter
from streams.engine.ports import Clock
from streams.history_log import history_message

log = structlog.get_logger("freshet.histories")

BATCH = 32
"""Histories encoded and produced together: the lane waits some milliseconds at worst."""

LAST_FLUSH_SECONDS = 5.0
"""What a lane that stops spends on it; marks that are left are flushed by the next owner."""

TopicPartition: TypeAlias = tuple[str, int]


class HistoriesPort(Protocol):
    """Where histories are read."""

    async def load(self, users: Sequence[EntityKey]) -> list[History | None]:
        """Return the history of each user, in order; None where there is none."""


class MarksPort(Protocol):
    """Which users changed, by partition."""

    async def begin(self, partition: int) -> bool:
        """Take over the users marked until now, unless some are taken over; False for none."""

    async def batch(self, partition: int, size: int) -> list[EntityKey]:
        """Return up to `size` users taken over and not done yet."""

    async def done(self, partition: int, users: Sequence[tuple[EntityKey, int]]) -> None:
        """Take the marks of users, but of those whose revision is no longer the given one."""


class LaneView(Protocol):
    """How this lane stands to Redis."""

    async def checkpoints(self) -> dict[TopicPartition, int]:
        """Return one past the settled prefix of each partition; raises Transient."""

    async def is_current(self) -> bool:
        """Return whether Redis still holds the view that the lane was compared with."""


class HistoryFlush:
    """Runs beside the behaviour lane's pipeline.

    Args:
        topic: the lane's topic of events, with its prefix.
        marks: changed users.
        histories: their histories.
        view: what the lane's guard knows of Redis.
        owned: the partitions assigned to this worker.
        is_open: whether the lane may touch Redis: nothing holds it.
        emitter: produces, acknowledged.
        commit: commits watermarks by (topic, partition); raises Transient.
        clock: the time noted in records.
        every_seconds: between two flushes.
    """

    def __init__(
        self,
        topic: str,
        *,
        marks: MarksPort,
        histories: HistoriesPort,
        view: LaneView,
        owned: Callable[[], set[TopicPartition]],
        is_open: Callable[[], bool],
        emitter: Emitter,
        commit: Callable[[Mapping[TopicPartition, int]], Awaitable[None]],
        clock: Clock,
        every_seconds: float,
    ) -> None:
        self._topic = topic
        self._marks = marks
        self._histories = histories
        self._view = view
        self._owned = owned
        self._is_open = is_open
        self._emitter = emitter
        self._commit = commit
        self._clock = clock
        self._every_seconds = every_seconds
        self._committed: dict[TopicPartition, int] = {}
        self._last_owned: set[int] = set()
        self._fails = False

    async def keep_flushing(self) -> None:
        """Flush again and again until cancelled; trouble is said once, and tried again."""
        while True:
            await asyncio.sleep(self._every_seconds)
            if not self._is_open():
                continue
            try:
                await self.flush(self._partitions())
            except Transient as error:
                if not self._fails:
                    log.warning("histories_not_flushed", detail=str(error))
                self._fails = True
            else:
                self._fails = False

    async def flush_last(self) -> None:
        """Flush what the lane owned, as far as a few seconds take it; for a lane that stops."""
        partitions = self._partitions() or self._last_owned
        if not partitions or not self._is_open():
            return
        try:
            async with asyncio.timeout(LAST_FLUSH_SECONDS):
                await self.flush(partitions, while_owned=False)
        except (Transient, TimeoutError) as error:
            log.info("histories_left_to_flush", detail=str(error))

    async def flush(self, partitions: set[int], *, while_owned: bool = True) -> int:
        """Flush partitions and move their watermarks; return how many histories were produced.

        A partition that is lost in the middle is left to its new owner. Raises Transient.
        """
        # Before anything is taken over: what is settled later may not be in what is.
        settled = await self._view.checkpoints()
        flushed = 0
        done: set[TopicPartition] = set()
        for partition in sorted(partitions):
            count = await self._flush_partition(partition, while_owned=while_owned)
            if count is not None:
                flushed += count
                done.add((self._topic, partition))
        # A Redis that was emptied in between had no marks to take over.
        await self._require_same_view()
        watermarks = {
            tp: settled[tp] for tp in done if settled.get(tp, 0) > self._committed.get(tp, 0)
        }
        if watermarks:
            await self._commit(watermarks)
            self._committed |= watermarks
        if flushed:
            log.info("histories_flushed", histories=flushed, partitions=sorted(partitions))
        return flushed

    def _partitions(self) -> set[int]:
        owned = {partition for topic, partition in self._owned() if topic == self._topic}
        for tp in [tp for tp in self._committed if tp[1] not in owned]:
            # Another owner may move it, back too.
            del self._committed[tp]
        if owned:
            self._last_owned = owned
        return owned

    async def _flush_partition(self, partition: int, *, while_owned: bool) -> int | None:
        """Return how many histories were produced, None when the partition was lost."""
        flushed = 0
        # First what an earlier flush left; then nothing is in the way of taking over.
        for begin in (False, True):
            if begin and not await self._marks.begin(partition):
                break
            while users := await self._marks.batch(partition, BATCH):
                if while_owned and (self._topic, partition) not in self._owned():
                    return None
                flushed += await self._produce(partition, users)
        return flushed

    async def _produce(self, partition: int, users: Sequence[EntityKey]) -> int:
        histories = await self._histories.load(users)
        # After the read. A Redis that was emptied may hold the events since then alone, under a
        # greater revision than the whole history in the topic.
        await self._require_same_view()
        rows = [
            (user, history)
            for user, history in zip(users, histories, strict=True)
            if history is not None
        ]
        now_ms = self._clock.now_ms()
        await self._emitter.emit(
            [
                history_message(user, history, partition=partition, written_at_ms=now_ms)
                for user, history in rows
            ]
        )
        revs = {user: history.rev for user, history in rows}
        await self._marks.done(partition, [(user, revs.get(user, 0)) for user in users])
        return len(rows)

    async def _require_same_view(self) -> None:
        if not await self._view.is_current():
            raise Transient("redis", "the view is another one: it must be compared first")
