"""The Redis stores of the lanes, in memory, with the same compare-and-set rules and types."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import orjson

from schemas.entities import EntityKey
from schemas.knowledge import Document
from schemas.vector_record import decode_header
from workers.live.entity_records import EntityWrite, StoredEntity
from workers.live.seen_record import Seen


class InMemoryEntityStore:
    """As workers.live.entity_store.EntityStore; documents pass through JSON as they do there.

    The next calls raise `failures`, one each. `before_put` runs inside every put, before anything
    is compared: the place for another writer to come in between.
    """

    def __init__(self) -> None:
        self.documents: dict[EntityKey, tuple[int, bytes]] = {}
        self.vectors: dict[tuple[str, EntityKey], bytes] = {}
        self.failures: deque[Exception] = deque()
        self.before_put: Callable[[], None] | None = None
        self.loads = 0
        self.puts: list[list[EntityWrite]] = []

    async def load(self, keys: Sequence[EntityKey], raw_space: str | None) -> list[StoredEntity]:
        self.loads += 1
        await self._take_a_turn()
        return [self.stored(key, raw_space) for key in keys]

    async def put(self, writes: Sequence[EntityWrite]) -> list[bool]:
        self.puts.append(list(writes))
        await self._take_a_turn()
        if self.before_put is not None:
            self.before_put()
        return [self._put(write) for write in writes]

    async def put_vectors(
        self,
        space: str,
        rows: Sequence[tuple[EntityKey, int, bytes | None]],
        *,
        ttl_ms: int | None = None,
    ) -> list[bool]:
        await self._take_a_turn()
        return [self._put_vector(space, key, rev, record) for key, rev, record in rows]

    async def delete(self, keys: Sequence[EntityKey], spaces: Sequence[str]) -> None:
        await self._take_a_turn()
        for key in keys:
            self.documents.pop(key, None)
            for space in spaces:
                self.vectors.pop((space, key), None)

    async def scan(self) -> AsyncIterator[EntityKey]:
        for key in list(self.documents):
            yield key

    def stored(self, key: EntityKey, raw_space: str | None = None) -> StoredEntity:
        rev, document = self.documents.get(key, (0, b"{}"))
        raw = None if raw_space is None else self.vectors.get((raw_space, key))
        return StoredEntity(key, Document.from_json(orjson.loads(document)), rev, raw)

    def seed(
        self,
        key: EntityKey,
        document: Document,
        *,
        rev: int = 1,
        vectors: Mapping[str, bytes] | None = None,
    ) -> None:
        self.documents[key] = (rev, orjson.dumps(document.to_json()))
        for space, record in (vectors or {}).items():
            self.vectors[space, key] = record

    def _put(self, write: EntityWrite) -> bool:
        if self.stored(write.key).rev != write.expected_rev:
            return False
        self.seed(
            write.key, write.document, rev=write.expected_rev + 1, vectors=dict(write.vectors)
        )
        for space in write.drop:
            self.vectors.pop((space, write.key), None)
        return True

    def _put_vector(self, space: str, key: EntityKey, rev: int, record: bytes | None) -> bool:
        there = self.vectors.get((space, key))
        if there is not None and decode_header(there).rev > rev:
            return False
        if record is None:
            self.vectors.pop((space, key), None)
        else:
            self.vectors[space, key] = record
        return True

    async def _take_a_turn(self) -> None:
        await asyncio.sleep(0)  # as a round trip does: others run meanwhile
        if self.failures:
            raise self.failures.popleft()


class InMemorySeen:
    """As workers.live.seen.SeenStore: a lower version never replaces a greater one."""

    def __init__(self) -> None:
        self.rows: dict[EntityKey, Seen] = {}
        self.failures: deque[Exception] = deque()

    async def load(self, keys: Sequence[EntityKey]) -> list[Seen | None]:
        await self._take_a_turn()
        return [self.rows.get(key) for key in keys]

    async def store(self, rows: Sequence[tuple[EntityKey, Seen]]) -> None:
        await self._take_a_turn()
        for key, seen in rows:
            there = self.rows.get(key)
            if there is None or seen.version >= there.version:
                self.rows[key] = seen

    async def forget(self, key: EntityKey) -> None:
        await self._take_a_turn()
        self.rows.pop(key, None)

    async def _take_a_turn(self) -> None:
        await asyncio.sleep(0)
        if self.failures:
            raise self.failures.popleft()
