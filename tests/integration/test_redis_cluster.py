"""The stores and readers on a real Redis Cluster of two primaries: no call spans hash slots."""

from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest
from redis import Redis
from redis.asyncio.cluster import RedisCluster
from redis.cluster import RedisCluster as SyncRedisCluster
from redis.exceptions import RedisError

from deploy.local.ports import LOOPBACK, free_port
from deploy.local.redis_server import find_redis_server
from deploy.local.server_process import ServerProcess
from schemas.entities import EntityKind
from schemas.history import HistoryBounds
from schemas.trace import TraceEntry
from tests.history_builders import DAY_MS, event, user
from tests.live_builders import content, item, space_record, vector
from tests.stack import wait_until_blocking
from workers.live.awaited_items import AwaitedItems
from workers.live.checkpoints import Checkpoints
from workers.live.dirty_histories import DirtyHistories
from workers.live.entity_store import EntityStore, EntityWrite, RebuiltEntity, ViewLost
from workers.live.gate_store import GateStore
from workers.live.history_store import HistoryChange, HistoryStore
from workers.live.item_vectors import ItemVectors
from workers.live.items_read import NO_TAG
from workers.live.keys import Keys
from workers.live.live_vectors import AsyncLiveVectors, LiveVectors
from workers.live.memory import bytes_per_entity, bytes_per_user
from workers.live.seen import Seen, SeenStore
from workers.live.space_registry import SpaceRegistry
from workers.live.traces import TraceStore
from workers.live.view_marker import ViewMarker

SPACE = "parts-pca-1"
KEYS = Keys("p:")
ITEMS = [item(n) for n in range(300)]
BUS_PORT_OFFSET = 10_000
OUTGOING_PORTS_FROM = 32_768
SLOTS = 16_384


def _node_port() -> int:
    """Return a free port whose bus port is not one that outgoing connections are given."""
    while (port := free_port()) + BUS_PORT_OFFSET >= OUTGOING_PORTS_FROM:
        pass
    return port


