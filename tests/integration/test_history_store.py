"""Histories on a real Redis: the script joins as the algebra says, whoever writes at once."""

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from deploy.local.redis_server import RedisServer
from schemas.entities import EntityKey
from schemas.errors import Transient
from schemas.history import NEVER, History, HistoryBounds, HistoryEvent, bounded_and_limited
from tests.history_builders import (
    BOUNDS,
    DAY_MS,
    MINUTE_MS,
    START_MS,
    bounds,
    changes,
    event,
    history_of,
    user,
    wire,
)
from workers.live.connection import connect
from workers.live.gate_store import GateStore
from workers.live.history_store import (
    ERASURE_MARK_MS,
    AppliedHistory,
    HistoryChange,
    HistoryStore,
)
from workers.live.keys import Keys

PARTITION = 3
IDLE_MS = 10 * DAY_MS

StoreFactory: TypeAlias = Callable[[HistoryBounds], HistoryStore]


@pytest.fixture
def keys(topic_prefix) -> Keys:
    return Keys(topic_prefix)


@pytest.fixture
async def redis(redis_server) -> AsyncIterator[Redis]:
    async with connect(redis_server.url) as client:
        yield client


@pytest.fixture(params=[False, True], ids=["primary", "cluster"])
def store_of(redis, keys, request) -> StoreFactory:
    """A factory of stores by their bounds."""
    return lambda limits: HistoryStore(redis, keys, limits, IDLE_MS, cluster=request.param)


@pytest.fixture
def store(store_of) -> HistoryStore:
    return store_of(BOUNDS)


async def apply(store: HistoryStore, *changes: HistoryChange) -> list[AppliedHistory]:
    return await store.apply(changes, partition_of={change.user: PARTITION for change in changes})


async def add(
    store: HistoryStore, *added: HistoryEvent, erased_at_ms: int = NEVER, to: object = 7
) -> AppliedHistory:
    (applied,) = await apply(store, HistoryChange(user(to), added, erased_at_ms))
    return applied


async def test_histories_come_back_as_they_were_joined_in_the_order_asked_for(store):
    applied = await apply(
        store,
        HistoryChange(user(1), (event(2, value=3.5), event(1))),
        HistoryChange(user("ü"), (event(3, item="é", action="rate"),)),
    )

    assert [one.history.events for one in applied] == [
        (event(1), event(2, value=3.5)),
        (event(3, item="é", action="rate"),),
    ]
    assert [one.changed for one in applied] == [True, True]
    loaded = await store.load([user("ü"), user("nobody"), user(1)])
    assert loaded == [applied[1].history, None, applied[0].history]


async def test_empty_batches_cost_nothing_and_return_nothing(store):
    assert await store.apply([], partition_of={}) == []
    assert await store.load([]) == []
    assert await store.restore([]) == []
    await store.delete([])


async def test_a_change_of_nothing_leaves_nothing(store, redis, keys):
    applied = await add(store)

    assert applied == AppliedHistory(History(), changed=False, limited=0)
    assert not await redis.exists(keys.history(user(7)))


async def test_a_batch_larger_than_a_script_call_keeps_its_order(store):
    changes = [HistoryChange(user(n), (event(n),)) for n in range(300)]

    applied = await apply(store, *changes)

    assert [one.history.events for one in applied] == [(event(n),) for n in range(300)]


EXAMPLES = itertools.count()


async def raw_value(redis: Redis, name: str) -> bytes | None:
    stored = await redis.get(name)
    assert not isinstance(stored, str)
    return stored


@pytest.fixture(scope="module")
def loop_redis(redis_server: RedisServer) -> Iterator[tuple[asyncio.Runner, Redis]]:
    """A loop and a client that outlive the examples of one test."""
    with asyncio.Runner() as runner:
        client = connect(redis_server.url)
        try:
            yield runner, client
        finally:
            runner.run(client.aclose())


@pytest.mark.timeout(300)
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(sequence=changes, limits=bounds)
def test_redis_joins_as_the_definition_does(loop_redis, topic_prefix, sequence, limits):
    runner, client = loop_redis
    keys = Keys(f"{topic_prefix}{next(EXAMPLES)}.")
    store = HistoryStore(client, keys, limits, 60_000)
    expected = History()

    for added, erased_at_ms in sequence:
        applied = runner.run(add(store, *added, erased_at_ms=erased_at_ms))
        before, expected = expected, expected.join(added, erased_at_ms, limits)
        _, limited = bounded_and_limited((*before.events, *added), expected.erased_at_ms, limits)
        assert wire(applied.history) == wire(expected)
        assert applied.changed == (wire(before) != wire(expected))
        assert applied.limited == limited
        stored = runner.run(raw_value(client, keys.history(user(7))))
        assert stored == (applied.history.encode() if applied.history.rev else None)


