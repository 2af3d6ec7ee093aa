"""Users who wait for an item: it is in their history, but has no vector yet."""

from collections import defaultdict
from collections.abc import Sequence

from schemas.entities import EntityKey
from workers.live.connection import AnyRedis, Command, round_trip
from workers.live.keys import Keys

USERS_PER_ITEM = 1_000
"""More wait in vain: their next event makes their vectors again anyway."""

KEPT_MS = 86_400_000
"""An item without a vector a day after somebody met it is not in the catalogue."""


class AwaitedItems:
    """One round trip for each call; raises Transient."""

    def __init__(self, redis: AnyRedis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def add(self, pairs: Sequence[tuple[EntityKey, EntityKey]], now_ms: int) -> None:
        """Let users wait for items, given as (item, user); of too many the newest stay."""
        users: defaultdict[EntityKey, list[EntityKey]] = defaultdict(list)
        for item, user in pairs:
            users[item].append(user)
        commands: list[Command] = []
        for item, waiting in users.items():
            name = self._keys.awaiting(item)
            scored = [value for user in waiting for value in (now_ms, str(user))]
            commands += [
                ("ZADD", name, *scored),
                ("ZREMRANGEBYRANK", name, 0, -USERS_PER_ITEM - 1),
                ("PEXPIRE", name, KEPT_MS),
            ]
        await round_trip(self._redis, commands)

    async def users(self, items: Sequence[EntityKey]) -> dict[EntityKey, list[EntityKey]]:
        """Return who waits for each item, longest first; items nobody waits for are left out."""
        replies = await round_trip(
            self._redis, [("ZRANGE", self._keys.awaiting(item), 0, -1) for item in items]
        )
        return {
            item: [EntityKey.parse(member) for member in members]
            for item, members in zip(items, replies, strict=True)
            if members
        }

    async def served(self, item: EntityKey, users: Sequence[EntityKey]) -> None:
        """Note that users wait for the item no longer: their vectors know it."""
        if users:
            name = self._keys.awaiting(item)
            await round_trip(self._redis, [("ZREM", name, *map(str, users))])

    async def forget(self, user: EntityKey, items: Sequence[EntityKey]) -> None:
        """Let a user wait for none of the items any more."""
        await round_trip(
            self._redis, [("ZREM", self._keys.awaiting(item), str(user)) for item in items]
        )
