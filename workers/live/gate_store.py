"""What the gate of preference knowledge remembers: a state per user, and the calls of each day.

States are opaque here. None of this is in a topic: a Redis that lost it starts from nothing.
"""

from collections.abc import Sequence

from schemas.entities import EntityKey
from workers.live.connection import AnyRedis, round_trip
from workers.live.keys import Keys

CALLS_KEPT_MS = 3 * 86_400_000


class GateStore:
    """Loads and stores states by batches, one round trip each; raises Transient."""

    def __init__(self, redis: AnyRedis, keys: Keys, *, cluster: bool = False) -> None:
        self._redis = redis
        self._keys = keys
        self._cluster = cluster

    async def load(self, users: Sequence[EntityKey]) -> list[bytes | None]:
        """Return the state of each user, in order; None where there is none."""
        if not users:
            return []
        names = [self._keys.gate(user) for user in users]
        if self._cluster:
            return await round_trip(self._redis, [("GET", name) for name in names])
        (values,) = await round_trip(self._redis, [("MGET", *names)])
        return list(values)

    async def store(self, rows: Sequence[tuple[EntityKey, bytes]], ttl_ms: int) -> None:
        """Store states, each to go after `ttl_ms`."""
        await round_trip(
            self._redis,
            [("SET", self._keys.gate(user), state, "PX", ttl_ms) for user, state in rows],
        )

    async def delete(self, users: Sequence[EntityKey]) -> None:
        """Forget users."""
        await round_trip(self._redis, [("UNLINK", self._keys.gate(user)) for user in users])

    async def calls(self, day: str) -> int:
        """Return how many calls were granted on a day (yyyymmdd)."""
        (count,) = await round_trip(self._redis, [("GET", self._keys.gate_calls(day))])
        return 0 if count is None else int(count)

    async def add_call(self, day: str) -> int:
        """Count one call more on a day (yyyymmdd); return how many it are now."""
        name = self._keys.gate_calls(day)
        count, _ = await round_trip(self._redis, [("INCR", name), ("PEXPIRE", name, CALLS_KEPT_MS)])
        return int(count)
