"""The author: requests become knowledge by calls of the language model.

Owns the call: its deadline, its bound in flight, the judgement of the answer, the one repair, and
what it cost. Knows nothing of why it is asked now and not later.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

from schemas.entities import EntityKey, EntityKind
from schemas.errors import Transient
from schemas.fingerprints import Json, knowledge_fingerprint
from schemas.knowledge import Document, Factors, KnowledgeRequest, Provenance, RequestKind
from schemas.reasons import Rejection
from streams.engine.outcomes import Outcome, Settled
from streams.engine.ports import Clock
from streams.giving_way import GaveWay
from streams.lanes.call_places import CallPlaces
from streams.lanes.group_requests import shared_request
from streams.lanes.knowledge_emits import KnowledgeEmits
from streams.lanes.knowledge_stats import GAVE_WAY, GROUP, REPAIR, SHARED, KnowledgeStats
from streams.lanes.recent_knowledge import RefusalShare
from streams.lanes.request_order import judge
from streams.lanes.token_limits import BudgetPort
from streams.settings import KnowledgeSettings
from workers.knowledge.prompts import Domain, Prompt, repair_prompt
from workers.knowledge.select_prompt import prompt_about, prompt_id_of
from workers.knowledge.shared_prompt import shared_prompt, shared_prompt_id
from workers.knowledge.writer import Answer, Rejected, Writer

WRITER = "vllm"
"""What writers call their dependency in Transient."""

_LOOK_AGAIN_SECONDS = 1.0
"""While nearly all answers are refused. Names a time, so that the engine never takes the writer's
illness for the fault of a record."""

SHARED_PRIORITY = -1
"""Of a call about several items that wait: one answer serves them all."""

PRIORITIES: Mapping[RequestKind, int] = {
    RequestKind.NEW: 0,
    RequestKind.CHANGED: 1,
    RequestKind.USER: 2,
    RequestKind.UPGRADE: 3,
    RequestKind.REFRESH: 4,
    RequestKind.REMOVE: 0,
}
"""As the server sorts them: smaller first."""


class GatePort(Protocol):
    """Who judges answers."""

    def judge(
        self, answer: Answer, fields: Mapping[str, Json], kind: EntityKind
    ) -> Rejected | None:
        """Return why an answer about an entity with these fields is refused, None if it is not."""


class SharedGatePort(Protocol):
    """Who judges short answers about several items."""

    def judge(
        self, answer: Answer, members: Sequence[Mapping[str, Json]]
    ) -> Sequence[Mapping[str, str] | Rejected]:
        """Return each item's factors, or why they are refused; in order."""


