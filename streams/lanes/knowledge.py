"""The knowledge lane: requests become knowledge, with as few language model calls as possible.

Owns the decision whether a call is needed and what becomes of its answer. One lane on
`knowledge.requests`, a second one of the same code on `knowledge.backlog`. It writes no document:
factors go through the `knowledge` topic, where the encode lane merges them.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from schemas.entities import EntityKey, EntityKind
from schemas.errors import Permanent, Transient
from schemas.fingerprints import Json, knowledge_fingerprint
from schemas.knowledge import (
    Document,
    Factors,
    KnowledgeRequest,
    KnowledgeUpdate,
    Provenance,
    RegisterName,
    Removed,
    RequestKind,
)
from schemas.reasons import Reason, Rejection
from schemas.topics import Topic
from streams.emitter import Emitter, Outgoing
from streams.engine.lane import Absorbed, Record
from streams.engine.outcomes import Outcome, Result, Settled
from streams.engine.ports import Clock
from streams.lanes.recent_knowledge import RecentKnowledge, RefusalShare
from streams.lanes.request_order import brought_up_to_date, judge, outranks
from streams.settings import KnowledgeSettings
from workers.knowledge.prompts import Domain, Prompt, repair_prompt
from workers.knowledge.select_prompt import prompt_about, prompt_id_of
from workers.knowledge.writer import Answer, Rejected, Writer
from workers.live.entity_records import StoredEntity

WRITER = "vllm"
"""What writers call their dependency in Transient."""

HOLD_MS = 30_000
"""A request whose time is further off goes back to the topic's tail instead of blocking a
partition: at most so long is it held."""

RETRY_GROWTH = 4

_PRIORITIES: Mapping[RequestKind, int] = {
    RequestKind.NEW: 0,
    RequestKind.CHANGED: 1,
    RequestKind.USER: 2,
    RequestKind.UPGRADE: 3,
    RequestKind.REFRESH: 4,
    RequestKind.REMOVE: 0,
}
"""As the server sorts them: smaller first."""


class DocumentPort(Protocol):
    """Where the merged documents are read."""

    async def load(self, keys: Sequence[EntityKey], raw_space: str | None) -> list[StoredEntity]:
        """Return what is stored of each entity, in order; raises Transient."""


class GatePort(Protocol):
    """Who judges answers."""

    def judge(
        self, answer: Answer, fields: Mapping[str, Json], kind: EntityKind
    ) -> Rejected | None:
        """Return why an answer about an entity with these fields is refused, None if it is not."""


@dataclass(slots=True)
class KnowledgeStats:
    """Counters since the start; `rejected` by Rejection value."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    repairs: int = 0
    saved_fingerprint: int = 0
    saved_coalesced: int = 0
    rejected: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request and how long the engine holds it (ms since the epoch; 0 for not at all)."""

    request: KnowledgeRequest
    held_until_ms: int


class KnowledgeLane:
    """One handler; `name` is "knowledge" or "knowledge-backlog". See streams.engine.lane.Lane.

    Calls in flight are bounded over all batches, so batches of one and as many handlers as calls
    keep every slot busy: in a larger batch the slowest answer would hold back its neighbours.
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
    ) -> None:
        self.name = name
        self.stats = KnowledgeStats()
        self._emitter = emitter
        self._documents = documents
        self._writer = writer
        self._gate = gate
        self._domain = domain
        self._settings = settings
        self._clock = clock
        self._slots = asyncio.Semaphore(settings.in_flight)
        self._recent = RecentKnowledge()
        self._refusals = RefusalShare()

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
                await self._emit_request(request)
                return Settled(Outcome.EMITTED, reason="not_due", called=("redis", "kafka"))
            return await self._satisfy(request, stored)
        except (Transient, Permanent) as error:
            return error

    async def _satisfy(self, request: KnowledgeRequest, stored: Document) -> Result:
        recent = self._recent.get(request.entity, now_ms=self._clock.now_ms())
        known = stored.merge(recent)
        if request.kind is RequestKind.REMOVE:
            # A request that it outran must not be answered before the removal is merged.
            self._remember(
                request.entity, Document(removed=Removed(request.version, request.event_time_ms))
            )
            return Settled(Outcome.UNCHANGED, reason="removed", called=("redis",))
        request = brought_up_to_date(request, known)
        prompt_id = prompt_id_of(self._domain, request.entity.kind)
        fingerprint = knowledge_fingerprint(
            request.content_fingerprint, prompt_id, self._writer.model
        )
        verdict = judge(request, known, fingerprint)
        if isinstance(verdict, Settled):
            if verdict.outcome is Outcome.UNCHANGED:
                self.stats.saved_fingerprint += 1
            return verdict
        if isinstance(verdict, Factors):
            await self._emit_factors(request.entity, verdict)
            self.stats.saved_fingerprint += 1
            return Settled(Outcome.EMITTED, reason="restamped", called=("redis", "kafka"))
        async with self._slots:
            return await self._write(request, known.individual, fingerprint)

    async def _write(
        self, request: KnowledgeRequest, replaced: Factors | None, fingerprint: str
    ) -> Result:
        try:
            answer = await self._acceptable_answer(request)
        except Rejected as rejected:
            return await self._reject(request, rejected)
        self._refusals.note(refused=False)
        factors = Factors(
            version=request.version,
            generated_at_ms=self._generated_at_ms(request, replaced),
            factors=answer.factors,
            provenance=Provenance(
                model=self._writer.model,
                prompt_id=prompt_id_of(self._domain, request.entity.kind),
                fingerprint=fingerprint,
                prompt_tokens=answer.prompt_tokens,
                completion_tokens=answer.completion_tokens,
            ),
            event_time_ms=request.event_time_ms,
        )
        await self._emit_factors(request.entity, factors)
        return Settled(Outcome.EMITTED, called=("redis", WRITER, "kafka"))

    async def _acceptable_answer(self, request: KnowledgeRequest) -> Answer:
        """Return an answer that passed the gate, after one repair at most; raises Rejected."""
        prompt = prompt_about(self._domain, request.entity, request.fields)
        try:
            return await self._answer(prompt, request)
        except Rejected as rejected:
            if rejected.rejection is Rejection.NO_ANSWER:
                raise
            first = rejected.rejection
        self.stats.repairs += 1
        return await self._answer(repair_prompt(prompt, first), request)

    async def _answer(self, prompt: Prompt, request: KnowledgeRequest) -> Answer:
        self.stats.calls += 1
        seconds = self._settings.call_seconds
        try:
            async with asyncio.timeout(seconds):
                answer = await self._writer.write(
                    prompt, request, priority=_PRIORITIES[request.kind]
                )
        except TimeoutError as error:
            raise Transient(WRITER, f"no answer within {seconds:g} s") from error
        self.stats.prompt_tokens += answer.prompt_tokens
        self.stats.completion_tokens += answer.completion_tokens
        rejected = self._gate.judge(answer, request.fields, request.entity.kind)
        if rejected is not None:
            raise rejected
        return answer

    async def _reject(self, request: KnowledgeRequest, rejected: Rejected) -> Result:
        self.stats.rejected[rejected.rejection.value] += 1
        # That the recorded writer knows nothing of an item says nothing about the writer, and
        # asking again would not change it.
        if rejected.rejection is not Rejection.NO_ANSWER:
            self._refusals.note(refused=True)
            if self._refusals.is_flood:
                return Transient(WRITER, f"nearly all answers are refused, last: {rejected}")
            await self._emit_retry(request)
        return Settled(
            Outcome.REJECTED,
            rejected.rejection.value,
            rejected.detail,
            called=("redis", WRITER, "kafka"),
        )

    async def _emit_retry(self, request: KnowledgeRequest) -> None:
        if request.attempt >= self._settings.rejected_retry_attempts:
            return
        wait_seconds = self._settings.rejected_retry_first_seconds * RETRY_GROWTH**request.attempt
        await self._emit_request(
            replace(
                request,
                kind=RequestKind.REFRESH,
                attempt=request.attempt + 1,
                not_before_ms=self._clock.now_ms() + round(wait_seconds * 1000),
            )
        )

    async def _emit_request(self, request: KnowledgeRequest) -> None:
        await self._emitter.emit(
            [Outgoing(Topic.KNOWLEDGE_BACKLOG, request.entity.encode(), request.encode())]
        )

    async def _emit_factors(self, entity: EntityKey, factors: Factors) -> None:
        update = KnowledgeUpdate(entity, RegisterName.INDIVIDUAL, factors)
        await self._emitter.emit([Outgoing(Topic.KNOWLEDGE, entity.encode(), update.encode())])
        self._remember(entity, Document(individual=factors))

    def _remember(self, entity: EntityKey, news: Document) -> None:
        self._recent.add(entity, news, now_ms=self._clock.now_ms())

    def _generated_at_ms(self, request: KnowledgeRequest, replaced: Factors | None) -> int:
        # An answer must beat what it replaces, and count as given after it was asked for, though
        # three machines' clocks may disagree.
        before = -1 if replaced is None else replaced.generated_at_ms
        return max(self._clock.now_ms(), request.requested_at_ms, before + 1)
