"""Answers that items of a group share: requests wait for one another, then one call is about all.

Whoever comes first leads: waits until enough have come or their time is up, makes the call in its
own task, and hands everybody their part; no task outlives the handlers. When the leader is
cancelled, one of those it leaves behind leads anew. Owns what is remembered of items whose calls
fail, too.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from schemas.entities import EntityKey
from schemas.errors import Permanent, Transient
from schemas.knowledge import Factors, KnowledgeRequest
from streams.engine.standing_aside import StandingAside
from streams.lanes.author import WRITER, Author, SharedGatePort
from streams.lanes.token_limits import BudgetPort
from streams.settings import KnowledgeSettings
from workers.knowledge.prompts import require_title
from workers.knowledge.writer import Rejected

log = structlog.get_logger("freshet.knowledge")

STRIKES = 3
"""Shared calls that fail while others are answered, until an item no longer takes part."""

_MOST_TROUBLES = 10_000
_TRY_AGAIN_SECONDS = 1.0
"""Named in errors, so that the engine blames no item for what befell all of a call."""


@dataclass(frozen=True, slots=True)
class Share:
    """What an item got: `factors` None when nothing, for the reason in `detail`.

    `asked`: the writer answered a call about it.
    """

    factors: Factors | None
    detail: str = ""
    asked: bool = False


@dataclass(slots=True, eq=False)
class _Member:
    """`got` is set before `landed` of its batch, unless whoever led was cancelled."""

    request: KnowledgeRequest
    got: Share | Transient | None = None


@dataclass(slots=True, eq=False)
class _Batch:
    members: list[_Member]
    full: asyncio.Event = field(default_factory=asyncio.Event)
    landed: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class _Trouble:
    """Failures of calls about one item, and how many answers there had been at the last one."""

    strikes: int = 0
    answers_before: int = -1


class SharedAnswers:
    """Collects requests by the group of their items; see `of`.

    A batch collects until it is full, or its time is up and a call may be made: what comes while
    all calls are in flight still joins.
    """

    def __init__(
        self,
        *,
        author: Author,
        gate: SharedGatePort,
        budget: BudgetPort,
        settings: KnowledgeSettings,
        aside: StandingAside,
    ) -> None:
        self._author = author
        self._gate = gate
        self._budget = budget
        self._seconds = settings.share_seconds
        self._most = settings.share_members
        self._aside = aside
        self._collecting: dict[EntityKey, _Batch] = {}
        self._troubles: OrderedDict[EntityKey, _Trouble] = OrderedDict()

    async def of(self, request: KnowledgeRequest, group: EntityKey) -> Share:
        """Return the item's part of an answer about it and others of its group.

        Raises InvalidInput(empty_title), and Transient: never because of the item that asks.
        """
        require_title(request.fields)
        trouble = self._troubles.get(request.entity)
        if trouble is not None and trouble.strikes >= STRIKES:
            del self._troubles[request.entity]
            return Share(None, "calls about it and others keep failing")
        member = _Member(request)
        with self._aside.aside():
            while member.got is None:
                batch = self._collecting.get(group)
                if batch is None:
                    await self._lead(member, group)
                else:
                    await self._follow(member, group, batch)
        if isinstance(member.got, Transient):
            raise _spared(member.got)
        return member.got

    async def _follow(self, member: _Member, group: EntityKey, batch: _Batch) -> None:
        batch.members.append(member)
        if len(batch.members) >= self._most:
            self._close(group, batch)
            batch.full.set()
        try:
            # Bounded: by the leader's wait for others, and by the deadlines of calls in flight.
            await batch.landed.wait()
        except asyncio.CancelledError:
            batch.members.remove(member)
            raise

    async def _lead(self, member: _Member, group: EntityKey) -> None:
        batch = _Batch([member])
        if self._most > 1:
            self._collecting[group] = batch
        try:
            if self._most > 1:
                await self._wait_for_others(batch)
            async with self._author.places:
                self._close(group, batch)
                members = tuple(batch.members)
                for one, got in zip(members, await self._ask(group, members), strict=True):
                    one.got = got
        finally:
            self._close(group, batch)
            batch.landed.set()

    async def _wait_for_others(self, batch: _Batch) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._seconds):
                await batch.full.wait()

    async def _ask(
        self, group: EntityKey, members: Sequence[_Member]
    ) -> Sequence[Share | Transient]:
        """Return what each member gets, whatever becomes of the call."""
        if self._budget.is_spent_for_shared():
            return [Share(None, "nothing is left for it")] * len(members)
        try:
            told = await self._author.share(group, [one.request for one in members], self._gate)
        except (Rejected, Permanent) as error:
            log.warning("shared_answer_refused", items=len(members), detail=str(error))
            asked = isinstance(error, Rejected)
            return [Share(None, f"no usable answer: {error}", asked)] * len(members)
        except Transient as error:
            self._note_trouble(members, error)
            return [error] * len(members)
        for one in members:
            self._troubles.pop(one.request.entity, None)
        return [
            Share(None, str(one), asked=True)
            if isinstance(one, Rejected)
            else Share(one, asked=True)
            for one in told
        ]

    def _close(self, group: EntityKey, batch: _Batch) -> None:
        """Let nobody join it any more."""
        if self._collecting.get(group) is batch:
            del self._collecting[group]

    def _note_trouble(self, members: Sequence[_Member], error: Transient) -> None:
        # In an outage nobody is answered: then it is no item's fault.
        if error.dependency != WRITER:
            return
        answers = self._author.answers
        for one in members:
            trouble = self._troubles.setdefault(one.request.entity, _Trouble())
            trouble.strikes += 0 <= trouble.answers_before < answers
            trouble.answers_before = answers
        # Items that another worker owns by now would stay for ever.
        while len(self._troubles) > _MOST_TROUBLES:
            self._troubles.popitem(last=False)


def _spared(error: Transient) -> Transient:
    """Return the trouble of a call as that of an item which is not to blame for it."""
    wish = error.retry_after_seconds
    return Transient(
        error.dependency,
        error.detail,
        retry_after_seconds=_TRY_AGAIN_SECONDS if wish is None else wish,
    )
