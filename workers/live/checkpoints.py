"""Settled offsets, kept in Redis beside what they stand for.

When they are missing or behind the committed offsets, this Redis is older than Kafka believes.
"""

from collections.abc import Mapping

from workers.live.connection import AnyRedis, round_trip
from workers.live.keys import Keys
from workers.live.lua_script import LuaScript, Unit
from workers.live.view_marker import ViewLost

_STORE: LuaScript[int] = LuaScript("store_checkpoint.lua")


class Checkpoints:
    """Next offset to settle of every partition of a consumer group; raises Transient."""

    def __init__(self, redis: AnyRedis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def load(self, group: str) -> dict[tuple[str, int], int]:
        """Return the next offset by (topic, partition); empty when none was stored."""
        (stored,) = await round_trip(self._redis, [("HGETALL", self._keys.checkpoint(group))])
        return {_partition(field): int(offset) for field, offset in stored.items()}

    async def store(self, group: str, offsets: Mapping[tuple[str, int], int]) -> None:
        """Store the next offsets of some partitions, whatever stood there before."""
        fields = _fields(offsets)
        if fields:
            await round_trip(self._redis, [("HSET", self._keys.checkpoint(group), *fields)])

    async def store_in_view(
        self, group: str, offsets: Mapping[tuple[str, int], int], stamp: str
    ) -> None:
        """Store them if the view bears the stamp; raises ViewLost when it does not.

        In an emptied view they would say that what was lost is there.
        """
        fields = _fields(offsets)
        if not fields:
            return
        keys = self._keys.view(), self._keys.checkpoint(group)
        (stored,) = await _STORE.run(
            self._redis, [Unit(keys, (stamp.encode(), *fields))], cluster=False
        )
        if not stored:
            raise ViewLost

    async def forget(self, group: str) -> None:
        """Forget the group: the next assignment takes this Redis for empty."""
        await round_trip(self._redis, [("DEL", self._keys.checkpoint(group))])


def _fields(offsets: Mapping[tuple[str, int], int]) -> list[bytes | int]:
    return [
        value
        for (topic, partition), offset in offsets.items()
        for value in (f"{topic}:{partition}".encode(), offset)
    ]


def _partition(field: bytes) -> tuple[str, int]:
    topic, _, partition = field.decode().rpartition(":")  # topic names hold no colon
    return topic, int(partition)
