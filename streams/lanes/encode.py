"""The encode lane: registers are merged into documents, and documents become vectors.

Owns every change of a document. Redis first, by compare-and-set on the document's revision, then
the compacted topics, then the outcome; whatever a crash leaves out is made up for when the record
comes again, because nothing else moves on until it does.
"""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from schemas.entities import EntityKey, EntityKind
from schemas.errors import Permanent, Transient
from schemas.knowledge import Document, KnowledgeUpdate
from schemas.reasons import Reason
from schemas.spaces import Space
from streams.emitter import Emitter, Outgoing
from streams.engine.lane import Absorbed, Record
from streams.engine.outcomes import Outcome, Result, Settled
from streams.engine.ports import Clock
from streams.lanes.entity_plan import (
    Plan,
    Verdict,
    entity_message,
    live_update_message,
    make_plan,
    no_representation_message,
    representation_message,
)
from streams.lanes.vector_rules import is_described, is_from_documents
from streams.lanes.vectors import AdaptorPort, VectorSource, space_records
from workers.live.entity_records import EntityWrite, StoredEntity

MAX_ROUNDS = 5
"""Compare-and-sets an entity may lose before it waits: the other writer is another owner of its
partition during a rebalance, which ends."""

CHARS_PER_TOKEN = 4

PartTexts: TypeAlias = tuple[str | None, ...]
Row: TypeAlias = tuple[PartTexts | None, npt.NDArray[np.floating] | None, PartTexts]
"""Old texts, the parts (P, d) made from exactly these, and the texts wanted now."""


class StorePort(Protocol):
    """Where documents and vectors are kept together."""

    async def load(self, keys: Sequence[EntityKey], raw_space: str | None) -> list[StoredEntity]:
        """Return what is stored of each entity, in order; raises Transient."""

    async def put(self, writes: Sequence[EntityWrite]) -> list[bool]:
        """Write each entity whose revision is the expected one; raises Transient."""


class RepresenterPort(Protocol):
    """Who turns documents into part texts, and part texts into part vectors."""

    def texts(self, document: Document) -> PartTexts:
        """Return the text of each part, None where it is missing."""

    def represent(
        self, rows: Sequence[Row]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_], int]:
        """Return (n, P, d) float32, (n, P) bool and how many texts were encoded. Blocks."""


class SpacesPort(Protocol):
    """The spaces that this lane writes; they may change between two batches."""

    @property
    def raw(self) -> Space:
        """The raw space: the parts themselves."""

    def adaptors(self) -> Sequence[AdaptorPort]:
        """Return the adaptors to write now, the raw space's among them."""


@dataclass(frozen=True, slots=True)
class EntityUpdate:
    """What arrived about an entity: a document of one register, or of several absorbed ones."""

    entity: EntityKey
    document: Document
    tokens: int


@dataclass(frozen=True, slots=True)
class _Made:
    """A planned write with all its bytes, and the records to produce once it has landed."""

    plan: Plan
    write: EntityWrite
    messages: tuple[Outgoing, ...]


