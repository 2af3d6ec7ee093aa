"""The spaces that one lane writes, as the registry names them: followed while the lane runs.

The raw space comes from the spaces directory, the others from the registry in Redis. Refuses to
give an incomplete list: a space left out would miss vectors that nobody makes up for.
"""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

from schemas.errors import ConfigurationError, Transient
from schemas.spaces import Space, SpaceRecord
from streams.follow_spaces import DEPENDENCY, WRITTEN_STATES, RegistryPort, follow
from streams.topology import SPACE_LANE_PREFIX
from workers.adaptors.adaptor import Adaptor
from workers.adaptors.space_files import load_space
from workers.encoding.load_representer import raw_space_of

log = structlog.get_logger("freshet.spaces")


class SpaceSet:
    """A SpacesPort; nothing is written before the first `refresh`.

    Raises ConfigurationError when the directory holds no raw space.
    """

    def __init__(self, registry: RegistryPort, directory: Path, *, lane: str) -> None:
        self._registry = registry
        self._directory = directory
        self._lane = lane
        loaded = raw_space_of(directory)
        self._raw = loaded.adaptor
        self._loaded: dict[str, Adaptor] = {loaded.space.name: loaded.adaptor}
        self._adaptors: tuple[Adaptor, ...] = ()
        self._problem = "the registry was not read yet"

    @property
    def raw(self) -> Space:
        """The raw space: the parts themselves."""
        return self._raw.space

    def adaptors(self) -> Sequence[Adaptor]:
        """Return the adaptors to write now, the raw space's first; none once retired.

        Raises Transient("spaces") while a space that the lane must write is not at hand.
        """
        if self._problem:
            raise Transient(DEPENDENCY, self._problem)
        return self._adaptors

    async def refresh(self) -> None:
        """Follow the registry once; raises Transient("redis")."""
        records = await self._registry.spaces()
        adaptors, problem = self._adaptors, ""
        try:
            adaptors = await self._wanted(records)
        except ConfigurationError as error:
            problem = str(error)
        if problem and problem != self._problem:
            log.warning("spaces_incomplete", lane=self._lane, detail=problem)
        elif _names(adaptors) != _names(self._adaptors):
            log.info("spaces_changed", lane=self._lane, spaces=_names(adaptors))
        self._adaptors, self._problem = adaptors, problem

    async def watch(self) -> None:
        """Refresh every second until cancelled."""
        await follow(self.refresh)

    async def _wanted(self, records: Mapping[str, SpaceRecord]) -> tuple[Adaptor, ...]:
        required = self._lane.removeprefix(SPACE_LANE_PREFIX)
        if required == self._lane:  # the lane of the raw space, too
            required = self.raw.name
        if required not in records:
            raise ConfigurationError(
                f"space {required}", "not registered; run: freshet spaces create"
            )
        mine = [
            record
            for record in records.values()
            if record.writer == self._lane and record.state in WRITTEN_STATES
        ]
        mine.sort(key=lambda record: (record.space.name != self.raw.name, record.space.name))
        return tuple([await self._adaptor(record.space) for record in mine])

    async def _adaptor(self, space: Space) -> Adaptor:
        known = self._loaded.get(space.name)
        if known is None:
            loaded = await asyncio.to_thread(load_space, self._directory, space.name)
            known = self._loaded[space.name] = loaded.adaptor
        if known.space != space:
            # Forgotten, so that the right directory is found once it is there.
            if space.name != self.raw.name:
                del self._loaded[space.name]
            raise ConfigurationError(
                f"space {space.name}", f"{self._directory} holds another space of that name"
            )
        check_raw_parts(space, self.raw)
        return known


def _names(adaptors: Sequence[Adaptor]) -> list[str]:
    return [adaptor.space.name for adaptor in adaptors]


def check_raw_parts(space: Space, raw: Space) -> None:
    """Raise ConfigurationError unless the space's adaptor takes the parts of the raw space."""
    if (space.encoder_id, space.parts, space.part_dim) != (raw.encoder_id, raw.parts, raw.part_dim):
        raise ConfigurationError(
            f"space {space.name}",
            f"made from parts of {space.encoder_id}, the raw space {raw.name} has others",
        )
