"""What a lane's guard sees of Redis: an unfenced client looks, a fenced client writes."""

from collections.abc import Mapping

from redis.asyncio import Redis

from workers.live.checkpoints import Checkpoints
from workers.live.connection import RedisFence, run_id
from workers.live.keys import Keys
from workers.live.view_marker import ViewLost, ViewMarker
from workers.live.view_partitions import ViewPartitions

Offsets = dict[tuple[str, int], int]


class GuardedView:
    """The state of the view, and the fence before it; raises Transient."""

    def __init__(
        self, probe: Redis, fenced: Redis, fence: RedisFence, keys: Keys, *, group: str
    ) -> None:
        self._probe = probe
        self._fence = fence
        self._group = group
        self._partitions = ViewPartitions(probe, keys)
        self._marker = ViewMarker(probe, keys)
        self._checkpoints = Checkpoints(probe, keys)
        self._fenced_partitions = ViewPartitions(fenced, keys)
        self._fenced_marker = ViewMarker(fenced, keys)
        self._fenced_checkpoints = Checkpoints(fenced, keys)

    async def run_id(self) -> str:
        """Return the run id of the Redis that answers."""
        return await run_id(self._probe)

    async def verified(self) -> dict[int, str]:
        """Return partition -> run id that it was verified in."""
        return await self._partitions.load()

    async def verify(self, partition: int, run_id: str) -> None:
        """Note a partition as whole."""
        await self._fenced_partitions.verify(partition, run_id)

    async def current_stamp(self) -> str | None:
        """Return the view's stamp, None when it is not declared whole."""
        return await self._marker.current()

    async def stamp(self) -> str:
        """Declare the view whole; return the stamp."""
        return await self._fenced_marker.stamp()

    async def is_current(self) -> bool:
        """Return whether Redis still holds the view that was admitted."""
        stamp = self._fence.verified_stamp
        return stamp is not None and await self._fenced_marker.current() == stamp

    async def checkpoints(self) -> Offsets:
        """Return the lane's checkpoints."""
        return await self._checkpoints.load(self._group)

    async def store_checkpoints(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """Store checkpoints in the view that was admitted; raises ViewLost in any other."""
        await _store(self._fenced_checkpoints, self._group, offsets, self._fence)

    def admit(self, run_id: str | None, stamp: str | None) -> None:
        """Let fenced clients talk to this Redis process only (None: to none at all).

        Checkpoints go only into the view with this stamp.
        """
        self._fence.verified_run_id = run_id
        self._fence.verified_stamp = stamp


class GroupCheckpoints:
    """The engine's CheckpointSink: one group's settled offsets, through the fenced client.

    They go only into the view that the fence names; wherever Redis leads, without a fence.
    """

    def __init__(
        self, redis: Redis, keys: Keys, *, group: str, fence: RedisFence | None = None
    ) -> None:
        self._checkpoints = Checkpoints(redis, keys)
        self._group = group
        self._fence = fence

    async def store(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """Keep the next offset of each (topic, partition); raises Transient."""
        if self._fence is None:
            await self._checkpoints.store(self._group, offsets)
        else:
            await _store(self._checkpoints, self._group, offsets, self._fence)


async def _store(
    checkpoints: Checkpoints, group: str, offsets: Mapping[tuple[str, int], int], fence: RedisFence
) -> None:
    if fence.verified_stamp is None:
        raise ViewLost
    await checkpoints.store_in_view(group, offsets, fence.verified_stamp)
