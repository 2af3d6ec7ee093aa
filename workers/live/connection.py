"""Clients of Redis: how they connect, what they refuse, and what their errors become.

A fenced client never talks to a Redis that restarted (or was replaced) before someone verified
what that Redis holds: the view might be old or empty, and a lane would build on it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import DataError, ReadOnlyError, RedisClusterException, RedisError
from redis.maint_notifications import MaintNotificationsConfig

from schemas.errors import ConfigurationError, Transient

DEPENDENCY = "redis"

Client: TypeAlias = Redis
"""What `connect` returns; named here, so that nobody else needs to import redis."""

AnyRedis: TypeAlias = Redis | RedisCluster
"""What the stores accept: one primary (with replicas), or a cluster."""

Command: TypeAlias = Sequence[str | bytes | int]


class RedisChanged(Transient):
    """Redis is not the process whose content was verified."""

    def __init__(self) -> None:
        super().__init__(DEPENDENCY, "restarted: the view must be verified")


@contextmanager
def translated() -> Iterator[None]:
    """Turn every error of redis-py into Transient("redis"), but for misuse of its API."""
    try:
        yield
    except DataError:
        raise
    except (RedisError, RedisClusterException) as error:
        raise Transient(DEPENDENCY, f"{type(error).__name__}: {error}") from error


@dataclass(slots=True)
class RedisFence:
    """Which Redis process may be talked to: `verified_run_id`, or none at all while it is None.

    Setting another value takes effect with the next command, also on connections already open.
    `verified_stamp` is that of the view which was verified in it: the same process may be emptied.
    """

    verified_run_id: str | None = None
    verified_stamp: str | None = None


class _FencedPool(ConnectionPool):
    """A pool that hands out only connections to the verified Redis process.

    A restart drops every connection, so an admitted one stays good for as long as it lives and
    the fence names the same process.
    """

    def __init__(self, *, fence: RedisFence, **options: Any) -> None:  # noqa: ANN401  # redis-py's
        super().__init__(**options, redis_connect_func=self._admit)
        self._fence = fence
        self._admitted: dict[AbstractConnection, str] = {}

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        """Connect if needed; raises RedisChanged."""
        if connection.is_connected and self._is_stale(connection):
            await connection.disconnect(nowait=True)
        await super().ensure_connection(connection)

    def _is_stale(self, connection: AbstractConnection) -> bool:
        return self._admitted.get(connection) != self._fence.verified_run_id

    async def _admit(self, connection: AbstractConnection) -> None:
        self._admitted.pop(connection, None)
        try:
            await connection.on_connect()
            await connection.send_command("INFO", "server", check_health=False)
            run_id = parse_run_id(await connection.read_response())
            if run_id != self._fence.verified_run_id:
                raise RedisChanged
        except BaseException:
            # redis-py disconnects after its own errors only: a refused or cancelled handshake would
            # leave an open connection in the pool.
            await connection.disconnect(nowait=True)
            raise
        self._admitted[connection] = run_id


def connect(
    url: str,
    *,
    timeout_seconds: float = 5.0,
    ssl_cafile: Path | None = None,
    fence: RedisFence | None = None,
    client_name: str | None = None,
) -> Redis:
    """Return a client of the Redis at `url` (redis://, rediss:// or unix://, ACL user in it).

    It makes no connection yet. With a fence, every command raises RedisChanged until the fence
    names the run id of the process that answers. Lost connections are retried once at once (the
    server may have closed an idle one); beyond that, retrying is the caller's.

    Raises:
        ConfigurationError: the URL is none, or a CA file is given without TLS.
    """
    options = client_options(url, timeout_seconds, ssl_cafile)
    options["retry"] = Retry(NoBackoff(), 1, (RedisConnectionError, ReadOnlyError))
    options["client_name"] = client_name
    # Maintenance notifications are a RESP3 handshake of another product's servers.
    options["maint_notifications_config"] = MaintNotificationsConfig(enabled=False)
    try:
        pool = (
            ConnectionPool.from_url(url, **options)
            if fence is None
            else _FencedPool.from_url(url, fence=fence, **options)
        )
    except ValueError as error:
        raise ConfigurationError("redis.url", f"not a Redis URL: {error}") from error
    return Redis.from_pool(pool)


def client_options(url: str, timeout_seconds: float, ssl_cafile: Path | None) -> dict[str, Any]:
    """Return the redis-py options that sync and async clients share; raises ConfigurationError."""
    options: dict[str, Any] = {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        "decode_responses": False,
        "protocol": 2,
    }
    if ssl_cafile is not None:
        if not url.startswith("rediss://"):
            raise ConfigurationError("redis.ssl_cafile", "given, but the URL is not rediss://")
        options["ssl_ca_certs"] = str(ssl_cafile)
    return options


def parse_run_id(info: bytes | str) -> str:
    """Return the run id in a reply to `INFO server`; raises Transient when there is none."""
    text = info.decode() if isinstance(info, bytes) else info
    for line in text.splitlines():
        if line.startswith("run_id:"):
            return line.removeprefix("run_id:").strip()
    raise Transient(DEPENDENCY, "INFO server names no run_id")


async def run_id(redis: Redis) -> str:
    """Return the run id of the Redis process that answers; it changes with every start."""
    with translated():
        info = await redis.info("server")
    return str(info["run_id"])


async def round_trip(redis: AnyRedis, commands: Sequence[Command]) -> list[Any]:
    """Run commands in one pipeline and return their replies in order; raises Transient.

    On a cluster it is one pipeline a node, with no order between nodes.
    """
    if not commands:
        return []
    with translated():
        pipeline = redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        replies: list[Any] = await pipeline.execute(raise_on_error=False)
        for reply in replies:
            if isinstance(reply, Exception):
                await forget_demoted(redis, reply)
                raise reply
    return replies


async def forget_demoted(redis: AnyRedis, error: Exception) -> None:
    """Drop idle connections after a READONLY reply: the address may lead to a new primary now."""
    if isinstance(redis, Redis) and "READONLY" in f"{type(error).__name__} {error}".upper():
        await redis.connection_pool.disconnect(inuse_connections=False)
