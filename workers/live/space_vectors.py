"""All vectors of one space: counted, compared with another space's, deleted. For operators.

Walks the keys with SCAN, so counts are of a moving store, and a key may be met twice.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from schemas.entities import EntityKey, EntityKind
from workers.live.connection import AnyRedis, round_trip, translated
from workers.live.keys import Keys, tagged

_BATCH = 1_000


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many of the entities in one space have a vector in another one."""

    covered: int
    total: int

    @property
    def share(self) -> float:
        """Covered part of all; 1 when there is nothing to cover."""
        return self.covered / self.total if self.total else 1.0


class SpaceVectors:
    """One round trip a thousand keys; raises Transient."""

    def __init__(self, redis: AnyRedis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def count(self, space: str, kind: EntityKind) -> int:
        """Return how many entities of a kind have a vector in the space."""
        return sum([len(batch) async for batch in self._batches(space, kind)])

    async def coverage(self, reference: str, space: str, kind: EntityKind) -> Coverage:
        """Return how many of the entities in `reference` are in `space` too."""
        covered = total = 0
        async for batch in self._batches(reference, kind):
            entities = [EntityKey.parse(tagged(name)) for name in batch]
            total += len(batch)
            covered += sum(
                await round_trip(
                    self._redis, [("EXISTS", self._keys.vec(space, key)) for key in entities]
                )
            )
        return Coverage(covered, total)

    async def delete(self, space: str, kind: EntityKind) -> int:
        """Delete the vectors of a kind in the space; return how many there were."""
        deleted = 0
        async for batch in self._batches(space, kind):
            deleted += sum(await round_trip(self._redis, [("UNLINK", name) for name in batch]))
        return deleted

    async def _batches(self, space: str, kind: EntityKind) -> AsyncIterator[list[bytes]]:
        batch: list[bytes] = []
        with translated():
            found = self._redis.scan_iter(match=self._keys.vecs_pattern(space, kind), count=_BATCH)
            async for name in found:
                batch.append(name)
                if len(batch) == _BATCH:
                    yield batch
                    batch = []
        if batch:
            yield batch
