"""The rankers' reader on a real Redis: sync and asyncio answer alike."""

import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import redis as redis_py
from redis.asyncio import Redis

from schemas.entities import EntityKey, EntityKind
from schemas.errors import ConfigurationError, FreshetError, Transient
from tests.live_builders import content, item, space_record, vector
from workers.live.connection import connect
from workers.live.entity_store import EntityStore, EntityWrite
from workers.live.keys import Keys
from workers.live.live_vectors import AsyncLiveVectors, LiveVectors, NoActiveSpace, PinExpired
from workers.live.seen import Seen, SeenStore
from workers.live.space_registry import SpaceRegistry

SPACE = "parts-pca-1"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def keys(topic_prefix) -> Keys:
    return Keys(topic_prefix)


@pytest.fixture
async def redis(redis_server) -> AsyncIterator[Redis]:
    async with connect(redis_server.url) as client:
        yield client


@pytest.fixture
def store(redis, keys) -> EntityStore:
    return EntityStore(redis, keys)


@pytest.fixture
def registry(redis, keys) -> SpaceRegistry:
    return SpaceRegistry(redis, keys)


@pytest.fixture
async def active(registry) -> None:
    await registry.put(space_record(SPACE))
    await registry.set_alias(EntityKind.ITEM, SPACE)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sync", "asyncio"])
async def reader(request, redis_server, keys, clock):
    """Both readers behind one asyncio face."""
    if request.param == "asyncio":
        async with AsyncLiveVectors(redis_server.url, key_prefix=keys.prefix, clock=clock) as live:
            yield SimpleNamespace(pin=live.pin, confirmed_versions=live.confirmed_versions)
        return
    with LiveVectors(redis_server.url, key_prefix=keys.prefix, clock=clock) as live:
        yield SimpleNamespace(
            pin=lambda: _SyncPin(live), confirmed_versions=_coroutine(live.confirmed_versions)
        )


