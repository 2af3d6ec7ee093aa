"""The token budget of an hour, shared by all workers through Redis, and what it means to a backlog.

A worker counts for itself and tells the others once a second, so an hour may cost more than its
budget by what all of them spend in a second and what is in flight. Nothing is asked of Redis where
a call is decided. Where Redis counts what a worker told and the reply is lost, the worker tells it
again: the hour then ends early by what one second cost.
"""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Protocol

from schemas.errors import Transient
from streams.engine.ports import BatchAdmission, Clock
from streams.follow_spaces import follow

SHARED_SHARE = 0.1
"""Of the budget, kept for calls that items of a group share: one of them serves many, so what is
left when the calls about single entities have to stop is worth more there."""

SPENT = "the token budget of this hour is spent"


class BudgetStorePort(Protocol):
    """Where the workers' counts meet."""

    async def add(self, hour: str, tokens: int) -> int:
        """Count tokens of an hour (yyyymmddhh); return how many it are by now."""


class TokenBudget:
    """A BudgetPort; until the first `tell` it knows of no other worker."""

    def __init__(self, store: BudgetStorePort, *, tokens_per_hour: int, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._limit = tokens_per_hour
        self._hour = self._current_hour()
        self._told = 0
        self._untold = 0

    @property
    def limit(self) -> int:
        """Tokens an hour."""
        return self._limit

    @property
    def left(self) -> int:
        """Tokens left of this hour's, as far as this worker knows; never below 0."""
        self._turn_over()
        return max(0, self._limit - self._told - self._untold)

    def spend(self, tokens: int) -> None:
        """Count tokens of a call that was answered."""
        self._turn_over()
        self._untold += tokens

    def is_spent(self) -> bool:
        """Whether no call about an entity may be made in this hour any more."""
        return self.left <= self._limit * SHARED_SHARE

    def is_spent_for_shared(self) -> bool:
        """Whether not even a call may be made that items of a group share."""
        return self.left <= 0

    async def tell(self) -> None:
        """Tell the others what was spent here, and learn what they spent; raises Transient."""
        self._turn_over()
        hour, telling = self._hour, self._untold
        total = await self._store.add(hour, telling)
        if hour == self._hour:
            # What was spent meanwhile stays untold.
            self._told, self._untold = total, self._untold - telling

    async def keep_telling(self) -> None:
        """Do so every second until cancelled; what could not be told is told later."""
        await follow(self.tell)

    async def tell_last(self) -> None:
        """Tell what is left to tell, if Redis can be reached."""
        with suppress(Transient):
            await self.tell()

    def _turn_over(self) -> None:
        hour = self._current_hour()
        if hour != self._hour:
            self._hour, self._told, self._untold = hour, 0, 0

    def _current_hour(self) -> str:
        return datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC).strftime("%Y%m%d%H")


class BudgetAdmission:
    """A BatchAdmission of a backlog: nothing starts while the budget is spent.

    `then` decides otherwise, if there is one.
    """

    def __init__(self, budget: TokenBudget, then: BatchAdmission | None = None) -> None:
        self._budget = budget
        self._then = then

    def refusal(self) -> str:
        """Return why no batch may start now, "" when one may."""
        if self._budget.is_spent():
            return SPENT
        return "" if self._then is None else self._then.refusal()

    def entered(self) -> None:
        """Pass it on."""
        if self._then is not None:
            self._then.entered()

    def left(self) -> None:
        """Pass it on."""
        if self._then is not None:
            self._then.left()
