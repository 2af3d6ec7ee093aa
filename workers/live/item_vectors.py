"""Item vectors as the user towers read them: one array for all items of a batch."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from schemas.entities import EntityKey
from schemas.errors import Transient
from schemas.spaces import Space
from schemas.vector_record import decode_many
from workers.live.connection import DEPENDENCY, AnyRedis, Command, round_trip
from workers.live.items_read import ItemsRead, tag_of
from workers.live.keys import Keys
from workers.live.lua_script import LuaScript, Unit

_ITEMS_PER_MGET = 1_000

_CHANGED: LuaScript[bytes | int | None] = LuaScript("get_changed.lua")


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
        stored = await self._stored(self._names(space, items))
        found = np.fromiter((value is not None for value in stored), np.bool_, len(items))
        vectors = _vectors(space, [value for value in stored if value is not None])
        if len(vectors) == len(items):
            # The usual case: megabytes, converted and copied once.
            return vectors, found
        values = np.zeros((len(items), space.dim), np.float32)
        values[found] = vectors
        return values, found

    async def read_unless(
        self, space: Space, items: Sequence[EntityKey], tags: Sequence[bytes]
    ) -> ItemsRead:
        """Return the vectors of (m,) items that are not those with the (m,) `tags`.

        Against `read` it saves kilobytes an item that has not changed, and costs more where records
        are small: MGET is the cheaper command.
        """
        units = [
            Unit((name,), (tag,)) for name, tag in zip(self._names(space, items), tags, strict=True)
        ]
        answers = await _CHANGED.run(self._redis, units, cluster=self._cluster)
        found = np.fromiter((answer is not None for answer in answers), np.bool_, len(items))
        rows = [row for row, answer in enumerate(answers) if isinstance(answer, bytes)]
        records = [answer for answer in answers if isinstance(answer, bytes)]
        values = _vectors(space, records)
        return ItemsRead(found, np.array(rows, np.intp), values, [tag_of(one) for one in records])

    def _names(self, space: Space, items: Sequence[EntityKey]) -> list[str]:
        before, after = self._keys.vec_affixes(space.name)
        return [f"{before}{item}{after}" for item in items]

    async def _stored(self, names: Sequence[str]) -> list[bytes | None]:
        if self._cluster:
            return await round_trip(self._redis, [("GET", name) for name in names])
        commands: list[Command] = [
            ("MGET", *names[start : start + _ITEMS_PER_MGET])
            for start in range(0, len(names), _ITEMS_PER_MGET)
        ]
        return [value for reply in await round_trip(self._redis, commands) for value in reply]


def _vectors(space: Space, records: Sequence[bytes]) -> npt.NDArray[np.float32]:
    """Return (n, dim) float32 of stored records; raises Transient for those of another space."""
    try:
        decoded = decode_many(records, space.dim, space.dtype)
    except ValueError as error:
        raise Transient(DEPENDENCY, f"vectors of {space.name}: {error}") from error
    vectors: npt.NDArray[np.float32] = decoded["vector"].astype(np.float32)
    return vectors
