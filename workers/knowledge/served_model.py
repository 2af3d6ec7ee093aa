"""Whether a server serves the declared model: looked up when in doubt, once for all who ask."""

import asyncio
from collections.abc import Awaitable, Callable

from schemas.errors import Transient
from schemas.events import clean_text
from workers.knowledge.vllm_connection import DEPENDENCY

_LOOK_AGAIN_SECONDS = 1.0
"""Names a time, so that the engine never takes the wrong model for the fault of a record."""

_MAX_NAME_CHARS = 200


def wrong_model(how: str, found: str, declared: str) -> Transient:
    """Return the error of a server with another model than the declared one."""
    # The names are the server's words, and this text ends up on pages and in logs.
    name = clean_text(found)[:_MAX_NAME_CHARS] or "nothing"
    return Transient(
        DEPENDENCY, f"{how} {name}, declared is {declared}", retry_after_seconds=_LOOK_AGAIN_SECONDS
    )


class ServedModel:
    """Agreement of what is declared with what `look` finds; not trusted before the first look."""

    def __init__(self, look: Callable[[], Awaitable[tuple[str, ...]]], declared: str) -> None:
        self._look = look
        self._declared = declared
        self._agreed = False
        self._trouble: Transient | None = None
        self._looks = 0
        self._looking = asyncio.Lock()

    def doubt(self) -> None:
        """Look again before the next call."""
        self._agreed = False

    async def require(self) -> None:
        """Return if the declared model is served; raises Transient.

        Callers that come while a look is under way share what it finds, so that a server in
        trouble is not asked once by each of them. As long as a look takes, the wait is not bounded
        here: the caller's deadline is.
        """
        if self._agreed:
            return
        looks_before = self._looks
        async with self._looking:
            if self._looks == looks_before:
                await self._look_once()
            if self._trouble is not None:
                trouble = self._trouble
                raise Transient(
                    trouble.dependency,
                    trouble.detail,
                    retry_after_seconds=trouble.retry_after_seconds,
                )

    async def _look_once(self) -> None:
        try:
            served = await self._look()
        except Transient as error:
            self._trouble = error
        else:
            self._agreed = self._declared in served
            self._trouble = (
                None if self._agreed else wrong_model("serves", ", ".join(served), self._declared)
            )
        self._looks += 1
