"""The loops that one would write without Freshet: aiokafka's getmany, a batch at a time.

They decode with the same functions, make the same Redis calls and produce the same records as the
items lane, in batches of the same size, and commit as often. What they lack is what the lane is
for: overlapping waits, single flight per item, retries, dead letters, a drain.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from schemas.entities import EntityKey
from schemas.events import ItemUpserted, decode_catalog_event, entity_of, event_time_ms
from schemas.fingerprints import Json, content_fingerprint
from schemas.knowledge import Content, KnowledgeRequest, KnowledgeUpdate, RegisterName, RequestKind
from schemas.topics import Topic
from schemas.trace import TraceEntry
from tests.bench.loop_config import BATCH, COMMIT_SECONDS, LIMITS, POLICY, LoopConfig, Stopwatch
from tests.bench.pairs import Run
from workers.live.checkpoints import Checkpoints
from workers.live.connection import connect
from workers.live.keys import Keys
from workers.live.seen import Seen, SeenStore
from workers.live.traces import TraceStore


@dataclass(frozen=True, slots=True)
class RawItem:
    """An item as decoded."""

    entity: EntityKey
    version: int
    fields: dict[str, Json]
    fingerprint: str
    event_time_ms: int


Work: TypeAlias = Callable[[Sequence[RawItem], dict[tuple[str, int], int]], Awaitable[None]]
"""Handles the items of a batch; the offsets after it, by partition."""


async def run_noop(config: LoopConfig) -> Run:
    """Consume and decode; do nothing with it."""

    async def nothing(items: Sequence[RawItem], offsets: dict[tuple[str, int], int]) -> None:
        pass

    return await _consume(config, nothing)


async def run_items(config: LoopConfig) -> Run:
    """Do all that the items lane does for new items."""
    redis = connect(config.redis_url)
    keys = Keys(config.key_prefix)
    seen, checkpoints, traces = (
        SeenStore(redis, keys),
        Checkpoints(redis, keys),
        TraceStore(redis, keys),
    )
    producer = AIOKafkaProducer(
        bootstrap_servers=config.bootstrap_servers,
        enable_idempotence=True,
        acks="all",
        max_batch_size=256 * 1024,
    )
    await producer.start()

    async def handle(items: Sequence[RawItem], offsets: dict[tuple[str, int], int]) -> None:
        known = await seen.load([item.entity for item in items])
        now_ms = time.time_ns() // 1_000_000
        new = [item for item, last in zip(items, known, strict=True) if last is None]
        deliveries = []
        for item in new:
            key = item.entity.encode()
            update, request = _values(item, now_ms)
            for topic, value in ((Topic.KNOWLEDGE, update), (Topic.KNOWLEDGE_REQUESTS, request)):
                deliveries.append(
                    await producer.send(config.topic_prefix + topic, value=value, key=key)
                )
        await asyncio.gather(*deliveries)
        await seen.store(
            [(item.entity, Seen(item.version, item.fingerprint, False, now_ms)) for item in new]
        )
        await checkpoints.store(config.group, offsets)
        await traces.append(
            [
                (item.entity, TraceEntry(now_ms, "items", "emitted", item.version, "new", ""))
                for item in new
            ]
        )

    try:
        return await _consume(config, handle)
    finally:
        await producer.stop()
        await redis.aclose()


def _values(item: RawItem, now_ms: int) -> tuple[bytes, bytes]:
    content = Content(item.version, item.fields, item.fingerprint, item.event_time_ms)
    request = KnowledgeRequest(
        entity=item.entity,
        kind=RequestKind.NEW,
        version=item.version,
        fields=item.fields,
        content_fingerprint=item.fingerprint,
        event_time_ms=item.event_time_ms,
        requested_at_ms=now_ms,
    )
    update = KnowledgeUpdate(item.entity, RegisterName.CONTENT, content)
    return update.encode(), request.encode()


async def _consume(config: LoopConfig, work: Work) -> Run:
    consumer = AIOKafkaConsumer(
        config.topic_prefix + Topic.CATALOG_ITEMS,
        bootstrap_servers=config.bootstrap_servers,
        group_id=config.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    try:
        return await _drain(consumer, config.count, work)
    finally:
        await consumer.stop()


async def _drain(consumer: Any, count: int, work: Work) -> Run:
    watch = Stopwatch()
    done, committed_at = 0, time.monotonic()
    while done < count:
        fetched = await consumer.getmany(timeout_ms=1_000, max_records=BATCH)
        if not fetched:
            continue
        if not watch.started:
            watch.start()
        offsets = {(tp.topic, tp.partition): some[-1].offset + 1 for tp, some in fetched.items()}
        now_ms = time.time_ns() // 1_000_000
        # The newest version of each item, as the lane coalesces.
        items: dict[EntityKey, RawItem] = {}
        for some in fetched.values():
            done += len(some)
            for record in some:
                item = _decode(record, now_ms)
                last = items.get(item.entity)
                if last is None or item.version >= last.version:
                    items[item.entity] = item
        await work(list(items.values()), offsets)
        if done >= count or time.monotonic() - committed_at >= COMMIT_SECONDS:
            await consumer.commit()
            committed_at = time.monotonic()
    return watch.stop(done)


def _decode(record: Any, now_ms: int) -> RawItem:
    event = decode_catalog_event(
        record.key,
        record.value,
        record.headers,
        timestamp_ms=record.timestamp,
        now_ms=now_ms,
        limits=LIMITS,
    )
    assert isinstance(event, ItemUpserted)
    fields = POLICY.content_of(event)
    return RawItem(
        entity_of(event),
        event.version,
        fields,
        content_fingerprint(fields),
        event_time_ms(event, record.timestamp),
    )
