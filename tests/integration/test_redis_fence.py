"""A Redis that restarted under us: fenced clients refuse it until its view was verified."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from deploy.local.redis_server import RedisServer
from schemas.errors import ConfigurationError, Transient
from tests.live_builders import content, item, vector
from workers.live.connection import (
    RedisChanged,
    RedisFence,
    connect,
    parse_run_id,
    round_trip,
    run_id,
    translated,
)
from workers.live.entity_store import EntityStore, EntityWrite
from workers.live.keys import Keys
from workers.live.seen import Seen, SeenStore
from workers.live.view_marker import ViewLost, ViewMarker

KEYS = Keys("")


@pytest.fixture
def server(own_redis) -> RedisServer:
    return own_redis()


@pytest.fixture
async def guard(server) -> AsyncIterator[Redis]:
    async with connect(server.url) as client:
        yield client


@pytest.fixture
async def fence(guard) -> RedisFence:
    return RedisFence(await run_id(guard))


@pytest.fixture
async def fenced(server, fence) -> AsyncIterator[Redis]:
    async with connect(server.url, fence=fence) as client:
        yield client


async def every_way_in(redis: Redis) -> list[object]:
    """Try a command, a pipeline, a transaction and two scripts; return what each ended with."""
    store = EntityStore(redis, KEYS)

    async def transaction() -> None:
        with translated():
            pipeline = redis.pipeline(transaction=True)
            pipeline.set("t", 1)
            await pipeline.execute()

    async def command() -> None:
        with translated():
            await redis.set("c", 1)

    attempts = (
        command(),
        transaction(),
        round_trip(redis, [("SET", "p", 1), ("GET", "p")]),
        store.load([item(1)], None),
        store.put([EntityWrite(item(1), 0, content(1))]),
        SeenStore(redis, KEYS).store([(item(1), Seen(1, "", False, 1))]),
    )
    return [
        type(outcome) if isinstance(outcome, BaseException) else None
        for outcome in await asyncio.gather(*attempts, return_exceptions=True)
    ]


async def test_the_verified_redis_is_served(fenced, guard):
    await ViewMarker(guard, KEYS).stamp()

    assert await every_way_in(fenced) == [None] * 6


async def test_nothing_is_served_before_anything_was_verified(server, guard):
    async with connect(server.url, fence=RedisFence()) as client:
        assert await every_way_in(client) == [RedisChanged] * 6
        # Nor on connections that were refused once.
        assert await every_way_in(client) == [RedisChanged] * 6

    assert await guard.dbsize() == 0


async def test_a_killed_redis_that_comes_back_empty_is_refused_until_verified(
    server, guard, fence, fenced
):
    await ViewMarker(guard, KEYS).stamp()
    await every_way_in(fenced)

    server.kill()
    assert set(await every_way_in(fenced)) == {Transient}
    server.restart(empty=True)

    assert await every_way_in(fenced) == [RedisChanged] * 6
    assert await guard.dbsize() == 0
    fence.verified_run_id = await run_id(guard)
    with pytest.raises(ViewLost):
        await EntityStore(fenced, KEYS).load([item(1)], None)
    await ViewMarker(guard, KEYS).stamp()
    assert await every_way_in(fenced) == [None] * 6


async def test_a_redis_restored_from_an_old_snapshot_is_refused_until_verified(
    server, guard, fence, fenced
):
    store = EntityStore(fenced, KEYS)
    await ViewMarker(guard, KEYS).stamp()
    await store.put([EntityWrite(item(1), 0, content(1), {"raw": vector(1)})])
    old = server.snapshot()
    await store.put([EntityWrite(item(1), 1, content(2), {"raw": vector(2)})])

    server.restore(old)

    # The old view carries its marker: without the fence it would be taken for whole.
    assert await ViewMarker(guard, KEYS).present()
    with pytest.raises(RedisChanged):
        await store.load([item(1)], "raw")
    with pytest.raises(RedisChanged):
        await store.put([EntityWrite(item(1), 1, content(3))])
    fence.verified_run_id = await run_id(guard)
    (one,) = await store.load([item(1)], "raw")
    assert (one.rev, one.document) == (1, content(1))


async def test_a_restart_between_the_commands_of_busy_clients_lets_none_through(
    server, guard, fence, fenced
):
    """Many tasks write without pause while Redis is replaced: not one write reaches the new one."""
    await ViewMarker(guard, KEYS).stamp()
    stop = asyncio.Event()
    refused = asyncio.Event()

    async def write_on(name: int) -> None:
        store = EntityStore(fenced, KEYS)
        while not stop.is_set():
            try:
                await store.put([EntityWrite(item(f"{name}"), 0, content(1))])
                await round_trip(fenced, [("SET", f"plain:{name}", 1)])
            except RedisChanged:
                refused.set()
            except Transient:
                await asyncio.sleep(0.005)

    async with asyncio.TaskGroup() as tasks:
        for name in range(8):
            tasks.create_task(write_on(name))
        await asyncio.sleep(0.05)
        server.kill()
        await asyncio.to_thread(server.restart, empty=True)
        await asyncio.wait_for(refused.wait(), 10)
        stop.set()

    assert await guard.dbsize() == 0


async def test_a_handshake_that_was_cancelled_leaves_no_open_door(server, guard, fence, fenced):
    await run_id(fenced)
    await fenced.connection_pool.disconnect()
    fence.verified_run_id = "another"
    server.pause()
    try:
        attempt = asyncio.create_task(fenced.set("c", 1))
        await asyncio.sleep(0.1)  # connected (the kernel accepts), waiting for the first reply
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
    finally:
        server.resume()

    with pytest.raises(RedisChanged):
        await fenced.set("c", 1)
    assert not await guard.exists("c")


async def test_taking_the_verification_back_closes_connections_already_open(fence, fenced, guard):
    await fenced.set("before", 1)

    fence.verified_run_id = None

    assert set(await every_way_in(fenced)) == {RedisChanged}
    assert not await guard.exists("c")
    fence.verified_run_id = await run_id(guard)
    assert await fenced.get("before") == b"1"


async def test_an_unfenced_client_follows_a_restart_without_an_error(server, guard):
    await guard.set("kept", 1)

    server.restart()

    assert await guard.get("kept") == b"1"


async def test_a_redis_that_does_not_answer_is_transient_within_the_time_limit(server):
    async with connect(server.url, timeout_seconds=0.2) as client:
        await run_id(client)
        server.pause()
        try:
            async with asyncio.timeout(3):
                with pytest.raises(Transient, match="Timeout") as error:
                    await round_trip(client, [("GET", "a")])
        finally:
            server.resume()

    assert error.value.dependency == "redis"


async def test_an_address_nobody_listens_on_is_transient_at_once():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening
        async with connect(f"redis://127.0.0.1:{taken.getsockname()[1]}/0") as client:
            async with asyncio.timeout(3):
                with pytest.raises(Transient, match="ConnectionError"):
                    await run_id(client)


async def test_a_wrong_password_is_transient_at_once_and_not_in_the_message(server, guard):
    await guard.config_set("requirepass", "right")
    url = server.url.replace("redis://", "redis://:wrong-secret@")

    async with connect(url) as client, asyncio.timeout(3):
        with pytest.raises(Transient) as error:
            await run_id(client)

    assert "wrong-secret" not in str(error.value)


async def test_an_acl_user_with_a_password_in_the_url_is_let_in_and_fenced(server, guard):
    await guard.execute_command(
        "ACL", "SETUSER", "lane", "on", ">secret", "~*", "+@all", "-@dangerous", "+info"
    )
    url = server.url.replace("redis://", "redis://lane:secret@")

    async with connect(url, fence=RedisFence(await run_id(guard))) as client:
        assert await client.set("a", 1)
        with pytest.raises(Transient, match="permission"):
            await round_trip(client, [("FLUSHALL",)])


async def test_a_primary_that_became_a_replica_is_left_for_whoever_answers_now(
    server, guard, fence, fenced
):
    await ViewMarker(guard, KEYS).stamp()
    store = EntityStore(fenced, KEYS)
    await store.put([EntityWrite(item(0), 0, content(1))])
    before = {client["id"] for client in await guard.client_list()}
    await guard.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        with pytest.raises(Transient, match=r"READONLY|ReadOnly"):
            await store.put([EntityWrite(item(1), 0, content(1))])
        with pytest.raises(Transient, match=r"READONLY|ReadOnly"):
            await round_trip(fenced, [("SET", "a", 1)])
    finally:
        await guard.execute_command("REPLICAOF", "NO", "ONE")

    assert await store.put([EntityWrite(item(1), 0, content(1))]) == [True]
    after = {client["id"] for client in await guard.client_list()}
    assert after - before, "the connection to the demoted server was kept"


async def test_a_full_redis_writes_neither_document_nor_vector(guard, fenced):
    await ViewMarker(guard, KEYS).stamp()
    store = EntityStore(fenced, KEYS)
    await guard.config_set("maxmemory", "1")
    try:
        with pytest.raises(Transient, match=r"OOM|OutOfMemory"):
            await store.put([EntityWrite(item(1), 0, content(1), {"raw": vector(1)})])
    finally:
        await guard.config_set("maxmemory", "0")

    assert await guard.keys("*{item:1}") == []


async def test_a_unix_socket_is_fenced_too(tmp_path, server, guard, fence):
    path = tmp_path / "r.sock"
    # Redis makes the socket at its start alone, so a proxy stands in for it.
    proxy = await asyncio.start_unix_server(_forward_to(server.port), path)
    async with proxy, connect(f"unix://{path}?db=0", fence=fence) as client:
        assert await client.set("a", 1)
        fence.verified_run_id = "another"
        with pytest.raises(RedisChanged):
            await client.set("a", 2)
    assert await guard.get("a") == b"1"


def _forward_to(port: int):
    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(
            pipe(reader, to_writer), pipe(to_reader, writer), return_exceptions=True
        )

    return serve


@pytest.mark.parametrize("url", ["http://x", "redis//x", "", "redis://host:port/0"])
def test_what_is_no_redis_url_is_a_configuration_error(url):
    with pytest.raises(ConfigurationError, match=r"redis\.url"):
        connect(url)


def test_a_ca_file_without_tls_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigurationError, match=r"redis\.ssl_cafile"):
        connect("redis://localhost", ssl_cafile=tmp_path / "ca.pem")


def test_tls_settings_reach_the_connections(tmp_path):
    ca = tmp_path / "ca.pem"

    client = connect("rediss://lane:secret@redis.internal:6380/2", ssl_cafile=ca)

    options = client.connection_pool.connection_kwargs
    assert options["ssl_ca_certs"] == str(ca)
    assert (options["username"], options["password"], options["db"]) == ("lane", "secret", 2)


def test_a_reply_without_a_run_id_is_transient():
    assert parse_run_id(b"# Server\r\nrun_id:abc\r\nport:1\r\n") == "abc"
    with pytest.raises(Transient, match="run_id"):
        parse_run_id("# Server\r\n")


def test_an_error_that_is_not_redis_own_is_left_alone():
    with pytest.raises(KeyError), translated():
        raise KeyError("mine")
