"""Item vectors as the user towers read them: one array for all items of a batch."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from schemas.entities import EntityKey
from schemas.errors import Transient
from schemas.spaces import Space
from schemas.vector_record import decode_many
from workers.live.connection import DEPENDENCY, AnyRedis, Command, round_trip
from workers.live.keys import Keys

_ITEMS_PER_MGET = 1_000


class ItemVectors:
    """Reads many vectors of one space in one round trip; raises Transient."""

    def __init__(self, redis: AnyRedis, keys: Keys, *, cluster: bool = False) -> None:
        self._redis = redis
        self._keys = keys
        self._cluster = cluster

    async def read(
        self, space: Space, items: Sequence[EntityKey]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Return (m, dim) float32 values and an (m,) mask of the items that have a vector.

        Values of the others are zeros.
        """
        stored = await self._stored(space, items)
        found = np.fromiter((value is not None for value in stored), np.bool_, len(items))
        try:
            records = decode_many(
                [value for value in stored if value is not None], space.dim, space.dtype
            )
        except ValueError as error:
            raise Transient(DEPENDENCY, f"vectors of {space.name}: {error}") from error
        if len(records) == len(items):
            # The usual case: megabytes, converted and copied once.
            return records["vector"].astype(np.float32), found
        values = np.zeros((len(items), space.dim), np.float32)
        values[found] = records["vector"]
        return values, found

    async def _stored(self, space: Space, items: Sequence[EntityKey]) -> list[bytes | None]:
        before, after = self._keys.vec_affixes(space.name)
        names = [f"{before}{item}{after}" for item in items]
        if self._cluster:
            return await round_trip(self._redis, [("GET", name) for name in names])
        commands: list[Command] = [
            ("MGET", *names[start : start + _ITEMS_PER_MGET])
            for start in range(0, len(names), _ITEMS_PER_MGET)
        ]
        return [value for reply in await round_trip(self._redis, commands) for value in reply]
