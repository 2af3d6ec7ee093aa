"""Guards against a cancellation that nobody asked for.

A task that ends cancelled is no failure to asyncio.TaskGroup. A library that cancels a future under
one of our calls would so end the call without a trace, and its records would never be settled.
"""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


class CancelledFromInside(RuntimeError):
    """A call was cancelled, but its task was not: a bug, never caught."""


async def uncancelled(call: Awaitable[T], name: str) -> T:
    """Return what the call returns; raises CancelledFromInside if it cancelled itself."""
    try:
        return await call
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise CancelledFromInside(f"{name} was cancelled from inside") from None
