"""The raw space as the registry names it, for lanes that read parts but encode none.

They need neither the spaces directory nor torch.
"""

import structlog

from schemas.spaces import Space
from streams.follow_spaces import WRITTEN_STATES, RegistryPort, follow
from workers.adaptors.raw import ADAPTOR_ID

log = structlog.get_logger("freshet.spaces")


class FollowedRawSpace:
    """A RawSpacePort; nothing is known before the first `refresh`.

    While several are written, as when the encoder changes, it stays with the one that it knows.
    """

    def __init__(self, registry: RegistryPort) -> None:
        self._registry = registry
        self._space: Space | None = None
        self._problem = ""

    def raw(self) -> Space | None:
        """Return the raw space, None while the registry names none."""
        return self._space

    async def refresh(self) -> None:
        """Follow the registry once; raises Transient("redis")."""
        records = await self._registry.spaces()
        raw = {
            record.space.name: record.space
            for record in records.values()
            if record.space.adaptor_id == ADAPTOR_ID and record.state in WRITTEN_STATES
        }
        known = self._space
        if len(raw) > 1:
            self._space = None if known is None else raw.get(known.name)
            self._tell(f"{', '.join(sorted(raw))} are written, needs one")
            return
        self._space, self._problem = next(iter(raw.values()), None), ""

    async def watch(self) -> None:
        """Refresh every second until cancelled."""
        await follow(self.refresh)

    def _tell(self, problem: str) -> None:
        if problem != self._problem:
            log.warning("raw_spaces_ambiguous", detail=problem)
        self._problem = problem
