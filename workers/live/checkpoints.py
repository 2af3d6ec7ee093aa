"""Settled offsets, kept in Redis beside what they stand for.

When they are missing or behind the committed offsets, this Redis is older than Kafka believes.
"""

from collections.abc import Mapping

from workers.live.connection import AnyRedis, round_trip
from workers.live.keys import Keys


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
        fields = [
            value
            for (topic, partition), offset in offsets.items()
            for value in (f"{topic}:{partition}", offset)
        ]
        if fields:
            await round_trip(self._redis, [("HSET", self._keys.checkpoint(group), *fields)])

    async def forget(self, group: str) -> None:
        """Forget the group: the next assignment takes this Redis for empty."""
        await round_trip(self._redis, [("DEL", self._keys.checkpoint(group))])


def _partition(field: bytes) -> tuple[str, int]:
    topic, _, partition = field.decode().rpartition(":")  # topic names hold no colon
    return topic, int(partition)
