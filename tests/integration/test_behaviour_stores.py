"""The small stores of the behaviour lane on a real Redis: marks, waiting users, vectors, gate."""

from collections.abc import AsyncIterator

import numpy as np
import pytest
from redis.asyncio import Redis

from schemas.entities import EntityKey
from schemas.errors import Transient
from schemas.history import HistoryBounds
from tests.history_builders import DAY_MS, event, user
from tests.live_builders import item, space_record, vector
from workers.live.awaited_items import KEPT_MS, USERS_PER_ITEM, AwaitedItems
from workers.live.connection import connect
from workers.live.dirty_histories import DirtyHistories
from workers.live.entity_store import EntityStore
from workers.live.gate_store import CALLS_KEPT_MS, GateStore
from workers.live.history_store import HistoryChange, HistoryStore
from workers.live.item_vectors import ItemVectors
from workers.live.items_read import NO_TAG
from workers.live.keys import Keys
from workers.live.memory import bytes_per_user

SPACE = space_record("parts-pca-1").space
PARTITION = 3


@pytest.fixture
def keys(topic_prefix) -> Keys:
    return Keys(topic_prefix)


@pytest.fixture
async def redis(redis_server) -> AsyncIterator[Redis]:
    async with connect(redis_server.url) as client:
        yield client


@pytest.fixture(params=[False, True], ids=["primary", "cluster"])
def cluster(request) -> bool:
    return request.param


@pytest.fixture
def dirty(redis, keys, cluster) -> DirtyHistories:
    return DirtyHistories(redis, keys, cluster=cluster)


@pytest.fixture
def histories(redis, keys, cluster) -> HistoryStore:
    return HistoryStore(redis, keys, HistoryBounds(), DAY_MS, cluster=cluster)


@pytest.fixture
def awaited(redis, keys) -> AwaitedItems:
    return AwaitedItems(redis, keys)


async def change(histories: HistoryStore, *ids: int, n: int = 1) -> dict[EntityKey, int]:
    """Add event `n` to users; return their revisions."""
    applied = await histories.apply(
        [HistoryChange(user(id_), (event(n),)) for id_ in ids],
        partition_of={user(id_): PARTITION for id_ in ids},
    )
    return {user(id_): one.history.rev for id_, one in zip(ids, applied, strict=True)}


async def test_nothing_is_taken_over_where_nobody_changed(dirty):
    assert not await dirty.begin(PARTITION)
    assert await dirty.batch(PARTITION, 10) == []
    assert await dirty.count(PARTITION) == 0


async def test_whoever_changed_is_taken_over_once_and_done_by_batches(dirty, histories):
    revs = await change(histories, *range(25))
    assert await dirty.count(PARTITION) == 25

    assert await dirty.begin(PARTITION)
    published = []
    while users := await dirty.batch(PARTITION, 10):
        assert len(users) == len(set(users)) <= 10
        published += users
        await dirty.done(PARTITION, [(one, revs[one]) for one in users])

    assert sorted(published) == sorted(user(n) for n in range(25))
    assert not await dirty.begin(PARTITION)
    assert await dirty.count(PARTITION) == 0


async def test_a_batch_that_is_not_done_comes_again_before_later_changes(dirty, histories):
    await change(histories, 1)
    await dirty.begin(PARTITION)
    await dirty.batch(PARTITION, 10)
    revs = await change(histories, 1, 2, n=2)

    assert await dirty.begin(PARTITION)
    assert await dirty.batch(PARTITION, 10) == [user(1)]
    assert await dirty.count(PARTITION) == 3
    await dirty.done(PARTITION, [(user(1), revs[user(1)])])
    await dirty.done(PARTITION, [])

    assert await dirty.begin(PARTITION)
    assert sorted(await dirty.batch(PARTITION, 10)) == [user(1), user(2)]


async def test_a_history_that_is_not_the_published_one_keeps_its_mark(dirty, histories):
    published = await change(histories, 1, 2)
    await dirty.begin(PARTITION)
    await change(histories, 2, n=2)
    await dirty.begin(PARTITION)
    users = await dirty.batch(PARTITION, 10)

    await dirty.done(PARTITION, [*((one, published[one]) for one in users), (user("gone"), 0)])

    assert await dirty.batch(PARTITION, 10) == []
    assert await dirty.begin(PARTITION)
    assert await dirty.batch(PARTITION, 10) == [user(2)]


