"""One suite for the stores of the lanes and the fakes that stand in for them.

What a lane may rely on holds for Redis and for the memory alike, so tests of lanes that use the
fakes say something about the real thing.
"""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from schemas.knowledge import Document
from tests.fakes.stores import InMemoryEntityStore, InMemorySeen
from tests.live_builders import content, individual, item, removed, vector
from workers.live.connection import connect
from workers.live.entity_store import EntityStore, EntityWrite
from workers.live.keys import Keys
from workers.live.seen import Seen, SeenStore
from workers.live.view_marker import ViewMarker

RAW = "minilm-parts"
PCA = "parts-pca-1"

KINDS = ["memory", pytest.param("redis", marks=pytest.mark.integration)]


@pytest.fixture(params=KINDS)
async def stores(request, topic_prefix) -> AsyncIterator[tuple]:
    if request.param == "memory":
        yield InMemoryEntityStore(), InMemorySeen()
        return
    server = request.getfixturevalue("redis_server")
    keys = Keys(topic_prefix)
    client: Redis
    async with connect(server.url) as client:
        await ViewMarker(client, keys).stamp()
        yield EntityStore(client, keys), SeenStore(client, keys)


@pytest.fixture
def store(stores):
    return stores[0]


@pytest.fixture
def seen(stores):
    return stores[1]


async def test_an_unknown_entity_is_an_empty_document_of_revision_zero(store):
    (unknown,) = await store.load([item(1)], RAW)

    assert (unknown.document, unknown.rev, unknown.raw) == (Document(), 0, None)


async def test_documents_come_back_equal_and_in_order_with_the_next_revision(store):
    whole = content(3).merge(individual(2)).merge(removed(1))
    await store.put([EntityWrite(item(1), 0, whole, {RAW: vector(1)})])
    await store.put([EntityWrite(item(1), 1, whole.merge(content(4)), {RAW: vector(2)})])

    new, old = await store.load([item(2), item(1)], RAW)

    assert (new.key, new.rev) == (item(2), 0)
    assert (old.key, old.rev, old.raw) == (item(1), 2, vector(2))
    assert old.document == whole.merge(content(4))


async def test_a_write_on_another_revision_is_a_conflict_that_changes_nothing(store):
    await store.put([EntityWrite(item(1), 0, content(1), {RAW: vector(1)})])

    done = await store.put(
        [
            EntityWrite(item(1), 0, content(2), {RAW: vector(9)}),
            EntityWrite(item(2), 0, content(2)),
            EntityWrite(item(3), 4, content(2)),
        ]
    )

    assert done == [False, True, False]
    first, second, third = await store.load([item(1), item(2), item(3)], RAW)
    assert (first.document, first.rev, first.raw) == (content(1), 1, vector(1))
    assert (second.rev, third.rev) == (1, 0)


async def test_dropped_spaces_lose_their_vector_with_the_write(store):
    await store.put([EntityWrite(item(1), 0, content(1), {RAW: vector(1), PCA: vector(1)})])
    await store.put([EntityWrite(item(1), 1, removed(2), drop=(RAW,))])

    (raw,) = await store.load([item(1)], RAW)
    (other,) = await store.load([item(1)], PCA)

    assert raw.raw is None
    assert raw.document.is_removed
    assert other.raw == vector(1)


async def test_a_vector_alone_is_written_unless_a_later_revision_is_stored(store):
    await store.put([EntityWrite(item(1), 0, content(1), {PCA: vector(5)})])

    assert await store.put_vectors(PCA, [(item(1), 4, vector(4)), (item(2), 1, vector(1))]) == [
        False,
        True,
    ]
    assert await store.put_vectors(PCA, [(item(1), 5, vector(5, (9.0, 9.0)))]) == [True]
    (one,) = await store.load([item(1)], PCA)
    assert one.raw == vector(5, (9.0, 9.0))

    assert await store.put_vectors(PCA, [(item(1), 6, None)]) == [True]
    (gone,) = await store.load([item(1)], PCA)
    assert gone.raw is None


async def test_deleted_entities_are_unknown_again(store):
    await store.put([EntityWrite(item(n), 0, content(1), {RAW: vector(1)}) for n in (1, 2)])

    await store.delete([item(1)], [RAW])

    first, second = await store.load([item(1), item(2)], RAW)
    assert (first.rev, first.raw, second.rev) == (0, None, 1)
    assert [key async for key in store.scan()] == [item(2)]


async def test_what_was_seen_never_goes_back_to_a_lower_version(seen):
    newer, same, older = (Seen(version, "ab" * 16, False, 7) for version in (2, 2, 1))
    await seen.store([(item(1), newer)])
    await seen.store([(item(1), older)])
    kept = await seen.load([item(1), item(2)])
    again = Seen(same.version, "cd" * 16, True, 8)
    await seen.store([(item(1), again)])

    assert kept == [newer, None]
    assert await seen.load([item(1)]) == [again]
    await seen.forget(item(1))
    assert await seen.load([item(1)]) == [None]
