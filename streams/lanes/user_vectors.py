"""User vectors from histories: read the items, let those wait that are not there, run the towers.

Everybody who makes user vectors comes here: the behaviour lane for events, erasures and items that
arrive, and whoever puts histories back. A vector is a function of a history and of item vectors.
"""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from schemas.entities import EntityKey, Stage
from schemas.history import History
from schemas.spaces import Space
from schemas.vector_record import NO_VERSION, VectorHeader, VectorRecord
from streams.engine.ports import Clock
from streams.lanes.laid_histories import LaidHistories, portions
from streams.lanes.prepared_items import ItemVectorsPort, PreparedItems
from workers.towers.significance import Significance
from workers.towers.user_tower import Array, Mask, UserTower

_Row = tuple[EntityKey, int, bytes | None]


class TowersPort(Protocol):
    """The live spaces whose user vectors are made from histories."""

    def towers(self) -> Sequence[UserTower]:
        """Return a tower for each; raises Transient while they are not known."""


class AwaitedPort(Protocol):
    """Which users wait for which items without a vector."""

    async def add(self, pairs: Sequence[tuple[EntityKey, EntityKey]], now_ms: int) -> None:
        """Let users wait for items, given as (item, user); raises Transient."""

    async def users(self, items: Sequence[EntityKey]) -> Mapping[EntityKey, Sequence[EntityKey]]:
        """Return who waits for each item, without items nobody waits for; raises Transient."""

    async def served(self, item: EntityKey, users: Sequence[EntityKey]) -> None:
        """Let these users wait for the item no longer; raises Transient."""

    async def forget(self, user: EntityKey, items: Sequence[EntityKey]) -> None:
        """Let the user wait for none of the items any more; raises Transient."""


class UserVectorStorePort(Protocol):
    """Where user vectors are written."""

    async def put_vectors(
        self,
        space: str,
        rows: Sequence[tuple[EntityKey, int, bytes | None]],
        *,
        ttl_ms: int | None = None,
    ) -> Sequence[bool]:
        """Write (None: delete) vectors unless one of a later revision is stored."""


@dataclass(frozen=True, slots=True)
class MadeVectors:
    """What became of some users: `tastes` holds their vector (dim,) in the first space, or None.

    `missing` items have no vector yet in some space; their users wait for them.
    """

    tastes: Mapping[EntityKey, Array | None] = field(default_factory=dict)
    missing: frozenset[EntityKey] = frozenset()


@dataclass(slots=True)
class VectorCounts:
    """What was counted since the start; `awaited` pairs of a user and an item without a vector."""

    written: int = 0
    deleted: int = 0
    awaited: int = 0


