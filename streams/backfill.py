"""What the lane of a new space makes user vectors with, while the space's items are on their way.

User vectors are made from item vectors of their own space. Of an item that has none there yet, the
raw parts go through the space's adaptor, as they will when the item's own turn comes.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Protocol

import numpy as np
import numpy.typing as npt

from schemas.entities import EntityKey, EntityKind
from schemas.spaces import Space
from streams.lanes.encode import SpacesPort
from streams.lanes.entity_plan import RawParts, raw_parts
from streams.lanes.prepared_items import ItemVectorsPort
from streams.lanes.vector_rules import is_described, is_from_histories
from streams.lanes.vectors import AdaptorPort
from workers.live.entity_records import StoredEntity
from workers.live.items_read import ItemsRead
from workers.towers.load_towers import TowerOptions, tower_of
from workers.towers.user_tower import UserTower

ITEMS_AT_ONCE = 512
"""Items whose parts are read together: at 2,688 values each 6 MB."""


class EntitiesPort(Protocol):
    """Where documents and raw parts are read."""

    async def load(self, keys: Sequence[EntityKey], raw_space: str | None) -> list[StoredEntity]:
        """Return what is stored of each entity, in order; raises Transient."""


class BackfilledItems:
    """An ItemVectorsPort: item vectors of a space as they are, or as they are going to be."""

    def __init__(
        self,
        items: ItemVectorsPort,
        *,
        entities: EntitiesPort,
        spaces: SpacesPort,
        executor: Executor,
    ) -> None:
        self._items = items
        self._entities = entities
        self._spaces = spaces
        self._executor = executor

    async def read(
        self, space: Space, items: Sequence[EntityKey]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Return (m, dim) values, zeros where the (m,) mask is False; raises Transient."""
        values, found = await self._items.read(space, items)
        adaptor = next((one for one in self._spaces.adaptors() if one.space == space), None)
        if adaptor is None:
            return values, found
        lacking = np.flatnonzero(~found)
        for start in range(0, len(lacking), ITEMS_AT_ONCE):
            await self._make(adaptor, items, lacking[start : start + ITEMS_AT_ONCE], values, found)
        return values, found

    async def read_unless(
        self, space: Space, items: Sequence[EntityKey], tags: Sequence[bytes]
    ) -> ItemsRead:
        """Return the values that are not those with the (m,) tags; raises Transient.

        As they are: it is asked of spaces that towers make other spaces' users from, and those are
        not on their way.
        """
        return await self._items.read_unless(space, items, tags)

    async def _make(
        self,
        adaptor: AdaptorPort,
        items: Sequence[EntityKey],
        rows: npt.NDArray[np.intp],
        values: npt.NDArray[np.float32],
        found: npt.NDArray[np.bool_],
    ) -> None:
        """Fill in those of `rows` that have parts."""
        raw = self._spaces.raw
        stored = await self._entities.load([items[row] for row in rows.tolist()], raw.name)
        known = [
            (row, parts)
            for row, entity in zip(rows.tolist(), stored, strict=True)
            if is_described(entity.key, entity.document, raw.parts)
            and (parts := raw_parts(entity, raw)) is not None
        ]
        if known:
            loop = asyncio.get_running_loop()
            made = await loop.run_in_executor(
                self._executor, _through, adaptor, [parts for _, parts in known]
            )
            at = [row for row, _ in known]
            values[at], found[at] = made, True


def _through(adaptor: AdaptorPort, parts: Sequence[RawParts]) -> npt.NDArray[np.float32]:
    """Return (n, dim) as they would be stored. Runs in the executor."""
    made = adaptor.apply(
        np.stack([one.values for one in parts]).astype(np.float32),
        np.stack([one.mask for one in parts]),
    )
    return made.astype(adaptor.space.dtype).astype(np.float32)


class OwnTower:
    """A TowersPort of one space: its tower while it is to be written from histories, then none."""

    def __init__(self, space: str, spaces: SpacesPort, options: TowerOptions) -> None:
        self._space = space
        self._spaces = spaces
        self._options = options
        self._tower: UserTower | None = None

    def towers(self) -> Sequence[UserTower]:
        """Return the space's tower; raises Transient while the spaces are not known."""
        return [
            self._of(adaptor.space)
            for adaptor in self._spaces.adaptors()
            if adaptor.space.name == self._space
            and is_from_histories(adaptor.space, EntityKind.USER)
        ]

    def _of(self, space: Space) -> UserTower:
        if self._tower is None or self._tower.space != space:
            self._tower = tower_of(space, self._options)
        return self._tower
