"""The pause switch: a flooded lane stands still until an operator resumes it, restarts included."""

import asyncio
from contextlib import suppress
from typing import Protocol

import structlog

from schemas.errors import Transient

log = structlog.get_logger("freshet.lane")

LOOK_SECONDS = 1.0
HOLD = "paused"


class PauseFlags(Protocol):
    """The flags as Redis holds them."""

    async def pause(self, lane: str, detail: str) -> None:
        """Flag a lane as paused."""

    async def paused(self, lane: str) -> str | None:
        """Return why a lane is paused, None when it is not."""


class Holdable(Protocol):
    """The pipeline, as far as pausing goes."""

    def hold(self, name: str, detail: str) -> None:
        """Stand still."""

    def unhold(self, name: str) -> None:
        """Go on."""


class PauseSwitch:
    """Keeps the pipeline's hold and the flag in Redis alike; runs beside the pipeline."""

    def __init__(self, lane: str, flags: PauseFlags) -> None:
        self._lane = lane
        self._flags = flags
        self._pipeline: Holdable | None = None
        self._unwritten: str | None = None

    def attach(self, pipeline: Holdable) -> None:
        """Name the pipeline to hold."""
        self._pipeline = pipeline

    def pause(self, detail: str) -> None:
        """Hold at once; the flag follows."""
        self._unwritten = detail
        if self._pipeline is not None:
            self._pipeline.hold(HOLD, detail)

    async def watch(self) -> None:
        """Follow the flag until cancelled."""
        while True:
            # The view guard reports an unreachable Redis; the hold stays as it is.
            with suppress(Transient):
                await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Write a new pause, or follow the flag; raises Transient."""
        if self._pipeline is None:
            return
        if self._unwritten is not None:
            await self._flags.pause(self._lane, self._unwritten)
            self._unwritten = None
            return
        detail = await self._flags.paused(self._lane)
        if self._unwritten is not None:
            return  # paused while Redis was asked: the next look writes the flag
        if detail is None:
            self._pipeline.unhold(HOLD)
        else:
            self._pipeline.hold(HOLD, detail)
