"""The groups in use, as the registry names them: followed while a lane runs.

The registry says which cut and its digest, the groups directory holds it. A cut that is not at hand
(yet) leaves the one before it in use: old groups are still groups, and no item waits for new ones.
"""

import asyncio
from pathlib import Path
from typing import Protocol

import structlog

from schemas.entities import EntityKind
from schemas.errors import ConfigurationError
from schemas.groups import GroupsRecord
from streams.follow_spaces import follow
from workers.grouping.group_files import load_with_digest
from workers.grouping.groups import Groups

log = structlog.get_logger("freshet.groups")


class GroupsRegistryPort(Protocol):
    """The registry in Redis."""

    async def groups(self) -> dict[EntityKind, GroupsRecord]:
        """Return the groups in use, by the kind of their members; raises Transient."""


class GroupSet:
    """The groups of one kind of entity; none before the first `refresh`."""

    def __init__(
        self, registry: GroupsRegistryPort, directory: Path, *, kind: EntityKind = EntityKind.ITEM
    ) -> None:
        self._registry = registry
        self._directory = directory
        self._kind = kind
        self._groups: Groups | None = None
        self._digest = ""
        self._problem = ""

    def current(self) -> Groups | None:
        """Return the groups in use, None while there are none."""
        return self._groups

    async def refresh(self) -> None:
        """Follow the registry once; raises Transient("redis")."""
        record = (await self._registry.groups()).get(self._kind)
        if record is None or record.digest == self._digest:
            return
        try:
            groups = await asyncio.to_thread(self._load, record)
        except ConfigurationError as error:
            if str(error) != self._problem:
                log.warning("groups_missing", groups=record.name, detail=str(error))
            self._problem = str(error)
            return
        log.info("groups_changed", groups=record.name, count=len(groups.groups))
        self._groups, self._digest, self._problem = groups, record.digest, ""

    async def watch(self) -> None:
        """Refresh every second until cancelled."""
        await follow(self.refresh)

    def _load(self, record: GroupsRecord) -> Groups:
        loaded = load_with_digest(self._directory, record.name)
        if loaded.digest != record.digest:
            raise ConfigurationError(
                f"groups {record.name}", f"{self._directory} holds another cut of that name"
            )
        if loaded.groups.kind is not self._kind:
            raise ConfigurationError(
                f"groups {record.name}", f"they are of {loaded.groups.kind.value}s"
            )
        return loaded.groups