class Author:
    """Writes about entities; calls in flight are bounded over all callers."""

    def __init__(
        self,
        *,
        writer: Writer,
        gate: GatePort,
        domain: Domain,
        settings: KnowledgeSettings,
        budget: BudgetPort,
        emits: KnowledgeEmits,
        stats: KnowledgeStats,
        clock: Clock,
    ) -> None:
        self._writer = writer
        self._gate = gate
        self._domain = domain
        self._settings = settings
        self._budget = budget
        self._emits = emits
        self._stats = stats
        self._clock = clock
        self._places = CallPlaces(settings.in_flight)
        self._refusals = RefusalShare(settings.refused_share)
        self._answers = 0
        self._is_silent = False

    @property
    def answers(self) -> int:
        """How often the writer answered since the start, usably or not."""
        return self._answers

    @property
    def is_silent(self) -> bool:
        """Whether the writer's last call ended without an answer: it is in trouble, not busy."""
        return self._is_silent

    @property
    def places(self) -> CallPlaces:
        """The calls that may be in flight: whoever calls `share` holds one."""
        return self._places

    def shared_fingerprint(self, request: KnowledgeRequest) -> str:
        """Return the fingerprint of an answer to the request that is shared with others."""
        return knowledge_fingerprint(
            request.content_fingerprint, shared_prompt_id(self._domain), self._writer.model
        )

    def fingerprint(self, request: KnowledgeRequest) -> str:
        """Return the fingerprint of an answer to the request; raises Permanent(refused)."""
        prompt_id = prompt_id_of(self._domain, request.entity.kind)
        return knowledge_fingerprint(request.content_fingerprint, prompt_id, self._writer.model)

    async def spare(self, request: KnowledgeRequest, known: Document) -> Settled | None:
        """Return how the request ended without a call, None when a call is what it needs.

        Raises Transient("kafka"), Permanent(refused).
        """
        verdict = judge(request, known, self.fingerprint(request))
        if isinstance(verdict, Settled):
            if verdict.outcome is Outcome.UNCHANGED:
                self._stats.saved_fingerprint += 1
            return verdict
        if isinstance(verdict, Factors):
            await self._emits.individual(request.entity, verdict)
            self._stats.saved_fingerprint += 1
            return Settled(Outcome.EMITTED, reason="restamped", called=("redis", "kafka"))
        return None

    async def write(
        self, request: KnowledgeRequest, replaced: Factors | None, *, seconds: float | None = None
    ) -> Factors:
        """Return the factors that were written about the entity, once they are emitted.

        They beat `replaced`. Raises Rejected, Transient, Permanent, and NoPlace when its turn does
        not come within `seconds`.
        """
        # About one entity, a call is as full as it can get.
        async with self._places.place(lambda: (1.0, -request.requested_at_ms), seconds=seconds):
            answer = await self._acceptable_answer(request)
            factors = Factors(
                version=request.version,
                generated_at_ms=self._generated_at_ms(request, replaced),
                factors=answer.factors,
                provenance=Provenance(
                    model=self._writer.model,
                    prompt_id=prompt_id_of(self._domain, request.entity.kind),
                    fingerprint=self.fingerprint(request),
                    prompt_tokens=answer.prompt_tokens,
                    completion_tokens=answer.completion_tokens,
                ),
                event_time_ms=request.event_time_ms,
            )
            await self._emits.individual(request.entity, factors)
        return factors

    async def share(
        self, group: EntityKey, requests: Sequence[KnowledgeRequest], gate: SharedGatePort
    ) -> list[Factors | Rejected]:
        """Return short factors about each item of a group, of one call; or why they are refused.

        Nothing is emitted, and there is no repair: who is refused has a place on the backlog.
        Raises Rejected when the answer as a whole cannot be used, Transient, Permanent.
        """
        members = [request.fields for request in requests]
        prompt = shared_prompt(self._domain, members)
        asked = shared_request(group, requests, self._clock.now_ms())
        try:
            answer = await self._call(prompt, asked, reason=SHARED, priority=SHARED_PRIORITY)
        except Rejected as rejected:
            self._note_refused(rejected)
            raise
        self._stats.saved_shared += len(requests) - 1
        prompt_tokens = _split(answer.prompt_tokens, len(requests))
        completion_tokens = _split(answer.completion_tokens, len(requests))
        judged = gate.judge(answer, members)
        self._note_shares([one for one in judged if isinstance(one, Rejected)], len(judged))
        return [
            one
            if isinstance(one, Rejected)
            else Factors(
                version=request.version,
                generated_at_ms=self._generated_at_ms(request, None),
                factors=one,
                provenance=Provenance(
                    model=self._writer.model,
                    prompt_id=prompt.prompt_id,
                    fingerprint=self.shared_fingerprint(request),
                    prompt_tokens=prompt_tokens[row],
                    completion_tokens=completion_tokens[row],
                    group=group.id,
                ),
                event_time_ms=request.event_time_ms,
            )
            for row, (request, one) in enumerate(zip(requests, judged, strict=True))
        ]

    async def _acceptable_answer(self, request: KnowledgeRequest) -> Answer:
        """Return an answer that passed the gate, after one repair at most; raises Rejected."""
        try:
            answer = await self._answer_or_repaired(request)
        except Rejected as rejected:
            self._note_refused(rejected)
            raise
        self._refusals.note(refused=False)
        return answer

    def _note_refused(self, rejected: Rejected) -> None:
        """Count an answer that is of no use; raises Transient when nearly all are."""
        self._stats.rejected[rejected.rejection.value] += 1
        # That the recorded writer knows nothing of an item says nothing about the writer, and
        # asking again would not change it.
        if rejected.rejection is Rejection.NO_ANSWER:
            return
        self._refusals.note(refused=True)
        if self._refusals.is_flood:
            raise Transient(
                WRITER,
                f"{self._refusals}, the last for {rejected}",
                retry_after_seconds=_LOOK_AGAIN_SECONDS,
            ) from rejected

    def _note_shares(self, refused: Sequence[Rejected], members: int) -> None:
        """Count an answer about several items: it is of no use when it is so to none of them."""
        if len(refused) == members:
            *others, last = refused
            self._stats.rejected.update(one.rejection.value for one in others)
            self._note_refused(last)
            return
        self._stats.rejected.update(one.rejection.value for one in refused)
        self._refusals.note(refused=False)

    async def _answer_or_repaired(self, request: KnowledgeRequest) -> Answer:
        prompt = prompt_about(self._domain, request.entity, request.fields)
        urgency = PRIORITIES[request.kind]
        is_group = request.entity.kind is EntityKind.GROUP
        try:
            return await self._answer(
                prompt, request, reason=GROUP if is_group else request.kind.value, priority=urgency
            )
        except Rejected as rejected:
            if rejected.rejection is Rejection.NO_ANSWER:
                raise
            first = rejected.rejection
        return await self._answer(
            repair_prompt(prompt, first), request, reason=REPAIR, priority=urgency
        )

    async def _answer(
        self, prompt: Prompt, request: KnowledgeRequest, *, reason: str, priority: int
    ) -> Answer:
        answer = await self._call(prompt, request, reason=reason, priority=priority)
        rejected = self._gate.judge(answer, request.fields, request.entity.kind)
        if rejected is not None:
            raise rejected
        return answer

    async def _call(
        self, prompt: Prompt, request: KnowledgeRequest, *, reason: str, priority: int
    ) -> Answer:
        seconds = self._settings.call_seconds
        try:
            async with asyncio.timeout(seconds):
                answer = await self._writer.write(prompt, request, priority=priority)
        except TimeoutError as error:
            self._is_silent = True
            raise Transient(WRITER, f"no answer within {seconds:g} s") from error
        except Transient:
            self._is_silent = True
            raise
        except GaveWay:
            reason = GAVE_WAY
            raise
        except Rejected as refused:
            self._heard(reason, refused.prompt_tokens, refused.completion_tokens)
            raise
        finally:
            self._stats.costs[reason].calls += 1
        self._heard(reason, answer.prompt_tokens, answer.completion_tokens)
        return answer

    def _heard(self, reason: str, prompt_tokens: int, completion_tokens: int) -> None:
        self._answers += 1
        self._is_silent = False
        cost = self._stats.costs[reason]
        cost.prompt_tokens += prompt_tokens
        cost.completion_tokens += completion_tokens
        self._budget.spend(prompt_tokens + completion_tokens)

    def _generated_at_ms(self, request: KnowledgeRequest, replaced: Factors | None) -> int:
        # An answer must beat what it replaces, and count as given after it was asked for, though
        # three machines' clocks may disagree.
        before = -1 if replaced is None else replaced.generated_at_ms
        return max(self._clock.now_ms(), request.requested_at_ms, before + 1)


def _split(tokens: int, members: int) -> list[int]:
    """Return each member's part of what a call cost; they add up to it."""
    part, rest = divmod(tokens, members)
    return [part + (row < rest) for row in range(members)]