class EncodeLane:
    """One handler on `knowledge`; see streams.engine.lane.Lane for the contract.

    `executor` has one thread: the encoder's. Two batches in flight keep it busy while the other
    one talks to Redis and Kafka.
    """

    name = "encode"

    def __init__(
        self,
        *,
        store: StorePort,
        representer: RepresenterPort,
        spaces: SpacesPort,
        emitter: Emitter,
        clock: Clock,
        executor: Executor,
    ) -> None:
        self._store = store
        self._representer = representer
        self._spaces = spaces
        self._emitter = emitter
        self._clock = clock
        self._executor = executor

    def decode(self, record: Record, now_ms: int) -> EntityUpdate:  # noqa: ARG002  # no times here
        """Return the register in a record, as a document; raises Permanent."""
        if record.value is None:
            raise Permanent(Reason.NULL_VALUE, f"{record.topic} holds registers, not tombstones")
        update = KnowledgeUpdate.decode(record.value)
        if record.key != update.entity.encode():
            raise Permanent(Reason.WRONG_KEY, f"key {record.key!r} is not {update.entity}")
        tokens = 1 + len(record.value) // CHARS_PER_TOKEN
        return EntityUpdate(update.entity, Document.of(update.register, update.value), tokens)

    def key(self, value: EntityUpdate) -> EntityKey:
        """Return the entity."""
        return value.entity

    def version(self, value: EntityUpdate) -> int | None:
        """Return the greatest version among the registers."""
        document = value.document
        registers = (
            document.removed,
            document.content,
            document.collective,
            document.individual,
        )
        return max((register.version for register in registers if register), default=None)

    def tokens(self, value: EntityUpdate) -> int:
        """Return about how many tokens the update may bring to the encoder."""
        return value.tokens

    def due_at_ms(self, value: EntityUpdate) -> int:  # noqa: ARG002  # always at once
        """Return 0."""
        return 0

    def absorb(self, waiting: EntityUpdate, incoming: EntityUpdate) -> Absorbed[EntityUpdate]:
        """Merge: both live on in one document, and both end as it does."""
        merged = EntityUpdate(
            waiting.entity,
            waiting.document.merge(incoming.document),
            waiting.tokens + incoming.tokens,
        )
        return Absorbed(merged, incoming_survives=False, loser=None)

    async def handle(self, batch: Sequence[EntityUpdate]) -> Sequence[Result]:
        """Merge, encode, write and produce; raises Transient."""
        results: dict[EntityKey, Result] = {}
        waiting = list(batch)
        for _ in range(MAX_ROUNDS):
            results |= await self._round(waiting)
            waiting = [update for update in waiting if update.entity not in results]
            if not waiting:
                break
        contended = Transient("redis", f"lost {MAX_ROUNDS} compare-and-sets in a row")
        return [results.get(update.entity, contended) for update in batch]

    async def _round(self, updates: Sequence[EntityUpdate]) -> Mapping[EntityKey, Result]:
        """Return how entities ended, without those that met another writer."""
        raw, adaptors = self._spaces.raw, self._spaces.adaptors()
        stored = await self._store.load([update.entity for update in updates], raw.name)
        plans = [
            make_plan(update.document, entity, raw)
            for update, entity in zip(updates, stored, strict=True)
        ]
        now_ms = self._clock.now_ms()
        writes = [plan for plan in plans if plan.verdict is Verdict.WRITE]
        repeats = [plan for plan in plans if plan.verdict is Verdict.REPEAT]
        landed: list[_Made] = []
        if writes:
            loop = asyncio.get_running_loop()
            made = await loop.run_in_executor(
                self._executor, self._make, writes, raw, adaptors, now_ms
            )
            put = await self._store.put([one.write for one in made])
            landed = [one for one, done in zip(made, put, strict=True) if done]
        messages = [message for one in landed for message in one.messages]
        for plan in repeats:
            messages += self._repeated_messages(plan, raw, adaptors, now_ms)
        if messages:
            await self._emitter.emit(messages)
        return {
            **{plan.entity: _ended(plan) for plan in plans if plan.verdict is not Verdict.WRITE},
            **{one.plan.entity: _ended(one.plan) for one in landed},
        }

    def _make(
        self, plans: Sequence[Plan], raw: Space, adaptors: Sequence[AdaptorPort], now_ms: int
    ) -> list[_Made]:
        """Return the writes and records of plans. Runs in the executor."""
        texts = [self._representer.texts(plan.document) for plan in plans]
        old_texts = [
            None if plan.raw is None else self._representer.texts(plan.stored.document)
            for plan in plans
        ]
        live = [
            index
            for index, plan in enumerate(plans)
            if is_described(plan.entity, plan.document, raw.parts)
            and _is_wanted(plan.entity.kind, raw, adaptors)
        ]
        values, mask, _ = self._representer.represent(
            [(old_texts[index], _values(plans[index]), texts[index]) for index in live]
        )
        sources = [
            VectorSource(plan.entity, plan.document, plan.stored.rev + 1, now_ms)
            for plan in (plans[index] for index in live)
        ]
        vectors = dict(zip(live, space_records(sources, values, mask, adaptors), strict=True))
        parts = dict(zip(live, values, strict=True))
        return [
            _made(
                plan,
                vectors.get(index, {}),
                self._messages(
                    plan,
                    parts.get(index) if old_texts[index] != texts[index] or plan.repeats else None,
                    texts[index],
                    raw=raw,
                    adaptors=adaptors,
                    rev=plan.stored.rev + 1,
                    now_ms=now_ms,
                ),
                adaptors,
            )
            for index, plan in enumerate(plans)
        ]

    def _repeated_messages(
        self, plan: Plan, raw: Space, adaptors: Sequence[AdaptorPort], now_ms: int
    ) -> tuple[Outgoing, ...]:
        return self._messages(
            plan,
            _values(plan) if is_described(plan.entity, plan.document, raw.parts) else None,
            self._representer.texts(plan.document),
            raw=raw,
            adaptors=adaptors,
            rev=plan.stored.rev,
            now_ms=now_ms,
        )

    def _messages(
        self,
        plan: Plan,
        parts: npt.NDArray[np.floating] | None,
        texts: PartTexts,
        *,
        raw: Space,
        adaptors: Sequence[AdaptorPort],
        rev: int,
        now_ms: int,
    ) -> tuple[Outgoing, ...]:
        """Return the records of one entity; `parts` (P, d) is None when they did not change."""
        entity, document = plan.entity, plan.document
        is_live = is_described(entity, document, raw.parts)
        is_gone = not is_live and document.removed is not None
        messages = [entity_message(entity, document, rev=rev, written_at_ms=now_ms)]
        if is_from_documents(raw, entity.kind):
            if parts is not None:
                messages.append(representation_message(entity, raw, parts, texts, rev=rev))
            elif is_gone:
                messages.append(no_representation_message(entity))
        if is_live or is_gone:
            messages += [
                live_update_message(
                    entity,
                    document,
                    adaptor.space.name,
                    is_live=is_live,
                    rev=rev,
                    written_at_ms=now_ms,
                )
                for adaptor in adaptors
                if is_from_documents(adaptor.space, entity.kind)
            ]
        return tuple(messages)


