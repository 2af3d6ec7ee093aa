"""The last outcomes of every entity, for `freshet explain`."""

from collections.abc import Sequence

from schemas.entities import EntityKey
from schemas.trace import TraceEntry
from workers.live.connection import AnyRedis, round_trip
from workers.live.keys import Keys
from workers.live.lua_script import LuaScript, Unit

KEPT_ENTRIES = 20
KEPT_SECONDS = 7 * 24 * 60 * 60

_APPEND: LuaScript[int] = LuaScript("append_traces.lua")


class TraceStore:
    """Appends and reads traces; raises Transient."""

    def __init__(self, redis: AnyRedis, keys: Keys, *, cluster: bool = False) -> None:
        self._redis = redis
        self._keys = keys
        self._cluster = cluster

    async def append(self, entries: Sequence[tuple[EntityKey, TraceEntry]]) -> None:
        """Append entries in order: one round trip for all."""
        units = [
            Unit((self._keys.trace(key),), (entry.encode(), KEPT_ENTRIES, KEPT_SECONDS))
            for key, entry in entries
        ]
        await _APPEND.run(self._redis, units, cluster=self._cluster)

    async def read(self, key: EntityKey) -> list[TraceEntry]:
        """Return the last entries of an entity, oldest first."""
        (lines,) = await round_trip(self._redis, [("LRANGE", self._keys.trace(key), 0, -1)])
        return [TraceEntry.decode(line) for line in lines]
