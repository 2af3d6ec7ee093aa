"""The items lane's own register of what it saw last of every item."""

from collections.abc import Sequence

from schemas.entities import EntityKey
from schemas.errors import Transient
from workers.live.connection import DEPENDENCY, AnyRedis, round_trip
from workers.live.keys import Keys
from workers.live.lua_script import LuaScript, Unit
from workers.live.seen_record import Seen

__all__ = ["Seen", "SeenStore"]

_STORE: LuaScript[int] = LuaScript("store_seen.lua")


class SeenStore:
    """Loads and stores `Seen` by batches, one round trip each; raises Transient."""

    def __init__(self, redis: AnyRedis, keys: Keys, *, cluster: bool = False) -> None:
        self._redis = redis
        self._keys = keys
        self._cluster = cluster

    async def load(self, keys: Sequence[EntityKey]) -> list[Seen | None]:
        """Return what was seen of each entity, in order; None where nothing was."""
        if not keys:
            return []
        names = [self._keys.seen(key) for key in keys]
        if self._cluster:
            values = await round_trip(self._redis, [("GET", name) for name in names])
        else:
            (values,) = await round_trip(self._redis, [("MGET", *names)])
        try:
            return [None if value is None else Seen.decode(value) for value in values]
        except ValueError as error:
            raise Transient(DEPENDENCY, str(error)) from error

    async def store(self, rows: Sequence[tuple[EntityKey, Seen]]) -> None:
        """Store what was seen, but where a greater version was stored already."""
        units = [Unit((self._keys.seen(key),), (seen.encode(),)) for key, seen in rows]
        await _STORE.run(self._redis, units, cluster=self._cluster)

    async def forget(self, key: EntityKey) -> None:
        """Forget an entity, so that any version of it counts as new."""
        await round_trip(self._redis, [("DEL", self._keys.seen(key))])
