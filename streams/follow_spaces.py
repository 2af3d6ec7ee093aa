"""How a lane follows the registry of spaces while it runs: where to look, and how often."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

from schemas.errors import Transient
from schemas.spaces import SpaceRecord, SpaceState

DEPENDENCY = "spaces"
REFRESH_SECONDS = 1.0

WRITTEN_STATES = frozenset({SpaceState.BACKFILLING, SpaceState.ACTIVE})
"""A space in any other state gets no vectors any more."""


class RegistryPort(Protocol):
    """The registry in Redis."""

    async def spaces(self) -> dict[str, SpaceRecord]:
        """Return every space by name; raises Transient."""


async def follow(refresh: Callable[[], Awaitable[None]]) -> None:
    """Refresh every second until cancelled."""
    while True:
        # The view guard reports an unreachable Redis; what is known stays as it is.
        with suppress(Transient):
            await refresh()
        await asyncio.sleep(REFRESH_SECONDS)
