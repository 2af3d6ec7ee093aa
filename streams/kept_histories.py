"""How the behaviour lane keeps histories beyond Redis: flushed beside it, restored for it."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

from schemas.entities import EntityKey
from schemas.errors import Transient
from schemas.history import History
from schemas.topics import Topic
from streams.emitter import Emitter
from streams.engine.ports import Clock
from streams.group_offsets import commit_offsets, committed_offsets
from streams.history_flush import HistoryFlush, LaneView
from streams.history_restore import HistoryRestore, LaneRestore
from streams.kafka_clients import KafkaConnection
from streams.settings import Settings
from streams.topology import history_watermark_group
from streams.user_parts import history_store
from workers.live.connection import Client
from workers.live.dirty_histories import DirtyHistories
from workers.live.history_records import AppliedHistory, HistoryChange
from workers.live.history_store import HistoryStore
from workers.live.keys import Keys

DEPENDENCY = "histories"
AGAIN_SECONDS = 0.2

Partitions = frozenset[tuple[str, int]]


class GuardPort(Protocol):
    """The lane's guard, as far as histories go."""

    @property
    def whole(self) -> Partitions:
        """The partitions of which Redis holds all that was settled, or all but what is replayed."""


class WholeHistories:
    """The behaviour lane's histories: nothing is added in a partition that is not whole.

    In a Redis that was emptied an event would begin a history anew, and under a greater revision
    than the whole one that is still to be put back.
    """

    def __init__(self, store: HistoryStore, whole: Callable[[], set[int]]) -> None:
        self._store = store
        self._whole = whole

    async def apply(
        self, changes: Sequence[HistoryChange], *, partition_of: Mapping[EntityKey, int]
    ) -> list[AppliedHistory]:
        """Add each change to its user's history; raises Transient("histories") too early."""
        early = set(partition_of.values()) - self._whole()
        if early:
            raise Transient(
                DEPENDENCY,
                f"partitions {sorted(early)} are not compared yet",
                retry_after_seconds=AGAIN_SECONDS,
            )
        return await self._store.apply(changes, partition_of=partition_of)

    async def load(self, users: Sequence[EntityKey]) -> list[History | None]:
        """Return the history of each user, in order; None where there is none."""
        return await self._store.load(users)


class KeptHistories:
    """What the lane, its guard and its companions need of histories; `attach` the guard first."""

    def __init__(
        self,
        settings: Settings,
        redis: Client,
        keys: Keys,
        emitter: Emitter,
        clock: Clock,
        restore: HistoryRestore,
    ) -> None:
        self._settings = settings
        self._redis = redis
        self._keys = keys
        self._emitter = emitter
        self._clock = clock
        prefix = settings.kafka.topic_prefix
        self._topic = prefix + Topic.USER_BEHAVIOUR
        self._connection = KafkaConnection.of(settings.kafka)
        self._group = history_watermark_group(prefix)
        self._guard: GuardPort | None = None
        self.store = WholeHistories(
            history_store(settings.behaviour, redis, keys),
            lambda: {partition for topic, partition in self._whole() if topic == self._topic},
        )
        """Where the lane adds events."""
        self.announcements = frozenset({prefix + Topic.LIVE_UPDATES})
        """Topics whose records say to look again: not needed once everything was looked at."""
        self.restore = LaneRestore(
            self._topic, restore, partial(committed_offsets, self._connection, self._group)
        )

    def attach(self, guard: GuardPort) -> None:
        """Name the guard that says which partitions are whole; none are before."""
        self._guard = guard

    def _whole(self) -> Partitions:
        return frozenset() if self._guard is None else self._guard.whole

    def flush(
        self,
        view: LaneView,
        assigned: Callable[[], set[tuple[str, int]]],
        is_open: Callable[[], bool],
    ) -> HistoryFlush:
        """Return the flush of the partitions that are assigned to this worker, and whole."""
        behaviour = self._settings.behaviour
        return HistoryFlush(
            self._topic,
            marks=DirtyHistories(self._redis, self._keys),
            histories=history_store(behaviour, self._redis, self._keys),
            view=view,
            owned=lambda: assigned() & self._whole(),
            is_open=is_open,
            emitter=self._emitter,
            commit=partial(commit_offsets, self._connection, self._group),
            clock=self._clock,
            every_seconds=behaviour.history_flush_seconds,
        )
