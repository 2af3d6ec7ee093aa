"""What entities cost in Redis, and how its server is set up: facts for `freshet doctor`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from redis.asyncio import Redis

from schemas.entities import EntityKey
from workers.live.connection import AnyRedis, round_trip, translated
from workers.live.keys import Keys

KeyOf: TypeAlias = Callable[[EntityKey], str]


@dataclass(frozen=True, slots=True)
class EntityBytes:
    """Mean bytes an entity takes, by family of keys: doc, seen, trace, vec:<space>, and so on."""

    sampled: int
    by_family: Mapping[str, float]

    @property
    def total(self) -> float:
        """Mean bytes of everything an entity has."""
        return sum(self.by_family.values())


async def bytes_per_entity(
    redis: AnyRedis, keys: Keys, sample: Sequence[EntityKey], spaces: Sequence[str]
) -> EntityBytes:
    """Return the mean memory of sampled items; raises Transient, ValueError on no sample."""
    return await _measured(
        redis, keys, sample, {"doc": keys.doc, "seen": keys.seen, "trace": keys.trace}, spaces
    )


async def bytes_per_user(
    redis: AnyRedis, keys: Keys, sample: Sequence[EntityKey], spaces: Sequence[str]
) -> EntityBytes:
    """Return the mean memory of sampled users; raises Transient, ValueError on no sample."""
    return await _measured(
        redis,
        keys,
        sample,
        {"history": keys.history, "gate": keys.gate, "doc": keys.doc, "trace": keys.trace},
        spaces,
    )


async def _measured(
    redis: AnyRedis,
    keys: Keys,
    sample: Sequence[EntityKey],
    families: Mapping[str, KeyOf],
    spaces: Sequence[str],
) -> EntityBytes:
    if not sample:
        raise ValueError("no entity to measure")
    every: dict[str, KeyOf] = dict(families)
    every |= {f"vec:{space}": partial(keys.vec, space) for space in spaces}
    commands = [("MEMORY USAGE", name(key)) for key in sample for name in every.values()]
    sizes = [size or 0 for size in await round_trip(redis, commands)]
    means = {family: sum(sizes[n :: len(every)]) / len(sample) for n, family in enumerate(every)}
    return EntityBytes(len(sample), means)


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a Redis server says of itself; `maxmemory_bytes` 0 means no limit."""

    run_id: str
    version: str
    role: str
    maxmemory_policy: str
    maxmemory_bytes: int
    used_memory_bytes: int


async def server_facts(redis: Redis) -> ServerFacts:
    """Return the facts from INFO, which managed servers allow where they forbid CONFIG."""
    with translated():
        info = await redis.info()
    return ServerFacts(
        run_id=str(info["run_id"]),
        version=str(info["redis_version"]),
        role=str(info["role"]),
        maxmemory_policy=str(info["maxmemory_policy"]),
        maxmemory_bytes=int(info["maxmemory"]),
        used_memory_bytes=int(info["used_memory"]),
    )
