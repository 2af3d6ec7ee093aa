"""The rankers' reader: vectors of many entities from Redis in one round trip.

    live = LiveVectors("redis://localhost:6379/0")
    with live.pin() as view:
        items = view.get(["item:42", "item:43"])     # items.values, items.found, items.stages, ...

A view answers from the spaces that were active when it was pinned, for items and users alike, so
the vectors of one request stay comparable. Needs only redis and numpy.
"""

import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterator,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.cluster import RedisCluster as AsyncRedisCluster
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from schemas.entities import EntityKind
from schemas.errors import ConfigurationError, Transient
from workers.live.connection import DEPENDENCY, client_options, connect, translated
from workers.live.keys import Keys, tagged
from workers.live.pins import KINDS, NoActiveSpace, PinExpired, PinnedSpace, Pins
from workers.live.vectors import Vectors, decode_vectors, kind_of, leading_versions

__all__ = [
    "AsyncLiveVectors",
    "AsyncView",
    "LiveVectors",
    "NoActiveSpace",
    "PinExpired",
    "Vectors",
    "View",
]

CHUNK = 1_000
"""Keys of one MGET."""

_READ_BYTES = 1024 * 1024
"""One system call then takes whatever has arrived: a reply of 500 vectors is 300 kB."""

_Values: TypeAlias = list[bytes | None]
_Names: TypeAlias = Sequence[str | bytes]
_Clock: TypeAlias = Callable[[], float]
_Chunk: TypeAlias = tuple[list[str], Vectors]


class View:
    """The active spaces as they were pinned; made by `LiveVectors.pin`, good for a minute."""

    def __init__(self, reader: "LiveVectors", pins: Pins, clock: _Clock) -> None:
        self._reader = reader
        self._pins = pins
        self._clock = clock

    def get(self, keys: Sequence[str]) -> Vectors:
        """Return the vectors of entities of one kind (`item:42`), in order, missing ones masked.

        Raises:
            ValueError: keys of several kinds, or not keys.
            NoActiveSpace: nothing is active for that kind.
            PinExpired: pin again.
            Transient: Redis did not answer as it should.
        """
        space = self._pins.space(kind_of(keys), self._clock())
        values = self._reader.read(_names(self._reader.keys.vec_affixes(space.name), keys))
        return _decoded(space, values)

    def iterate(self, kind: str = "item", *, chunk: int = CHUNK) -> Iterator[_Chunk]:
        """Yield (keys, vectors) of every entity that has a vector; some may come twice (SCAN).

        May run for longer than a pin lives, but not for the ten minutes a retired space has.
        """
        space = self._pins.space(EntityKind(kind), self._clock())
        pattern = self._reader.keys.vecs_pattern(space.name, EntityKind(kind))
        names: list[bytes] = []
        for name in self._reader.scan(pattern, chunk):
            names.append(name)
            if len(names) == chunk:
                yield _present(space, names, self._reader.read(names))
                names = []
        if names:
            yield _present(space, names, self._reader.read(names))