@pytest.fixture(scope="module")
def cluster_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    ports = (_node_port(), _node_port())
    servers = [_node(tmp_path_factory.mktemp(f"node-{port}"), port) for port in ports]
    try:
        for n, port in enumerate(ports):
            with Redis(port=port) as node:
                slots = range(n * SLOTS // 2, (n + 1) * SLOTS // 2)
                node.execute_command("CLUSTER ADDSLOTS", *slots)
                node.execute_command("CLUSTER MEET", LOOPBACK, ports[0])
        for port in ports:
            wait_until_blocking(partial(_is_whole, port), timeout=30.0)
        yield ports[0]
    finally:
        for server in servers:
            server.kill()


def _node(folder: Path, port: int) -> ServerProcess:
    server = ServerProcess(
        [str(find_redis_server()), "-"],
        log_file=folder / "redis.log",
        stdin_text=(
            f'bind {LOOPBACK}\nport {port}\ndir "{folder}"\nsave ""\ncluster-enabled yes\n'
            "cluster-node-timeout 5000\n"
        ),
    )
    server.await_ready(lambda: _answers(port), name="Redis", timeout_seconds=20)
    return server


def _answers(port: int) -> bool:
    try:
        with Redis(port=port) as node:
            return bool(node.ping())
    except RedisError:
        return False


def _is_whole(port: int) -> bool:
    with Redis(port=port) as node:
        info = node.execute_command("CLUSTER INFO")
    return info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == 2


@pytest.fixture
async def cluster(cluster_port) -> AsyncIterator[RedisCluster]:
    async with RedisCluster(host=LOOPBACK, port=cluster_port) as client:
        for node in client.get_primaries():
            await node.execute_command("FLUSHALL")
        await ViewMarker(client, KEYS).stamp()
        yield client


@pytest.fixture
def store(cluster) -> EntityStore:
    return EntityStore(cluster, KEYS, cluster=True)


async def test_entities_of_all_slots_are_written_loaded_scanned_and_deleted(cluster, store):
    writes = [EntityWrite(key, 0, content(1), {SPACE: vector(1)}) for key in ITEMS]

    assert await store.put(writes) == [True] * 300
    assert await store.put(writes[:3]) == [False] * 3
    loaded = await store.load(ITEMS, SPACE)
    assert [(one.key, one.rev, one.raw) for one in loaded] == [(key, 1, vector(1)) for key in ITEMS]
    assert {key async for key in store.scan()} == set(ITEMS)
    details = await store.load_stored(ITEMS[0], [SPACE])
    assert details is not None
    assert list(details.vectors) == [SPACE]
    cost = await bytes_per_entity(cluster, KEYS, ITEMS[:5], [SPACE])
    assert cost.total > 0
    await store.delete(ITEMS, [SPACE])
    assert [key async for key in store.scan()] == []


async def test_rebuilding_and_vectors_alone_work_across_slots(store):
    rows = [RebuiltEntity(key, 3, content(1), 7, {SPACE: vector(3)}) for key in ITEMS]

    assert await store.put_if_newer_rev(rows) == 300
    assert await store.put_if_newer_rev(rows) == 0
    assert await store.put_vectors(SPACE, [(key, 2, vector(2)) for key in ITEMS]) == [False] * 300


async def test_nodes_that_lost_their_scripts_are_taught_them_again(cluster, store):
    await store.put([EntityWrite(key, 0, content(1)) for key in ITEMS])
    for node in cluster.get_primaries():
        await node.execute_command("SCRIPT", "FLUSH")

    assert await store.put([EntityWrite(key, 1, content(2)) for key in ITEMS]) == [True] * 300


async def test_a_view_without_its_marker_is_lost_here_too(cluster, store):
    await ViewMarker(cluster, KEYS).clear()

    with pytest.raises(ViewLost):
        await store.load(ITEMS, None)


async def test_the_small_stores_work_across_slots(cluster):
    seen, traces = SeenStore(cluster, KEYS, cluster=True), TraceStore(cluster, KEYS, cluster=True)
    line = TraceEntry(1, "items", "emitted")

    await seen.store([(key, Seen(n, "ab", False, 1)) for n, key in enumerate(ITEMS)])
    await traces.append([(key, line) for key in ITEMS])
    await Checkpoints(cluster, KEYS).store("g", {("t", 0): 5})

    assert [one and one.version for one in await seen.load(ITEMS)] == list(range(300))
    assert await traces.read(ITEMS[7]) == [line]
    assert await Checkpoints(cluster, KEYS).load("g") == {("t", 0): 5}


async def test_histories_and_what_belongs_to_them_work_across_slots(cluster):
    people = [user(n) for n in range(300)]
    changes = [HistoryChange(one, (event(n),)) for n, one in enumerate(people)]
    partition_of = {one: n % 3 for n, one in enumerate(people)}
    histories = HistoryStore(cluster, KEYS, HistoryBounds(), DAY_MS, cluster=True)
    gate = GateStore(cluster, KEYS, cluster=True)

    applied = await histories.apply(changes, partition_of=partition_of)
    again = await histories.apply(changes, partition_of=partition_of)
    await gate.store([(one, str(one).encode()) for one in people], DAY_MS)

    assert [one.history.events for one in applied] == [(event(n),) for n in range(300)]
    assert [one.changed for one in again] == [False] * 300
    assert await histories.load(people) == [one.history for one in applied]
    assert {one async for one in histories.scan()} == set(people)
    assert await gate.load(people) == [str(one).encode() for one in people]
    assert await gate.add_call("20260314") == await gate.calls("20260314") == 1
    assert (await bytes_per_user(cluster, KEYS, people[:5], [SPACE])).total > 0
    await histories.delete(people[1:])
    assert await gate.load(people[:2]) == [b"user:0", None]
    restored = [(one, applied[n].history) for n, one in enumerate(people)]
    assert await histories.restore(restored) == [one.history for one in applied]


async def test_marks_of_changed_histories_work_across_slots(cluster):
    people = [user(n) for n in range(300)]
    histories = HistoryStore(cluster, KEYS, HistoryBounds(), DAY_MS, cluster=True)
    dirty = DirtyHistories(cluster, KEYS, cluster=True)
    applied = await histories.apply(
        [HistoryChange(one, (event(1),)) for one in people],
        partition_of={one: n % 7 for n, one in enumerate(people)},
    )
    revs = {one: now.history.rev for one, now in zip(people, applied, strict=True)}

    for partition in range(7):
        assert await dirty.begin(partition)
        taken = await dirty.batch(partition, 1_000)
        assert set(taken) == set(people[partition::7])
        await dirty.done(partition, [(one, revs[one]) for one in taken[1:]])
        assert await dirty.batch(partition, 1_000) == taken[:1]
        assert await dirty.count(partition) == 1


async def test_items_are_awaited_and_their_vectors_read_across_slots(cluster, store):
    awaited = AwaitedItems(cluster, KEYS)
    await awaited.add([(key, user(1)) for key in ITEMS], now_ms=1)
    await awaited.forget(user(1), ITEMS[1:])
    await store.put_vectors(SPACE, [(key, 1, vector(1)) for key in ITEMS[::2]], ttl_ms=DAY_MS)

    values, found = await ItemVectors(cluster, KEYS, cluster=True).read(
        space_record(SPACE).space, ITEMS
    )

    again = await ItemVectors(cluster, KEYS, cluster=True).read_unless(
        space_record(SPACE).space, ITEMS, [NO_TAG] * len(ITEMS)
    )

    assert await awaited.users(ITEMS) == {ITEMS[0]: [user(1)]}
    assert again.rows.tolist() == list(range(0, 300, 2))
    assert found.tolist() == [n % 2 == 0 for n in range(300)]
    assert values[0].tolist() == [1.0, 2.0, 3.0, 4.0]


async def test_readers_gather_vectors_from_all_nodes(cluster, cluster_port, store):
    registry = SpaceRegistry(cluster, KEYS)
    await registry.put(space_record(SPACE))
    await registry.set_alias(EntityKind.ITEM, SPACE)
    await store.put_vectors(SPACE, [(key, n + 1, vector(n + 1)) for n, key in enumerate(ITEMS)])
    names = [str(key) for key in reversed(ITEMS)]

    async with AsyncLiveVectors(cluster, key_prefix="p:") as live, live.pin() as view:
        asynchronous = await view.get([*names, "item:none"])
        listed = {key async for chunk, _ in view.iterate(chunk=50) for key in chunk}
    with SyncRedisCluster(host=LOOPBACK, port=cluster_port) as client:
        live_sync = LiveVectors(client, key_prefix="p:")
        with live_sync.pin() as view_sync:
            synchronous = view_sync.get([*names, "item:none"])
            listed_sync = {key for chunk, _ in view_sync.iterate(chunk=50) for key in chunk}

    assert asynchronous.revs.tolist() == [*range(300, 0, -1), -1]
    assert synchronous.revs.tolist() == asynchronous.revs.tolist()
    assert listed == listed_sync == set(names)
