"""The entity store on a real Redis: compare-and-set, documents together with their vectors."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from schemas.entities import EntityKey, EntityKind
from schemas.errors import Transient
from schemas.knowledge import Document, RegisterName
from schemas.vector_record import decode_header
from tests.live_builders import content, factors, individual, item, removed, space_record, vector
from tests.stack import wait_until
from workers.live.connection import connect
from workers.live.entity_store import EntityStore, EntityWrite, RebuiltEntity, ViewLost
from workers.live.keys import Keys
from workers.live.memory import bytes_per_entity, server_facts
from workers.live.seen import Seen, SeenStore
from workers.live.space_registry import SpaceRegistry
from workers.live.view_marker import ViewMarker

RAW = "minilm-parts"
PCA = "parts-pca-1"


@pytest.fixture
def keys(topic_prefix) -> Keys:
    return Keys(topic_prefix)


@pytest.fixture
async def redis(redis_server, keys) -> AsyncIterator[Redis]:
    async with connect(redis_server.url) as client:
        await ViewMarker(client, keys).stamp()
        yield client


@pytest.fixture(params=[False, True], ids=["primary", "cluster"])
def store(redis, keys, request) -> EntityStore:
    return EntityStore(redis, keys, cluster=request.param, now_ms=lambda: 42)


async def test_what_is_put_is_loaded_with_its_raw_record_in_the_order_asked_for(store):
    raw = vector(1)
    writes = [EntityWrite(item(n), 0, content(n), {RAW: raw}) for n in range(3)]

    assert await store.put(writes) == [True, True, True]
    loaded = await store.load([item(2), item("new"), item(0)], RAW)

    assert [one.key for one in loaded] == [item(2), item("new"), item(0)]
    assert [one.document for one in loaded] == [content(2), Document(), content(0)]
    assert [one.rev for one in loaded] == [1, 0, 1]
    assert [one.raw for one in loaded] == [raw, None, raw]


async def test_loading_without_a_raw_space_reads_documents_alone(store):
    await store.put([EntityWrite(item(1), 0, content(1), {RAW: vector(1)})])

    (loaded,) = await store.load([item(1)], None)

    assert loaded.document == content(1)
    assert loaded.raw is None


async def test_empty_batches_cost_nothing_and_return_nothing(store):
    assert await store.load([], RAW) == []
    assert await store.put([]) == []
    assert await store.put_vectors(PCA, []) == []
    assert await store.put_if_newer_rev([]) == 0
    await store.delete([], [])


async def test_a_write_that_expects_another_revision_is_a_conflict_and_changes_nothing(store):
    await store.put([EntityWrite(item(1), 0, content(1), {RAW: vector(1)})])

    done = await store.put(
        [
            EntityWrite(item(1), 0, content(9), {RAW: vector(1, (9, 9, 9, 9))}, drop=(PCA,)),
            EntityWrite(item(2), 5, content(9), {RAW: vector(6)}),
            EntityWrite(item(3), 0, content(3), {RAW: vector(1)}),
        ]
    )

    assert done == [False, False, True]
    one, two, three = await store.load([item(1), item(2), item(3)], RAW)
    assert (one.document, one.rev, one.raw) == (content(1), 1, vector(1))
    assert (two.rev, two.raw) == (0, None)
    assert three.document == content(3)


async def test_dropped_vectors_go_together_with_the_write_of_the_document(store, redis, keys):
    await store.put([EntityWrite(item(1), 0, content(1), {RAW: vector(1), PCA: vector(1)})])

    await store.put([EntityWrite(item(1), 1, removed(2), drop=(RAW, PCA))])

    (loaded,) = await store.load([item(1)], RAW)
    assert loaded.document == removed(2)
    assert loaded.rev == 2
    assert loaded.raw is None
    assert not await redis.exists(keys.vec(PCA, item(1)))


@pytest.mark.parametrize("rev", [2**32 - 1, 2**53, 2**53 + 1, 2**62])
async def test_revisions_compare_exactly_beyond_the_precision_of_a_double(store, rev):
    rows = [RebuiltEntity(item(1), rev, content(1), 7)]
    assert await store.put_if_newer_rev([RebuiltEntity(item(1), rev - 1, content(1), 7)]) == 1
    assert await store.put_if_newer_rev(rows) == 1
    assert await store.put_if_newer_rev(rows) == 0

    assert await store.put([EntityWrite(item(1), rev - 1, content(2))]) == [False]
    assert await store.put([EntityWrite(item(1), rev, content(2))]) == [True]

    (loaded,) = await store.load([item(1)], None)
    assert loaded.rev == rev + 1


async def test_a_rebuild_writes_only_what_is_newer_than_what_is_stored(store):
    await store.put_if_newer_rev(
        [RebuiltEntity(item(n), 5, content(5), 7, {RAW: vector(5)}) for n in range(3)]
    )

    written = await store.put_if_newer_rev(
        [
            RebuiltEntity(item(0), 4, content(4), 7, {RAW: vector(4)}),
            RebuiltEntity(item(1), 5, content(4), 7, {RAW: vector(4)}),
            RebuiltEntity(item(2), 256, content(6), 7, {RAW: vector(256)}),
        ]
    )

    assert written == 1
    loaded = await store.load([item(n) for n in range(3)], RAW)
    assert [one.rev for one in loaded] == [5, 5, 256]
    assert [decode_header(one.raw).rev for one in loaded if one.raw] == [5, 5, 256]


async def test_a_vector_alone_is_written_unless_a_later_one_is_stored(store, redis, keys):
    big = 2**53
    rows = [(item(1), big + 1, vector(big + 1)), (item(2), 1, vector(1))]
    assert await store.put_vectors(PCA, rows) == [True, True]

    done = await store.put_vectors(
        PCA, [(item(1), big, vector(big)), (item(2), 1, vector(1, (5, 5, 5, 5)))]
    )

    assert done == [False, True]
    assert await redis.get(keys.vec(PCA, item(1))) == vector(big + 1)
    assert await redis.get(keys.vec(PCA, item(2))) == vector(1, (5, 5, 5, 5))


async def test_a_vector_alone_is_deleted_unless_a_later_one_is_stored(store, redis, keys):
    await store.put_vectors(PCA, [(item(1), 3, vector(3)), (item(2), 3, vector(3))])

    done = await store.put_vectors(PCA, [(item(1), 2, None), (item(2), 4, None)])

    assert done == [False, True]
    assert await redis.exists(keys.vec(PCA, item(1)))
    assert not await redis.exists(keys.vec(PCA, item(2)))


async def test_deleting_takes_documents_seen_and_the_named_vectors(store, redis, keys):
    await store.put([EntityWrite(item(1), 0, content(1), {RAW: vector(1), PCA: vector(1)})])
    await SeenStore(redis, keys).store([(item(1), Seen(1, "ab", False, 3))])

    await store.delete([item(1)], [RAW])

    left = [name async for name in redis.scan_iter(match=f"{keys.prefix}*")]
    assert sorted(left) == sorted([keys.vec(PCA, item(1)).encode(), keys.view().encode()])


async def test_a_scan_finds_every_document_and_no_other_deployment(redis, keys, store):
    ids = [f"n{n}" for n in range(2_500)]
    await store.put([EntityWrite(item(id_), 0, content(1), {RAW: vector(1)}) for id_ in ids])
    await EntityStore(redis, Keys(keys.prefix + "x*")).put([EntityWrite(item(1), 0, content(1))])

    found = {key async for key in store.scan()}

    assert found == {item(id_) for id_ in ids}


async def test_a_prefix_with_glob_characters_matches_itself_alone(redis, topic_prefix):
    odd = EntityStore(redis, Keys(topic_prefix + "a[b]*?\\c:"))
    await odd.put([EntityWrite(item(1), 0, content(1))])

    assert [key async for key in odd.scan()] == [item(1)]


async def test_a_batch_larger_than_a_script_call_keeps_its_order(store):
    writes = [EntityWrite(item(n), n % 2, content(n)) for n in range(700)]

    done = await store.put(writes)

    assert done == [n % 2 == 0 for n in range(700)]
    loaded = await store.load([item(n) for n in range(700)], RAW)
    assert [one.rev for one in loaded] == [1 - n % 2 for n in range(700)]


async def test_documents_are_not_readable_while_the_view_is_not_whole(redis, keys, store):
    await store.put([EntityWrite(item(1), 0, content(1))])
    marker = ViewMarker(redis, keys)
    await marker.clear()

    with pytest.raises(ViewLost) as lost:
        await store.load([item(1)], RAW)

    assert isinstance(lost.value, Transient)
    assert not await marker.present()
    assert await marker.stamped_at_ms() is None
    await marker.stamp()
    assert await marker.present()
    assert await marker.stamped_at_ms()
    assert (await store.load([item(1)], RAW))[0].rev == 1


async def test_a_view_that_was_replaced_during_the_read_is_noticed(redis, keys, store):
    marker = ViewMarker(redis, keys)
    many = [item(n) for n in range(3_000)]  # more than Redis reads, and so runs, in one go
    stop = asyncio.Event()

    async def replace() -> None:
        while not stop.is_set():
            await marker.stamp()

    async def noticed() -> bool:
        # Whether a stamp falls into a read is up to the two processes, so several may be needed.
        outcomes = await asyncio.gather(
            *(store.load(many, RAW) for _ in range(10)), return_exceptions=True
        )
        return any(isinstance(outcome, ViewLost) for outcome in outcomes)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(replace())
        try:
            caught: bool = await wait_until(noticed, timeout=30)
        finally:
            stop.set()

    assert caught


async def test_an_unreadable_document_holds_and_names_the_entity(redis, keys, store):
    await redis.set(keys.doc(item(1)), b"\0" * 8 + b"{}")

    with pytest.raises(Transient, match="item:1"):
        await store.load([item(1)], RAW)


async def test_a_value_of_a_foreign_type_is_transient_and_spares_nothing_silently(
    redis, keys, store
):
    await redis.rpush(keys.doc(item(1)), "somebody else's")

    with pytest.raises(Transient, match="WRONGTYPE"):
        await store.put([EntityWrite(item(1), 0, content(1))])


async def test_a_redis_that_lost_its_scripts_is_taught_them_again(redis, store):
    await store.put([EntityWrite(item("a"), 0, content(1))])
    await redis.script_flush()

    assert (
        await store.put([EntityWrite(item(n), 0, content(1)) for n in range(600)]) == [True] * 600
    )


async def test_explain_sees_the_document_and_the_header_of_every_vector_there_is(
    redis, keys, store
):
    registry = SpaceRegistry(redis, keys)
    for name in (RAW, PCA, "empty-space"):
        await registry.put(space_record(name))
    await store.put([EntityWrite(item(1), 0, content(7), {RAW: vector(1), PCA: vector(1)})])

    stored = await store.load_stored(item(1))

    assert stored is not None
    assert (stored.document, stored.rev, stored.written_at_ms) == (content(7), 1, 42)
    assert sorted(stored.vectors) == [RAW, PCA]
    assert stored.vectors[PCA].content_version == 7
    assert await store.load_stored(item("none")) is None
    assert await store.load_stored(item("none"), [RAW]) is None


async def test_memory_of_an_entity_is_told_by_family(redis, keys, store):
    sample = [item(n) for n in range(10)]
    await store.put(
        [EntityWrite(key, 0, content(7), {RAW: vector(1, [0.5] * 3072)}) for key in sample]
    )

    cost = await bytes_per_entity(redis, keys, sample, [RAW, PCA])
    facts = await server_facts(redis)

    assert cost.sampled == 10
    assert 6_144 < cost.by_family[f"vec:{RAW}"] < 9_000
    assert cost.by_family["seen"] == cost.by_family[f"vec:{PCA}"] == 0
    assert cost.total == sum(cost.by_family.values())
    assert facts.role == "master"
    assert facts.maxmemory_policy == "noeviction"
    with pytest.raises(ValueError, match="no entity"):
        await bytes_per_entity(redis, keys, [], [])


def random_register(rng: random.Random) -> Document:
    version, text = rng.randrange(40), rng.choice("abcdef")
    match rng.randrange(10):
        case 0:
            return removed(version // 2)
        case 1 | 2 | 3:
            return content(version, text)
        case 4 | 5 | 6:
            return Document.of(RegisterName.COLLECTIVE, factors(version, text, rng.randrange(3)))
        case _:
            return individual(version, text)


async def merge_until_written(store: EntityStore, updates: list[tuple[EntityKey, Document]]) -> int:
    """What the encode lane does: load, merge, put; conflicts are loaded again. Counts them."""
    conflicts = 0
    while updates:
        batch = dict(updates[:5])
        rest = [pair for pair in updates if batch.get(pair[0]) is not pair[1]]
        loaded = await store.load(list(batch), RAW)
        for one in loaded:
            # The vector of a document is made from that document, so both change together.
            assert one.raw is None or decode_header(one.raw).rev == one.rev
        done = await store.put(
            [
                EntityWrite(
                    one.key,
                    one.rev,
                    one.document.merge(batch[one.key]),
                    {RAW: vector(one.rev + 1), PCA: vector(one.rev + 1)},
                )
                for one in loaded
            ]
        )
        failed = [(one.key, batch[one.key]) for one, ok in zip(loaded, done, strict=True) if not ok]
        conflicts += len(failed)
        updates = failed + rest
    return conflicts


@pytest.mark.parametrize("seed", range(3))
async def test_concurrent_writers_converge_to_the_merge_of_everything(
    redis_server, keys, redis, store, seed
):
    rng = random.Random(seed)
    entities = [item(n) for n in range(20)]
    plans = [[(rng.choice(entities), random_register(rng)) for _ in range(60)] for _ in range(8)]
    expected = {key: Document() for key in entities}
    for key, update in (pair for plan in plans for pair in plan):
        expected[key] = expected[key].merge(update)

    async with asyncio.TaskGroup() as tasks:
        writers = [tasks.create_task(merge_until_written(store, plan)) for plan in plans]

    assert sum(writer.result() for writer in writers) > 0
    loaded = await store.load(entities, RAW)
    assert {one.key: one.document for one in loaded} == expected
    pca = await redis.mget([keys.vec(PCA, one.key) for one in loaded])
    for one, record in zip(loaded, pca, strict=True):
        if one.rev:
            assert one.raw is not None
            assert decode_header(one.raw).rev == decode_header(record).rev == one.rev


async def test_a_reader_never_sees_a_document_with_the_vector_of_another_revision(store):
    stop = asyncio.Event()

    async def write() -> None:
        for rev in range(300):
            await store.put([EntityWrite(item(1), rev, content(rev), {RAW: vector(rev + 1)})])
        stop.set()

    revs = set()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write())
        while not stop.is_set():
            (one,) = await store.load([item(1)], RAW)
            if one.raw is not None:
                assert decode_header(one.raw).rev == one.rev
                revs.add(one.rev)

    assert len(revs) > 1


async def test_users_and_groups_are_entities_too(store):
    user, group = EntityKey(EntityKind.USER, "7"), EntityKey(EntityKind.GROUP, "13")

    await store.put([EntityWrite(user, 0, individual(1)), EntityWrite(group, 0, individual(2))])

    loaded = await store.load([group, user], None)
    assert [one.document for one in loaded] == [individual(2), individual(1)]
    assert {key async for key in store.scan()} == {user, group}
