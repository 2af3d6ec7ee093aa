"""Answers that items of a group share: requests wait for one another, then one call is about all.

One of those who wait leads: it waits until enough have come or its time is up, then for a place
among the calls, and only then takes those who have waited longest. It makes the call in its own
task and hands everybody their part; no task outlives the handlers. When it goes, another leads.
Owns what is remembered of items whose calls fail, too.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

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

    `asked`: the writer answered a call about it. `late`: no call came to it in time.
    """

    factors: Factors | None
    detail: str = ""
    asked: bool = False
    late: bool = False


@dataclass(slots=True, eq=False)
class _Member:
    """An item that waits for its part; `patience` runs while no call is about it.

    `got` is set once a call is over, unless whoever made it was cancelled.
    """

    request: KnowledgeRequest
    patience: asyncio.Timeout
    joined_at: float
    ends_at: float
    news: asyncio.Event = field(default_factory=asyncio.Event)
    got: Share | Transient | None = None


@dataclass(slots=True, eq=False)
class _Queue:
    """Items of a group: `waiting` in the order they came, `present` with those in calls.

    `most` of them make a full call.
    """

    most: int
    waiting: dict[_Member, None] = field(default_factory=dict)
    present: set[_Member] = field(default_factory=set)
    leader: _Member | None = None
    full: asyncio.Event = field(default_factory=asyncio.Event)

    def claim(self) -> tuple[float, float]:
        """Return the claim of those who wait, of whom there is one."""
        oldest = next(iter(self.waiting))
        return min(1.0, len(self.waiting) / self.most), -oldest.request.requested_at_ms

    def take(self, leader: _Member) -> list[_Member]:
        """Take those whom the leader's call is about: itself and who waited longest."""
        others = (one for one in self.waiting if one is not leader and not one.patience.expired())
        members = [leader, *islice(others, self.most - 1)]
        for one in members:
            del self.waiting[one]
            one.patience.reschedule(None)
        self.leader = None
        self.changed()
        return members

    def take_back(self, members: Sequence[_Member]) -> None:
        """Let them wait on, before all others."""
        for one in members:
            one.patience.reschedule(one.ends_at)
        self.waiting = dict.fromkeys(members) | self.waiting
        self.changed()

    def changed(self) -> None:
        """Tell whether a call would be full, and let somebody lead."""
        if len(self.waiting) >= self.most:
            self.full.set()
        else:
            self.full.clear()
        if self.leader is None and self.waiting:
            next(iter(self.waiting)).news.set()


@dataclass(slots=True)
class _Trouble:
    """Failures of calls about one item, and how many answers there had been at the last one."""

    strikes: int = 0
    answers_before: int = -1


class SharedAnswers:
    """Collects requests by the group of their items; see `of`.

    A place that becomes free goes to the group that has a full call together, or else the most of
    one. What comes until then still joins.
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
        self._queues: dict[EntityKey, _Queue] = {}
        self._troubles: OrderedDict[EntityKey, _Trouble] = OrderedDict()

    async def of(self, request: KnowledgeRequest, group: EntityKey, *, seconds: float) -> Share:
        """Return the item's part of an answer about it and others of its group.

        It waits `seconds` for a call to begin. Raises InvalidInput(empty_title), and Transient:
        never because of the item that asks.
        """
        require_title(request.fields)
        trouble = self._troubles.get(request.entity)
        if trouble is not None and trouble.strikes >= STRIKES:
            del self._troubles[request.entity]
            return Share(None, "calls about it and others keep failing")
        queue = self._queues.setdefault(group, _Queue(self._most))
        joined_at = asyncio.get_running_loop().time()
        patience = asyncio.timeout(seconds)
        member = _Member(request, patience, joined_at, joined_at + seconds)
        try:
            with self._aside.aside():
                async with patience:
                    got = await self._part_of(member, queue, group)
        except TimeoutError:
            return Share(None, "no call came to it in time", late=True)
        finally:
            self._leave(member, queue, group)
        if isinstance(got, Transient):
            raise _spared(got)
        return got

    async def _part_of(self, member: _Member, queue: _Queue, group: EntityKey) -> Share | Transient:
        queue.present.add(member)
        queue.waiting[member] = None
        queue.changed()
        while member.got is None:
            if queue.leader is None and member in queue.waiting:
                await self._lead(member, queue, group)
            else:
                # Bounded: by its patience, then by the deadline of the call that is about it.
                member.news.clear()
                await member.news.wait()
        return member.got

    async def _lead(self, leader: _Member, queue: _Queue, group: EntityKey) -> None:
        queue.leader = leader
        try:
            await self._wait_for_others(leader, queue)
            async with self._author.places.place(queue.claim):
                members = queue.take(leader)
                try:
                    for one, got in zip(members, await self._ask(group, members), strict=True):
                        one.got = got
                finally:
                    left = [one for one in members if one.got is None and one is not leader]
                    queue.take_back([one for one in left if one in queue.present])
                    for one in members:
                        one.news.set()
        finally:
            if queue.leader is leader:
                queue.leader = None

    async def _wait_for_others(self, leader: _Member, queue: _Queue) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(leader.joined_at + self._seconds):
                await queue.full.wait()

    def _leave(self, member: _Member, queue: _Queue, group: EntityKey) -> None:
        queue.present.discard(member)
        queue.waiting.pop(member, None)
        queue.changed()
        if not queue.present and self._queues.get(group) is queue:
            del self._queues[group]

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