def _coroutine(function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    async def call(*arguments: Any) -> Any:
        return function(*arguments)

    return call


class _SyncPin:
    def __init__(self, live: LiveVectors) -> None:
        self._pin = live.pin()

    async def __aenter__(self):
        view = self._pin.__enter__()

        async def iterate(*arguments, **options):
            for chunk in view.iterate(*arguments, **options):
                yield chunk

        return SimpleNamespace(get=_coroutine(view.get), iterate=iterate)

    async def __aexit__(self, *error):
        return self._pin.__exit__(*error)


async def write(store: EntityStore, *ids: object, space: str = SPACE) -> None:
    rows = [(item(id_), n + 1, vector(n + 1, (n, 1, 2, 3))) for n, id_ in enumerate(ids)]
    await store.put_vectors(space, rows)


async def test_vectors_come_in_the_order_asked_for_with_their_headers(active, store, reader):
    before = time.time_ns() // 1_000_000
    record = vector(9, (1, 2, 3, 4), stage=3, content_version=2**62, written_at_ms=before - 5_000)
    await store.put_vectors(SPACE, [(item(2), 9, record)])
    await write(store, 0, 1)

    async with reader.pin() as view:
        got = await view.get(["item:2", "item:0", "item:1", "item:2"])

    assert got.space == SPACE
    assert len(got) == 4
    assert got.values.dtype == np.float16
    assert got.values.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(
        got.values, [[1, 2, 3, 4], [0, 1, 2, 3], [1, 1, 2, 3], [1, 2, 3, 4]]
    )
    assert got.found.tolist() == [True] * 4
    assert got.stages.tolist() == [3, 1, 1, 3]
    assert got.revs.tolist() == [9, 1, 2, 9]
    assert got.content_versions.tolist() == [2**62, 7, 7, 2**62]
    assert got.factors_versions.tolist() == [-1] * 4
    assert got.event_times_ms.tolist() == [1_500] * 4
    assert got.written_at_ms[0] == before - 5_000
    assert 5_000 <= got.ages_ms[0] < 15_000


async def test_an_entity_without_a_vector_gets_the_spaces_default_and_is_masked(
    registry, store, reader
):
    default = (0.5, -0.5, 0.25, 1.0)
    await registry.put(space_record(SPACE, dtype="float32", default=default))
    await registry.set_alias(EntityKind.ITEM, SPACE)
    await store.put_vectors(SPACE, [(item(1), 1, vector(1, (1, 2, 3, 4), dtype="float32"))])

    async with reader.pin() as view:
        got = await view.get(["item:new", "item:1"])

    assert got.values.dtype == np.float32
    np.testing.assert_array_equal(got.values, [default, [1, 2, 3, 4]])
    assert got.found.tolist() == [False, True]
    assert got.stages.tolist() == [0, 1]
    assert got.revs.tolist() == [-1, 1]
    assert got.content_versions.tolist() == [-1, 7]
    assert got.ages_ms[0] == -1


async def test_the_default_is_zeros_where_the_space_names_none(active, reader):
    async with reader.pin() as view:
        got = await view.get(["item:new"])

    assert not got.values.any()
    assert not got.found.any()


async def test_asking_for_nothing_returns_empty_arrays(active, reader):
    async with reader.pin() as view:
        got = await view.get([])

    assert got.values.shape == (0, 4)
    assert len(got) == 0


async def test_more_keys_than_a_chunk_come_back_whole_and_in_order(active, store, reader):
    ids = list(range(2_500))
    await store.put_vectors(SPACE, [(item(n), n + 1, vector(n + 1)) for n in ids[::2]])

    async with reader.pin() as view:
        got = await view.get([f"item:{n}" for n in ids])

    assert got.values.shape == (2_500, 4)
    assert got.revs.tolist() == [n + 1 if n % 2 == 0 else -1 for n in ids]


@pytest.mark.parametrize(
    "mixed", [["item:1", "user:1"], ["item:1", "items:2"], ["thing:1"], ["42"], ["item:1", "item"]]
)
async def test_keys_of_mixed_or_unknown_kinds_are_refused(active, reader, mixed):
    async with reader.pin() as view:
        with pytest.raises(ValueError, match="kind"):
            await view.get(mixed)


async def test_items_and_users_have_spaces_of_their_own(active, registry, store, reader):
    await registry.put(space_record("users-1"))
    await registry.set_alias(EntityKind.USER, "users-1")
    user = EntityKey(EntityKind.USER, "7")
    await store.put_vectors("users-1", [(user, 3, vector(3, (9, 9, 9, 9)))])
    await write(store, 1)

    async with reader.pin() as view:
        items, users = await view.get(["item:1"]), await view.get(["user:7"])

    assert (items.space, users.space) == (SPACE, "users-1")
    assert users.values[0, 0] == 9


async def test_a_kind_without_an_active_space_is_said_plainly(active, registry, reader):
    async with reader.pin() as view:
        with pytest.raises(NoActiveSpace, match="users"):
            await view.get(["user:1"])


async def test_an_alias_to_an_unknown_or_unreadable_space_is_said_plainly(
    registry, redis, keys, reader
):
    await registry.set_alias(EntityKind.ITEM, "gone")
    with pytest.raises(NoActiveSpace, match="gone is unknown"):
        async with reader.pin():
            pass

    await redis.hset(keys.spaces(), "gone", '{"space": {"dim": 4}}')
    with pytest.raises(NoActiveSpace, match="does not decode"):
        async with reader.pin():
            pass

    await registry.put(space_record("gone", default=(1.0,)))
    with pytest.raises(NoActiveSpace, match="does not decode"):
        async with reader.pin():
            pass


async def test_a_view_keeps_its_space_while_the_alias_moves_on(
    active, registry, store, reader, clock
):
    await write(store, 1)
    async with reader.pin() as view:
        await registry.put(space_record("next"))
        await registry.set_alias(EntityKind.ITEM, "next")
        clock.now += 29
        assert (await view.get(["item:1"])).space == SPACE
        async with reader.pin() as cached:
            assert (await cached.get(["item:1"])).space == SPACE
        clock.now += 2
        async with reader.pin() as later:
            assert (await later.get(["item:1"])).space == "next"
        assert (await view.get(["item:1"])).space == SPACE


async def test_a_view_expires_after_a_minute(active, reader, clock):
    async with reader.pin() as view:
        clock.now += 60
        await view.get(["item:1"])
        clock.now += 1
        with pytest.raises(PinExpired) as expired:
            await view.get(["item:1"])

    assert isinstance(expired.value, FreshetError)


async def test_iterating_yields_every_vector_of_the_kind_and_space(active, registry, store, reader):
    ids = [f"n{n}" for n in range(250)]
    await write(store, *ids)
    await write(store, "elsewhere", space="other")
    user = EntityKey(EntityKind.USER, "7")
    await store.put_vectors(SPACE, [(user, 3, vector(3))])

    found: dict[str, int] = {}
    async with reader.pin() as view:
        async for chunk, vectors in view.iterate(chunk=100):
            assert 0 < len(chunk) == len(vectors) <= 100
            assert vectors.found.all()
            found.update(zip(chunk, vectors.revs.tolist(), strict=True))

    assert found == {f"item:{id_}": n + 1 for n, id_ in enumerate(ids)}


async def test_a_record_of_another_shape_is_transient_and_names_the_space(active, store, reader):
    await store.put_vectors(SPACE, [(item(1), 1, vector(1, (1, 2, 3)))])
    await store.put_vectors(SPACE, [(item(2), 1, vector(1, (1, 2), dtype="float32"))])

    async with reader.pin() as view:
        for name in ("item:1", "item:2"):  # the second has the right size by chance
            with pytest.raises(Transient, match=SPACE):
                await view.get([name])


async def test_confirmed_versions_are_those_the_items_lane_saw_last(redis, keys, reader):
    await SeenStore(redis, keys).store([(item(1), Seen(2**62, "ab", False, 3))])

    versions = await reader.confirmed_versions(["item:none", "item:1"])

    assert versions.dtype == np.int64
    assert versions.tolist() == [-1, 2**62]
    assert (await reader.confirmed_versions([])).tolist() == []


async def test_documents_and_vectors_written_together_are_read(active, store, reader):
    await store.put([EntityWrite(item(1), 0, content(3), {SPACE: vector(1)})])

    async with reader.pin() as view:
        assert (await view.get(["item:1"])).found.all()


async def test_a_client_of_ones_own_is_used_and_left_open(active, store, redis_server, keys, redis):
    await write(store, 1)
    with redis_py.Redis.from_url(redis_server.url) as own:
        with LiveVectors(own, key_prefix=keys.prefix) as live, live.pin() as view:
            assert view.get(["item:1"]).found.all()
        assert own.ping()
    async with AsyncLiveVectors(redis, key_prefix=keys.prefix) as other, other.pin() as later:
        assert (await later.get(["item:1"])).found.all()
    assert await redis.ping()


async def test_redis_away_is_transient(own_redis):
    server = own_redis()
    async with connect(server.url) as client:
        registry = SpaceRegistry(client, Keys())
        await registry.put(space_record(SPACE))
        await registry.set_alias(EntityKind.ITEM, SPACE)

    with LiveVectors(server.url) as live, live.pin() as view:
        server.stop()
        with pytest.raises(Transient):
            view.get(["item:1"])
        with pytest.raises(Transient):
            list(view.iterate())


def test_what_is_no_redis_url_is_a_configuration_error():
    with pytest.raises(ConfigurationError, match=r"redis\.url"):
        LiveVectors("http://localhost")


def test_importing_the_reader_imports_nothing_heavy():
    forbidden = (
        "torch faust mode aiokafka kafka pydantic pydantic_core orjson "
        "workers.live.entity_store workers.live.lua_script workers.live.view_marker "
        "workers.live.seen workers.live.checkpoints workers.live.traces "
        "workers.live.space_registry schemas.knowledge schemas.events schemas.spaces"
    )
    program = (
        "import sys, workers.live.live_vectors\n"
        f"print(sorted(set('{forbidden}'.split()) & set(sys.modules)))"
    )

    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        timeout=60,
    )

    assert run.stdout.strip() == "[]"
