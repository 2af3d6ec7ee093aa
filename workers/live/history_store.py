"""Users' histories in Redis: joined there, in one step, with what came in.

The script `append_history.lua` does what `History.join` says; the definition, and the reason why
order, repetition and batching do not matter, are in `schemas/history.py`.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence

from schemas.entities import EntityKey
from schemas.errors import Transient
from schemas.history import History, HistoryBounds, distinct
from schemas.topics import DAY_MS, REMOVED_MARKER_DAYS
from workers.live.connection import DEPENDENCY, AnyRedis, Command, round_trip, translated
from workers.live.history_records import AppliedHistory, HistoryChange
from workers.live.keys import Keys, tagged
from workers.live.lua_script import LuaScript, Unit

__all__ = ["AppliedHistory", "HistoryChange", "HistoryStore"]

ERASURE_MARK_MS = (REMOVED_MARKER_DAYS + 1) * DAY_MS
"""An erasure is remembered at least as long as any topic may bring back what it erased."""

_HISTORIES_PER_CALL = 64
"""A call of histories of 200 events blocks Redis for a millisecond, with late events for two."""

_SCAN_COUNT = 1_000

_APPEND: LuaScript[tuple[bytes, int, int]] = LuaScript(
    "append_history.lua", units_per_call=_HISTORIES_PER_CALL
)


class HistoryStore:
    """Histories by batches of users, one round trip each (two on a cluster); raises Transient.

    Args:
        redis: a client whose connections are fenced, in a lane.
        keys: key names.
        bounds: how much of a user is kept.
        idle_ms: a history goes this long after its last change (an erasure's mark not before
            `ERASURE_MARK_MS`).
        cluster: every user becomes a call of their own, because calls cannot span hash slots.
    """

    def __init__(
        self,
        redis: AnyRedis,
        keys: Keys,
        bounds: HistoryBounds,
        idle_ms: int,
        *,
        cluster: bool = False,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._cluster = cluster
        self._limits = (
            bounds.max_events,
            bounds.max_per_minute,
            idle_ms,
            max(idle_ms, ERASURE_MARK_MS),
        )

    async def apply(
        self, changes: Sequence[HistoryChange], *, partition_of: Mapping[EntityKey, int]
    ) -> list[AppliedHistory]:
        """Add each change to its user's history and return the histories, in order.

        Users are distinct. Whoever changed is marked as such in their partition, not after the
        change itself: whatever crashes, `DirtyHistories` knows of it. A call that failed may be
        repeated; what it had already changed then counts as unchanged.
        """
        if self._cluster:
            await self._mark(changes, partition_of)
        units = [
            Unit(
                self._names(change.user, partition_of[change.user]),
                (
                    History(
                        0, change.erased_at_ms, distinct(change.events, change.erased_at_ms)
                    ).encode(),
                ),
            )
            for change in changes
        ]
        return await self._join(units, 1 if self._cluster else 2)

    async def load(self, users: Sequence[EntityKey]) -> list[History | None]:
        """Return the history of each user, in order; None where there is none."""
        if not users:
            return []
        names = [self._keys.history(user) for user in users]
        if self._cluster:
            values = await round_trip(self._redis, [("GET", name) for name in names])
        else:
            (values,) = await round_trip(self._redis, [("MGET", *names)])
        return [None if value is None else _decoded(value) for value in values]

    async def restore(self, rows: Sequence[tuple[EntityKey, History]]) -> list[History]:
        """Join published histories into what is stored and return the results, in order.

        The revision is the greater of the two; it grows when that one's content is not the result.
        Nobody is marked as changed.
        """
        units = [
            Unit(
                (self._keys.history(user),),
                (
                    History(
                        published.rev,
                        published.erased_at_ms,
                        distinct(published.events, published.erased_at_ms),
                    ).encode(),
                ),
            )
            for user, published in rows
        ]
        return [applied.history for applied in await self._join(units, 1)]

    async def delete(self, users: Sequence[EntityKey]) -> None:
        """Delete histories, erasure marks included, and what the gate remembers of the users."""
        await round_trip(
            self._redis,
            [("UNLINK", self._keys.history(user), self._keys.gate(user)) for user in users],
        )

    async def scan(self) -> AsyncIterator[EntityKey]:
        """Yield every user with a history or a mark, some perhaps twice (SCAN's guarantee)."""
        with translated():
            found = self._redis.scan_iter(match=self._keys.histories_pattern(), count=_SCAN_COUNT)
            async for name in found:
                yield EntityKey.parse(tagged(name))

    async def _mark(
        self, changes: Sequence[HistoryChange], partition_of: Mapping[EntityKey, int]
    ) -> None:
        users: defaultdict[int, list[str]] = defaultdict(list)
        for change in changes:
            users[partition_of[change.user]].append(str(change.user))
        commands: list[Command] = [
            ("SADD", self._keys.histories_dirty(partition), *changed)
            for partition, changed in users.items()
        ]
        await round_trip(self._redis, commands)

    def _names(self, user: EntityKey, partition: int) -> tuple[str, ...]:
        if self._cluster:
            return (self._keys.history(user),)
        return self._keys.history(user), self._keys.histories_dirty(partition)

    async def _join(self, units: Sequence[Unit], keys_each: int) -> list[AppliedHistory]:
        answers = await _APPEND.run(
            self._redis, units, cluster=self._cluster, shared=(keys_each, *self._limits)
        )
        return [
            AppliedHistory(_decoded(stored), bool(changed), limited)
            for stored, changed, limited in answers
        ]


def _decoded(stored: bytes) -> History:
    try:
        return History.decode(stored)
    except ValueError as error:
        # Not Permanent: the records being handled are blameless, and a newer version of this
        # program may have written what this one cannot read. No user is named: this is logged.
        raise Transient(DEPENDENCY, f"a history does not decode: {error}") from error
