"""The knowledge lane: requests become knowledge, with as few language model calls as possible.

Owns the decision whether a call is needed, and how a request ends. One lane on
`knowledge.requests`, a second one of the same code on `knowledge.backlog`; only the first one has a
way out of overload. It writes no document: factors go through the `knowledge` topic, where the
encode lane merges them.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from schemas.entities import EntityKey
from schemas.errors import Permanent, Transient
from schemas.knowledge import Document, Factors, KnowledgeRequest, Removed, RequestKind
from schemas.reasons import Reason, Rejection
from streams.emitter import Emitter
from streams.engine.lane import Absorbed, Record
from streams.engine.outcomes import Outcome, Result, Settled
from streams.engine.ports import Clock
from streams.engine.standing_aside import StandingAside
from streams.giving_way import GaveWay
from streams.lanes.author import WRITER, Author, GatePort
from streams.lanes.call_places import NoPlace
from streams.lanes.collective import Collective, DocumentPort, WayOut
from streams.lanes.knowledge_emits import KnowledgeEmits
from streams.lanes.knowledge_stats import KnowledgeStats
from streams.lanes.request_order import brought_up_to_date, outranks
from streams.lanes.shared_answers import SharedAnswers
from streams.lanes.token_limits import BudgetPort, NoLimit
from streams.settings import KnowledgeSettings
from workers.knowledge.prompts import Domain
from workers.knowledge.writer import Rejected, Writer

HOLD_MS = 30_000
"""A request whose time is further off goes back to the topic's tail instead of blocking a
partition: at most so long is it held."""

RETRY_GROWTH = 4


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request and how long the engine holds it (ms since the epoch; 0 for not at all)."""

    request: KnowledgeRequest
    held_until_ms: int


