"""Documents and their vectors in Redis: read together, and changed together by compare-and-set.

A stored document is its revision (i64, big-endian) followed by JSON of the document and the time it
was written. The revision is in the header of every vector made from it, too.
"""

import struct
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from schemas.entities import EntityKey
from schemas.errors import Permanent, Transient
from schemas.knowledge import Document
from schemas.vector_record import HEADER, VectorHeader, decode_header
from workers.live.connection import DEPENDENCY, AnyRedis, Command, round_trip, translated
from workers.live.entity_records import EntityWrite, StoredEntity
from workers.live.keys import Keys, tagged
from workers.live.lua_script import LuaScript, Unit
from workers.live.view_marker import ViewLost, stamp_command, wall_clock_ms

__all__ = [
    "EntityStore",
    "EntityWrite",
    "RebuiltEntity",
    "StoredDetails",
    "StoredEntity",
    "ViewLost",
]

_REV = struct.Struct(">q")
_ANY_LOWER_REV = b""
_LOWER_REV_OR_SAME = b"="
_DELETE = b""
_FOREVER = 0
_ENTITIES_PER_MGET = 512
_SCAN_COUNT = 1_000

_PUT: LuaScript[int] = LuaScript("put_entities.lua")
_PUT_VECTORS: LuaScript[int] = LuaScript("put_vectors.lua")


@dataclass(frozen=True, slots=True)
class RebuiltEntity:
    """An entity as a compacted topic holds it, on its way back into Redis.

    `vectors` are the records made from it, by space; `drop` names spaces whose vector goes.
    """

    key: EntityKey
    rev: int
    document: Document
    written_at_ms: int
    vectors: Mapping[str, bytes] = field(default_factory=dict)
    drop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredDetails:
    """All that Redis knows of one entity; `vectors` holds the header of each, by space."""

    document: Document
    rev: int
    written_at_ms: int
    vectors: Mapping[str, VectorHeader]


