"""The Redis stores of the behaviour lane, in memory: the same joins, revisions and types."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from schemas.entities import EntityKey
from schemas.history import History, HistoryBounds, bounded_and_limited
from schemas.spaces import Space
from schemas.vector_record import VectorRecord
from streams.engine.ports import Clock
from tests.fakes.stores import InMemoryEntityStore
from workers.live.history_records import AppliedHistory, HistoryChange
from workers.live.items_read import NO_TAG, ItemsRead, tag_of


class InMemoryHistories:
    """As workers.live.history_store.HistoryStore, with `schemas.history` in place of Lua.

    Histories pass through their bytes as they do there. The next calls raise `failures`, one each;
    `after_load` runs once a load was answered: the place for another worker to come in between.
    """

    def __init__(self, clock: Clock, bounds: HistoryBounds) -> None:
        self.stored: dict[EntityKey, bytes] = {}
        self.dirty: defaultdict[int, set[EntityKey]] = defaultdict(set)
        self.failures: deque[Exception] = deque()
        self.after_load: Callable[[], None] | None = None
        self.applied: list[list[HistoryChange]] = []
        self._clock = clock
        self._bounds = bounds

    async def apply(
        self, changes: Sequence[HistoryChange], *, partition_of: Mapping[EntityKey, int]
    ) -> list[AppliedHistory]:
        await self._take_a_turn()
        self.applied.append(list(changes))
        assert len({change.user for change in changes}) == len(changes)
        for change in changes:
            self.dirty[partition_of[change.user]].add(change.user)
        return [self.apply_now(change) for change in changes]

    async def load(self, users: Sequence[EntityKey]) -> list[History | None]:
        await self._take_a_turn()
        loaded = [self.of(user) for user in users]
        if self.after_load is not None:
            self.after_load()
        return loaded

    def of(self, user: EntityKey) -> History | None:
        stored = self.stored.get(user)
        return None if stored is None else History.decode(stored)

    def apply_now(self, change: HistoryChange) -> AppliedHistory:
        before = self.of(change.user) or History()
        joined = before.join(change.events, change.erased_at_ms, self._bounds)
        changed = change.user not in self.stored or joined != before
        rev = max(before.rev + 1, self._clock.now_ms()) if changed else before.rev
        history = History(rev, joined.erased_at_ms, joined.events)
        self.stored[change.user] = history.encode()
        _, limited = bounded_and_limited(
            (*before.events, *change.events), history.erased_at_ms, self._bounds
        )
        return AppliedHistory(history, changed, limited)

    async def _take_a_turn(self) -> None:
        await asyncio.sleep(0)
        if self.failures:
            raise self.failures.popleft()


class InMemoryAwaited:
    """As workers.live.awaited_items.AwaitedItems, without bounds."""

    def __init__(self) -> None:
        self.waiting: defaultdict[EntityKey, dict[EntityKey, int]] = defaultdict(dict)

    async def add(self, pairs: Sequence[tuple[EntityKey, EntityKey]], now_ms: int) -> None:
        await asyncio.sleep(0)
        for item, user in pairs:
            self.waiting[item][user] = now_ms

    async def users(self, items: Sequence[EntityKey]) -> dict[EntityKey, list[EntityKey]]:
        await asyncio.sleep(0)
        return {item: list(self.waiting[item]) for item in items if self.waiting.get(item)}

    async def served(self, item: EntityKey, users: Sequence[EntityKey]) -> None:
        await asyncio.sleep(0)
        for user in users:
            self.waiting[item].pop(user, None)

    async def forget(self, user: EntityKey, items: Sequence[EntityKey]) -> None:
        await asyncio.sleep(0)
        for item in items:
            self.waiting[item].pop(user, None)

    def of(self, user: EntityKey) -> set[EntityKey]:
        return {item for item, users in self.waiting.items() if user in users}


class StoredItemVectors:
    """As workers.live.item_vectors.ItemVectors, over the vectors of an InMemoryEntityStore.

    `reads` are the items asked for, `sent` those whose vector was answered, in all; `after_read`
    runs once a read was answered.
    """

    def __init__(self, store: InMemoryEntityStore) -> None:
        self.reads: list[list[EntityKey]] = []
        self.sent: list[EntityKey] = []
        self.after_read: Callable[[], None] | None = None
        self._store = store

    async def read(self, space: Space, items: Sequence[EntityKey]) -> tuple[np.ndarray, np.ndarray]:
        read = await self.read_unless(space, items, [NO_TAG] * len(items))
        values = np.zeros((len(items), space.dim), np.float32)
        values[read.rows] = read.values
        return values, read.found

    async def read_unless(
        self, space: Space, items: Sequence[EntityKey], tags: Sequence[bytes]
    ) -> ItemsRead:
        await asyncio.sleep(0)
        self.reads.append(list(items))
        stored = [self._store.vectors.get((space.name, item)) for item in items]
        sent = {
            row: record
            for row, (record, tag) in enumerate(zip(stored, tags, strict=True))
            if record is not None and tag_of(record) != tag
        }
        self.sent += [items[row] for row in sent]
        vectors = [VectorRecord.decode(record).vector for record in sent.values()]
        values = np.array(vectors, np.float32).reshape(len(sent), space.dim)
        found = np.array([record is not None for record in stored], np.bool_)
        if self.after_read is not None:
            self.after_read()
        tags = [tag_of(record) for record in sent.values()]
        return ItemsRead(found, np.array(list(sent), np.intp), values, tags)
