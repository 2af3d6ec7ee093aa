"""The items lane: catalogue events become registers of documents and requests for knowledge.

Owns the decision whether an event says anything new. It compares with its own register `seen`,
written after the emits are acknowledged: what is seen is durable in Kafka. It refuses to look at
documents, because the encode lane may not have written yet what this lane emitted long ago.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from schemas.entities import EntityKey
from schemas.events import (
    ContentPolicy,
    DecodeLimits,
    ItemRemoved,
    decode_catalog_event,
    entity_of,
    event_time_ms,
)
from schemas.fingerprints import Json, content_fingerprint
from schemas.knowledge import (
    Content,
    KnowledgeRequest,
    KnowledgeUpdate,
    RegisterName,
    Removed,
    RequestKind,
)
from schemas.topics import Topic
from streams.emitter import Emitter, Outgoing
from streams.engine.lane import Absorbed, Record
from streams.engine.outcomes import Outcome, Result, Settled
from streams.engine.ports import Clock
from workers.live.seen_record import Seen

_UNCHANGED = Settled(Outcome.UNCHANGED, called=("redis",))
_STALE = Settled(Outcome.STALE, called=("redis",))
_CONFIRMED = Settled(Outcome.CONFIRMED, called=("redis",))


class SeenPort(Protocol):
    """The lane's own register of what it emitted last of every item."""

    async def load(self, keys: Sequence[EntityKey]) -> list[Seen | None]:
        """Return what was seen of each entity, in order; raises Transient."""

    async def store(self, rows: Sequence[tuple[EntityKey, Seen]]) -> None:
        """Store what was seen, but where a greater version was stored; raises Transient."""


@dataclass(frozen=True, slots=True)
class ItemChange:
    """An item as one version of its source describes it; `fields` None means removed."""

    entity: EntityKey
    version: int
    fields: Mapping[str, Json] | None
    fingerprint: str
    event_time_ms: int
    hides_another: bool = False
    """Whether it absorbed a version with other content, which may have been emitted already by an
    attempt that did not get as far as `seen`: then it must not be taken for a confirmation."""

    @property
    def removed(self) -> bool:
        """Whether the item left the catalogue."""
        return self.fields is None

    @property
    def rank(self) -> tuple[int, bool, str]:
        """The total order of changes, the same as that of the document's registers.

        Of one version a removal beats a content, and of two contents the greater fingerprint wins:
        arbitrary, but the same whatever came first.
        """
        return self.version, self.removed, self.fingerprint


