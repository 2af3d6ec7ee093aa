"""What the knowledge lanes put on Kafka, and what they remember of it until it is merged."""

from dataclasses import replace

from schemas.entities import EntityKey
from schemas.knowledge import (
    Document,
    Factors,
    KnowledgeRequest,
    KnowledgeUpdate,
    RegisterName,
    RequestKind,
)
from schemas.topics import Topic
from streams.emitter import Emitter, Outgoing
from streams.engine.ports import Clock
from streams.lanes.recent_knowledge import RecentKnowledge


class KnowledgeEmits:
    """Registers on `knowledge`, requests on `knowledge.backlog`; raises Transient("kafka").

    What was emitted counts as known from then on, though the encode lane may not have merged it.
    """

    def __init__(self, emitter: Emitter, clock: Clock) -> None:
        self._emitter = emitter
        self._clock = clock
        self._recent = RecentKnowledge()

    def known(self, entity: EntityKey, stored: Document) -> Document:
        """Return what is known of an entity: what is stored, and what was emitted lately."""
        return stored.merge(self._recent.get(entity, now_ms=self._clock.now_ms()))

    def remember(self, entity: EntityKey, news: Document) -> None:
        """Count registers as known that are on their way by other hands."""
        self._recent.add(entity, news, now_ms=self._clock.now_ms())

    async def individual(self, entity: EntityKey, factors: Factors) -> None:
        """Emit knowledge written about this very entity."""
        await self._emitter.emit([_register(entity, RegisterName.INDIVIDUAL, factors)])
        self.remember(entity, Document(individual=factors))

    async def collective(self, request: KnowledgeRequest, factors: Factors | None) -> None:
        """Emit the knowledge of an item's group, and the wish for some of its own.

        Both at once, so that no item is left with the former alone. `factors` None: just the wish.
        """
        messages = [_wish(upgrade_of(request))]
        if factors is not None:
            messages.insert(0, _register(request.entity, RegisterName.COLLECTIVE, factors))
        await self._emitter.emit(messages)
        if factors is not None:
            self.remember(request.entity, Document(collective=factors))

    async def request(self, request: KnowledgeRequest) -> None:
        """Put a request on the backlog."""
        await self._emitter.emit([_wish(request)])


def upgrade_of(request: KnowledgeRequest) -> KnowledgeRequest:
    """Return the request for the backlog that asks the same of an idler hour.

    Equal for equal requests, so that one which is emitted twice folds into itself.
    """
    return replace(request, kind=RequestKind.UPGRADE, attempt=0, not_before_ms=0)


def _register(entity: EntityKey, name: RegisterName, factors: Factors) -> Outgoing:
    update = KnowledgeUpdate(entity, name, factors)
    return Outgoing(Topic.KNOWLEDGE, entity.encode(), update.encode())


def _wish(request: KnowledgeRequest) -> Outgoing:
    return Outgoing(Topic.KNOWLEDGE_BACKLOG, request.entity.encode(), request.encode())
