"""Redis as a mirror of the `control` topic: written after it, and restored from it after a loss."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from schemas.entities import EntityKind
from schemas.errors import ConfigurationError
from schemas.groups import GroupsRecord
from schemas.spaces import AliasRecord, SpaceRecord, SpaceState
from streams.clock import SystemClock
from streams.control import (
    Control,
    alias_message,
    groups_message,
    read_control,
    space_message,
)
from streams.emitter import KafkaEmitter
from streams.redis_clients import OpenRedis, open_redis
from streams.settings import Settings
from workers.live.space_registry import SpaceRegistry


class RegistryPort(Protocol):
    """Spaces, aliases and groups in Redis."""

    async def spaces(self) -> dict[str, SpaceRecord]:
        """Return every space by name."""

    async def put(self, record: SpaceRecord) -> None:
        """Store a space."""

    async def alias(self, kind: EntityKind) -> str | None:
        """Return the active space of a kind."""

    async def set_alias(self, kind: EntityKind, name: str) -> None:
        """Make a space the active one of a kind."""

    async def groups(self) -> dict[EntityKind, GroupsRecord]:
        """Return the groups in use, by kind."""

    async def put_groups(self, record: GroupsRecord) -> None:
        """Make groups the ones in use for their kind."""


async def restore_registry(control: Control, registry: RegistryPort) -> None:
    """Bring the registry up to `control`: what is newer, and other aliases; raises Transient."""
    stored = await registry.spaces()
    for name, record in control.spaces.items():
        known = stored.get(name)
        # Not an older one: a command may have changed it since `control` was read.
        if known is None or known.changed_at_ms < record.changed_at_ms:
            await registry.put(record)
    for kind, name in control.aliases.items():
        if await registry.alias(kind) != name:
            await registry.set_alias(kind, name)
    cuts = await registry.groups()
    for kind, cut in control.groups.items():
        known_cut = cuts.get(kind)
        if known_cut is None or known_cut.changed_at_ms < cut.changed_at_ms:
            await registry.put_groups(cut)


@dataclass(frozen=True, slots=True)
class ControlMirror:
    """For the length of a command: `control` as it was at `now_ms`, and how to change it."""

    control: Control
    redis: OpenRedis
    now_ms: int
    _emitter: KafkaEmitter

    async def publish(
        self, records: Sequence[SpaceRecord], kinds: Sequence[EntityKind] = (), alias: str = ""
    ) -> None:
        """Write spaces, and the alias of `kinds`, to `control` and then to Redis, in this order."""
        aliases = [AliasRecord(kind=kind, space=alias, changed_at_ms=self.now_ms) for kind in kinds]
        await self._emitter.emit([*map(space_message, records), *map(alias_message, aliases)])
        registry = SpaceRegistry(self.redis.client, self.redis.keys)
        for record in records:
            await registry.put(record)
        await registry.set_aliases(kinds, alias)

    async def publish_groups(self, record: GroupsRecord) -> None:
        """Write the groups in use to `control` and then to Redis."""
        await self._emitter.emit([groups_message(record)])
        await SpaceRegistry(self.redis.client, self.redis.keys).put_groups(record)

    def space(self, name: str) -> SpaceRecord:
        """Return a registered space; raises ConfigurationError."""
        if name not in self.control.spaces:
            raise ConfigurationError(
                f"space {name}", f"not registered; run: freshet spaces create {name}"
            )
        return self.control.spaces[name]

    def with_state(self, record: SpaceRecord, state: SpaceState) -> SpaceRecord:
        """Return the record in another state, changed now."""
        return record.model_copy(update={"state": state, "changed_at_ms": self.now_ms})


@asynccontextmanager
async def open_control(settings: Settings) -> AsyncIterator[ControlMirror]:
    """Yield the mirror for a command; raises Transient, ConfigurationError."""
    control = await read_control(settings.kafka)
    emitter = KafkaEmitter(settings.kafka)
    try:
        async with open_redis(settings.redis) as redis:
            yield ControlMirror(control, redis, SystemClock().now_ms(), emitter)
    finally:
        await emitter.aclose()
