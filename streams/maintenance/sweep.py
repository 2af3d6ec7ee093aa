"""`freshet sweep`: removed entities are forgotten for good once nothing can bring them back.

A removed marker outlives every record that could revive the entity (31 days: the longest retention
of any topic). Then the entity is deleted from Redis and nulled in `entities`. Safe against an item
that comes back at that very moment: Redis first, by compare-and-set on the revision, so a document
that changed is left alone; and after the nulls are acknowledged Redis is read once more, and the
encode lane asked to produce again whatever came back in between (its record may lie before our
null). A crash between the two steps leaves a marker without a document, which the next sweep takes.

Users' histories are swept likewise: see `sweep_histories`.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from schemas.entities import EntityKey
from schemas.knowledge import Document, EntityRecord
from schemas.spaces import Space
from schemas.topics import DAY_MS, REMOVED_MARKER_DAYS, Topic
from streams.emitter import Emitter, KafkaEmitter, Outgoing
from streams.entity_log import entity_partitions
from streams.lanes.vector_rules import is_from_documents
from streams.maintenance.republish import republish
from streams.maintenance.sweep_histories import SweptHistories, sweep_histories
from streams.redis_clients import OpenRedis, open_redis
from streams.settings import Settings
from workers.live.entity_removal import EntityRemoval
from workers.live.entity_store import EntityStore
from workers.live.space_registry import SpaceRegistry

_BATCH = 500


@dataclass(frozen=True, slots=True)
class SweepReport:
    """`kept` are too young, `changed` came back or moved on meanwhile."""

    swept: int
    kept: int
    changed: int
    dry_run: bool
    histories: SweptHistories


async def sweep(
    settings: Settings,
    *,
    now_ms: int | None = None,
    dry_run: bool = False,
    emitter: Emitter | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> SweepReport:
    """Forget removed (and forgotten) entities whose marker is old enough; raises Transient."""
    now = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    own = KafkaEmitter(settings.kafka) if emitter is None and not dry_run else None
    out = emitter or own
    swept = kept = changed = 0
    try:
        async with open_redis(settings.redis) as redis:
            registered = await SpaceRegistry(redis.client, redis.keys).spaces()
            spaces = [registered[name].space for name in sorted(registered)]
            async for partition in entity_partitions(settings.kafka, on_progress=on_progress):
                markers = [record for record in partition.records() if _is_marker(record.document)]
                due = [record for record in markers if is_due(record, now)]
                kept += len(markers) - len(due)
                if dry_run or out is None:
                    swept += len(due)
                    continue
                for start in range(0, len(due), _BATCH):
                    batch = due[start : start + _BATCH]
                    done = await _sweep(redis, out, batch, spaces)
                    swept += done
                    changed += len(batch) - done
            histories = await sweep_histories(settings, redis, None if dry_run else out, now_ms=now)
    finally:
        if own is not None:
            await own.aclose()
    return SweepReport(swept, kept, changed, dry_run, histories)


def is_due(record: EntityRecord, now_ms: int) -> bool:
    """Whether the marker has outlived everything that could revive the entity. Pure."""
    return now_ms - record.written_at_ms > REMOVED_MARKER_DAYS * DAY_MS


def _is_marker(document: Document) -> bool:
    # Without any register: what `freshet forget` leaves behind.
    return document.is_removed or document == Document()


async def _sweep(
    redis: OpenRedis, emitter: Emitter, records: Sequence[EntityRecord], spaces: Sequence[Space]
) -> int:
    """Delete, null, look again; return how many were swept."""
    removal = EntityRemoval(redis.client, redis.keys)
    gone: list[EntityKey] = []
    for kind in dict.fromkeys(record.entity.kind for record in records):
        rows = [(record.entity, record.rev) for record in records if record.entity.kind is kind]
        # A user whose document was removed may have a history since, and vectors made from it.
        made = [space.name for space in spaces if is_from_documents(space, kind)]
        done = await removal.delete_if_rev(rows, made)
        gone += [key for (key, _), deleted in zip(rows, done, strict=True) if deleted]
    await emitter.emit(
        [
            Outgoing(topic, key.encode(), None)
            for key in gone
            for topic in (Topic.ENTITIES, Topic.REPRESENTATIONS)
        ]
    )
    await republish(emitter, await _came_back(redis, gone))
    return len(gone)


async def _came_back(
    redis: OpenRedis, keys: Sequence[EntityKey]
) -> list[tuple[EntityKey, Document]]:
    store = EntityStore(redis.client, redis.keys)
    stored = [(key, await store.load_stored(key, ())) for key in keys]
    return [(key, details.document) for key, details in stored if details is not None]