def _is_wanted(kind: EntityKind, raw: Space, adaptors: Sequence[AdaptorPort]) -> bool:
    """Whether the parts of this kind of entity are kept, or made into any vector."""
    spaces = (raw, *(adaptor.space for adaptor in adaptors))
    return any(is_from_documents(space, kind) for space in spaces)


def _values(plan: Plan) -> npt.NDArray[np.floating] | None:
    return None if plan.raw is None else plan.raw.values


def _made(
    plan: Plan,
    vectors: dict[str, bytes],
    messages: tuple[Outgoing, ...],
    adaptors: Sequence[AdaptorPort],
) -> _Made:
    gone = tuple(
        adaptor.space.name
        for adaptor in adaptors
        if adaptor.space.name not in vectors and is_from_documents(adaptor.space, plan.entity.kind)
    )
    write = EntityWrite(plan.entity, plan.stored.rev, plan.document, vectors, gone)
    return _Made(plan, write, messages)


def _ended(plan: Plan) -> Settled:
    match plan.verdict:
        case Verdict.WRITE:
            detail = f"rev {plan.stored.rev + 1}, {plan.document.stage.name.lower()}"
            return Settled(Outcome.WRITTEN, detail=detail, called=("redis", "kafka"))
        case Verdict.REPEAT:
            return Settled(Outcome.UNCHANGED, called=("redis", "kafka"))
        case Verdict.STALE:
            return Settled(Outcome.STALE, called=("redis",))
