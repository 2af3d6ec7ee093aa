"""The part of `freshet audit` that is about users: does `histories` hold what Redis does?

Redis may always be ahead: what changed is marked, and published within a minute. It counts as a
difference if there is no mark, and the topic still lacks the change in a second look: an owner that
was paused has produced an old revision last. Users that the topic does not know at all are not
looked at: it gets everybody who ever changed, and loses only what is swept.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from schemas.entities import EntityKey
from schemas.errors import Permanent, Transient
from schemas.history import HistoryRecord
from schemas.topics import Topic
from streams.clock import SystemClock
from streams.history_log import is_over, newest_histories
from streams.history_restore import HistoryRestore
from streams.redis_clients import OpenRedis
from streams.settings import KafkaSettings, Settings
from streams.user_parts import history_store
from workers.live.dirty_histories import DirtyHistories

_BATCH = 500


@dataclass(frozen=True, slots=True)
class HistoryAudit:
    """`behind`: Redis lacks what the topic has; `ahead`: the topic lacks it, and nobody knows."""

    compared: int = 0
    behind: int = 0
    ahead: int = 0


@dataclass(slots=True)
class _Found:
    compared: int = 0
    behind: defaultdict[int, list[HistoryRecord]] = field(default_factory=lambda: defaultdict(list))
    ahead: defaultdict[int, dict[EntityKey, int]] = field(default_factory=lambda: defaultdict(dict))
    """Users by partition, and the revision that the topic lacks."""


async def audit_histories(
    settings: Settings,
    redis: OpenRedis,
    *,
    wanted: Callable[[bytes], bool],
    repair: HistoryRestore | None,
    pause: Callable[[], Awaitable[None]],
) -> HistoryAudit:
    """Compare the users whose Kafka key is wanted; with `repair` put right what differs.

    What Redis lacks is joined into it, and what the topic lacks is marked for the behaviour lane.
    `pause` waits before the second look. Raises Transient.
    """
    found = _Found()
    marks = DirtyHistories(redis.client, redis.keys)
    try:
        for partition in range(settings.kafka.partitions):
            await _compare(settings, redis, partition, wanted, found)
        if any(found.ahead.values()):
            await pause()
            for partition, users in found.ahead.items():
                await _drop_settled(settings.kafka, marks, partition, users)
    except Permanent as error:
        raise Transient("kafka", f"{Topic.HISTORIES}: {error}") from error
    if repair is not None:
        for partition, records in found.behind.items():
            for start in range(0, len(records), _BATCH):
                await repair.put_back(partition, records[start : start + _BATCH])
        for partition, users in found.ahead.items():
            await marks.mark(partition, list(users))
    return HistoryAudit(
        found.compared,
        sum(map(len, found.behind.values())),
        sum(map(len, found.ahead.values())),
    )


async def _compare(
    settings: Settings,
    redis: OpenRedis,
    partition: int,
    wanted: Callable[[bytes], bool],
    found: _Found,
) -> None:
    now_ms = SystemClock().now_ms()
    batch: list[HistoryRecord] = []
    async with aclosing(newest_histories(settings.kafka, partition)) as records:
        async for record in records:
            if not wanted(record.user.encode()) or is_over(
                record, now_ms, settings.behaviour.idle_ms
            ):
                continue
            batch.append(record)
            if len(batch) == _BATCH:
                await _compare_batch(settings, redis, partition, batch, found)
                batch = []
    if batch:
        await _compare_batch(settings, redis, partition, batch, found)


async def _compare_batch(
    settings: Settings,
    redis: OpenRedis,
    partition: int,
    batch: list[HistoryRecord],
    found: _Found,
) -> None:
    bounds = settings.behaviour.bounds
    users = [record.user for record in batch]
    # The marks first, or a history could be published and lose its mark between the two reads.
    marked = await DirtyHistories(redis.client, redis.keys).marked(partition, users)
    stored = await history_store(settings.behaviour, redis.client, redis.keys).load(users)
    found.compared += len(batch)
    for record, history, is_marked in zip(batch, stored, marked, strict=True):
        published = record.history
        if history is None:
            found.behind[partition].append(record)
            continue
        joined = history.join(published.events, published.erased_at_ms, bounds)
        if joined != history or history.rev < published.rev:
            found.behind[partition].append(record)
        elif history.rev > published.rev and not is_marked:
            found.ahead[partition][record.user] = history.rev


async def _drop_settled(
    kafka: KafkaSettings, marks: DirtyHistories, partition: int, users: dict[EntityKey, int]
) -> None:
    """Take out the users whose revision the topic has by now, or is going to get."""
    suspects = list(users)
    # The marks first, here too: one that goes meanwhile is published before the topic is read.
    for user, is_marked in zip(suspects, await marks.marked(partition, suspects), strict=True):
        if is_marked:
            del users[user]
    async with aclosing(newest_histories(kafka, partition)) as records:
        async for record in records:
            if record.history.rev >= users.get(record.user, record.history.rev + 1):
                del users[record.user]
