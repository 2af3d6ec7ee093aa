"""`freshet audit`: does Redis hold what `entities` says, and the other way round?

They part when a process was paused between Redis and Kafka for longer than its session, or when a
Redis came back without its last writes. Redis is written first, so a document that is newer there
may just be on its way: it counts only if `entities` still lacks it in a second look. Repair goes
through the encode lane, the one writer of the compacted topics; see `republish`. Users' histories
are compared likewise: see `audit_histories`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from hashlib import blake2b

from schemas.entities import EntityKey
from schemas.knowledge import Document, EntityRecord
from streams.emitter import Emitter, KafkaEmitter
from streams.entity_log import entity_partitions
from streams.lanes.vector_rules import is_from_documents
from streams.maintenance.audit_histories import HistoryAudit, audit_histories
from streams.maintenance.republish import republish
from streams.redis_clients import OpenRedis, open_redis
from streams.settings import KafkaSettings, Settings
from streams.user_parts import history_restore, tower_options, user_vectors
from streams.user_spaces import UserSpaces
from workers.live.entity_records import StoredEntity
from workers.live.entity_store import EntityStore, RebuiltEntity
from workers.live.space_registry import SpaceRegistry

_BATCH = 500
_SECOND_LOOK_SECONDS = 5.0


class Fault(StrEnum):
    """How the two differ."""

    BEHIND = "behind"  # Redis lacks the document or has an older revision
    AHEAD = "ahead"  # `entities` lacks the document or has an older revision
    APART = "apart"  # the same revision, but not the same document


@dataclass(frozen=True, slots=True)
class Difference:
    """One entity that differs; a revision is 0 where there is no document."""

    key: EntityKey
    fault: Fault
    redis_rev: int
    entities_rev: int


@dataclass(frozen=True, slots=True)
class AuditReport:
    """How many entities were compared, those that differ, and whether they were sent for repair.

    Histories are only counted: users have no place in a report.
    """

    compared: int
    differences: tuple[Difference, ...]
    repaired: bool
    histories: HistoryAudit

    @property
    def is_clean(self) -> bool:
        """Whether nothing differs."""
        return not (self.differences or self.histories.behind or self.histories.ahead)


@dataclass(frozen=True, slots=True)
class _Pair:
    stored: StoredEntity
    record: EntityRecord | None

    @property
    def fault(self) -> Fault | None:
        rev = 0 if self.record is None else self.record.rev
        if self.stored.rev != rev:
            return Fault.BEHIND if self.stored.rev < rev else Fault.AHEAD
        document = Document() if self.record is None else self.record.document
        return None if document == self.stored.document else Fault.APART


async def audit(
    settings: Settings,
    *,
    share: float = 1.0,
    repair: bool = False,
    emitter: Emitter | None = None,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    on_progress: Callable[[int, int], None] | None = None,
) -> AuditReport:
    """Compare a share of all entities (chosen by a hash of their keys), and repair what differs.

    `pause` waits before the second look. Raises Transient, ViewLost among it: a view that is not
    whole wants a rebuild, not an audit.
    """
    async with open_redis(settings.redis) as redis:
        compared, suspects = await _compare(settings.kafka, redis, share, on_progress)
        pairs = [pair for pair in suspects if pair.fault is not Fault.AHEAD]
        ahead = [pair for pair in suspects if pair.fault is Fault.AHEAD]
        if ahead:
            await pause(_SECOND_LOOK_SECONDS)
            pairs += await _still_ahead(settings.kafka, ahead)
        if repair and pairs:
            await _repair(settings, redis, pairs, emitter)
        histories = await _audit_histories(settings, redis, share, repair=repair, pause=pause)
    differences = tuple(
        Difference(
            pair.stored.key,
            pair.fault,
            pair.stored.rev,
            0 if pair.record is None else pair.record.rev,
        )
        for pair in pairs
        if pair.fault is not None
    )
    different = bool(pairs) or histories.behind + histories.ahead > 0
    return AuditReport(compared, differences, repair and different, histories)


async def _audit_histories(
    settings: Settings,
    redis: OpenRedis,
    share: float,
    *,
    repair: bool,
    pause: Callable[[float], Awaitable[None]],
) -> HistoryAudit:
    spaces = UserSpaces(SpaceRegistry(redis.client, redis.keys), tower_options(settings))
    with ThreadPoolExecutor(1, "towers") as executor:
        vectors = user_vectors(
            settings.behaviour, redis.client, redis.keys, towers=spaces, executor=executor
        )
        restore = history_restore(
            settings, redis.client, redis.keys, vectors=vectors, refresh_spaces=spaces.refresh
        )
        if repair:
            await spaces.refresh()
        return await audit_histories(
            settings,
            redis,
            wanted=partial(in_sample, share=share),
            repair=restore if repair else None,
            pause=partial(pause, _SECOND_LOOK_SECONDS),
        )


def in_sample(key: bytes, share: float) -> bool:
    """Whether a key belongs to the share (0-1) of all keys that is looked at. Pure."""
    place = int.from_bytes(blake2b(key, digest_size=8).digest(), "big")
    return place < share * 2**64


async def _compare(
    kafka: KafkaSettings,
    redis: OpenRedis,
    share: float,
    on_progress: Callable[[int, int], None] | None,
) -> tuple[int, list[_Pair]]:
    store = EntityStore(redis.client, redis.keys)
    known: set[bytes] = set()
    suspects: list[_Pair] = []
    async for partition in entity_partitions(kafka, on_progress=on_progress):
        keys = [key for key in partition.values if in_sample(key, share)]
        known.update(keys)
        for start in range(0, len(keys), _BATCH):
            records = [
                EntityRecord.decode(partition.values[key]) for key in keys[start : start + _BATCH]
            ]
            stored = await store.load([record.entity for record in records], None)
            suspects += _faulty(stored, records)
    # What only Redis has.
    strays = [
        key
        async for key in store.scan()
        if in_sample(encoded := key.encode(), share) and encoded not in known
    ]
    strays = list(dict.fromkeys(strays))
    for start in range(0, len(strays), _BATCH):
        stored = await store.load(strays[start : start + _BATCH], None)
        suspects += _faulty(stored, [None] * len(stored))
    return len(known) + len(strays), suspects


def _faulty(stored: Sequence[StoredEntity], records: Sequence[EntityRecord | None]) -> list[_Pair]:
    pairs = (_Pair(one, record) for one, record in zip(stored, records, strict=True))
    return [pair for pair in pairs if pair.fault is not None]


async def _still_ahead(kafka: KafkaSettings, pairs: Sequence[_Pair]) -> list[_Pair]:
    """Return the pairs whose stored revision `entities` still lacks."""
    waiting = {pair.stored.key.encode(): pair for pair in pairs}
    async for partition in entity_partitions(kafka):
        for key in waiting.keys() & partition.values.keys():
            record = EntityRecord.decode(partition.values[key])
            if record.rev >= waiting[key].stored.rev:
                del waiting[key]
    return list(waiting.values())


async def _repair(
    settings: Settings, redis: OpenRedis, pairs: Sequence[_Pair], emitter: Emitter | None
) -> None:
    """Bring Redis up to `entities` first, so revisions never go back; then let the lane produce.

    A document put back like this has no vectors of its revision: the encode lane sees that and
    makes them anew, as soon as one of its registers comes by.
    """
    behind = [
        pair.record for pair in pairs if pair.fault is Fault.BEHIND and pair.record is not None
    ]
    store = EntityStore(redis.client, redis.keys)
    registered = (await SpaceRegistry(redis.client, redis.keys).spaces()).values()
    for start in range(0, len(behind), _BATCH):
        await store.put_if_newer_rev(
            [
                RebuiltEntity(
                    record.entity,
                    record.rev,
                    record.document,
                    record.written_at_ms,
                    drop=()
                    if record.document.content is not None
                    else tuple(
                        one.space.name
                        for one in registered
                        if is_from_documents(one.space, record.entity.kind)
                    ),
                )
                for record in behind[start : start + _BATCH]
            ]
        )
    own = KafkaEmitter(settings.kafka) if emitter is None else None
    out = emitter or own
    try:
        if out is not None:
            await republish(out, [entry for pair in pairs for entry in _to_republish(pair)])
    finally:
        if own is not None:
            await own.aclose()


def _to_republish(pair: _Pair) -> Iterator[tuple[EntityKey, Document]]:
    # Never what is older: of an entity that was forgotten it is what was to be forgotten.
    if pair.fault is not Fault.BEHIND:
        yield pair.stored.key, pair.stored.document
    if pair.fault is not Fault.AHEAD and pair.record is not None:
        yield pair.record.entity, pair.record.document