class EntityStore:
    """One round trip for each batch (one pipeline a node on a cluster); raises Transient.

    Args:
        redis: a client whose connections are fenced, in a lane.
        keys: key names.
        cluster: every entity becomes its own call, because calls cannot span hash slots.
        now_ms: wall clock, noted in every document written.
    """

    def __init__(
        self,
        redis: AnyRedis,
        keys: Keys,
        *,
        cluster: bool = False,
        now_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._cluster = cluster
        self._now_ms = now_ms

    async def load(self, keys: Sequence[EntityKey], raw_space: str | None) -> list[StoredEntity]:
        """Return documents, each with its record in `raw_space` of the same revision, in order.

        Raises:
            ViewLost: the view was not whole, or was replaced, around the read.
        """
        if not keys:
            return []
        # Before and after: a view that was emptied, or rebuilt, in between must not go unnoticed.
        marker = stamp_command(self._keys)
        reads = self._reads(keys, raw_space)
        if self._cluster:
            (before,) = await round_trip(self._redis, [marker])
            replies = await round_trip(self._redis, reads)
            (after,) = await round_trip(self._redis, [marker])
        else:
            before, *replies, after = await round_trip(self._redis, [marker, *reads, marker])
        if before is None or before != after:
            raise ViewLost
        values = [value for reply in replies for value in reply]
        step = 1 if raw_space is None else 2
        raws = [None] * len(keys) if raw_space is None else values[1::step]
        return [
            _stored_entity(key, value, raw)
            for key, value, raw in zip(keys, values[::step], raws, strict=True)
        ]

    async def load_stored(
        self, key: EntityKey, spaces: Sequence[str] | None = None
    ) -> StoredDetails | None:
        """Return all that is stored of one entity, None when nothing is, whole view or not.

        `spaces` defaults to those the registry names; headers of vectors that are there.
        """
        if spaces is None:
            (names,) = await round_trip(self._redis, [("HKEYS", self._keys.spaces())])
            spaces = sorted(name.decode() for name in names)
        value, *heads = await round_trip(
            self._redis,
            [
                ("GET", self._keys.doc(key)),
                *(("GETRANGE", self._keys.vec(space, key), 0, HEADER.size - 1) for space in spaces),
            ],
        )
        vectors = {
            space: decode_header(head) for space, head in zip(spaces, heads, strict=True) if head
        }
        if value is None and not vectors:
            return None
        document, rev, written_at_ms = _unpack(key, value)
        return StoredDetails(document, rev, written_at_ms, vectors)

    async def put(self, writes: Sequence[EntityWrite]) -> list[bool]:
        """Write each document and its vectors if its revision is still the expected one.

        False is a conflict: nothing of that entity changed; load it again.
        """
        now = self._now_ms()
        units = [
            self._unit(
                write.key,
                _REV.pack(write.expected_rev),
                _pack(write.document, write.expected_rev + 1, now),
                write.vectors,
                write.drop,
            )
            for write in writes
        ]
        return [bool(done) for done in await _PUT.run(self._redis, units, cluster=self._cluster)]

    async def put_if_newer_rev(self, rows: Sequence[RebuiltEntity]) -> int:
        """Write documents and their vectors where the stored rev is lower; return how many."""
        return await self._put_rebuilt(rows, _ANY_LOWER_REV)

    async def put_unless_later_rev(self, rows: Sequence[RebuiltEntity]) -> int:
        """Write documents and their vectors where no later rev is stored; return how many.

        For the same revision, too: its document may be there while vectors are missing.
        """
        return await self._put_rebuilt(rows, _LOWER_REV_OR_SAME)

    async def put_vectors(
        self,
        space: str,
        rows: Sequence[tuple[EntityKey, int, bytes | None]],
        *,
        ttl_ms: int | None = None,
    ) -> list[bool]:
        """Write (None: delete) vectors made from a revision; False where a later one is stored.

        They go after `ttl_ms`, if given.
        """
        units = [
            Unit(
                (self._keys.vec(space, key),),
                (_REV.pack(rev), _DELETE if record is None else record, ttl_ms or _FOREVER),
            )
            for key, rev, record in rows
        ]
        done = await _PUT_VECTORS.run(self._redis, units, cluster=self._cluster)
        return [bool(one) for one in done]

    async def delete(self, keys: Sequence[EntityKey], spaces: Sequence[str]) -> None:
        """Delete documents, what was seen of them, and their vectors in the given spaces."""
        await round_trip(
            self._redis,
            [
                (
                    "UNLINK",
                    self._keys.doc(key),
                    self._keys.seen(key),
                    *(self._keys.vec(space, key) for space in spaces),
                )
                for key in keys
            ],
        )

    async def scan(self) -> AsyncIterator[EntityKey]:
        """Yield the key of every stored document, some perhaps twice (SCAN's guarantee)."""
        with translated():
            found = self._redis.scan_iter(match=self._keys.docs_pattern(), count=_SCAN_COUNT)
            async for name in found:
                yield EntityKey.parse(tagged(name))

    async def _put_rebuilt(self, rows: Sequence[RebuiltEntity], condition: bytes) -> int:
        units = [
            self._unit(
                row.key,
                condition,
                _pack(row.document, row.rev, row.written_at_ms),
                row.vectors,
                row.drop,
            )
            for row in rows
        ]
        return sum(await _PUT.run(self._redis, units, cluster=self._cluster))

    def _reads(self, keys: Sequence[EntityKey], raw_space: str | None) -> list[Command]:
        size = 1 if self._cluster else _ENTITIES_PER_MGET
        commands: list[Command] = []
        for start in range(0, len(keys), size):
            names: list[str] = []
            for key in keys[start : start + size]:
                names.append(self._keys.doc(key))
                if raw_space is not None:
                    names.append(self._keys.vec(raw_space, key))
            commands.append(("MGET", *names))
        return commands

    def _unit(
        self,
        key: EntityKey,
        expected: bytes,
        document: bytes,
        vectors: Mapping[str, bytes],
        drop: Sequence[str],
    ) -> Unit:
        return Unit(
            (self._keys.doc(key), *(self._keys.vec(space, key) for space in (*vectors, *drop))),
            (expected, document, len(vectors), len(drop), *vectors.values()),
        )


def _pack(document: Document, rev: int, written_at_ms: int) -> bytes:
    body = {"document": document.to_json(), "written_at_ms": written_at_ms}
    return _REV.pack(rev) + orjson.dumps(body)


def _stored_entity(key: EntityKey, value: bytes | None, raw: bytes | None) -> StoredEntity:
    document, rev, _ = _unpack(key, value)
    return StoredEntity(key, document, rev, raw)


def _unpack(key: EntityKey, value: bytes | None) -> tuple[Document, int, int]:
    if value is None:
        return Document(), 0, 0
    try:
        (rev,) = _REV.unpack_from(value)
        body = orjson.loads(value[_REV.size :])
        return Document.from_json(body["document"]), rev, int(body["written_at_ms"])
    except (struct.error, ValueError, KeyError, TypeError, Permanent) as error:
        # Not Permanent: the record being handled is blameless, and a newer version of this program
        # may have written what this one cannot read. Holding loses nothing.
        raise Transient(DEPENDENCY, f"document of {key} does not decode: {error!r}") from error
