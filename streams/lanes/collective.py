"""Overload: when an item is not worth a call of its own now, and what it gets instead.

It gets a little about itself out of a call that it shares with others of its group, and a place on
the backlog for knowledge of its own. Never for users, and never in place of something written about
the item alone. Whatever no call comes to in time gets the place on the backlog alone, users too: so
the age of a request is bounded, however many there are.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from schemas.entities import EntityKey, EntityKind
from schemas.knowledge import Document, Factors, KnowledgeRequest
from schemas.spaces import Space
from streams.engine.outcomes import Outcome, Settled
from streams.engine.ports import Clock
from streams.lanes.author import WRITER, Author, SharedGatePort
from streams.lanes.entity_plan import RawParts, raw_parts
from streams.lanes.group_requests import group_key
from streams.lanes.knowledge_emits import KnowledgeEmits
from streams.lanes.knowledge_stats import KnowledgeStats
from streams.lanes.request_order import brought_up_to_date
from streams.lanes.shared_answers import Share, SharedAnswers
from streams.lanes.token_limits import BudgetPort
from streams.settings import KnowledgeSettings
from workers.grouping.groups import NO_GROUP, Groups
from workers.live.entity_records import StoredEntity

LOOK_AGAIN_SECONDS = 0.2
"""While the encode lane has not made an item's parts yet."""

LAST_CHANCE_SECONDS = 0.5
"""Beyond the wait for others, for a request that is late when it comes: to take a place that is
free. After a standstill of the lane all are late, and the server is idle."""

PATIENCE = 8
"""Waits for parts in a row that were in vain: then the encode lane stands, and waiting is over."""


class DocumentPort(Protocol):
    """Where the merged documents are read."""

    async def load(self, keys: Sequence[EntityKey], raw_space: str | None) -> list[StoredEntity]:
        """Return what is stored of each entity, in order; raises Transient."""


class GroupsPort(Protocol):
    """The groups in use."""

    def current(self) -> Groups | None:
        """Return them, None while there are none."""


class RawSpacePort(Protocol):
    """The raw space, as the registry names it."""

    def raw(self) -> Space | None:
        """Return it, None while it is not known."""


@dataclass(frozen=True, slots=True)
class WayOut:
    """What the way out of overload needs: where an item's group comes from, and who judges."""

    groups: GroupsPort
    spaces: RawSpacePort
    gate: SharedGatePort


@dataclass(frozen=True, slots=True)
class _Look:
    """An item as it is now; `parts` None where there are none of what it is asked about.

    `awaits_parts`: there would be groups for it, were it not for the parts.
    """

    known: Document
    parts: RawParts | None
    awaits_parts: bool = False