@pytest.mark.timeout(300)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    stored=changes,
    published=changes,
    rev=st.integers(0, 3),
    limits=bounds,
)
def test_restoring_joins_as_the_definition_does(
    loop_redis, topic_prefix, stored, published, rev, limits
):
    runner, client = loop_redis
    store = HistoryStore(client, Keys(f"{topic_prefix}{next(EXAMPLES)}."), limits, 60_000)
    mine, theirs = History(), History(rev)
    for added, erased_at_ms in stored:
        mine = mine.join(added, erased_at_ms, limits)
        runner.run(add(store, *added, erased_at_ms=erased_at_ms))
    for added, erased_at_ms in published:
        theirs = theirs.join(added, erased_at_ms, limits)

    (restored,) = runner.run(store.restore([(user(7), theirs)]))

    assert wire(restored) == wire(mine.join(theirs.events, theirs.erased_at_ms, limits))
    again = runner.run(store.restore([(user(7), theirs)]))
    assert again == [restored]


async def test_events_in_order_take_the_short_way_to_the_same_history(store_of, redis, keys):
    limits = HistoryBounds(40, 7)
    store = store_of(limits)
    random_ = random.Random(5)
    listed = [event(n, START_MS + 9_000 * n) for n in range(200)]
    applied = AppliedHistory(History(), changed=False, limited=0)
    expected = History()

    for start in range(0, 200, 4):
        batch = listed[start : start + 4]
        applied = await add(store, *random_.sample(batch, 4))
        expected = expected.join(batch, NEVER, limits)
        assert applied.history.events == expected.events
        assert applied.changed

    assert await redis.get(keys.history(user(7))) == applied.history.encode()


@pytest.mark.parametrize("n", [9, -1], ids=["in order", "late"])
async def test_a_history_that_is_longer_than_allowed_by_now_shrinks_with_the_next_change(
    store, store_of, n
):
    listed = [event(m, START_MS + m * MINUTE_MS) for m in range(8)]
    await add(store, *listed)
    new = event(100, START_MS + n * MINUTE_MS)

    applied = await add(store_of(HistoryBounds(3, 3)), new)

    assert applied.history.events == tuple(sorted([*listed, new], key=lambda e: e.order)[-3:])


async def test_a_repetition_dated_later_in_its_minute_takes_the_place_of_the_first(store):
    first, later = event(1, START_MS), event(1, START_MS + 10)
    await add(store, first)

    assert (await add(store, later)).history.events == (later,)
    assert (await add(store, first)).history.events == (later,)


async def test_a_minute_that_holds_more_than_a_history_may_is_counted_as_kept(
    store_of, redis, keys
):
    store = store_of(HistoryBounds(3, 5))

    for n in range(7):
        applied = await add(store, event(n, START_MS + n))
        assert await redis.get(keys.history(user(7))) == applied.history.encode()


async def test_writers_at_once_leave_what_one_alone_would(store_of):
    limits = HistoryBounds(50, 5)
    store = store_of(limits)
    random_ = random.Random(11)
    people = [user(n) for n in range(5)]
    listed = {
        one: [event(n, START_MS + random_.randrange(3_600_000)) for n in range(120)]
        for one in people
    }
    erased_at_ms = START_MS + 600_000

    async def write(seed: int) -> None:
        mine = random.Random(seed)
        for start in range(0, 120, 10):
            await apply(
                store,
                *(
                    HistoryChange(
                        one,
                        tuple(mine.sample(listed[one], 10) + listed[one][start : start + 10]),
                        erased_at_ms if start == 10 * seed else NEVER,
                    )
                    for one in people
                ),
            )

    async with asyncio.TaskGroup() as tasks:
        for seed in range(6):
            tasks.create_task(write(seed))

    for one, loaded in zip(people, await store.load(people), strict=True):
        assert loaded is not None
        assert wire(loaded) == wire(History().join(listed[one], erased_at_ms, limits))


async def test_the_revision_is_the_servers_time_and_grows_with_every_change(store, redis):
    before_ms = await _redis_ms(redis)
    first = await add(store, event(1))
    after_ms = await _redis_ms(redis)
    later = [(await add(store, event(n))).history.rev for n in range(2, 50)]
    revs = [first.history.rev, *later]

    assert before_ms <= first.history.rev <= after_ms
    assert revs == sorted(set(revs))


async def _redis_ms(redis: Redis) -> int:
    seconds, microseconds = await redis.time()
    return seconds * 1_000 + microseconds // 1_000


