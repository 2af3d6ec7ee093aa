"""When the backlog may ask the language model: while its server has no request waiting.

Looks at the server's own figures, so that everyone's requests count, whoever sent them. Between two
looks it lets in no more than the server had free places, and gives a place back when a batch ends.
"""

import asyncio
from typing import Protocol

import structlog

from schemas.errors import Transient
from workers.knowledge.vllm_pages import ServerFigures

log = structlog.get_logger("freshet.knowledge")

LOOK_SECONDS = 2.0
"""Bound of one look."""

BLIND_AFTER = 3
"""Looks that failed in a row until the figures no longer decide."""

CALLS_A_PLACE = 2
"""A lane's in-flight window is about twice the server's places (its max-num-seqs)."""


class FiguresPort(Protocol):
    """Where the server says how busy it is."""

    async def figures(self) -> ServerFigures:
        """Return its figures of now; raises Transient."""


class BacklogAdmission:
    """A BatchAdmission; lets nothing in before the first look.

    A server whose figures cannot be had lets everything in: if it is gone, the calls fail, open
    the circuit and notice its return, and if only its figures are missing, work goes on.
    """

    def __init__(self, pages: FiguresPort, *, in_flight: int, every_seconds: float) -> None:
        self._pages = pages
        self._places = max(1, in_flight // CALLS_A_PLACE)
        self._every_seconds = every_seconds
        self._free: int | None = 0
        self._refusal = "the server's figures were not read yet"
        self._misses = 0

    def refusal(self) -> str:
        """Return why no batch may start now, "" when one may."""
        if self._refusal:
            return self._refusal
        taken = self._free is not None and self._free <= 0
        return "all places at the server are taken" if taken else ""

    def entered(self) -> None:
        """Count a place as taken until it is left or the next look counts anew."""
        if self._free is not None:
            self._free -= 1

    def left(self) -> None:
        """Count a place as free again."""
        if self._free is not None:
            self._free += 1

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

    async def watch(self) -> None:
        """Look again and again until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(self._every_seconds)

    def _missed(self, detail: str) -> None:
        self._misses += 1
        if self._misses < BLIND_AFTER:
            return
        if self._misses == BLIND_AFTER:
            log.warning("backlog_admission_blind", detail=detail)
        self._refusal, self._free = "", None
