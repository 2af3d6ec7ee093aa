"""The calls that may be in flight, and who gets a place that becomes free.

Claims are compared when a place becomes free, not when they are made: a group whose items gathered
meanwhile outranks one that came before it with a single item.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

from schemas.errors import FreshetError

Claim: TypeAlias = Callable[[], tuple[float, float]]
"""How full the call would be (1 is as full as it can get), and how long it has been wanted."""


class NoPlace(FreshetError):
    """No place came in the time that there was for it; nothing was done."""


class CallPlaces:
    """A bounded number of places; a free one goes to the greatest claim, of equals to the first."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: dict[asyncio.Future[None], Claim] = {}

    @asynccontextmanager
    async def place(self, claim: Claim, *, seconds: float | None = None) -> AsyncIterator[None]:
        """Hold a place until the block ends; raises NoPlace when none comes in so many seconds.

        A free one is had at once; with `seconds` None it waits as long as it takes.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._take(claim)
        except TimeoutError:
            raise NoPlace from None
        try:
            yield
        finally:
            self._give_back()

    async def _take(self, claim: Claim) -> None:
        if self._free:  # then nobody waits
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting[turn] = claim
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # the place came, and the cancellation after it
                self._give_back()
            raise
        finally:
            self._waiting.pop(turn, None)

    def _give_back(self) -> None:
        waiting = [turn for turn in self._waiting if not turn.done()]
        if not waiting:
            self._free += 1
            return
        turn = max(waiting, key=lambda one: self._waiting[one]())
        del self._waiting[turn]
        turn.set_result(None)