class ItemsLane:
    """One handler on `catalog.items`; see streams.engine.lane.Lane for the contract."""

    name = "items"

    def __init__(
        self,
        emitter: Emitter,
        seen: SeenPort,
        policy: ContentPolicy,
        limits: DecodeLimits,
        clock: Clock,
    ) -> None:
        self._emitter = emitter
        self._seen = seen
        self._policy = policy
        self._limits = limits
        self._clock = clock

    def decode(self, record: Record, now_ms: int) -> ItemChange:
        """Return the change that a record describes; raises InvalidInput."""
        event = decode_catalog_event(
            record.key,
            record.value,
            record.headers,
            timestamp_ms=record.timestamp_ms,
            now_ms=now_ms,
            limits=self._limits,
        )
        happened_ms = event_time_ms(event, record.timestamp_ms)
        if isinstance(event, ItemRemoved):
            return ItemChange(entity_of(event), event.version, None, "", happened_ms)
        fields = self._policy.content_of(event)
        return ItemChange(
            entity_of(event), event.version, fields, content_fingerprint(fields), happened_ms
        )

    def key(self, value: ItemChange) -> EntityKey:
        """Return the item."""
        return value.entity

    def version(self, value: ItemChange) -> int | None:
        """Return the source's version."""
        return value.version

    def tokens(self, value: ItemChange) -> int:  # noqa: ARG002  # no model here: batches go by count
        """Return 1: every change costs the same."""
        return 1

    def due_at_ms(self, value: ItemChange) -> int:  # noqa: ARG002  # always at once
        """Return 0."""
        return 0

    def absorb(self, waiting: ItemChange, incoming: ItemChange) -> Absorbed[ItemChange]:
        """Keep the greater of two changes."""
        if waiting.rank == incoming.rank:
            kept = replace(waiting, hides_another=_hides_another(waiting, incoming))
            return Absorbed(kept, incoming_survives=False, loser=Outcome.UNCHANGED)
        incoming_survives = incoming.rank > waiting.rank
        kept = replace(
            incoming if incoming_survives else waiting,
            hides_another=_hides_another(waiting, incoming),
        )
        return Absorbed(kept, incoming_survives, Outcome.SUPERSEDED)

    async def handle(self, batch: Sequence[ItemChange]) -> Sequence[Result]:
        """Emit what is new, then note it as seen; raises Transient."""
        seen = await self._seen.load([change.entity for change in batch])
        now_ms = self._clock.now_ms()
        results = [_judge(change, last) for change, last in zip(batch, seen, strict=True)]
        messages = [
            message
            for change, last, result in zip(batch, seen, results, strict=True)
            if result.outcome is Outcome.EMITTED
            for message in _messages(change, last, now_ms)
        ]
        if messages:
            await self._emitter.emit(messages)
        news = [
            (change.entity, Seen(change.version, change.fingerprint, change.removed, now_ms))
            for change, result in zip(batch, results, strict=True)
            if result.outcome in (Outcome.EMITTED, Outcome.CONFIRMED)
        ]
        if news:
            await self._seen.store(news)
        return results


def _hides_another(waiting: ItemChange, incoming: ItemChange) -> bool:
    differ = (waiting.removed, waiting.fingerprint) != (incoming.removed, incoming.fingerprint)
    return differ or waiting.hides_another or incoming.hides_another


def _judge(change: ItemChange, seen: Seen | None) -> Settled:
    if seen is None:
        return _emitted(_request_kind(change, seen))
    seen_rank = (seen.version, seen.removed, seen.fingerprint)
    if change.rank == seen_rank:
        return _UNCHANGED
    if change.rank < seen_rank:
        return _STALE
    says_the_same = (change.removed, change.fingerprint) == (False, seen.fingerprint)
    if change.version > seen.version and says_the_same and not change.hides_another:
        return _CONFIRMED
    return _emitted(_request_kind(change, seen))


def _emitted(kind: RequestKind) -> Settled:
    return Settled(Outcome.EMITTED, reason=kind.value, called=("redis", "kafka"))


def _request_kind(change: ItemChange, seen: Seen | None) -> RequestKind:
    if change.removed:
        return RequestKind.REMOVE
    # An item that comes back has lost its knowledge with the removal.
    return RequestKind.NEW if seen is None or seen.removed else RequestKind.CHANGED


def _messages(change: ItemChange, seen: Seen | None, now_ms: int) -> tuple[Outgoing, Outgoing]:
    if change.fields is None:
        removed = Removed(change.version, change.event_time_ms)
        update = KnowledgeUpdate(change.entity, RegisterName.REMOVED, removed)
    else:
        content = Content(change.version, change.fields, change.fingerprint, change.event_time_ms)
        update = KnowledgeUpdate(change.entity, RegisterName.CONTENT, content)
    request = KnowledgeRequest(
        entity=change.entity,
        kind=_request_kind(change, seen),
        version=change.version,
        fields=change.fields or {},
        content_fingerprint=change.fingerprint,
        event_time_ms=change.event_time_ms,
        requested_at_ms=now_ms,
    )
    key = change.entity.encode()
    return (
        Outgoing(Topic.KNOWLEDGE, key, update.encode()),
        Outgoing(Topic.KNOWLEDGE_REQUESTS, key, request.encode()),
    )
