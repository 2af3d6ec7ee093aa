"""What user towers make of items before they know of any user, remembered while items stay as is.

Batch after batch brings the same items, and a trained tower reads kilobytes of each and puts them
through its network. What comes of it is kept, and at every use the store is asked whether the
item's vector is still the one that it was made from.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from schemas.entities import EntityKey
from schemas.spaces import Space
from workers.live.items_read import NO_TAG, ItemsRead
from workers.towers.user_tower import Array, Mask, UserTower

REMEMBERED_BYTES = 64 * 2**20
"""A space: 9,700 items of a `learn` space, 55,000 of a `reki` space."""


class ItemVectorsPort(Protocol):
    """Where item vectors are read."""

    async def read(self, space: Space, items: Sequence[EntityKey]) -> tuple[Array, Mask]:
        """Return (m, dim) values, zeros where the (m,) mask is False; raises Transient."""

    async def read_unless(
        self, space: Space, items: Sequence[EntityKey], tags: Sequence[bytes]
    ) -> ItemsRead:
        """Return the values that are not those with the (m,) tags; raises Transient."""


class _Prepared(NamedTuple):
    tag: bytes
    row: Array


_Remembered: TypeAlias = dict[str, _Prepared]
"""By item id, the longest known first."""


class PreparedItems:
    """Reads items as towers take them.

    Args:
        items: item vectors.
        executor: where towers run.
        remembered_bytes: bounds what is remembered of a space.
    """

    def __init__(
        self,
        items: ItemVectorsPort,
        executor: Executor,
        *,
        remembered_bytes: int = REMEMBERED_BYTES,
    ) -> None:
        self._items = items
        self._executor = executor
        self._remembered_bytes = remembered_bytes
        self._spaces: dict[str, tuple[UserTower, _Remembered]] = {}

    def follow(self, towers: Sequence[UserTower]) -> None:
        """Forget what was remembered for other towers."""
        self._spaces = {
            name: (tower, remembered)
            for name, (tower, remembered) in self._spaces.items()
            if any(tower is one for one in towers)
        }

    async def read(self, tower: UserTower, items: Sequence[EntityKey]) -> tuple[Array, Mask]:
        """Return (m, w) as the tower prepares them, zeros where the (m,) mask is False.

        As the store has them at the time of the call, or later. Raises Transient.
        """
        if not items:
            return np.zeros((0, tower.prepared_dim), np.float32), np.zeros(0, np.bool_)
        source = tower.input_space
        if source == tower.space:
            # Small, and there is nothing to prepare: reading is cheaper than asking.
            return await self._items.read(source, items)
        remembered = self._remembered(tower)
        known = [remembered.get(item.id) for item in items]
        tags = [NO_TAG if one is None else one.tag for one in known]
        read = await self._items.read_unless(source, items, tags)
        values = np.zeros((len(items), tower.prepared_dim), np.float32)
        same = read.found.copy()
        same[read.rows] = False
        if same.any():
            values[same] = _rows(known, np.flatnonzero(same))
        if len(read.rows):
            loop = asyncio.get_running_loop()
            new = await loop.run_in_executor(self._executor, tower.prepare, read.values)
            values[read.rows] = new
            ids = [items[row].id for row in read.rows.tolist()]
            self._remember(remembered, ids, read.tags, new)
        return values, read.found

    def _remember(
        self, remembered: _Remembered, ids: Sequence[str], tags: Sequence[bytes], rows: Array
    ) -> None:
        for id_, tag, row in zip(ids, tags, rows, strict=True):
            remembered.pop(id_, None)
            if tag != NO_TAG:
                # A copy: a slice would keep all the others, too.
                remembered[id_] = _Prepared(tag, row.copy())
        # Whoever was met first goes first: an order by last use would cost more than it saves.
        while len(remembered) * rows.itemsize * rows.shape[1] > self._remembered_bytes:
            del remembered[next(iter(remembered))]

    def _remembered(self, tower: UserTower) -> _Remembered:
        known, remembered = self._spaces.get(tower.space.name, (None, {}))
        if known is not tower:
            remembered = {}
            self._spaces[tower.space.name] = tower, remembered
        return remembered


def _rows(known: Sequence[_Prepared | None], places: npt.NDArray[np.intp]) -> Array:
    """Return (n, w): what is known of the items at these places."""
    rows = [one.row for place in places.tolist() if (one := known[place]) is not None]
    return np.concatenate(rows).reshape(len(places), -1)
