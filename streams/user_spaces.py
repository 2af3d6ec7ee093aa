"""The live spaces that have user vectors, and where these come from: followed while a lane runs.

Refuses to give an incomplete list, as streams.space_set does: a space left out would miss the
vectors of users who may never do anything again.
"""

import asyncio
from collections.abc import Iterable, Sequence

import structlog

from schemas.entities import EntityKind
from schemas.errors import ConfigurationError, Transient
from schemas.spaces import Space, SpaceRecord
from streams.follow_spaces import DEPENDENCY, WRITTEN_STATES, RegistryPort, follow
from streams.lanes.preference_requests import wants_user_knowledge
from workers.towers.load_towers import TowerOptions, tower_of
from workers.towers.user_tower import UserTower

log = structlog.get_logger("freshet.spaces")


class UserSpaces:
    """A TowersPort, and the answer to whether users are to be written about."""

    def __init__(self, registry: RegistryPort, options: TowerOptions) -> None:
        self._registry = registry
        self._options = options
        self._towers: tuple[UserTower, ...] = ()
        self._wants_knowledge = False
        self._problem = "the registry was not read yet"

    def towers(self) -> Sequence[UserTower]:
        """Return a tower for each space that takes user vectors from histories, by name.

        Raises Transient("spaces") before the registry was read, while it has no spaces at all, and
        while a space has no tower.
        """
        if self._problem:
            raise Transient(DEPENDENCY, self._problem)
        return self._towers

    def wants_user_knowledge(self) -> bool:
        """Return whether some live space takes its user vectors from knowledge."""
        return self._wants_knowledge

    async def refresh(self) -> None:
        """Follow the registry once; raises Transient("redis")."""
        records = await self._registry.spaces()
        towers, problem = self._towers, ""
        try:
            if not records:
                raise ConfigurationError("spaces", "none registered; run: freshet spaces create")
            towers = tuple(
                [await self._tower(space) for space in _from_histories(records.values())]
            )
        except ConfigurationError as error:
            problem = str(error)
        if problem and problem != self._problem:
            log.warning("spaces_incomplete", lane="behaviour", detail=problem)
        elif _names(towers) != _names(self._towers):
            log.info("spaces_changed", lane="behaviour", spaces=_names(towers))
        self._wants_knowledge = wants_user_knowledge(records.values())
        self._towers, self._problem = towers, problem

    async def watch(self) -> None:
        """Refresh every second until cancelled."""
        await follow(self.refresh)

    async def _tower(self, space: Space) -> UserTower:
        known = next((tower for tower in self._towers if tower.space == space), None)
        if known is not None:
            return known
        return await asyncio.to_thread(tower_of, space, self._options)


def _from_histories(records: Iterable[SpaceRecord]) -> list[Space]:
    spaces = [
        record.space
        for record in records
        if record.state in WRITTEN_STATES
        and EntityKind.USER in record.space.kinds
        and record.space.user_vectors == "histories"
    ]
    return sorted(spaces, key=lambda space: space.name)


def _names(towers: Iterable[UserTower]) -> list[str]:
    return [tower.space.name for tower in towers]
