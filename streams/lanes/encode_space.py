"""The lane of one new space: it backfills the space from the compacted topics, then follows them.

Its records only say which entity to look at. The entity's document and raw parts come from Redis,
which holds them together, of one revision: joining `entities` with `representations` would mean to
hold one topic's records until the other topic's arrive, across two partitions and every restart.
What Redis holds is never older than the record, and a newer record follows where it is newer.

`histories` says in the same way which users to look at, if the space takes their vectors from
there: those who do something meanwhile get them from the behaviour lane, the others from here.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

import numpy as np

from schemas.entities import MAX_VERSION, EntityKey
from schemas.errors import Permanent
from schemas.reasons import Reason
from schemas.spaces import Space
from schemas.topics import Topic
from streams.emitter import Emitter
from streams.engine.lane import Absorbed, Record
from streams.engine.outcomes import Outcome, Result, Settled
from streams.engine.ports import Clock
from streams.lanes.encode import SpacesPort
from streams.lanes.entity_plan import RawParts, live_update_message, raw_parts
from streams.lanes.shared_users import HistoryReaderPort, UserVectorsPort, put_vectors
from streams.lanes.vector_rules import is_described, is_from_documents, is_from_histories
from streams.lanes.vectors import AdaptorPort, VectorSource, space_records
from streams.topology import SPACE_LANE_PREFIX
from workers.live.entity_records import StoredEntity

_Row: TypeAlias = tuple[EntityKey, int, bytes | None]
"""An entity, the revision its vector was made from, and the record; None: there is none."""


class VectorStorePort(Protocol):
    """Where documents are read and one space's vectors are written."""

    async def load(self, keys: Sequence[EntityKey], raw_space: str | None) -> list[StoredEntity]:
        """Return what is stored of each entity, in order; raises Transient."""

    async def put_vectors(
        self, space: str, rows: Sequence[tuple[EntityKey, int, bytes | None]]
    ) -> list[bool]:
        """Write (None: delete) vectors unless one of a later revision is stored."""


@dataclass(frozen=True, slots=True)
class Touched:
    """An entity that something happened to: to its document, to a user's history, or to both."""

    entity: EntityKey
    document: bool = True
    history: bool = False