async def test_a_history_that_is_gone_needs_no_mark_and_one_that_came_does(dirty, histories):
    await change(histories, 1, 2)
    await dirty.begin(PARTITION)
    await histories.delete([user(1)])

    await dirty.done(PARTITION, [(user(1), 0), (user(2), 0)])

    assert await dirty.begin(PARTITION)
    assert await dirty.batch(PARTITION, 10) == [user(2)]


async def test_users_are_marked_by_hand_too(dirty):
    await dirty.mark(PARTITION, [])
    await dirty.mark(PARTITION, [user(1), user(2)])

    assert await dirty.begin(PARTITION)
    assert sorted(await dirty.batch(PARTITION, 10)) == [user(1), user(2)]


async def test_partitions_do_not_take_over_each_others_users(dirty, histories):
    await change(histories, 1)

    assert not await dirty.begin(PARTITION + 1)
    assert await dirty.begin(PARTITION)


async def test_users_wait_for_items_until_they_are_served(awaited):
    await awaited.add([(item(1), user(1)), (item(2), user(1))], now_ms=10)
    await awaited.add([(item(1), user(2))], now_ms=20)
    everybody = await awaited.users([item(1), item(2), item(3)])

    await awaited.served(item(1), [user(1)])
    await awaited.served(item(2), [])

    assert everybody == {item(1): [user(1), user(2)], item(2): [user(1)]}
    assert await awaited.users([item(1), item(2)]) == {item(1): [user(2)], item(2): [user(1)]}
    assert await awaited.users([]) == {}
    await awaited.add([], now_ms=30)


async def test_a_user_who_is_forgotten_waits_for_nothing(awaited, redis, keys):
    await awaited.add([(item(1), user(1)), (item(2), user(1)), (item(1), user(2))], now_ms=10)

    await awaited.forget(user(1), [item(1), item(2), item(3)])

    assert await awaited.users([item(1), item(2)]) == {item(1): [user(2)]}
    assert not await redis.exists(keys.awaiting(item(2)))


async def test_of_too_many_waiting_users_the_newest_stay_and_for_a_day_at_most(
    awaited, redis, keys
):
    await awaited.add([(item(1), user("first"))], now_ms=1)
    await awaited.add([(item(1), user(n)) for n in range(USERS_PER_ITEM)], now_ms=2)

    waiting = (await awaited.users([item(1)]))[item(1)]

    assert set(waiting) == {user(n) for n in range(USERS_PER_ITEM)}
    assert KEPT_MS - 60_000 < await redis.pttl(keys.awaiting(item(1))) <= KEPT_MS


async def test_item_vectors_come_as_one_array_with_a_mask(redis, keys, cluster):
    vectors = ItemVectors(redis, keys, cluster=cluster)
    rows = [(item(n), 1, vector(1, (n, 0.5, -1.0, 2.0))) for n in range(0, 2_400, 2)]
    await EntityStore(redis, keys).put_vectors(SPACE.name, rows)

    values, found = await vectors.read(SPACE, [item(n) for n in range(2_400)])

    assert values.dtype == np.float32
    assert values.shape == (2_400, 4)
    assert found.tolist() == [n % 2 == 0 for n in range(2_400)]
    # Whole numbers to 2,048, then even ones, are exact in float16.
    assert values[::2, 0].tolist() == list(range(0, 2_400, 2))
    assert not values[1::2].any()


async def test_no_items_and_unknown_items_have_no_vectors(redis, keys, cluster):
    vectors = ItemVectors(redis, keys, cluster=cluster)

    none, found_none = await vectors.read(SPACE, [])
    unknown, found = await vectors.read(SPACE, [item("unknown")])

    assert (none.shape, found_none.shape) == ((0, 4), (0,))
    assert unknown.tolist() == [[0.0] * 4]
    assert found.tolist() == [False]


async def test_only_vectors_that_the_reader_does_not_have_are_sent(redis, keys, cluster):
    vectors, store = ItemVectors(redis, keys, cluster=cluster), EntityStore(redis, keys)
    everybody = [item(n) for n in range(700)]
    rows = [(key, 1, vector(1, (n, 0.5, -1.0, 2.0))) for n, key in enumerate(everybody)]
    await store.put_vectors(SPACE.name, rows[:-1])

    first = await vectors.read_unless(SPACE, everybody, [NO_TAG] * 700)
    tags = [*first.tags, NO_TAG]
    await store.put_vectors(
        SPACE.name, [(item(600), 2, vector(2, (5.0, 0.0, 0.0, 0.0))), (item(3), 2, None), rows[-1]]
    )
    then = await vectors.read_unless(SPACE, everybody, tags)
    nothing = await vectors.read_unless(SPACE, everybody[:3], tags[:3])

    assert first.rows.tolist() == list(range(699))
    assert first.values[:, 0].tolist() == list(range(699))
    assert first.found.tolist() == [True] * 699 + [False]
    assert then.rows.tolist() == [600, 699]
    assert then.values[:, 0].tolist() == [5.0, 699.0]
    assert then.values.dtype == np.float32
    assert np.flatnonzero(~then.found).tolist() == [3]
    assert nothing.found.all()
    assert nothing.values.shape == (0, 4)