class KnowledgeLane:
    """One handler; `name` is "knowledge" or "knowledge-backlog". See streams.engine.lane.Lane.

    Calls in flight are bounded over all batches, so batches of one and as many handlers as calls
    keep every slot busy: in a larger batch the slowest answer would hold back its neighbours. Those
    that wait for an answer together count as none: they stand `aside`.
    """

    def __init__(
        self,
        name: str,
        *,
        emitter: Emitter,
        documents: DocumentPort,
        writer: Writer,
        gate: GatePort,
        domain: Domain,
        settings: KnowledgeSettings,
        clock: Clock,
        budget: BudgetPort | None = None,
        way_out: WayOut | None = None,
    ) -> None:
        """Take what it works with; without `way_out` every request waits for a call of its own."""
        self.name = name
        self.stats = KnowledgeStats()
        # Whoever waits for others to share a call with keeps nobody from a call of their own.
        self.aside = StandingAside()
        self._documents = documents
        self._settings = settings
        self._clock = clock
        self._emits = KnowledgeEmits(emitter, clock)
        limit = NoLimit() if budget is None else budget
        self._author = Author(
            writer=writer,
            gate=gate,
            domain=domain,
            settings=settings,
            budget=limit,
            emits=self._emits,
            stats=self.stats,
            clock=clock,
        )
        self._collective = None
        if way_out is not None:
            self._collective = Collective(
                way_out,
                author=self._author,
                answers=SharedAnswers(
                    author=self._author,
                    gate=way_out.gate,
                    budget=limit,
                    settings=settings,
                    aside=self.aside,
                ),
                documents=documents,
                emits=self._emits,
                budget=limit,
                stats=self.stats,
                settings=settings,
                clock=clock,
            )

    def decode(self, record: Record, now_ms: int) -> Wanted:
        """Return the request in a record; raises Permanent."""
        if record.value is None:
            raise Permanent(Reason.NULL_VALUE, f"{record.topic} holds requests, not tombstones")
        request = KnowledgeRequest.decode(record.value)
        if record.key != request.entity.encode():
            raise Permanent(Reason.WRONG_KEY, f"key {record.key!r} is not {request.entity}")
        return Wanted(request, min(request.not_before_ms, now_ms + HOLD_MS))

    def key(self, value: Wanted) -> EntityKey:
        """Return the entity to write about."""
        return value.request.entity

    def version(self, value: Wanted) -> int | None:
        """Return the version the knowledge is wanted for."""
        return value.request.version

    def tokens(self, value: Wanted) -> int:  # noqa: ARG002  # a slot is what a request costs
        """Return 1: requests are bounded by calls in flight."""
        return 1

    def due_at_ms(self, value: Wanted) -> int:
        """Return when the request may be looked at."""
        return value.held_until_ms

    def absorb(self, waiting: Wanted, incoming: Wanted) -> Absorbed[Wanted]:
        """Keep the request that outranks the other."""
        survives = outranks(incoming.request, waiting.request)
        kept, loser = (incoming, waiting) if survives else (waiting, incoming)
        if loser.request.kind is not RequestKind.REMOVE:
            self.stats.saved_coalesced += 1
        return Absorbed(kept, survives, Outcome.SUPERSEDED)

    def rank(self, value: Wanted) -> int:
        """Return how recent the event is: of a backlog, the newest is worth a call first."""
        return value.request.event_time_ms

    async def handle(self, batch: Sequence[Wanted]) -> Sequence[Result]:
        """Settle each request by itself; raises Transient when no document can be read."""
        stored = await self._documents.load([wanted.request.entity for wanted in batch], None)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._settle(wanted.request, entity.document))
                for wanted, entity in zip(batch, stored, strict=True)
            ]
        return [task.result() for task in tasks]

    async def _settle(self, request: KnowledgeRequest, stored: Document) -> Result:
        try:
            if request.not_before_ms > self._clock.now_ms():
                await self._emits.request(request)
                return Settled(Outcome.EMITTED, reason="not_due", called=("redis", "kafka"))
            return await self._satisfy(request, stored)
        except (Transient, Permanent) as error:
            return error

    async def _satisfy(self, request: KnowledgeRequest, stored: Document) -> Result:
        if request.kind is RequestKind.REMOVE:
            # A request that it outran must not be answered before the removal is merged.
            self._emits.remember(
                request.entity, Document(removed=Removed(request.version, request.event_time_ms))
            )
            return Settled(Outcome.UNCHANGED, reason="removed", called=("redis",))
        known = self._emits.known(request.entity, stored)
        request = brought_up_to_date(request, known)
        spared = await self._author.spare(request, known)
        if spared is not None:
            return spared
        while self._collective is not None:
            if reason := self._collective.reason(request):
                served = await self._collective.serve(request, reason)
                if served is not None:
                    return served
            with suppress(NoPlace):
                seconds = self._collective.patience(request)
                return await self._write(request, known.individual, seconds)
        return await self._write(request, known.individual, None)

    async def _write(
        self, request: KnowledgeRequest, replaced: Factors | None, seconds: float | None
    ) -> Result:
        """Return how a call about the entity alone ended; raises what Author.write does."""
        called = ("redis", WRITER, "kafka")
        try:
            await self._author.write(request, replaced, seconds=seconds)
        except GaveWay:
            await self._emits.request(request)
            return Settled(Outcome.EMITTED, reason="gave_way", called=("redis", "kafka"))
        except Rejected as rejected:
            if rejected.rejection is not Rejection.NO_ANSWER:
                await self._emit_retry(request)
            return Settled(
                Outcome.REJECTED, rejected.rejection.value, rejected.detail, called=called
            )
        return Settled(Outcome.EMITTED, called=called)

    async def _emit_retry(self, request: KnowledgeRequest) -> None:
        if request.attempt >= self._settings.rejected_retry_attempts:
            return
        wait_seconds = self._settings.rejected_retry_first_seconds * RETRY_GROWTH**request.attempt
        await self._emits.request(
            replace(
                request,
                kind=RequestKind.REFRESH,
                attempt=request.attempt + 1,
                not_before_ms=self._clock.now_ms() + round(wait_seconds * 1000),
            )
        )