class EncodeSpaceLane:
    """One handler on `entities`, `representations` and `histories`; see streams.engine.lane.Lane.

    Args:
        space: the one it writes.
        spaces: says whether it still is to be written.
        store: documents, parts and vectors.
        histories: users' histories.
        user_vectors: makes the users' vectors of this space.
        emitter: for `live.updates`.
        clock: time.
        executor: where the adaptor runs; one thread.
    """

    def __init__(
        self,
        *,
        space: str,
        spaces: SpacesPort,
        store: VectorStorePort,
        histories: HistoryReaderPort,
        user_vectors: UserVectorsPort,
        emitter: Emitter,
        clock: Clock,
        executor: Executor,
    ) -> None:
        self.name = SPACE_LANE_PREFIX + space
        self._space = space
        self._spaces = spaces
        self._store = store
        self._histories = histories
        self._user_vectors = user_vectors
        self._emitter = emitter
        self._clock = clock
        self._executor = executor

    def decode(self, record: Record, now_ms: int) -> Touched:  # noqa: ARG002  # no times here
        """Return the entity that a record is about, tombstones included; raises Permanent."""
        if record.key is None:
            raise Permanent(Reason.NULL_KEY, f"{record.topic} is keyed by entity")
        of_history = record.topic.endswith(Topic.HISTORIES)
        return Touched(EntityKey.parse(record.key), document=not of_history, history=of_history)

    def key(self, value: Touched) -> EntityKey:
        """Return the entity."""
        return value.entity

    def version(self, value: Touched) -> int | None:  # noqa: ARG002  # Redis knows, not the record
        """Return None."""
        return None

    def tokens(self, value: Touched) -> int:  # noqa: ARG002  # no encoder here
        """Return 1: every entity costs the same."""
        return 1

    def due_at_ms(self, value: Touched) -> int:  # noqa: ARG002  # always at once
        """Return 0."""
        return 0

    def absorb(self, waiting: Touched, incoming: Touched) -> Absorbed[Touched]:
        """Look once at what two records point to."""
        both = replace(
            waiting,
            document=waiting.document or incoming.document,
            history=waiting.history or incoming.history,
        )
        return Absorbed(both, incoming_survives=False, loser=None)

    async def handle(self, batch: Sequence[Touched]) -> Sequence[Result]:
        """Write the vectors of the entities as they are now; raises Transient."""
        raw, adaptors = self._spaces.raw, self._spaces.adaptors()
        adaptor = next((one for one in adaptors if one.space.name == self._space), None)
        if adaptor is None:
            # Its vectors are about to be deleted, or are already: none may come after.
            return [Settled(Outcome.UNCHANGED, reason="retired") for _ in batch]
        space = adaptor.space
        looked_at = [
            one.entity
            for one in batch
            if one.document and is_from_documents(space, one.entity.kind)
        ]
        users = [
            one.entity for one in batch if one.history and is_from_histories(space, one.entity.kind)
        ]
        written = await self._from_documents(looked_at, raw, adaptor)
        written |= await self._from_histories(users)
        return [_ended(touched.entity, {*looked_at, *users}, written) for touched in batch]

    async def _from_documents(
        self, entities: Sequence[EntityKey], raw: Space, adaptor: AdaptorPort
    ) -> set[EntityKey]:
        """Write, announce and return what has a vector, or lost it."""
        if not entities:
            return set()
        stored = await self._store.load(entities, raw.name)
        now_ms = self._clock.now_ms()
        loop = asyncio.get_running_loop()
        rows = await loop.run_in_executor(self._executor, _make, stored, raw, adaptor, now_ms)
        space = adaptor.space
        done = await self._store.put_vectors(space.name, rows) if rows else []
        landed = {key for (key, _, _), was_done in zip(rows, done, strict=True) if was_done}
        messages = [
            live_update_message(
                entity.key,
                entity.document,
                space.name,
                is_live=is_described(entity.key, entity.document, raw.parts),
                rev=entity.rev,
                written_at_ms=now_ms,
            )
            for entity in stored
            if entity.key in landed
        ]
        if messages:
            await self._emitter.emit(messages)
        return landed

    async def _from_histories(self, users: Sequence[EntityKey]) -> set[EntityKey]:
        """Make the vectors of users and return those who have a history.

        The others were idle for too long, or were erased so long ago: their vectors go by
        themselves.
        """
        if not users:
            return set()
        loaded = await self._histories.load(users)
        histories = {
            user: history
            for user, history in zip(users, loaded, strict=True)
            if history is not None
        }
        await put_vectors(self._user_vectors, self._histories, histories)
        return set(histories)


def _ended(entity: EntityKey, looked_at: set[EntityKey], written: set[EntityKey]) -> Settled:
    if entity in written:
        return Settled(Outcome.WRITTEN, called=("redis",))
    if entity in looked_at:
        return Settled(Outcome.STALE, called=("redis",))
    return Settled(Outcome.UNCHANGED)  # nothing of this space


def _make(
    stored: Sequence[StoredEntity], raw: Space, adaptor: AdaptorPort, now_ms: int
) -> list[_Row]:
    """Return what to put for each entity that has a vector, or must have none.

    An entity that is described but has no parts keeps what it has: the encode lane makes the parts,
    and its record brings the entity here again. Runs in the executor.
    """
    space = adaptor.space
    rows: list[_Row] = []
    live: list[tuple[StoredEntity, RawParts]] = []
    for entity in stored:
        if not is_from_documents(space, entity.key.kind):
            continue
        if not is_described(entity.key, entity.document, raw.parts):
            # No document at all (swept, forgotten) outranks every vector.
            rows.append((entity.key, entity.rev or MAX_VERSION, None))
        elif (parts := raw_parts(entity, raw)) is not None:
            live.append((entity, parts))
    if not live:
        return rows
    values = np.stack([parts.values for _, parts in live]).astype(np.float32)
    mask = np.stack([parts.mask for _, parts in live])
    sources = [VectorSource(entity.key, entity.document, entity.rev, now_ms) for entity, _ in live]
    made = space_records(sources, values, mask, [adaptor])
    rows += [
        (source.key, source.rev, records[space.name])
        for source, records in zip(sources, made, strict=True)
    ]
    return rows