class LiveVectors:
    """Reads live vectors. Thread-safe: redis-py's client and the cached pins both are.

    Args:
        source: redis://, rediss:// or unix:// URL, or a client of your own (bytes, not decoded).
        key_prefix: the deployment's key prefix.
        timeout_seconds: of one Redis call, when `source` is a URL.
        ssl_cafile: CA bundle for rediss://.
        clock: steady, in seconds.
    """

    def __init__(
        self,
        source: "str | redis.Redis | RedisCluster",
        *,
        key_prefix: str = "",
        timeout_seconds: float = 1.0,
        ssl_cafile: Path | None = None,
        clock: _Clock = time.monotonic,
    ) -> None:
        self.keys = Keys(key_prefix)
        self._owns_client = isinstance(source, str)
        # redis-py types replies for sync and async clients alike, which fits neither.
        self._client: Any = (
            _sync_client(source, timeout_seconds, ssl_cafile) if isinstance(source, str) else source
        )
        self._mget = _mget_of(self._client, in_cluster=isinstance(source, RedisCluster))
        self._clock = clock
        self._cached: Pins | None = None

    @contextmanager
    def pin(self) -> Generator[View]:
        """Give a view of the spaces that are active now, as known for at most half a minute."""
        now = self._clock()
        pins = self._cached
        if pins is None or not pins.serves_new_views(now):
            with translated():
                aliases = self._mget(_alias_names(self.keys))
                records = self._client.hmget(self.keys.spaces(), _space_names(aliases))
            pins = self._cached = Pins.read(aliases, records, now)
        yield View(self, pins, self._clock)

    def confirmed_versions(self, keys: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return (n,) the newest version the source sent of each item, -1 where unknown.

        It may be above a vector's content version: a version that changed nothing of meaning is
        noted only here. Raises Transient.
        """
        return leading_versions(self.read(_names(self.keys.seen_affixes(), keys)))

    def read(self, names: _Names) -> _Values:
        """Return the values of keys in order: one MGET a chunk; raises Transient."""
        values: _Values = []
        with translated():
            for start in range(0, len(names), CHUNK):
                values += self._mget(names[start : start + CHUNK])
        return values

    def scan(self, pattern: str, count: int) -> Iterator[bytes]:
        """Yield the names of keys that match; raises Transient."""
        with translated():
            yield from self._client.scan_iter(match=pattern, count=count)

    def close(self) -> None:
        """Close the connections, if this reader opened them."""
        if self._owns_client:
            self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncView:
    """`View` for asyncio; made by `AsyncLiveVectors.pin`."""

    def __init__(self, reader: "AsyncLiveVectors", pins: Pins, clock: _Clock) -> None:
        self._reader = reader
        self._pins = pins
        self._clock = clock

    async def get(self, keys: Sequence[str]) -> Vectors:
        """Return the vectors of entities; as `View.get`."""
        space = self._pins.space(kind_of(keys), self._clock())
        values = await self._reader.read(_names(self._reader.keys.vec_affixes(space.name), keys))
        return _decoded(space, values)

    async def iterate(self, kind: str = "item", *, chunk: int = CHUNK) -> AsyncIterator[_Chunk]:
        """Yield (keys, vectors) of every entity that has a vector; as `View.iterate`."""
        space = self._pins.space(EntityKind(kind), self._clock())
        pattern = self._reader.keys.vecs_pattern(space.name, EntityKind(kind))
        names: list[bytes] = []
        async for name in self._reader.scan(pattern, chunk):
            names.append(name)
            if len(names) == chunk:
                yield _present(space, names, await self._reader.read(names))
                names = []
        if names:
            yield _present(space, names, await self._reader.read(names))


class AsyncLiveVectors:
    """`LiveVectors` for asyncio: same arguments, `source` being a URL or an asyncio client."""

    def __init__(
        self,
        source: str | AsyncRedis | AsyncRedisCluster,
        *,
        key_prefix: str = "",
        timeout_seconds: float = 1.0,
        ssl_cafile: Path | None = None,
        clock: _Clock = time.monotonic,
    ) -> None:
        self.keys = Keys(key_prefix)
        self._owns_client = isinstance(source, str)
        # redis-py types replies for sync and async clients alike, which fits neither.
        self._client: Any = (
            connect(source, timeout_seconds=timeout_seconds, ssl_cafile=ssl_cafile)
            if isinstance(source, str)
            else source
        )
        self._mget: Callable[[_Names], Awaitable[_Values]] = _mget_of(
            self._client, in_cluster=isinstance(source, AsyncRedisCluster)
        )
        self._clock = clock
        self._cached: Pins | None = None

    @asynccontextmanager
    async def pin(self) -> AsyncGenerator[AsyncView]:
        """Give a view of the active spaces; as `LiveVectors.pin`."""
        now = self._clock()
        pins = self._cached
        if pins is None or not pins.serves_new_views(now):
            with translated():
                aliases = await self._mget(_alias_names(self.keys))
                records = await self._client.hmget(self.keys.spaces(), _space_names(aliases))
            pins = self._cached = Pins.read(aliases, records, now)
        yield AsyncView(self, pins, self._clock)

    async def confirmed_versions(self, keys: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return (n,) the newest version the source sent of each item; as in `LiveVectors`."""
        return leading_versions(await self.read(_names(self.keys.seen_affixes(), keys)))

    async def read(self, names: _Names) -> _Values:
        """Return the values of keys in order: one MGET a chunk; raises Transient."""
        values: _Values = []
        with translated():
            for start in range(0, len(names), CHUNK):
                values += await self._mget(names[start : start + CHUNK])
        return values

    async def scan(self, pattern: str, count: int) -> AsyncIterator[bytes]:
        """Yield the names of keys that match; raises Transient."""
        with translated():
            async for name in self._client.scan_iter(match=pattern, count=count):
                yield name

    async def aclose(self) -> None:
        """Close the connections, if this reader opened them."""
        if self._owns_client:
            await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


def _sync_client(url: str, timeout_seconds: float, ssl_cafile: Path | None) -> "redis.Redis":
    options = client_options(url, timeout_seconds, ssl_cafile)
    options["retry"] = Retry(NoBackoff(), 1, (RedisConnectionError,))
    options["socket_read_size"] = _READ_BYTES
    try:
        return redis.Redis.from_url(url, **options)
    except ValueError as error:
        raise ConfigurationError("redis.url", f"not a Redis URL: {error}") from error


def _mget_of(client: Any, *, in_cluster: bool) -> Any:  # noqa: ANN401  # one of four clients
    # A cluster has no MGET across hash slots: redis-py splits it.
    return client.mget_nonatomic if in_cluster else client.mget


def _alias_names(keys: Keys) -> list[str]:
    return [keys.alias(kind) for kind in KINDS]


def _space_names(aliases: Sequence[bytes | None]) -> list[bytes]:
    return [alias or b"" for alias in aliases]  # no space is named "": its record is None


def _names(affixes: tuple[str, str], keys: Sequence[str]) -> list[str]:
    before, after = affixes
    return [before + key + after for key in keys]


def _decoded(space: PinnedSpace, values: Sequence[bytes | None]) -> Vectors:
    try:
        return decode_vectors(space, values, time.time_ns() // 1_000_000)
    except ValueError as error:
        raise Transient(DEPENDENCY, f"space {space.name}: {error}") from error


def _present(space: PinnedSpace, names: Sequence[bytes], values: Sequence[bytes | None]) -> _Chunk:
    """Decode what is there; an entity may go between SCAN and MGET."""
    there = [
        (tagged(name), value)
        for name, value in zip(names, values, strict=True)
        if value is not None
    ]
    return [key for key, _ in there], _decoded(space, [value for _, value in there])
