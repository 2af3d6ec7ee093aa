"""When the backlog may ask the language model: while it keeps nobody else waiting.

Looks at the server's own figures, so that everyone's requests count, whoever sent them. While one
waits, nobody enters. While others' answers are being written, and for a while after, few of the
backlog's are: each slows all the others down, and those that are too many then end unfinished. Else
it takes all the places there are; between two looks no more than were free, and a batch that ends
gives its place back.

Several processes on the backlog take one another for others: together they then stay few.
"""

import asyncio
import math
from collections.abc import Awaitable
from typing import Any, Protocol, TypeVar

import structlog

from schemas.errors import Transient
from streams.giving_way import GaveWay
from workers.knowledge.vllm_pages import ServerFigures

T = TypeVar("T")

log = structlog.get_logger("freshet.knowledge")

LOOK_SECONDS = 2.0
"""Bound of one look."""

BLIND_AFTER = 3
"""Looks that failed in a row until the figures no longer decide."""

CALLS_A_PLACE = 2
"""A lane's in-flight window is about twice the server's places (its max-num-seqs)."""

QUIET_SECONDS = 15.0
"""After others' last request was seen; new items seldom come alone."""


class FiguresPort(Protocol):
    """Where the server says how busy it is."""

    async def figures(self) -> ServerFigures:
        """Return its figures of now; raises Transient."""

    async def aclose(self) -> None:
        """Close the connections."""


class BacklogAdmission:
    """A BatchAdmission and a WayPort; lets nothing in before the first look.

    `beside` bounds the backlog's answers while others' are written. With 0 it waits for those, and
    goes on with one at a time until others have been quiet for a while; when they come, that one
    stays only if it had to go before.

    A server whose figures cannot be had lets everything in: if it is gone, the calls fail, open
    the circuit and notice its return, and if only its figures are missing, work goes on.
    """

    def __init__(
        self, pages: FiguresPort, *, in_flight: int, every_seconds: float, beside: int
    ) -> None:
        self._pages = pages
        self._places = max(1, in_flight // CALLS_A_PLACE)
        self._every_seconds = every_seconds
        self._beside = beside
        self._entered = 0
        self._calls: dict[asyncio.Future[Any], bool] = {}
        self._sent_away: set[asyncio.Future[Any]] = set()
        self._calls_since_look = 0
        self._most: int | None = None
        self._others_at = -math.inf
        self._free: int | None = 0
        self._refusal = "the server's figures were not read yet"
        self._misses = 0

    def refusal(self) -> str:
        """Return why no batch may start now, "" when one may."""
        if self._refusal:
            return self._refusal
        if self._most is not None and self._entered >= self._most:
            return "others' answers come first"
        taken = self._free is not None and self._free <= 0
        return "all places at the server are taken" if taken else ""

    def entered(self) -> None:
        """Count a place as taken until it is left or the next look counts anew."""
        self._entered += 1
        if self._free is not None:
            self._free -= 1

    def left(self) -> None:
        """Count a place as free again."""
        self._entered -= 1
        if self._free is not None:
            self._free += 1

    async def through(self, call: Awaitable[T], *, may_stay: bool) -> T:
        """Return what the call returns; raises GaveWay when it has to end for others' sake."""
        task = asyncio.ensure_future(call)
        self._calls[task] = may_stay
        self._calls_since_look = max(len(self._calls), self._calls_since_look)
        try:
            await asyncio.wait({task})
            if task.cancelled() and task in self._sent_away:
                raise GaveWay
            # A call that was cancelled by anybody else is a bug, and passes for nothing better.
            return task.result()
        finally:
            del self._calls[task]
            self._sent_away.discard(task)
            task.cancel()  # of no effect on what has ended

    async def look(self) -> None:
        """Let the server's figures of now decide; never raises for what the server does."""
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                figures = await self._pages.figures()
        except (Transient, TimeoutError) as error:
            self._missed(str(error) or f"no figures within {LOOK_SECONDS:g} s")
            return
        if self._misses >= BLIND_AFTER:
            log.info("backlog_admission_sees")
        self._misses = 0
        self._refusal = f"{figures.waiting} requests wait at the server" if figures.waiting else ""
        # One more than it has places for finds out whether that is still so, and harms nobody.
        self._free = max(1, self._places - figures.running)
        # A page is older than what left meanwhile: for one look longer that is still our own.
        self._make_way(for_others=figures.running + figures.waiting > self._calls_since_look)
        self._calls_since_look = len(self._calls)

    async def watch(self) -> None:
        """Look again and again until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(self._every_seconds)

    async def aclose(self) -> None:
        """Close the connections to the figures."""
        await self._pages.aclose()

    def _make_way(self, *, for_others: bool) -> None:
        now = asyncio.get_running_loop().time()
        if for_others:
            self._others_at, self._most = now, self._beside
            # The first ones, of which most would be lost.
            staying = [call for call, may in self._calls.items() if may or self._beside]
            for call in self._calls.keys() - staying[: max(1, self._beside)]:
                self._sent_away.add(call)
                call.cancel()
        elif now - self._others_at < QUIET_SECONDS:
            self._most = max(1, self._beside)
        else:
            self._most = None

    def _missed(self, detail: str) -> None:
        self._misses += 1
        if self._misses < BLIND_AFTER:
            return
        if self._misses == BLIND_AFTER:
            log.warning("backlog_admission_blind", detail=detail)
        self._refusal, self._free, self._most = "", None, None
