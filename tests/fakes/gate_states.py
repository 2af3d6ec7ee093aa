"""The gate's states and the count of all calls, in memory."""

import asyncio
from collections import Counter, deque
from collections.abc import Sequence

from schemas.entities import EntityKey


class InMemoryGateStates:
    """As workers.live.gate_store.GateStore. The next stores raise `failures`, one each."""

    def __init__(self) -> None:
        self.rows: dict[EntityKey, bytes] = {}
        self.ttls: dict[EntityKey, int] = {}
        self.counted: Counter[str] = Counter()
        self.failures: deque[Exception] = deque()
        self.loads = 0

    async def load(self, users: Sequence[EntityKey]) -> list[bytes | None]:
        self.loads += 1
        await asyncio.sleep(0)
        return [self.rows.get(user) for user in users]

    async def store(self, rows: Sequence[tuple[EntityKey, bytes]], ttl_ms: int) -> None:
        await asyncio.sleep(0)
        if self.failures:
            raise self.failures.popleft()
        for user, state in rows:
            self.rows[user] = state
            self.ttls[user] = ttl_ms

    async def delete(self, users: Sequence[EntityKey]) -> None:
        await asyncio.sleep(0)
        for user in users:
            self.rows.pop(user, None)

    async def calls(self, day: str) -> int:
        await asyncio.sleep(0)
        return self.counted[day]

    async def add_call(self, day: str) -> int:
        await asyncio.sleep(0)
        self.counted[day] += 1
        return self.counted[day]
