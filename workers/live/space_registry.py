"""Spaces, aliases, groups and pause flags as Redis holds them: a mirror of the `control` topic."""

from collections.abc import Sequence

from pydantic import ValidationError
from redis.asyncio.cluster import RedisCluster

from schemas.entities import EntityKind
from schemas.errors import Transient
from schemas.groups import GroupsRecord
from schemas.spaces import SpaceRecord
from workers.live.connection import DEPENDENCY, AnyRedis, round_trip
from workers.live.keys import Keys


class SpaceRegistry:
    """Reads and writes what rankers and lanes need to know of spaces; raises Transient."""

    def __init__(self, redis: AnyRedis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def spaces(self) -> dict[str, SpaceRecord]:
        """Return every space by name."""
        (stored,) = await round_trip(self._redis, [("HGETALL", self._keys.spaces())])
        try:
            return {
                name.decode(): SpaceRecord.model_validate_json(value)
                for name, value in stored.items()
            }
        except ValidationError as error:
            raise Transient(DEPENDENCY, f"a space record does not decode: {error}") from error

    async def put(self, record: SpaceRecord) -> None:
        """Store a space, in place of what was there under its name."""
        value = record.model_dump_json().encode()
        await round_trip(self._redis, [("HSET", self._keys.spaces(), record.space.name, value)])

    async def delete(self, name: str) -> None:
        """Forget a space; its vectors are somebody else's to delete."""
        await round_trip(self._redis, [("HDEL", self._keys.spaces(), name)])

    async def alias(self, kind: EntityKind) -> str | None:
        """Return the name of the active space of a kind of entity, None when there is none."""
        (name,) = await round_trip(self._redis, [("GET", self._keys.alias(kind))])
        return None if name is None else name.decode()

    async def set_alias(self, kind: EntityKind, name: str) -> None:
        """Make a space the active one of a kind; readers follow within a minute."""
        await round_trip(self._redis, [("SET", self._keys.alias(kind), name)])

    async def set_aliases(self, kinds: Sequence[EntityKind], name: str) -> None:
        """Make a space the active one of several kinds at once.

        At once but for a cluster, where the keys have different slots: there a reader may see the
        kinds of two spaces side by side for as long as a round trip takes.
        """
        if isinstance(self._redis, RedisCluster):
            for kind in kinds:
                await self.set_alias(kind, name)
            return
        pairs = [value for kind in kinds for value in (self._keys.alias(kind), name)]
        if pairs:
            await round_trip(self._redis, [("MSET", *pairs)])

    async def groups(self) -> dict[EntityKind, GroupsRecord]:
        """Return the groups in use, by the kind of entity that they have as members."""
        (stored,) = await round_trip(self._redis, [("HGETALL", self._keys.groups())])
        try:
            return {
                EntityKind(kind.decode()): GroupsRecord.model_validate_json(value)
                for kind, value in stored.items()
            }
        except ValueError as error:
            raise Transient(DEPENDENCY, f"a groups record does not decode: {error}") from error

    async def put_groups(self, record: GroupsRecord) -> None:
        """Make groups the ones in use for their kind; lanes follow within seconds."""
        value = record.model_dump_json().encode()
        await round_trip(self._redis, [("HSET", self._keys.groups(), record.kind.value, value)])

    async def pause(self, lane: str, detail: str) -> None:
        """Flag a lane as paused, and say why."""
        await round_trip(self._redis, [("SET", self._keys.paused(lane), detail)])

    async def paused(self, lane: str) -> str | None:
        """Return why a lane is paused, None when it is not."""
        (detail,) = await round_trip(self._redis, [("GET", self._keys.paused(lane))])
        return None if detail is None else detail.decode()

    async def resume(self, lane: str) -> None:
        """Take a lane's pause flag away."""
        await round_trip(self._redis, [("DEL", self._keys.paused(lane))])
