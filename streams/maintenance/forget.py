"""`freshet forget item:42`: an item begins anew, for example after somebody sent version 2^62.

A register is a maximum, so no later event can undo a version that is too great. Forgetting resets
the item's document to one without registers. Stop the item at its source first; then:

1. Wait until every lane has settled what was in its topic: what already arrived, the poisoned event
   included, is merged before the reset and not after it. Lane after lane in the order of the flow,
   because the items lane's output is the encode lane's input.
2. Forget what the items lane has seen of the item, so that it takes any version.
3. Reset the document by the same compare-and-set that the encode lane uses. The revision goes on
   growing: the partition's owner notices the reset as it would notice any other writer, and
   whatever was made from an older revision loses against it, wherever it still is.
4. Produce the empty document and a null for the representation, then look again: if the item came
   back in between, ask the encode lane to produce it again, because its record may lie before ours.
5. Cancel what the backlog may still hold for later: a removal of the forgotten versions goes there
   (a request, no register: the backlog lane forgets it within minutes).

Then send the item again with the right version. What this cannot do: a Redis that is later restored
from a snapshot older than the reset reads `knowledge` again, the poisoned register too (while the
topic still has it, 7 days): then forget the item once more. `freshet sweep` deletes the remains.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from schemas.entities import EntityKey, EntityKind
from schemas.errors import Transient
from schemas.knowledge import Document, EntityRecord, KnowledgeRequest, RequestKind
from schemas.topics import Topic
from streams.emitter import Emitter, KafkaEmitter, Outgoing
from streams.lag import read_lag
from streams.lanes.vector_rules import is_from_documents
from streams.maintenance.republish import registers_of, republish
from streams.redis_clients import OpenRedis, open_redis
from streams.settings import KafkaSettings, Settings
from streams.topology import LANES
from workers.live.entity_store import EntityStore, EntityWrite
from workers.live.seen import SeenStore
from workers.live.space_registry import SpaceRegistry

_ATTEMPTS = 10
_LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class ForgetReport:
    """`rev` is that of the empty document; `came_back` tells that an event arrived meanwhile."""

    key: EntityKey
    was_known: bool
    rev: int
    came_back: bool


async def forget(
    settings: Settings,
    key: EntityKey,
    *,
    wait_seconds: float = 60.0,
    force: bool = False,
    emitter: Emitter | None = None,
    on_wait: Callable[[str, int], None] | None = None,
) -> ForgetReport:
    """Reset an entity; raises Transient when a lane does not settle what it has in time.

    With `force` it does not wait: the item may be poisoned again by what is still in a topic.
    `on_wait(lane, records)` is told what it waits for.
    """
    if not force:
        await _settled(settings.kafka, _lanes_of(key), wait_seconds, on_wait)
    own = KafkaEmitter(settings.kafka) if emitter is None else None
    out = emitter or own
    try:
        async with open_redis(settings.redis) as redis:
            await SeenStore(redis.client, redis.keys).forget(key)
            forgotten, rev = await _reset(redis, key)
            came_back = False
            if out is not None:
                came_back = await _produce(redis, out, key, rev)
                await _cancel_requests(out, key, forgotten)
            return ForgetReport(key, forgotten != Document(), rev, came_back)
    finally:
        if own is not None:
            await own.aclose()


def _lanes_of(key: EntityKey) -> tuple[str, ...]:
    """Return the lanes that may yet bring a register of the entity, in the order of the flow."""
    other = "items" if key.kind is EntityKind.USER else "behaviour"
    return tuple(lane for lane in LANES if lane != other)


async def _settled(
    kafka: KafkaSettings,
    lanes: Sequence[str],
    wait_seconds: float,
    on_wait: Callable[[str, int], None] | None,
) -> None:
    """Return once each lane committed past what its topic held when its turn came."""
    deadline = time.monotonic() + wait_seconds
    for lane in lanes:
        report = await asyncio.to_thread(read_lag, kafka, [lane])
        ends = {(row.topic, row.partition): row.end for row in report.partitions}
        while True:
            open_ = sum(
                max(0, ends[row.topic, row.partition] - (row.end - row.records))
                for row in report.partitions
            )
            if open_ == 0:
                break
            if on_wait is not None:
                on_wait(lane, open_)
            if time.monotonic() > deadline:
                raise Transient(
                    f"lane {lane}", f"{open_} records not settled within {wait_seconds:g} s"
                )
            await asyncio.sleep(_LOOK_SECONDS)
            report = await asyncio.to_thread(read_lag, kafka, [lane])


async def _reset(redis: OpenRedis, key: EntityKey) -> tuple[Document, int]:
    """Return the document that was stored, and the revision of the empty one in its place."""
    store = EntityStore(redis.client, redis.keys)
    registered = (await SpaceRegistry(redis.client, redis.keys).spaces()).values()
    # A user's vectors from histories stay: what is forgotten is the document.
    spaces = tuple(
        sorted(one.space.name for one in registered if is_from_documents(one.space, key.kind))
    )
    for _ in range(_ATTEMPTS):
        stored = await store.load_stored(key, spaces)
        rev = 0 if stored is None else stored.rev
        write = EntityWrite(key, rev, Document(), {}, spaces)
        if (await store.put([write]))[0]:
            return Document() if stored is None else stored.document, rev + 1
    raise Transient("redis", f"{key} changed {_ATTEMPTS} times in a row: stop it at its source")


async def _produce(redis: OpenRedis, emitter: Emitter, key: EntityKey, rev: int) -> bool:
    record = EntityRecord(key, rev, Document(), time.time_ns() // 1_000_000)
    await emitter.emit(
        [
            Outgoing(Topic.ENTITIES, key.encode(), record.encode()),
            Outgoing(Topic.REPRESENTATIONS, key.encode(), None),
        ]
    )
    stored = await EntityStore(redis.client, redis.keys).load_stored(key, ())
    if stored is None or stored.document == Document():
        return False
    await republish(emitter, [(key, stored.document)])
    return True


async def _cancel_requests(emitter: Emitter, key: EntityKey, forgotten: Document) -> None:
    versions = [register.version for _, register in registers_of(forgotten)]
    if not versions:
        return
    now_ms = time.time_ns() // 1_000_000
    request = KnowledgeRequest(
        entity=key,
        kind=RequestKind.REMOVE,
        version=max(versions),
        fields={},
        content_fingerprint="",
        event_time_ms=now_ms,
        requested_at_ms=now_ms,
    )
    await emitter.emit([Outgoing(Topic.KNOWLEDGE_BACKLOG, key.encode(), request.encode())])
