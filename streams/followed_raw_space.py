"""The raw space as the registry names it, for lanes that read parts but encode none.

They need neither the spaces directory nor torch.
"""

from schemas.errors import Transient
from schemas.spaces import Space
from streams.follow_spaces import RegistryPort, follow
from workers.adaptors.raw import ADAPTOR_ID


class FollowedRawSpace:
    """A RawSpacePort; nothing is known before the first `refresh`."""

    def __init__(self, registry: RegistryPort) -> None:
        self._registry = registry
        self._space: Space | None = None

    def raw(self) -> Space | None:
        """Return the raw space, None while the registry names none."""
        return self._space

    async def refresh(self) -> None:
        """Follow the registry once; raises Transient("redis")."""
        records = await self._registry.spaces()
        raw = [one.space for one in records.values() if one.space.adaptor_id == ADAPTOR_ID]
        if len(raw) > 1:
            raise Transient("spaces", f"{len(raw)} raw spaces are registered, needs one")
        self._space = raw[0] if raw else None

    async def watch(self) -> None:
        """Refresh every second until cancelled."""
        await follow(self.refresh)