class Collective:
    """The way out of overload for items; see `reason` and `serve`."""

    def __init__(
        self,
        way_out: WayOut,
        *,
        author: Author,
        answers: SharedAnswers,
        documents: DocumentPort,
        emits: KnowledgeEmits,
        budget: BudgetPort,
        stats: KnowledgeStats,
        settings: KnowledgeSettings,
        clock: Clock,
    ) -> None:
        self._way_out = way_out
        self._author = author
        self._answers = answers
        self._documents = documents
        self._emits = emits
        self._budget = budget
        self._stats = stats
        self._settings = settings
        self._longest_seconds = max(settings.longest_wait_seconds, settings.overload_seconds)
        self._clock = clock
        self._waits_in_vain = 0

    def reason(self, request: KnowledgeRequest) -> str:
        """Return why there is to be no call about this entity alone now, "" if there may be one."""
        if request.entity.kind is EntityKind.ITEM and self._budget.is_spent():
            return "the token budget of this hour is spent"
        waited = self._waited_seconds(request)
        return f"waited for {waited:.0f} s" if waited > self._alone_seconds(request) else ""

    def patience(self, request: KnowledgeRequest) -> float:
        """Return the seconds after which to ask for a reason again, if no call was made by then.

        Who only waits for a call of its own keeps others from waiting together.
        """
        left = self._alone_seconds(request) - self._waited_seconds(request)
        return left if left > 0 else LOOK_AGAIN_SECONDS

    async def serve(self, request: KnowledgeRequest, reason: str) -> Settled | None:
        """Return how the request ended for that reason, all of it durable.

        None when it is to be asked about all the same, like any other: it has no parts to find its
        group by yet, so a call is the best use of the time; or no group can serve it and the writer
        is in trouble, not busy, so it is better held. Raises Transient, InvalidInput(empty_title).
        """
        if request.entity.kind is not EntityKind.ITEM:
            return await self._defer(request, reason, None)
        share: Share | None = None
        while True:
            # Once more after the answer: much may have happened to the item meanwhile.
            look = await self._look(request)
            known = look.known
            request = brought_up_to_date(request, known)
            spared = await self._author.spare(request, known)
            if spared is not None:
                return spared
            if known.individual is not None:
                return await self._defer(request, f"{reason}, has knowledge of its own", share)
            if share is not None:
                return await self._settled(request, known, share, reason)
            if (there := self._said_before(request, known)) is not None:
                await self._put(request, known, there)
                self._stats.saved_fingerprint += 1
                return _served(f"{reason}, asked before", None)
            left = self._longest_seconds - self._waited_seconds(request)
            if look.awaits_parts and left > 0 and not self._budget.is_spent():
                return None
            group, detail = self._group_of(look)
            if group is None or self._budget.is_spent_for_shared():
                return await self._defer(request, f"{reason}, {detail}", None)
            chance = self._settings.share_seconds + LAST_CHANCE_SECONDS
            share = await self._answers.of(request, group, seconds=max(left, chance))

    def _alone_seconds(self, request: KnowledgeRequest) -> float:
        """Return how long there may be a call about this entity alone."""
        is_item = request.entity.kind is EntityKind.ITEM
        return self._settings.overload_seconds if is_item else self._longest_seconds

    def _waited_seconds(self, request: KnowledgeRequest) -> float:
        return (self._clock.now_ms() - request.requested_at_ms) / 1000

    def _said_before(self, request: KnowledgeRequest, known: Document) -> Factors | None:
        """Return what was answered to the very same already, by whichever worker."""
        there = known.collective
        fingerprint = self._author.shared_fingerprint(request)
        return there if there is not None and there.provenance.fingerprint == fingerprint else None

    async def _settled(
        self, request: KnowledgeRequest, known: Document, share: Share, reason: str
    ) -> Settled | None:
        if share.factors is None:
            return await self._defer(request, f"{reason}, {share.detail}", share)
        await self._put(request, known, share.factors)
        return _served(f"{reason}, {_group_detail(share.factors.provenance.group)}", share)

    async def _put(self, request: KnowledgeRequest, known: Document, factors: Factors) -> None:
        """Emit factors as the item's collective register, and the wish for more."""
        factors = replace(factors, version=request.version, event_time_ms=request.event_time_ms)
        there = known.collective
        if there is not None and there.version == request.version:
            if (there.factors, there.provenance) == (factors.factors, factors.provenance):
                await self._emits.collective(request, None)
                return
            # Other words: they must beat what they replace.
            newer = max(factors.generated_at_ms, there.generated_at_ms + 1)
            factors = replace(factors, generated_at_ms=newer)
        await self._emits.collective(request, factors)

    async def _defer(
        self, request: KnowledgeRequest, detail: str, share: Share | None
    ) -> Settled | None:
        # Who was late waited for calls of others, which find out about the writer.
        is_late = share is not None and share.late
        if self._author.is_silent and not self._budget.is_spent() and not is_late:
            return None
        await self._emits.collective(request, None)
        return Settled(Outcome.EMITTED, "deferred", detail, called=_called(share))

    def _group_of(self, look: _Look) -> tuple[EntityKey | None, str]:
        """Return the item's group and what to say of it; without one, why not."""
        groups, raw = self._way_out.groups.current(), self._way_out.spaces.raw()
        if groups is None or raw is None:
            return None, "there are no groups"
        if groups.encoder_id != raw.encoder_id:
            return None, f"the groups are of {groups.encoder_id}"
        if look.parts is None:
            return None, "has no vector yet"
        values = look.parts.values.astype(np.float32)[None]
        rows, _ = groups.nearest(values, look.parts.mask[None], raw.parts)
        row = int(rows[0])
        if row == NO_GROUP:
            return None, "is near no group"
        group = group_key(groups.groups[row])
        return group, _group_detail(group.id)

    async def _look(self, request: KnowledgeRequest) -> _Look:
        """Return the item with its parts.

        With the budget spent there is nothing better to do than to wait for the encode lane to make
        them; bounded.
        """
        raw = self._way_out.spaces.raw()
        wants_parts = raw is not None and self._way_out.groups.current() is not None
        patient = self._budget.is_spent() and self._waits_in_vain < PATIENCE
        looks_left = patient * round(self._settings.parts_wait_seconds / LOOK_AGAIN_SECONDS)
        while True:
            (stored,) = await self._documents.load(
                [request.entity], None if raw is None else raw.name
            )
            known = self._emits.known(request.entity, stored.document)
            content = stored.document.content
            is_merged = content is not None and content.version >= request.version
            parts = raw_parts(stored, raw) if raw is not None and is_merged else None
            if parts is not None:
                self._waits_in_vain = 0
                return _Look(known, parts)
            if not wants_parts or self._needs_no_group(request, known):
                return _Look(known, None)
            if looks_left <= 0:
                self._waits_in_vain += patient
                return _Look(known, None, awaits_parts=True)
            looks_left -= 1
            await asyncio.sleep(LOOK_AGAIN_SECONDS)

    def _needs_no_group(self, request: KnowledgeRequest, known: Document) -> bool:
        """Whether the item's fate is known without its parts."""
        is_gone = known.removed is not None and known.removed.version >= request.version
        content = known.content
        is_outdated = content is not None and content.version > request.version
        is_told = known.individual is not None or self._said_before(request, known) is not None
        return is_told or is_gone or is_outdated


def _group_detail(group: str | None) -> str:
    return f"group {group}"


def _served(detail: str, share: Share | None) -> Settled:
    return Settled(Outcome.EMITTED, "collective", detail, called=_called(share))


def _called(share: Share | None) -> tuple[str, ...]:
    """Return whom it took: an answer is evidence that the writer is there."""
    was_answered = share is not None and share.asked
    return ("redis", WRITER, "kafka") if was_answered else ("redis", "kafka")
