"""Seen, checkpoints, traces and the space registry on a real Redis."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from schemas.entities import EntityKind
from schemas.errors import Transient
from schemas.spaces import SpaceState
from schemas.trace import TraceEntry
from tests.live_builders import item, space_record
from workers.live.budget_store import BudgetStore
from workers.live.checkpoints import Checkpoints
from workers.live.connection import connect
from workers.live.keys import Keys
from workers.live.seen import Seen, SeenStore
from workers.live.space_registry import SpaceRegistry
from workers.live.traces import KEPT_ENTRIES, KEPT_SECONDS, TraceStore

FINGERPRINT = "00ff" * 8


@pytest.fixture
def keys(topic_prefix) -> Keys:
    return Keys(topic_prefix)


@pytest.fixture
async def redis(redis_server) -> AsyncIterator[Redis]:
    async with connect(redis_server.url) as client:
        yield client


@pytest.fixture(params=[False, True], ids=["primary", "cluster"])
def seen(redis, keys, request) -> SeenStore:
    return SeenStore(redis, keys, cluster=request.param)


@pytest.fixture(params=[False, True], ids=["primary", "cluster"])
def traces(redis, keys, request) -> TraceStore:
    return TraceStore(redis, keys, cluster=request.param)


async def test_what_was_seen_is_loaded_in_order_with_gaps(seen):
    one, two = Seen(2**63 - 1, FINGERPRINT, False, 5), Seen(0, "", True, 6)

    await seen.store([(item(1), one), (item(2), two)])

    assert await seen.load([item(2), item("new"), item(1)]) == [two, None, one]
    assert await seen.load([]) == []
    await seen.store([])


async def test_a_lower_version_never_replaces_what_was_seen(seen):
    big = 2**53
    await seen.store([(item(1), Seen(big + 1, FINGERPRINT, False, 5))])

    await seen.store([(item(1), Seen(big, "aa", False, 6)), (item(2), Seen(1, "", False, 6))])

    assert [one and one.version for one in await seen.load([item(1), item(2)])] == [big + 1, 1]


async def test_the_same_version_may_be_seen_again_with_another_content(seen):
    await seen.store([(item(1), Seen(4, FINGERPRINT, False, 5))])

    await seen.store([(item(1), Seen(4, "aa", False, 6))])

    assert await seen.load([item(1)]) == [Seen(4, "aa", False, 6)]


async def test_a_forgotten_entity_takes_any_version(seen):
    await seen.store([(item(1), Seen(2**62, FINGERPRINT, False, 5))])

    await seen.forget(item(1))

    assert await seen.load([item(1)]) == [None]
    await seen.store([(item(1), Seen(1, FINGERPRINT, False, 5))])
    assert await seen.load([item(1)]) == [Seen(1, FINGERPRINT, False, 5)]


async def test_a_seen_record_that_does_not_decode_is_transient(seen, redis, keys):
    await redis.set(keys.seen(item(1)), b"short")

    with pytest.raises(Transient, match="seen record"):
        await seen.load([item(1)])


async def test_a_seen_record_is_small(seen, redis, keys):
    await seen.store([(item(1), Seen(1, FINGERPRINT, False, 5))])

    assert await redis.strlen(keys.seen(item(1))) == 33


async def test_checkpoints_are_kept_by_group_and_partition_and_may_move_back(redis, keys):
    checkpoints = Checkpoints(redis, keys)
    assert await checkpoints.load("g") == {}

    await checkpoints.store("g", {("catalog.items", 0): 10, ("catalog.items", 1): 2**53 + 1})
    await checkpoints.store("g", {("catalog.items", 0): 7})
    await checkpoints.store("g", {})
    await checkpoints.store("other", {("knowledge", 0): 1})

    assert await checkpoints.load("g") == {
        ("catalog.items", 0): 7,
        ("catalog.items", 1): 2**53 + 1,
    }
    await checkpoints.forget("g")
    assert await checkpoints.load("g") == {}
    assert await checkpoints.load("other") == {("knowledge", 0): 1}


async def test_a_trace_keeps_its_last_entries_for_a_while_oldest_first(traces, redis, keys):
    lines = [TraceEntry(n, "items", "emitted", n, "", "é") for n in range(KEPT_ENTRIES + 5)]

    await traces.append([(item(1), line) for line in lines])
    await traces.append([(item(2), lines[0])])
    await traces.append([])

    assert await traces.read(item(1)) == lines[5:]
    assert await traces.read(item(2)) == lines[:1]
    assert await traces.read(item("none")) == []
    assert KEPT_SECONDS - 60 < await redis.ttl(keys.trace(item(1))) <= KEPT_SECONDS


async def test_spaces_are_listed_replaced_and_deleted(redis, keys):
    registry = SpaceRegistry(redis, keys)
    one, two = space_record("one"), space_record("two", default=(0.0, 0.5, 0.25, 1.0))
    assert await registry.spaces() == {}

    await registry.put(one)
    await registry.put(two)
    retiring = one.model_copy(update={"state": SpaceState.RETIRING})
    await registry.put(retiring)

    assert await registry.spaces() == {"one": retiring, "two": two}
    await registry.delete("one")
    assert await registry.spaces() == {"two": two}


async def test_a_space_record_that_does_not_decode_is_transient(redis, keys):
    await redis.hset(keys.spaces(), "one", "{}")

    with pytest.raises(Transient, match="space record"):
        await SpaceRegistry(redis, keys).spaces()


async def test_aliases_are_kept_by_kind(redis, keys):
    registry = SpaceRegistry(redis, keys)

    await registry.set_alias(EntityKind.ITEM, "one")

    assert await registry.alias(EntityKind.ITEM) == "one"
    assert await registry.alias(EntityKind.USER) is None


async def test_a_paused_lane_says_why_until_it_is_resumed(redis, keys):
    registry = SpaceRegistry(redis, keys)
    assert await registry.paused("items") is None

    await registry.pause("items", "flood: 60 % invalid")

    assert await registry.paused("items") == "flood: 60 % invalid"
    assert await registry.paused("encode") is None
    await registry.resume("items")
    assert await registry.paused("items") is None


async def test_tokens_of_an_hour_add_up_over_workers_and_go_after_a_while(redis, keys) -> None:
    ours, theirs = BudgetStore(redis, keys), BudgetStore(redis, keys)

    await ours.add("2026112118", 300)
    total = await theirs.add("2026112118", 200)
    other_hour = await ours.add("2026112119", 0)

    assert (total, other_hour) == (500, 0)
    assert 0 < await redis.pttl(keys.budget_tokens("2026112118")) <= 48 * 3_600_000
