"""Which users changed, in memory: as workers.live.dirty_histories.DirtyHistories on one primary."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Sequence

from schemas.entities import EntityKey
from tests.fakes.histories import InMemoryHistories


class InMemoryMarks:
    """The marks that InMemoryHistories sets; the next calls of `done` raise `failures`.

    `after_begin` runs once marks were taken over.
    """

    def __init__(self, histories: InMemoryHistories) -> None:
        self._histories = histories
        self.taken: defaultdict[int, set[EntityKey]] = defaultdict(set)
        self.failures: deque[Exception] = deque()
        self.after_begin: Callable[[], None] | None = None

    def marked(self, partition: int) -> set[EntityKey]:
        return self._histories.dirty[partition] | self.taken[partition]

    async def begin(self, partition: int) -> bool:
        await asyncio.sleep(0)
        if not self.taken[partition]:
            self.taken[partition] = self._histories.dirty.pop(partition, set())
        if self.after_begin is not None:
            self.after_begin()
        return bool(self.taken[partition])

    async def batch(self, partition: int, size: int) -> list[EntityKey]:
        await asyncio.sleep(0)
        return sorted(self.taken[partition])[:size]

    async def done(self, partition: int, users: Sequence[tuple[EntityKey, int]]) -> None:
        await asyncio.sleep(0)
        if self.failures:
            raise self.failures.popleft()
        for user, rev in users:
            history = self._histories.of(user)
            if (0 if history is None else history.rev) != rev:
                self._histories.dirty[partition].add(user)
            self.taken[partition].discard(user)

    async def mark(self, partition: int, users: Sequence[EntityKey]) -> None:
        await asyncio.sleep(0)
        self._histories.dirty[partition].update(users)
