"""The rebuild: documents and vectors of whole partitions put back from the compacted topics.

Costs no model call, and an encoder call only for parts whose representation was lost. Never writes
over what is newer: each entity goes in only where no later revision is stored.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import structlog

from schemas.errors import Permanent, Transient
from schemas.knowledge import EntityRecord
from schemas.representation_record import RepresentationRecord
from schemas.spaces import Space
from schemas.topics import Topic
from streams.compacted import read_compacted
from streams.control import read_control
from streams.control_mirror import RegistryPort, restore_registry
from streams.entity_log import EntityPartition, entity_partitions
from streams.known_parts import Row, is_of, known_row
from streams.lanes.encode import RepresenterPort, SpacesPort
from streams.lanes.vector_rules import is_described, is_from_documents
from streams.lanes.vectors import AdaptorPort, VectorSource, space_records
from streams.settings import KafkaSettings, Settings
from workers.live.entity_store import RebuiltEntity

if TYPE_CHECKING:
    from streams.compacted import CompactedRecord

log = structlog.get_logger("freshet.rebuild")

BATCH = 128
"""Entities encoded and written together: about 2 MB of raw vectors."""

Progress = Callable[[int, int], None]


class RebuildStore(Protocol):
    """Where documents and vectors go."""

    async def put_unless_later_rev(self, rows: Sequence[RebuiltEntity]) -> int:
        """Write each entity unless a later revision is stored; raises Transient."""


class RebuildSpaces(SpacesPort, Protocol):
    """The spaces of the encode lane; the others' lanes backfill their own."""

    async def refresh(self) -> None:
        """Follow the registry now."""


@dataclass(frozen=True, slots=True)
class _Found:
    """An entity as the topics hold it, and what is known of its parts."""

    record: EntityRecord
    row: Row

    @property
    def is_complete(self) -> bool:
        """Whether no part must be encoded."""
        known, _, texts = self.row
        return known == texts


class ViewRebuild:
    """Puts partitions back, one at a time; memory is bounded by one partition's documents."""

    def __init__(
        self,
        kafka: KafkaSettings,
        *,
        store: RebuildStore,
        registry: RegistryPort,
        representer: RepresenterPort,
        spaces: RebuildSpaces,
        executor: Executor,
        on_progress: Progress | None = None,
    ) -> None:
        self._kafka = kafka
        self._store = store
        self._registry = registry
        self._representer = representer
        self._spaces = spaces
        self._executor = executor
        self._on_progress = on_progress

    async def rebuild(self, partitions: set[int]) -> int:
        """Restore spaces, aliases and the entities of `partitions`; return how many were written.

        Spaces and aliases are restored even when there are no partitions. Raises Transient; also
        for a record of `entities` that does not decode, because an entity left out would begin
        anew, without its knowledge, with the next event.
        """
        await restore_registry(await read_control(self._kafka), self._registry)
        await self._spaces.refresh()
        written = 0
        try:
            async for partition in entity_partitions(
                self._kafka, partitions, on_progress=self._on_progress
            ):
                async with aclosing(self._batches(partition)) as batches:
                    async for batch in batches:
                        written += await self._put(batch)
        except Permanent as error:
            raise Transient("kafka", f"{Topic.ENTITIES}: {error}") from error
        return written

    async def _batches(self, partition: EntityPartition) -> AsyncGenerator[list[_Found], None]:
        batch: list[_Found] = []
        async with aclosing(self._all_found(partition)) as all_found:
            async for found in all_found:
                batch.append(found)
                if len(batch) >= BATCH:
                    yield batch
                    batch = []
        if batch:
            yield batch

    async def _all_found(self, partition: EntityPartition) -> AsyncGenerator[_Found, None]:
        """Yield all entities; first, as the log goes by, those whose parts are all known.

        So only representations that lack a part are kept in memory.
        """
        waiting = dict(partition.values)
        incomplete: dict[bytes, RepresentationRecord] = {}
        async with aclosing(
            read_compacted(self._kafka, Topic.REPRESENTATIONS, [partition.partition])
        ) as records:
            async for record in records:
                value = waiting.get(record.key)
                representation = _representation(record, self._spaces.raw)
                if value is None or representation is None:
                    continue
                found = self._found(value, representation)
                if found.is_complete:
                    del waiting[record.key]
                    incomplete.pop(record.key, None)
                    yield found
                else:
                    incomplete[record.key] = representation
        for key, value in waiting.items():
            yield self._found(value, incomplete.pop(key, None))

    def _found(self, value: bytes, representation: RepresentationRecord | None) -> _Found:
        record = EntityRecord.decode(value)
        return _Found(record, known_row(self._representer.texts(record.document), representation))

    async def _put(self, batch: Sequence[_Found]) -> int:
        adaptors = self._spaces.adaptors()
        loop = asyncio.get_running_loop()
        rows = await loop.run_in_executor(self._executor, self._make, batch, adaptors)
        return await self._store.put_unless_later_rev(rows)

    def _make(
        self, batch: Sequence[_Found], adaptors: Sequence[AdaptorPort]
    ) -> list[RebuiltEntity]:
        """Return the entities with their vectors. Runs in the executor."""
        spaces = [adaptor.space for adaptor in adaptors]
        parts = self._spaces.raw.parts
        live = [
            one
            for one in batch
            if is_described(one.record.entity, one.record.document, parts)
            and any(is_from_documents(space, one.record.entity.kind) for space in spaces)
        ]
        values, mask, _ = self._representer.represent([one.row for one in live])
        sources = [
            VectorSource(
                one.record.entity, one.record.document, one.record.rev, one.record.written_at_ms
            )
            for one in live
        ]
        made = space_records(sources, values, mask, adaptors)
        vectors = {source.key: records for source, records in zip(sources, made, strict=True)}
        rebuilt: list[RebuiltEntity] = []
        for one in batch:
            record = one.record
            records = vectors.get(record.entity, {})
            # A Redis from an old snapshot still has the vectors of what was removed since.
            # Not those made from histories: they are not ours.
            gone = tuple(
                space.name
                for space in spaces
                if space.name not in records and is_from_documents(space, record.entity.kind)
            )
            rebuilt.append(
                RebuiltEntity(
                    record.entity, record.rev, record.document, record.written_at_ms, records, gone
                )
            )
        return rebuilt


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """How many entities were written, and how many users' histories and vectors put back."""

    entities: int
    users: int


