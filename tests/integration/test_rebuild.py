"""Redis put back from the compacted topics of a real Kafka, without one model call."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

import numpy as np
import pytest
from redis.asyncio import Redis

from schemas.entities import EntityKey, EntityKind
from schemas.errors import Transient
from schemas.knowledge import Content, Document, EntityRecord
from schemas.spaces import AliasRecord, SpaceRecord, SpaceState
from schemas.topics import Topic
from schemas.vector_record import VectorRecord
from streams.control import alias_message, space_message
from streams.emitter import KafkaEmitter, Outgoing
from streams.engine.outcomes import Outcome, Settled
from streams.lanes.encode import EncodeLane, EntityUpdate
from streams.lanes.entity_plan import representation_message
from streams.rebuild import ViewRebuild
from streams.settings import Settings
from streams.space_set import SpaceSet
from streams.topic_admin import apply
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.encoding import DIM, HashEncoder
from tests.fakes.inline_executor import InlineExecutor
from tests.history_builders import user
from tests.live_builders import factors, item, removed, vector
from tests.space_builders import (
    PARTITIONS,
    PARTS,
    RAW,
    deployment_settings,
    film,
    films,
    pca_space,
    raw_space,
    registered,
    save,
)
from workers.encoding.representation import Representer
from workers.live.connection import connect
from workers.live.entity_store import EntityStore, RebuiltEntity
from workers.live.keys import Keys
from workers.live.space_registry import SpaceRegistry
from workers.live.view_marker import ViewMarker

PCA = "pca"
SPACES = (RAW, PCA)


@dataclass(slots=True)
class World:
    """A deployment whose encode lane is called by hand, on a Redis of its own."""

    settings: Settings
    redis: Redis
    keys: Keys
    emitter: KafkaEmitter
    store: EntityStore
    registry: SpaceRegistry
    spaces: SpaceSet
    lane: EncodeLane

    async def write(self, documents: Iterable[tuple[EntityKey, Document]]) -> None:
        """Have the encode lane write documents, 32 at a time."""
        updates = [EntityUpdate(key, document, 1) for key, document in documents]
        for start in range(0, len(updates), 32):
            results = await self.lane.handle(updates[start : start + 32])
            assert all(
                isinstance(result, Settled) and result.outcome is Outcome.WRITTEN
                for result in results
            )

    async def emit(self, topic: Topic, key: EntityKey, value: bytes | None) -> None:
        await self.emitter.emit([Outgoing(topic, key.encode(), value)])

    async def dump(self, keys: Iterable[EntityKey]) -> dict[tuple[str, EntityKey], object]:
        """Return what Redis holds: vectors as bytes, documents with their revisions."""
        wanted = list(keys)
        held: dict[tuple[str, EntityKey], object] = {}
        for key, stored in zip(wanted, await self.store.load(wanted, None), strict=True):
            held["doc", key] = (stored.rev, stored.document)
            for space in SPACES:
                held[space, key] = await self.redis.get(self.keys.vec(space, key))
        return held

    async def empty_redis(self) -> None:
        await self.redis.flushall()
        await ViewMarker(self.redis, self.keys).stamp()

    def rebuild(self, encoder: HashEncoder) -> ViewRebuild:
        return ViewRebuild(
            self.settings.kafka,
            store=self.store,
            registry=self.registry,
            representer=Representer(encoder, PARTS),
            spaces=SpaceSet(self.registry, self.settings.encode.spaces_dir, lane="encode"),
            executor=InlineExecutor(),
        )


@pytest.fixture
async def world(kafka, own_redis, topic_prefix, tmp_path) -> AsyncIterator[World]:
    server = own_redis()
    settings = deployment_settings(
        kafka.bootstrap_servers, server.url, topic_prefix, tmp_path / "spaces"
    )
    apply(settings.kafka)
    save(settings.encode.spaces_dir, raw_space(), pca_space(PCA))
    clock = FakeClock()
    keys = Keys(topic_prefix)
    emitter = KafkaEmitter(settings.kafka)
    async with connect(server.url) as redis:
        registry = SpaceRegistry(redis, keys)
        store = EntityStore(redis, keys, now_ms=clock.now_ms)
        spaces = SpaceSet(registry, settings.encode.spaces_dir, lane="encode")
        lane = EncodeLane(
            store=store,
            representer=Representer(HashEncoder(), PARTS),
            spaces=spaces,
            emitter=emitter,
            clock=clock,
            executor=InlineExecutor(),
        )
        world = World(settings, redis, keys, emitter, store, registry, spaces, lane)
        records = [registered(raw_space()), registered(pca_space(PCA))]
        alias = AliasRecord(kind=EntityKind.ITEM, space=PCA, changed_at_ms=1)
        await emitter.emit([*map(space_message, records), alias_message(alias)])
        for record in records:
            await registry.put(record)
        await registry.set_alias(EntityKind.ITEM, PCA)
        await ViewMarker(redis, keys).stamp()
        await spaces.refresh()
        try:
            yield world
        finally:
            await emitter.aclose()


ALL = set(range(PARTITIONS))


async def test_an_emptied_redis_is_what_it_was_and_nothing_is_encoded_again(world):
    documents = films(150)
    await world.write(documents.items())
    # Later registers, so that keys come several times in the log; then a removal and a return.
    await world.write((item(n), film(2, f"Film {n}, corrected")) for n in range(0, 60, 3))
    await world.write([(item(7), removed(5)), (item(8), removed(5))])
    await world.write([(item(8), film(6, "Film 8 is back"))])
    before = await world.dump(documents)
    spaces = await world.registry.spaces()
    await world.empty_redis()
    encoder = HashEncoder()

    written = await world.rebuild(encoder).rebuild(ALL)

    assert written == len(documents)
    assert encoder.texts == []
    assert await world.dump(documents) == before
    assert before[PCA, item(7)] is None
    assert before["doc", item(7)][1].is_removed
    assert before[PCA, item(8)] is not None
    assert await world.registry.spaces() == spaces
    assert await world.registry.alias(EntityKind.ITEM) == PCA


async def test_only_the_partitions_asked_for_are_put_back_and_none_restores_the_spaces(world):
    documents = films(40)
    await world.write(documents.items())
    await world.empty_redis()

    assert await world.rebuild(HashEncoder()).rebuild(set()) == 0
    assert set(await world.registry.spaces()) == set(SPACES)
    first = await world.rebuild(HashEncoder()).rebuild({0})
    assert 0 < first < len(documents)
    assert len([key async for key in world.store.scan()]) == first
    assert first + await world.rebuild(HashEncoder()).rebuild({1}) == len(documents)


async def test_parts_without_a_good_representation_are_encoded_again(world):
    await world.write([(item(n), film(1, f"Film {n}")) for n in range(5)])
    before = await world.dump([item(n) for n in range(5)])
    await world.emit(Topic.REPRESENTATIONS, item(1), None)
    await world.emit(Topic.REPRESENTATIONS, item(2), b"not a representation")
    # As after a crash before the new parts were produced: the document is ahead of them.
    ahead = film(1, "Film 3").merge(film(2, "Film 3", "Drama"))
    texts = Representer(HashEncoder(), PARTS).texts(ahead)
    record = EntityRecord(item(3), 2, ahead, START_MS)
    await world.emit(Topic.ENTITIES, item(3), record.encode())
    await world.empty_redis()
    encoder = HashEncoder()

    await world.rebuild(encoder).rebuild(ALL)

    # Item 2 still has a good record before the broken one, and item 3 keeps its title.
    assert encoder.texts == [texts[1]]
    after = await world.dump([item(n) for n in range(5)])
    assert {where: after[where] for where in after if where[1] != item(3)} == {
        where: before[where] for where in before if where[1] != item(3)
    }
    (stored,) = await world.store.load([item(3)], RAW)
    assert stored.rev == 2
    made = VectorRecord.decode(stored.raw)
    assert made.header.rev == 2
    expected, _, _ = Representer(HashEncoder(), PARTS).represent([(None, None, texts)])
    np.testing.assert_allclose(made.vector, expected.ravel(), atol=1e-3)


async def test_an_entity_whose_representation_is_gone_for_good_is_encoded_whole(world):
    document = film(1, "Film 1").merge(films(2)[item(1)])
    record = EntityRecord(item(1), 4, document, START_MS)
    await world.emit(Topic.ENTITIES, item(1), record.encode())
    encoder = HashEncoder()
    texts = Representer(encoder, PARTS).texts(document)
    other = raw_space().space.model_copy(update={"encoder_id": "another-encoder"})
    foreign = representation_message(item(1), other, np.ones((3, DIM), np.float32), texts, rev=4)
    await world.emitter.emit([foreign])

    assert await world.rebuild(encoder).rebuild(ALL) == 1

    assert sorted(encoder.texts) == sorted(text for text in texts if text is not None)
    (stored,) = await world.store.load([item(1)], RAW)
    assert (stored.rev, stored.document) == (4, document)
    assert stored.raw is not None


async def test_revisions_are_folded_and_a_null_begins_them_anew(world):
    def entity(key: EntityKey, rev: int, title: str) -> bytes:
        return EntityRecord(key, rev, film(rev, title), START_MS).encode()

    late, swept, returned = item("late"), item("swept"), item("returned")
    for key, value in (
        (late, entity(late, 1, "One")),
        (late, entity(late, 3, "Three")),
        (late, entity(late, 2, "Two, from a process that was paused")),
        (swept, entity(swept, 5, "Gone")),
        (swept, None),
        (returned, entity(returned, 2**62, "Poisoned")),
        (returned, None),
        (returned, entity(returned, 1, "Fresh")),
    ):
        await world.emit(Topic.ENTITIES, key, value)

    assert await world.rebuild(HashEncoder()).rebuild(ALL) == 2

    stored = await world.store.load([late, swept, returned], None)
    assert [(one.rev, one.document.content and one.document.content.fields) for one in stored] == [
        (3, {"title": "Three"}),
        (0, None),
        (1, {"title": "Fresh"}),
    ]


async def test_a_redis_from_an_old_snapshot_loses_what_was_removed_since(world):
    await world.write([(item(1), film(1, "Heat")), (item(2), film(1, "Dune"))])
    snapshot = {
        name: await world.redis.dump(name) for name in await world.redis.keys() if b"vec" in name
    } | {name: await world.redis.dump(name) for name in await world.redis.keys(b"*doc*")}
    await world.write([(item(1), removed(2))])
    await world.write([(item(2), film(2, "Dune: Part Two"))])
    now = await world.dump([item(1), item(2)])
    for name, value in snapshot.items():
        await world.redis.restore(name, 0, value, replace=True)
    assert await world.redis.exists(world.keys.vec(PCA, item(1)))

    await world.rebuild(HashEncoder()).rebuild(ALL)

    assert await world.dump([item(1), item(2)]) == now
    assert not await world.redis.exists(world.keys.vec(PCA, item(1)))


async def test_what_is_newer_in_redis_stays(world):
    await world.write([(item(1), film(1, "Heat"))])
    newer = RebuiltEntity(item(1), 9, film(9, "Heat 2"), START_MS)
    await world.store.put_if_newer_rev([newer])

    assert await world.rebuild(HashEncoder()).rebuild(ALL) == 0

    (stored,) = await world.store.load([item(1)], None)
    assert (stored.rev, stored.document) == (9, film(9, "Heat 2"))


async def test_vectors_that_went_missing_come_back_though_their_document_is_there(world):
    await world.write([(item(1), film(1, "Heat"))])
    before = await world.dump([item(1)])
    await world.redis.delete(world.keys.vec(PCA, item(1)), world.keys.vec(RAW, item(1)))

    assert await world.rebuild(HashEncoder()).rebuild(ALL) == 1

    assert await world.dump([item(1)]) == before


async def test_a_newer_space_in_redis_is_not_set_back(world):
    retiring = registered(pca_space(PCA), SpaceState.RETIRING, changed_at_ms=2)
    await world.registry.put(retiring)
    raw: SpaceRecord = registered(raw_space(), changed_at_ms=0)
    await world.registry.put(raw)

    await world.rebuild(HashEncoder()).rebuild(ALL)

    spaces = await world.registry.spaces()
    assert spaces[PCA] == retiring
    assert spaces[RAW] == registered(raw_space())


async def test_an_entity_that_does_not_decode_stops_the_rebuild(world):
    await world.emit(Topic.ENTITIES, item(1), b'{"entity": "item:1"}')

    with pytest.raises(Transient, match="entities"):
        await world.rebuild(HashEncoder()).rebuild(ALL)


async def test_users_come_back_with_the_vectors_made_from_what_was_written_about_them(world):
    told = Content(3, {"liked": [{"title": "Heat"}], "disliked": []}, "f" * 32, START_MS)
    asked, written_about = user("asked"), user("written-about")
    await world.write(
        [
            (asked, Document(content=told)),
            (written_about, Document(content=told, individual=factors(3, "tense"))),
        ]
    )
    before = await world.dump([asked, written_about])
    await world.empty_redis()
    # What the behaviour lane wrote meanwhile, in a space whose users are none of the documents'.
    live = vector(1)
    await world.store.put_vectors(PCA, [(asked, 1, live), (written_about, 1, live)])
    encoder = HashEncoder()

    await world.rebuild(encoder).rebuild(ALL)

    after = await world.dump([asked, written_about])
    assert encoder.texts == []
    for key in (asked, written_about):
        assert after["doc", key] == before["doc", key]
        assert after[RAW, key] == before[RAW, key]
        assert after[PCA, key] == live
    assert before[RAW, asked] is None
    assert before[RAW, written_about] is not None
