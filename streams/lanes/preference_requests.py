"""Asking for preference knowledge: what the gate lets through becomes a request about a user.

Owns the way from a changed history to a content register on `knowledge` and a request on
`knowledge.backlog`, both of the history's revision. Emitted before the gate's state is stored: a
crash in between decides the same again, and what is emitted twice is one register and one call.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import structlog

from schemas.entities import EntityKey, EntityKind
from schemas.fingerprints import Json, content_fingerprint
from schemas.history import History
from schemas.knowledge import (
    Content,
    Document,
    Factors,
    KnowledgeRequest,
    KnowledgeUpdate,
    RegisterName,
    RequestKind,
)
from schemas.spaces import SpaceRecord, SpaceState
from schemas.topics import DAY_MS, Topic
from streams.emitter import Emitter, Outgoing
from streams.engine.ports import Clock
from streams.lanes.taste_fields import TasteBounds, Told, taste_fields, told_items
from streams.settings import BehaviourSettings
from workers.knowledge.preference_gate import (
    Decision,
    GatePolicy,
    GateReason,
    GateState,
    SignificancePort,
    Vector,
    decide,
    declined,
    event_day,
)
from workers.live.entity_records import StoredEntity

log = structlog.get_logger("freshet.preferences")

_RAW_ADAPTOR = "raw"
_LIVE = frozenset({SpaceState.BACKFILLING, SpaceState.ACTIVE})
_HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class TasteChange:
    """A user whose history changed; `vector` (dim,) is theirs in the first space of histories."""

    user: EntityKey
    history: History
    vector: Vector | None


class GateStatesPort(Protocol):
    """Where the gate's states and the count of all calls are kept; all raise Transient."""

    async def load(self, users: Sequence[EntityKey]) -> list[bytes | None]:
        """Return the state of each user, in order."""

    async def store(self, rows: Sequence[tuple[EntityKey, bytes]], ttl_ms: int) -> None:
        """Store states that live `ttl_ms`."""

    async def delete(self, users: Sequence[EntityKey]) -> None:
        """Forget states."""

    async def calls(self, day: str) -> int:
        """Return how many calls an event-day (yyyymmdd) had."""

    async def add_call(self, day: str) -> int:
        """Count one more; return how many the day has now."""


class DocumentsPort(Protocol):
    """Where the merged documents are read."""

    async def load(self, keys: Sequence[EntityKey], raw_space: str | None) -> list[StoredEntity]:
        """Return what is stored of each entity, in order; raises Transient."""


class SpacesWishPort(Protocol):
    """Who follows the registry of spaces."""

    def wants_user_knowledge(self) -> bool:
        """Return whether some live space takes its user vectors from knowledge."""


@dataclass(slots=True)
class PreferenceStats:
    """Counters since the start: how the gate decided, by GateReason value."""

    decisions: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class _Considered:
    """A change on its way through: the state it began with, and what was decided so far."""

    change: TasteChange
    before: GateState | None
    decision: Decision
    told: tuple[Told, ...] = ()
    fields: dict[str, Json] | None = None


