"""Which partitions of the view are whole, and in which Redis process: verified by their owners.

The view is whole when every partition of `entities` carries the run id of the Redis that answers.
"""

from workers.live.connection import AnyRedis, round_trip
from workers.live.keys import Keys


class ViewPartitions:
    """Run ids by partition, beside the view's marker; raises Transient."""

    def __init__(self, redis: AnyRedis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def load(self) -> dict[int, str]:
        """Return the run id that each verified partition was verified in."""
        (stored,) = await round_trip(self._redis, [("HGETALL", self._keys.view_partitions())])
        return {int(partition): run_id.decode() for partition, run_id in stored.items()}

    async def verify(self, partition: int, run_id: str) -> None:
        """Note that the partition's entities are all here, in the Redis process `run_id`."""
        await round_trip(
            self._redis, [("HSET", self._keys.view_partitions(), str(partition), run_id)]
        )
