"""The tokens that all workers together spent, by the hour.

Not in any topic: a Redis that lost it starts from nothing.
"""

from workers.live.connection import AnyRedis, round_trip
from workers.live.keys import Keys

HOURS_KEPT_MS = 48 * 3_600_000


class BudgetStore:
    """Counts, one round trip a call; raises Transient."""

    def __init__(self, redis: AnyRedis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def add(self, hour: str, tokens: int) -> int:
        """Count tokens (perhaps none) of an hour (yyyymmddhh); return how many it are by now."""
        name = self._keys.budget_tokens(hour)
        total, _ = await round_trip(
            self._redis, [("INCRBY", name, tokens), ("PEXPIRE", name, HOURS_KEPT_MS)]
        )
        return int(total)
