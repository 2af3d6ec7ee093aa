"""What entities cost in Redis, and how its server is set up: facts for `freshet doctor`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from redis.asyncio import Redis

from schemas.entities import EntityKey
from workers.live.connection import AnyRedis, round_trip, translated
from workers.live.keys import Keys


@dataclass(frozen=True, slots=True)
class EntityBytes:
    """Mean bytes an entity takes, by family of keys: doc, seen, trace and vec:<space>."""

    sampled: int
    by_family: Mapping[str, float]

    @property
    def total(self) -> float:
        """Mean bytes of everything an entity has."""
        return sum(self.by_family.values())


async def bytes_per_entity(
    redis: AnyRedis, keys: Keys, sample: Sequence[EntityKey], spaces: Sequence[str]
) -> EntityBytes:
    """Return the mean memory of the sampled entities; raises Transient, ValueError on no sample."""
    if not sample:
        raise ValueError("no entity to measure")
    families = ["doc", "seen", "trace", *(f"vec:{space}" for space in spaces)]
    commands = [
        ("MEMORY USAGE", name)
        for key in sample
        for name in (
            keys.doc(key),
            keys.seen(key),
            keys.trace(key),
            *(keys.vec(space, key) for space in spaces),
        )
    ]
    sizes = [size or 0 for size in await round_trip(redis, commands)]
    means = {
        family: sum(sizes[n :: len(families)]) / len(sample) for n, family in enumerate(families)
    }
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