async def test_a_vector_written_again_under_its_revision_counts_as_another(redis, keys, cluster):
    vectors, store = ItemVectors(redis, keys, cluster=cluster), EntityStore(redis, keys)
    await store.put_vectors(SPACE.name, [(item(1), 1, vector(1))])
    first = await vectors.read_unless(SPACE, [item(1)], [NO_TAG])
    await store.put_vectors(SPACE.name, [(item(1), 1, vector(1, written_at_ms=2))])

    then = await vectors.read_unless(SPACE, [item(1)], first.tags)

    assert then.rows.tolist() == [0]


async def test_a_vector_of_another_space_under_this_ones_name_holds(redis, keys, cluster):
    await redis.set(keys.vec(SPACE.name, item(1)), vector(1, (1.0, 2.0)))
    vectors = ItemVectors(redis, keys, cluster=cluster)

    with pytest.raises(Transient, match=SPACE.name):
        await vectors.read(SPACE, [item(1)])
    with pytest.raises(Transient, match=SPACE.name):
        await vectors.read_unless(SPACE, [item(1)], [NO_TAG])


async def test_vectors_that_are_given_a_time_go_then_and_others_stay(redis, keys, cluster):
    store = EntityStore(redis, keys, cluster=cluster)
    name = keys.vec(SPACE.name, user(1))
    await store.put_vectors(SPACE.name, [(user(1), 1, vector(1))], ttl_ms=90_000)
    first = await redis.pttl(name)
    await store.put_vectors(SPACE.name, [(user(1), 2, vector(2))], ttl_ms=180_000)
    renewed = await redis.pttl(name)
    refused = await store.put_vectors(SPACE.name, [(user(1), 1, vector(1))], ttl_ms=9_000_000)
    kept = await redis.pttl(name)
    await store.put_vectors(SPACE.name, [(user(1), 3, vector(3))])

    assert 30_000 < first <= 90_000 < renewed <= 180_000
    assert refused == [False]
    assert kept <= 180_000
    assert await redis.pttl(name) == -1
    assert await store.put_vectors(SPACE.name, [(user(1), 4, None)], ttl_ms=1_000) == [True]
    assert not await redis.exists(name)


async def test_the_gate_remembers_users_for_as_long_as_it_is_told(redis, keys, cluster):
    gate = GateStore(redis, keys, cluster=cluster)
    await gate.store([(user(1), b"a"), (user(2), b"b")], ttl_ms=90_000)
    remaining = await redis.pttl(keys.gate(user(1)))
    stored = await gate.load([user(2), user("unknown"), user(1)])

    await gate.delete([user(1)])

    assert stored == [b"b", None, b"a"]
    assert 30_000 < remaining <= 90_000
    assert await gate.load([user(1), user(2)]) == [None, b"b"]
    assert await gate.load([]) == []
    await gate.store([], ttl_ms=1)
    await gate.delete([])


async def test_calls_are_counted_by_day_and_forgotten_after_a_few(redis, keys):
    gate = GateStore(redis, keys)

    counts = [await gate.add_call("20260314") for _ in range(3)]

    assert counts == [1, 2, 3]
    assert await gate.calls("20260314") == 3
    assert await gate.calls("20260315") == 0
    remaining = await redis.pttl(keys.gate_calls("20260314"))
    assert CALLS_KEPT_MS - 60_000 < remaining <= CALLS_KEPT_MS


async def test_memory_of_a_user_is_told_by_family(redis, keys, histories):
    people = [user(n) for n in range(10)]
    for n in range(20):
        await change(histories, *range(10), n=n)
    await GateStore(redis, keys).store([(one, b"x" * 100) for one in people], 60_000)

    cost = await bytes_per_user(redis, keys, people, [SPACE.name])

    assert cost.sampled == 10
    assert 20 * 28 < cost.by_family["history"] < 1_000
    assert 100 < cost.by_family["gate"] < 300
    assert cost.by_family["doc"] == cost.by_family[f"vec:{SPACE.name}"] == 0
    assert cost.total == sum(cost.by_family.values())