async def rebuild_command(
    settings: Settings, *, on_progress: Progress | None = None
) -> RebuildReport:
    """Put the whole view back, lanes or no lanes: entities first, then users.

    `on_progress(partitions_done, partitions)`, for each of the two from the beginning. Raises
    Transient, ConfigurationError.
    """
    from streams.redis_clients import open_redis
    from streams.space_set import SpaceSet
    from streams.user_parts import history_restore, tower_options, user_vectors
    from streams.user_spaces import UserSpaces
    from workers.encoding.load_representer import representer_on_demand
    from workers.live.entity_store import EntityStore
    from workers.live.space_registry import SpaceRegistry

    encode = settings.encode
    async with open_redis(settings.redis) as redis:
        registry = SpaceRegistry(redis.client, redis.keys)
        representer = representer_on_demand(
            encode.spaces_dir, encode.choice, refuse_below=encode.refuse_parity_below
        )
        with ThreadPoolExecutor(1, "encoder") as executor:
            rebuild = ViewRebuild(
                settings.kafka,
                store=EntityStore(redis.client, redis.keys),
                registry=registry,
                representer=representer,
                spaces=SpaceSet(registry, encode.spaces_dir, lane="encode"),
                executor=executor,
                on_progress=on_progress,
            )
            partitions = set(range(settings.kafka.partitions))
            entities = await rebuild.rebuild(partitions)
            towers = UserSpaces(registry, tower_options(settings))
            restore = history_restore(
                settings,
                redis.client,
                redis.keys,
                vectors=user_vectors(
                    settings.behaviour,
                    redis.client,
                    redis.keys,
                    towers=towers,
                    executor=executor,
                ),
                refresh_spaces=towers.refresh,
                on_progress=on_progress,
            )
            return RebuildReport(entities, await restore.restore(partitions))


def _representation(record: "CompactedRecord", raw: Space) -> RepresentationRecord | None:
    """Return the record's representation, None unless it is one of the raw space."""
    if record.value is None:
        return None
    try:
        representation = RepresentationRecord.decode(record.value)
        return representation if is_of(representation, raw) else None
    except Permanent as error:
        log.warning(
            "representation_unreadable",
            partition=record.partition,
            offset=record.offset,
            detail=str(error),
        )
        return None
