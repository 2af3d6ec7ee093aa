"""Which users' histories changed since they were last published, by partition of the input.

`HistoryStore` marks users; whoever publishes takes them over with `begin`, reads them by `batch`
and takes the mark from those that are published with `done`. A crash in between loses no mark, nor
do two publishers of one partition: a history that is not the published one keeps its mark.
"""

import struct
from collections.abc import Sequence

from schemas.entities import EntityKey
from workers.live.connection import AnyRedis, round_trip
from workers.live.keys import Keys
from workers.live.lua_script import LuaScript, Unit

_REV = struct.Struct(">q")
_NO_REV = _REV.pack(0)
_REV_FROM, _REV_TO = 1, 8  # where a stored history holds it

_FINISH: LuaScript[int] = LuaScript("finish_flush.lua")
_BEGIN: LuaScript[int] = LuaScript("begin_flush.lua")


class DirtyHistories:
    """Takes over and clears the marks of one partition after the other; raises Transient."""

    def __init__(self, redis: AnyRedis, keys: Keys, *, cluster: bool = False) -> None:
        self._redis = redis
        self._keys = keys
        self._cluster = cluster

    async def begin(self, partition: int) -> bool:
        """Take over the users marked until now; False when there are none.

        What an earlier flush left behind goes first: users marked since wait for the next one.
        """
        keys = self._keys.histories_dirty(partition), self._keys.histories_flushing(partition)
        (found,) = await _BEGIN.run(self._redis, [Unit(keys, ())], cluster=self._cluster)
        return bool(found)

    async def batch(self, partition: int, size: int) -> list[EntityKey]:
        """Return up to `size` users taken over and not yet done, none when all are."""
        (members,) = await round_trip(
            self._redis, [("SRANDMEMBER", self._keys.histories_flushing(partition), size)]
        )
        return [EntityKey.parse(member) for member in members]

    async def done(self, partition: int, users: Sequence[tuple[EntityKey, int]]) -> None:
        """Take the mark from users whose history is published as of a revision (0: none is there).

        A user with another revision by now is marked again.
        """
        if self._cluster:
            await self._done_one_by_one(partition, users)
            return
        taken = self._keys.histories_flushing(partition)
        marked = self._keys.histories_dirty(partition)
        units = [
            Unit((taken, marked, self._keys.history(user)), (user.encode(), _REV.pack(rev)))
            for user, rev in users
        ]
        await _FINISH.run(self._redis, units, cluster=False)

    async def _done_one_by_one(
        self, partition: int, users: Sequence[tuple[EntityKey, int]]
    ) -> None:
        if not users:
            return
        revs = await round_trip(
            self._redis,
            [("GETRANGE", self._keys.history(user), _REV_FROM, _REV_TO) for user, _ in users],
        )
        await self.mark(
            partition,
            [
                user
                for (user, rev), stored in zip(users, revs, strict=True)
                if (stored or _NO_REV) != _REV.pack(rev)
            ],
        )
        # Last: a crash in between leaves a mark too many.
        taken = self._keys.histories_flushing(partition)
        await round_trip(self._redis, [("SREM", taken, *(str(user) for user, _ in users))])

    async def mark(self, partition: int, users: Sequence[EntityKey]) -> None:
        """Mark users as changed, whatever their histories are."""
        if users:
            name = self._keys.histories_dirty(partition)
            await round_trip(self._redis, [("SADD", name, *map(str, users))])

    async def marked(self, partition: int, users: Sequence[EntityKey]) -> list[bool]:
        """Return, in order, which users are marked or taken over."""
        if not users:
            return []
        members = [str(user) for user in users]
        names = self._keys.histories_dirty(partition), self._keys.histories_flushing(partition)
        dirty, taken = await round_trip(
            self._redis, [("SMISMEMBER", name, *members) for name in names]
        )
        return [bool(one or other) for one, other in zip(dirty, taken, strict=True)]

    async def count(self, partition: int) -> int:
        """Return how many users are marked or taken over: the publisher's backlog."""
        names = self._keys.histories_dirty(partition), self._keys.histories_flushing(partition)
        return sum(await round_trip(self._redis, [("SCARD", name) for name in names]))