async def test_a_revision_ahead_of_the_clock_still_grows_by_one(store, redis, keys):
    ahead = 2**52
    await redis.set(keys.history(user(7)), History(ahead, NEVER, (event(1),)).encode())

    assert (await add(store, event(2))).history.rev == ahead + 1


async def test_what_changes_nothing_keeps_the_revision(store):
    first = await add(store, event(1), event(2), erased_at_ms=5)

    for repetition in (
        await add(store, event(2)),
        await add(store, event(1), event(2), erased_at_ms=4),
        await add(store, event(9, at_ms=5)),
        await add(store),
    ):
        assert repetition == AppliedHistory(first.history, changed=False, limited=0)


async def test_a_late_event_that_is_not_among_the_newest_changes_nothing(store_of):
    store = store_of(HistoryBounds(2, 2))
    first = await add(store, event(5), event(6))

    late = await add(store, event(4, START_MS - MINUTE_MS))

    assert late == AppliedHistory(first.history, changed=False, limited=0)


async def test_a_flood_within_a_minute_is_counted_and_pushes_nothing_else_out(store_of):
    store = store_of(HistoryBounds(10, 3))
    calm = [event(n, START_MS + n * MINUTE_MS) for n in range(5)]
    flood = [event(100 + n, START_MS + 9 * MINUTE_MS + n) for n in range(30)]
    await add(store, *calm)

    at_once = await add(store, *flood[:20])
    singly = [await add(store, one) for one in flood[20:]]

    assert at_once.limited == 17
    assert [one.limited for one in singly] == [1] * 10
    assert singly[-1].history.events == (*calm, *flood[-3:])


async def test_an_erasure_leaves_its_mark_and_what_came_after_it(store):
    await add(store, event(1), event(2), event(3))

    partly = await add(store, erased_at_ms=event(2).at_ms)
    wholly = await add(store, erased_at_ms=event(9).at_ms)
    late = await add(store, event(4), event(9))

    assert partly.history.events == (event(3),)
    assert wholly.changed
    assert wholly.history.events == ()
    assert wholly.history.erased_at_ms == event(9).at_ms
    assert wholly.history.rev > partly.history.rev
    assert late == AppliedHistory(wholly.history, changed=False, limited=0)
    assert (await add(store, event(10))).history.events == (event(10),)


async def test_an_idle_history_goes_and_every_change_delays_that(store, redis, keys):
    name = keys.history(user(7))
    await add(store, event(1))
    assert IDLE_MS - 60_000 < await redis.pttl(name) <= IDLE_MS
    await redis.pexpire(name, 5_000)
    await add(store, event(1))
    assert await redis.pttl(name) <= 5_000

    await add(store, event(2))

    assert IDLE_MS - 60_000 < await redis.pttl(name) <= IDLE_MS


async def test_an_erasure_is_remembered_longer_than_any_topic(store, redis, keys):
    await add(store, event(1), erased_at_ms=event(2).at_ms)
    patient = HistoryStore(redis, keys, BOUNDS, 2 * ERASURE_MARK_MS)
    await add(patient, event(1), erased_at_ms=event(2).at_ms, to=8)

    marks = [await redis.pttl(keys.history(user(n))) for n in (7, 8)]

    assert ERASURE_MARK_MS > 31 * DAY_MS
    assert ERASURE_MARK_MS - 60_000 < marks[0] <= ERASURE_MARK_MS
    assert 2 * ERASURE_MARK_MS - 60_000 < marks[1] <= 2 * ERASURE_MARK_MS


async def test_who_changed_is_marked_in_their_partition(store, redis, keys):
    await store.apply(
        [HistoryChange(user(n), (event(n),)) for n in range(4)],
        partition_of={user(0): 0, user(1): 1, user(2): 1, user(3): 0},
    )

    assert await redis.smembers(keys.histories_dirty(0)) == {b"user:0", b"user:3"}
    assert await redis.smembers(keys.histories_dirty(1)) == {b"user:1", b"user:2"}


async def test_a_repetition_marks_nobody_on_a_primary(redis, keys):
    store = HistoryStore(redis, keys, BOUNDS, IDLE_MS)
    await add(store, event(1))
    await redis.delete(keys.histories_dirty(PARTITION))

    await add(store, event(1))

    assert not await redis.exists(keys.histories_dirty(PARTITION))


async def test_on_a_cluster_the_mark_is_there_before_the_change_can_fail(redis, keys):
    store = HistoryStore(redis, keys, BOUNDS, IDLE_MS, cluster=True)
    await redis.rpush(keys.history(user(7)), "somebody else's")

    with pytest.raises(Transient, match="WRONGTYPE"):
        await add(store, event(1))

    assert await redis.smembers(keys.histories_dirty(PARTITION)) == {b"user:7"}


