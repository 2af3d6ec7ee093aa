"""Deleting entities for good, by compare-and-set: for `freshet sweep`, never for lanes."""

import struct
from collections.abc import Sequence

from schemas.entities import EntityKey
from workers.live.connection import AnyRedis
from workers.live.keys import Keys
from workers.live.lua_script import LuaScript, Unit

_REV = struct.Struct(">q")
_DELETE: LuaScript[int] = LuaScript("delete_entities.lua")


class EntityRemoval:
    """Deletes documents with all that belongs to them; raises Transient."""

    def __init__(self, redis: AnyRedis, keys: Keys, *, cluster: bool = False) -> None:
        self._redis = redis
        self._keys = keys
        self._cluster = cluster

    async def delete_if_rev(
        self, rows: Sequence[tuple[EntityKey, int]], spaces: Sequence[str]
    ) -> list[bool]:
        """Delete each entity whose document has the given revision, or none: all in one step.

        Document, what was seen, trace and the vectors in `spaces` go together. False means that
        the document changed since: nothing of that entity was touched.
        """
        units = [
            Unit(
                (
                    self._keys.doc(key),
                    self._keys.seen(key),
                    self._keys.trace(key),
                    *(self._keys.vec(space, key) for space in spaces),
                ),
                (_REV.pack(rev), 2 + len(spaces)),
            )
            for key, rev in rows
        ]
        return [bool(done) for done in await _DELETE.run(self._redis, units, cluster=self._cluster)]
