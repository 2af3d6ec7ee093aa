"""The loop that one would write for users without Freshet: aiokafka's getmany, a batch at a time.

It decodes with the lane's functions, appends to the same histories, reads the same item vectors and
writes the same user vectors, in batches of the same size, and commits as often. What it lacks is
what the lane is for: items that come later, erasures, dead letters, retries, a drain, and histories
that survive Redis.
"""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from aiokafka import AIOKafkaConsumer

from schemas.behaviour import Interaction, decode_behaviour
from schemas.entities import EntityKey
from schemas.history import History, HistoryEvent
from schemas.topics import Topic
from streams.lanes.user_vectors import user_record
from streams.settings import BehaviourSettings, Settings
from streams.user_parts import history_store, significance_of, tower_options
from tests.bench.behaviour_config import BehaviourConfig
from tests.bench.loop_config import COMMIT_SECONDS, Stopwatch
from tests.bench.pairs import Run
from tests.bench.user_state import BENCH_SPACE
from workers.live.checkpoints import Checkpoints
from workers.live.connection import connect
from workers.live.entity_store import EntityStore
from workers.live.history_store import HistoryChange
from workers.live.item_vectors import ItemVectors
from workers.live.keys import Keys
from workers.towers.load_towers import tower_of
from workers.towers.user_tower import PADDING

_SETTINGS = BehaviourSettings()
_LIMITS = _SETTINGS.limits


class _Users:
    """Histories and vectors of users in Redis."""

    def __init__(self, config: BehaviourConfig) -> None:
        keys = Keys(config.key_prefix)
        self.redis = connect(config.redis_url)
        self._group = config.group
        self._histories = history_store(_SETTINGS, self.redis, keys)
        self._items = ItemVectors(self.redis, keys)
        self._vectors = EntityStore(self.redis, keys)
        self._checkpoints = Checkpoints(self.redis, keys)
        self._significance = significance_of(_SETTINGS)
        self._tower = tower_of(BENCH_SPACE, tower_options(Settings()))

    async def handle(
        self,
        events: Mapping[EntityKey, Sequence[HistoryEvent]],
        partition_of: Mapping[EntityKey, int],
        offsets: Mapping[tuple[str, int], int],
    ) -> None:
        """Append a batch's events and make the users' vectors."""
        applied = await self._histories.apply(
            [HistoryChange(user, tuple(done)) for user, done in events.items()],
            partition_of=partition_of,
        )
        await self._make_vectors(list(events), [one.history for one in applied])
        await self._checkpoints.store(self._group, offsets)

    async def _make_vectors(self, users: Sequence[EntityKey], histories: Sequence[History]) -> None:
        length = max(len(history.events) for history in histories)
        rows = np.full((len(users), length), PADDING, np.int64)
        weights = np.zeros(rows.shape, np.float32)
        at_ms = np.zeros(rows.shape, np.int64)
        index: dict[str, int] = {}
        for n, history in enumerate(histories):
            for m, event in enumerate(history.counted):
                rows[n, m] = index.setdefault(event.item, len(index))
                weights[n, m] = self._significance.of(event)
                at_ms[n, m] = event.at_ms
        values, found = await self._items.read(BENCH_SPACE, [EntityKey.item(id_) for id_ in index])
        assert found.all()
        vectors, made = self._tower.apply(values, rows, weights, at_ms)
        now_ms = time.time_ns() // 1_000_000
        await self._vectors.put_vectors(
            BENCH_SPACE.name,
            [
                (
                    user,
                    history.rev,
                    user_record(history, BENCH_SPACE, vector, now_ms) if there else None,
                )
                for user, history, vector, there in zip(
                    users, histories, vectors, made, strict=True
                )
            ],
            ttl_ms=_SETTINGS.idle_ms,
        )


async def run(config: BehaviourConfig) -> Run:
    """Do all that the behaviour lane does for events whose items are there."""
    users = _Users(config)
    consumer = AIOKafkaConsumer(
        config.topic_prefix + Topic.USER_BEHAVIOUR,
        bootstrap_servers=config.bootstrap_servers,
        group_id=config.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    try:
        return await _drain(consumer, config, users)
    finally:
        await consumer.stop()
        await users.redis.aclose()


async def _drain(consumer: Any, config: BehaviourConfig, users: _Users) -> Run:
    # As many records as a batch of the lane holds: bounded in records and in events.
    batch = min(_SETTINGS.max_batch, int(_SETTINGS.max_batch_events / config.events_a_record))
    watch = Stopwatch()
    done, committed_at = 0, time.monotonic()
    while done < config.count:
        fetched = await consumer.getmany(timeout_ms=1_000, max_records=batch)
        if not fetched:
            continue
        if not watch.started:
            watch.start()
        offsets = {(tp.topic, tp.partition): some[-1].offset + 1 for tp, some in fetched.items()}
        now_ms = time.time_ns() // 1_000_000
        events: defaultdict[EntityKey, list[HistoryEvent]] = defaultdict(list)
        partition_of: dict[EntityKey, int] = {}
        for tp, some in fetched.items():
            for record in some:
                for one in _decode(record, now_ms):
                    events[one.user].append(one.event)
                    partition_of[one.user] = tp.partition
                    done += 1
        await users.handle(events, partition_of, offsets)
        if done >= config.count or time.monotonic() - committed_at >= COMMIT_SECONDS:
            await consumer.commit()
            committed_at = time.monotonic()
    return watch.stop(done)


def _decode(record: Any, now_ms: int) -> list[Interaction]:
    decoded = decode_behaviour(
        record.key,
        record.value,
        record.headers,
        timestamp_ms=record.timestamp,
        now_ms=now_ms,
        limits=_LIMITS,
    )
    return [one for one in decoded.events if isinstance(one, Interaction)]
