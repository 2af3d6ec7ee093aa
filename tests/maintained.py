"""A small deployment in one process: a real Kafka and Redis, and an encode lane driven by hand."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from pydantic import SecretStr

from schemas.entities import EntityKey
from schemas.fingerprints import content_fingerprint
from schemas.knowledge import (
    Content,
    Document,
    EntityRecord,
    Factors,
    KnowledgeRequest,
    KnowledgeUpdate,
    Provenance,
    Removed,
)
from schemas.spaces import SpaceRecord, SpaceState
from schemas.topics import Topic
from streams import topic_admin
from streams.clock import SystemClock
from streams.compacted import read_compacted
from streams.emitter import Emitter, KafkaEmitter, Outgoing
from streams.entity_log import entity_partitions
from streams.lanes.encode import EncodeLane, EntityUpdate
from streams.maintenance.republish import registers_of
from streams.redis_clients import OpenRedis, open_redis
from streams.settings import KafkaSettings, RedisSettings, Settings
from tests.fakes.encoding import FakeSpaces, HashEncoder, SumAdaptor, representer
from tests.fakes.inline_executor import InlineExecutor
from workers.live.entity_store import EntityStore
from workers.live.space_registry import SpaceRegistry
from workers.live.view_marker import ViewMarker

PARTITIONS = 2
HEAT = EntityKey.item("42")


def content(version: int, title: str = "Heat") -> Document:
    fields = {"title": title}
    return Document(content=Content(version, fields, content_fingerprint(fields), 1_000 + version))


def removed(version: int) -> Document:
    return Document(removed=Removed(version, 1_000 + version))


def individual(
    version: int,
    *,
    model: str = "model-a",
    prompt: str = "prompt-a",
    generated_at_ms: int = 5,
    tokens: tuple[int, int] = (100, 20),
) -> Document:
    provenance = Provenance(model, prompt, "f", *tokens)
    factors = Factors(version, generated_at_ms, {"mood": "tense"}, provenance, 1_000 + version)
    return Document(individual=factors)


@dataclass(slots=True)
class Maintained:
    """What a test of the maintenance commands works with."""

    settings: Settings
    redis: OpenRedis
    emitter: KafkaEmitter
    lane: EncodeLane
    handled: dict[int, int] = field(default_factory=dict)

    @property
    def store(self) -> EntityStore:
        return EntityStore(self.redis.client, self.redis.keys)

    async def learn(self, key: EntityKey, *documents: Document) -> None:
        """Have the encode lane merge registers, as if they had come on `knowledge`."""
        for document in documents:
            await self.lane.handle([EntityUpdate(key, document, 1)])

    async def drain(self) -> int:
        """Have the encode lane handle what is new on `knowledge`; return how many records."""
        count = 0
        async for record in read_compacted(self.settings.kafka, Topic.KNOWLEDGE):
            if record.offset < self.handled.get(record.partition, 0):
                continue
            self.handled[record.partition] = record.offset + 1
            update = KnowledgeUpdate.decode(record.value)
            await self.learn(update.entity, Document.of(update.register, update.value))
            count += 1
        return count

    async def entities(self) -> dict[EntityKey, EntityRecord]:
        return {
            record.entity: record
            async for partition in entity_partitions(self.settings.kafka)
            for record in partition.records()
        }

    async def last(self, topic: str, key: EntityKey) -> bytes | None:
        """Return the last value of a key; fails if there is none at all."""
        values = [
            record.value
            async for record in read_compacted(self.settings.kafka, topic)
            if record.key == key.encode()
        ]
        return values[-1]

    async def requests(self) -> list[KnowledgeRequest]:
        return [
            KnowledgeRequest.decode(record.value)
            async for record in read_compacted(self.settings.kafka, Topic.KNOWLEDGE_BACKLOG)
        ]


class InterruptedEmitter(Emitter):
    """Lets something happen right before the first emit reaches the broker."""

    def __init__(self, emitter: Emitter, happens) -> None:
        self._emitter = emitter
        self._happens = happens

    async def emit(self, messages: Sequence[Outgoing]) -> None:
        happens, self._happens = self._happens, None
        if happens is not None:
            await happens()
        await self._emitter.emit(messages)


@asynccontextmanager
async def maintained(
    bootstrap_servers: str, redis_url: str, prefix: str
) -> AsyncIterator[Maintained]:
    settings = Settings(
        kafka=KafkaSettings(
            bootstrap_servers=bootstrap_servers, topic_prefix=prefix, partitions=PARTITIONS
        ),
        redis=RedisSettings(url=SecretStr(redis_url), key_prefix=prefix),
    )
    topic_admin.apply(settings.kafka)
    emitter = KafkaEmitter(settings.kafka)
    spaces = FakeSpaces(SumAdaptor())
    async with open_redis(settings.redis) as redis:
        registry = SpaceRegistry(redis.client, redis.keys)
        for adaptor in spaces.adaptors():
            await registry.put(
                SpaceRecord(
                    space=adaptor.space, state=SpaceState.ACTIVE, writer="encode", changed_at_ms=1
                )
            )
        await ViewMarker(redis.client, redis.keys).stamp()
        lane = EncodeLane(
            store=EntityStore(redis.client, redis.keys),
            representer=representer(HashEncoder()),
            spaces=spaces,
            emitter=emitter,
            clock=SystemClock(),
            executor=InlineExecutor(),
        )
        try:
            yield Maintained(settings, redis, emitter, lane)
        finally:
            await emitter.aclose()


def registers(document: Document) -> set[str]:
    return {name.value for name, _ in registers_of(document)}
