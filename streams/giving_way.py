"""A writer of the backlog whose calls make way: a call that must go ends, and its request waits.

What the model had written of an answer by then is lost, and is what the others gain. Nobody has to
go again and again: a request that made way once may stay the next time, where one may.
"""

from collections import OrderedDict
from collections.abc import Awaitable
from typing import Protocol, TypeVar

from schemas.entities import EntityKey
from schemas.errors import FreshetError
from schemas.knowledge import KnowledgeRequest
from workers.knowledge.prompts import Prompt
from workers.knowledge.writer import Answer, Writer

T = TypeVar("T")

_MOST_REMEMBERED = 4_096


class GaveWay(FreshetError):
    """The call was ended for others' sake: nothing is wrong with it, and nothing came of it."""


class WayPort(Protocol):
    """Who says which calls must go."""

    async def through(self, call: Awaitable[T], *, may_stay: bool) -> T:
        """Return what the call returns; raises what it raises, and GaveWay when it must go."""


class GivingWayWriter:
    """A Writer; raises GaveWay besides what writers raise."""

    def __init__(self, writer: Writer, way: WayPort) -> None:
        self._writer = writer
        self._way = way
        self._went: OrderedDict[EntityKey, None] = OrderedDict()

    @property
    def model(self) -> str:
        """The model that answers."""
        return self._writer.model

    async def write(self, prompt: Prompt, request: KnowledgeRequest, *, priority: int) -> Answer:
        """Return the answer, unless others' requests come first."""
        entity = request.entity
        call = self._writer.write(prompt, request, priority=priority)
        try:
            answer = await self._way.through(call, may_stay=entity in self._went)
        except GaveWay:
            self._went[entity] = None
            if len(self._went) > _MOST_REMEMBERED:
                self._went.popitem(last=False)
            raise
        self._went.pop(entity, None)
        return answer

    async def aclose(self) -> None:
        """Close the writer."""
        await self._writer.aclose()