async def test_published_histories_come_back_with_their_revision_and_unmarked(store, redis, keys):
    published = History(1_234, 5, (event(1), event(2)))
    mark = History(99, event(9).at_ms, ())

    restored = await store.restore([(user(7), published), (user(8), mark)])

    assert restored == [published, mark]
    assert await store.load([user(7), user(8)]) == [published, mark]
    assert not await redis.exists(keys.histories_dirty(PARTITION))
    assert await redis.pttl(keys.history(user(7))) > IDLE_MS - 60_000


async def test_restoring_what_is_older_than_the_stored_changes_nothing(store, redis, keys):
    applied = await add(store, event(1), event(2))
    await redis.pexpire(keys.history(user(7)), 5_000)

    (restored,) = await store.restore([(user(7), History(1, NEVER, (event(1),)))])

    assert restored == applied.history
    assert await redis.pttl(keys.history(user(7))) <= 5_000


async def test_a_join_that_is_neither_side_gets_a_revision_above_both(store):
    stored = (await add(store, event(1))).history
    ahead = stored.rev + 1_000_000

    (restored,) = await store.restore([(user(7), History(ahead, NEVER, (event(2),)))])

    assert restored == History(ahead + 1, NEVER, (event(1), event(2)))


async def test_a_stored_history_that_knows_more_outgrows_a_later_published_revision(store):
    stored = (await add(store, event(1), event(2))).history
    ahead = stored.rev + 1_000_000

    (restored,) = await store.restore([(user(7), History(ahead, NEVER, (event(1),)))])

    assert restored == History(ahead + 1, NEVER, stored.events)


async def test_a_stored_erasure_that_is_not_the_published_one_outgrows_its_revision(store):
    stored = (await add(store, event(2), erased_at_ms=event(1).at_ms)).history
    ahead = stored.rev + 1_000_000

    (restored,) = await store.restore([(user(7), History(ahead, 5, (event(2),)))])

    assert restored == History(ahead + 1, event(1).at_ms, (event(2),))


async def test_deleting_takes_history_and_gate_but_nobody_elses(store, redis, keys):
    await apply(store, *(HistoryChange(user(n), (event(n),)) for n in range(3)))
    await GateStore(redis, keys).store([(user(n), b"state") for n in range(3)], 60_000)

    await store.delete([user(0), user(1), user("nobody")])

    assert [one is None for one in await store.load([user(n) for n in range(3)])] == [
        True,
        True,
        False,
    ]
    assert await GateStore(redis, keys).load([user(0), user(2)]) == [None, b"state"]


async def test_a_scan_finds_every_user_and_no_other_deployment(redis, keys, store):
    people = [user(n) for n in range(1_500)]
    await apply(store, *(HistoryChange(one, (event(1),)) for one in people))
    await add(HistoryStore(redis, Keys(keys.prefix + "x*"), BOUNDS, IDLE_MS), event(1))

    assert {key async for key in store.scan()} == set(people)


@pytest.mark.parametrize(
    "stored",
    [b"x", b"\x02" + bytes(40), History(1, NEVER, (event(1), event(2))).encode()[:-3]],
    ids=["short", "format", "cut"],
)
async def test_a_history_that_does_not_decode_holds_and_stays_as_it_is(store, redis, keys, stored):
    await redis.set(keys.history(user(7)), stored)

    with pytest.raises(Transient, match="does not decode") as held:
        await store.load([user(7)])
    with pytest.raises(Transient):
        await add(store, event(0))

    assert "user:7" not in str(held.value)
    assert await redis.get(keys.history(user(7))) == stored


async def test_a_redis_that_lost_its_scripts_is_taught_them_again(redis, store):
    await add(store, event(1))
    await redis.script_flush()

    assert (await add(store, event(2))).history.events == (event(1), event(2))


async def test_a_thousand_events_of_one_moment_do_not_hold_redis_up(store_of):
    limits = HistoryBounds(200, 100)
    store = store_of(limits)
    hostile = [event(n, START_MS, item="x" * 190 + str(n)) for n in range(1_000)]
    await add(store, *hostile)

    started = time.perf_counter()
    applied = await add(store, *hostile)
    seconds = time.perf_counter() - started

    assert not applied.changed
    assert applied.limited == 900
    assert wire(applied.history) == wire(history_of(*hostile, bounds=limits))
    assert seconds < 2.0


def test_users_are_no_items():
    assert Keys("p:").history(user(7)) == "p:history:{user:7}"
    assert Keys("p:").histories_dirty(3) == "p:histories:dirty:{3}"
    assert Keys("p:").awaiting(EntityKey.item("42")) == "p:awaiting:{item:42}"
