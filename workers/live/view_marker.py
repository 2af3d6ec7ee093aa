"""The marker that says: the view in this Redis is whole.

Whoever rebuilt or verified the view stamps it; an emptied Redis has no stamp. Readers that build
on documents look for it around their reads.
"""

import time
from collections.abc import Callable
from uuid import uuid4

from schemas.errors import Transient
from workers.live.connection import DEPENDENCY, AnyRedis, Command, round_trip
from workers.live.keys import Keys

_STAMP = "stamp"
_STAMPED_AT_MS = "stamped_at_ms"


class ViewLost(Transient):
    """The view in Redis is not whole: documents that are missing may exist in the topics."""

    def __init__(self) -> None:
        super().__init__(DEPENDENCY, "the view is not whole: it must be rebuilt or verified")


def wall_clock_ms() -> int:
    """Return milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class ViewMarker:
    """Sets, clears and finds the marker."""

    def __init__(
        self, redis: AnyRedis, keys: Keys, *, now_ms: Callable[[], int] = wall_clock_ms
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._now_ms = now_ms

    async def stamp(self) -> str:
        """Declare the view whole and return the stamp. Every one differs from those before."""
        stamp, now = uuid4().hex, self._now_ms()
        fields: Command = ("HSET", self._keys.view(), _STAMP, stamp, _STAMPED_AT_MS, now)
        await round_trip(self._redis, [fields])
        return stamp

    async def current(self) -> str | None:
        """Return the stamp of the view, None when it is not declared whole."""
        (stamp,) = await round_trip(self._redis, [stamp_command(self._keys)])
        return None if stamp is None else stamp.decode()

    async def present(self) -> bool:
        """Whether the view is declared whole."""
        return await self.current() is not None

    async def stamped_at_ms(self) -> int | None:
        """Return when the view was declared whole, None when it is not."""
        (at_ms,) = await round_trip(self._redis, [("HGET", self._keys.view(), _STAMPED_AT_MS)])
        return None if at_ms is None else int(at_ms)

    async def clear(self) -> None:
        """Declare the view not whole: a rebuild begins."""
        await round_trip(self._redis, [("DEL", self._keys.view())])


def stamp_command(keys: Keys) -> Command:
    """Return the command whose reply is the current stamp, None when there is none."""
    return ("HGET", keys.view(), _STAMP)