class PreferenceGateway:
    """The behaviour lane's port to preference knowledge.

    The budget of all users is counted in Redis by event-day, one increment a call, so it is never
    overdrawn by several workers at once; a call repeated after a crash is counted twice.
    """

    def __init__(
        self,
        *,
        states: GateStatesPort,
        documents: DocumentsPort,
        spaces: SpacesWishPort,
        emitter: Emitter,
        clock: Clock,
        significance: SignificancePort,
        settings: BehaviourSettings,
    ) -> None:
        self.stats = PreferenceStats()
        self._states = states
        self._documents = documents
        self._spaces = spaces
        self._emitter = emitter
        self._clock = clock
        self._significance = significance
        self._mode: Literal["auto", "on", "off"] = settings.knowledge
        self._policy = gate_policy(settings)
        self._bounds = taste_bounds(settings)
        self._ttl_ms = settings.idle_ms

    async def consider(self, changes: Sequence[TasteChange]) -> None:
        """Decide about each user once a batch; users are distinct. Raises Transient."""
        if not changes or not self._is_on:
            return
        stored = await self._states.load([change.user for change in changes])
        all_considered = [
            self._considered(change, _state(value))
            for change, value in zip(changes, stored, strict=True)
        ]
        wishes = [one for one in all_considered if one.decision.ask]
        if wishes:
            await self._fill_in(wishes)
            await self._spend([one for one in wishes if one.decision.ask])
            asking = [one for one in wishes if one.decision.ask]
            if asking:
                await self._emitter.emit([message for one in asking for message in self._ask(one)])
        await self._states.store(
            [(one.change.user, one.decision.state.encode()) for one in all_considered],
            self._ttl_ms,
        )
        self.stats.decisions.update(one.decision.reason.value for one in all_considered)

    async def forget(self, users: Sequence[EntityKey]) -> None:
        """Forget what the gate remembers of users; raises Transient."""
        if users:
            await self._states.delete(users)

    @property
    def _is_on(self) -> bool:
        if self._mode == "auto":
            return self._spaces.wants_user_knowledge()
        return self._mode == "on"

    def _considered(self, change: TasteChange, before: GateState | None) -> _Considered:
        return _Considered(change, before, self._decide(change, before, calls_today=0))

    def _decide(
        self, change: TasteChange, before: GateState | None, *, calls_today: int
    ) -> Decision:
        return decide(
            before, change.history, change.vector, self._policy, self._significance, calls_today
        )

    async def _fill_in(self, wishes: Sequence[_Considered]) -> None:
        """Read the titles to tell, and what was written about users that have no state.

        A Redis that lost its states must not cost a call for every user who comes by.
        """
        for one in wishes:
            one.told = told_items(one.change.history, self._significance, self._bounds)
        strangers = [one.change.user for one in wishes if one.before is None]
        items = {told.item for one in wishes for told in one.told}
        documents = await self._load([*strangers, *sorted(items)])
        known = {
            key: document.content.fields
            for key, document in documents.items()
            if key.kind is EntityKind.ITEM and document.content is not None
        }
        for one in wishes:
            written = documents.get(one.change.user, Document()).individual
            if one.before is None and written is not None:
                one.before = _recalled(written)
                one.decision = self._decide(one.change, one.before, calls_today=0)
            one.fields = taste_fields(one.told, known)
            if one.decision.ask and one.fields is None:
                one.decision = declined(one.decision, one.before, GateReason.NO_TITLES)

    async def _load(self, keys: Sequence[EntityKey]) -> dict[EntityKey, Document]:
        stored = await self._documents.load(keys, None)
        return {entity.key: entity.document for entity in stored}

    async def _spend(self, wishes: Sequence[_Considered]) -> None:
        """Turn away whom the budget of all users has nothing left for."""
        calls: dict[str, int] = {}
        for one in wishes:
            day = event_day(one.change.history.newest_ms)
            if day not in calls:
                calls[day] = await self._states.calls(day)
            if calls[day] < self._policy.calls_per_day:
                calls[day] = await self._states.add_call(day)
                if calls[day] <= self._policy.calls_per_day:
                    continue
            one.decision = declined(one.decision, one.before, GateReason.GLOBAL_BUDGET)

    def _ask(self, one: _Considered) -> tuple[Outgoing, Outgoing]:
        user, history, fields = one.change.user, one.change.history, one.fields or {}
        fingerprint = content_fingerprint(fields)
        content = Content(history.rev, fields, fingerprint, history.newest_ms)
        request = KnowledgeRequest(
            entity=user,
            kind=RequestKind.USER,
            version=history.rev,
            fields=fields,
            content_fingerprint=fingerprint,
            event_time_ms=history.newest_ms,
            requested_at_ms=self._clock.now_ms(),
        )
        update = KnowledgeUpdate(user, RegisterName.CONTENT, content)
        return (
            Outgoing(Topic.KNOWLEDGE, user.encode(), update.encode()),
            Outgoing(Topic.KNOWLEDGE_BACKLOG, user.encode(), request.encode()),
        )


def gate_policy(settings: BehaviourSettings) -> GatePolicy:
    """Return the gate's numbers of these settings."""
    return GatePolicy(
        enabled=settings.knowledge != "off",
        min_events=settings.gate_min_events,
        new_events=settings.gate_new_events,
        drift=settings.gate_drift,
        max_age_ms=round(settings.gate_max_age_days * DAY_MS),
        min_interval_ms=round(settings.gate_min_interval_hours * _HOUR_MS),
        user_calls_per_day=settings.gate_user_calls_per_day,
        calls_per_day=settings.gate_calls_per_day,
    )


def taste_bounds(settings: BehaviourSettings) -> TasteBounds:
    """Return how much of a history a prompt may tell."""
    return TasteBounds(
        settings.liked_titles, settings.disliked_titles, settings.half_life_days * DAY_MS
    )


def wants_user_knowledge(spaces: Iterable[SpaceRecord]) -> bool:
    """Return whether some live space takes its user vectors from knowledge. Pure.

    The raw space does not count: it only keeps the parts that such a space is made from.
    """
    return any(
        record.state in _LIVE
        and record.space.adaptor_id != _RAW_ADAPTOR
        and EntityKind.USER in record.space.kinds
        and record.space.user_vectors == "knowledge"
        for record in spaces
    )


def _state(stored: bytes | None) -> GateState | None:
    if stored is None:
        return None
    try:
        return GateState.decode(stored)
    except ValueError as error:
        # As if it were lost: the user's document says what was asked last.
        log.warning("gate_state_unreadable", detail=str(error))
        return None


def _recalled(written: Factors) -> GateState:
    """Return the state that the knowledge about a user speaks for."""
    return GateState(
        asked_rev=written.version,
        asked_ms=written.event_time_ms,
        calls=1,
        calls_that_day=1,
    )