class UserVectors:
    """Makes and writes the vectors of users in every space that takes them from histories.

    Args:
        towers: the spaces, as they are now.
        items: item vectors.
        awaited: who waits for which item.
        store: where the vectors go.
        significance: what an event is worth.
        clock: the wall clock, noted in every vector.
        executor: where towers run; one thread.
        ttl_ms: user vectors go this long after they were written last.
    """

    def __init__(
        self,
        *,
        towers: TowersPort,
        items: ItemVectorsPort,
        awaited: AwaitedPort,
        store: UserVectorStorePort,
        significance: Significance,
        clock: Clock,
        executor: Executor,
        ttl_ms: int,
    ) -> None:
        self._towers = towers
        self._items = PreparedItems(items, executor)
        self._awaited = awaited
        self._store = store
        self._significance = significance
        self._clock = clock
        self._executor = executor
        self._ttl_ms = ttl_ms
        self.counts = VectorCounts()

    def check(self) -> None:
        """Raise Transient while it is not known which spaces there are."""
        self._towers.towers()

    async def put(self, histories: Mapping[EntityKey, History]) -> MadeVectors:
        """Write the users' vectors, delete those that nothing is left for; raises Transient.

        An item that comes while this runs is not lost: either it is found here, or its users wait
        for it by the time it is announced.
        """
        towers = self._towers.towers()
        self._items.follow(towers)
        tastes: dict[EntityKey, Array | None] = {}
        missing: set[EntityKey] = set()
        for users in portions(histories, self._significance):
            made = await self._put(users, towers)
            tastes |= made.tastes
            missing |= made.missing
        return MadeVectors(tastes, frozenset(missing))

    async def _put(self, users: LaidHistories, towers: Sequence[UserTower]) -> MadeVectors:
        items = _ReadItems(users.items, towers)
        await items.read(self._items)
        missing = items.missing()
        if missing:
            pairs = users.who_has(missing)
            self.counts.awaited += len(pairs)
            await self._awaited.add(pairs, self._clock.now_ms())
        tastes = await self._write(users, towers, items)
        # Once more after the vectors are written: what came before its user was known to wait was
        # announced to nobody, and what came later refreshes the user after this.
        while missing:
            await items.read(self._items)
            still_missing = items.missing()
            if len(still_missing) == len(missing):
                break
            missing = still_missing
            tastes = await self._write(users, towers, items)
        return MadeVectors(tastes, frozenset(missing))

    async def _write(
        self, users: LaidHistories, towers: Sequence[UserTower], items: "_ReadItems"
    ) -> dict[EntityKey, Array | None]:
        loop = asyncio.get_running_loop()
        tastes: dict[EntityKey, Array | None] = dict.fromkeys(users.users)
        for first, tower in ((tower is towers[0], tower) for tower in towers):
            values, found = items.of(tower)
            vectors, made = await loop.run_in_executor(
                self._executor, users.through, tower, values, found
            )
            rows = _rows(users, tower.space, vectors, made, self._clock.now_ms())
            await self._store.put_vectors(tower.space.name, rows, ttl_ms=self._ttl_ms)
            self.counts.written += int(made.sum())
            self.counts.deleted += len(rows) - int(made.sum())
            if first:
                tastes |= {
                    user: vector
                    for user, vector, there in zip(users.users, vectors, made, strict=True)
                    if there
                }
        return tastes


class _ReadItems:
    """Distinct items as one or more towers take them, read again only where they lack."""

    def __init__(self, items: Sequence[EntityKey], towers: Sequence[UserTower]) -> None:
        self._items = items
        self._towers = towers
        self._read: dict[str, tuple[Array, Mask]] = {}

    async def read(self, prepared: PreparedItems) -> None:
        """Read what is not there yet."""
        for tower in self._towers:
            name = tower.space.name
            if name not in self._read:
                self._read[name] = await prepared.read(tower, self._items)
                continue
            values, found = self._read[name]
            lacking = np.flatnonzero(~found)
            if lacking.size:
                wanted = [self._items[row] for row in lacking.tolist()]
                values[lacking], found[lacking] = await prepared.read(tower, wanted)

    def of(self, tower: UserTower) -> tuple[Array, Mask]:
        """Return (m, w) values and an (m,) mask."""
        return self._read[tower.space.name]

    def missing(self) -> frozenset[EntityKey]:
        """Return the items that some tower has no vector of."""
        return frozenset(
            self._items[row]
            for _, found in self._read.values()
            for row in np.flatnonzero(~found).tolist()
        )


def _rows(
    users: LaidHistories, space: Space, vectors: Array, made: Mask, written_at_ms: int
) -> list[_Row]:
    """Return what to put: a record where there is a vector, otherwise nothing instead of one."""
    return [
        (
            user,
            history.rev,
            user_record(history, space, vector, written_at_ms) if there else None,
        )
        for user, history, vector, there in zip(
            users.users, users.histories, vectors, made.tolist(), strict=True
        )
    ]


def user_record(history: History, space: Space, vector: Array, written_at_ms: int) -> bytes:
    """Return the stored bytes of a vector (dim,) made from a history."""
    header = VectorHeader(
        stage=Stage.CONTENT,
        dtype=space.dtype,
        dim=space.dim,
        mask=0,
        rev=history.rev,
        content_version=history.rev,
        factors_version=NO_VERSION,
        event_time_ms=history.newest_ms,
        written_at_ms=written_at_ms,
    )
    return VectorRecord(header, vector).encode()
