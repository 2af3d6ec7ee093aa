"""Which spaces a reader answers from, and for how long. No I/O.

Needs only numpy and the standard library: rankers import it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from schemas.entities import EntityKind, Stage
from schemas.errors import FreshetError
from schemas.vector_record import NO_VERSION, VectorHeader, VectorRecord

PIN_SECONDS = 60.0
"""How long views and cached aliases live: far below the ten minutes a retired space has left."""

STAND_IN_REV = -1
"""No stored record has a negative revision: this is how stand-ins are told apart."""

KINDS = tuple(EntityKind)


class NoActiveSpace(FreshetError):
    """No space is active for a kind of entity, or the active one cannot be read."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(kind, detail)
        self.kind = kind
        self.detail = detail

    def __str__(self) -> str:
        return f"no active space for {self.kind}s: {self.detail}"


class PinExpired(FreshetError):
    """A view was used for longer than a pin lives; its space may be about to go."""

    def __init__(self) -> None:
        super().__init__(f"the view is older than {PIN_SECONDS:g} s")


@dataclass(frozen=True, slots=True)
class PinnedSpace:
    """A space as a reader needs it; `stand_in` is the record of entities that have no vector."""

    name: str
    dim: int
    dtype: str
    metric: str
    stand_in: bytes

    @classmethod
    def from_json(cls, value: bytes) -> Self:
        """Return the space in a stored space record; raises ValueError, KeyError or TypeError."""
        raw = json.loads(value)
        space = raw["space"]
        dim, dtype = int(space["dim"]), str(space["dtype"])
        default = raw.get("default")
        vector = np.zeros(dim, dtype) if default is None else np.asarray(default, dtype)
        if vector.shape != (dim,):
            raise ValueError(f"default vector of shape {vector.shape} for dim {dim}")
        header = VectorHeader(
            stage=Stage.NONE,
            dtype=dtype,
            dim=dim,
            mask=0,
            rev=STAND_IN_REV,
            content_version=NO_VERSION,
            factors_version=NO_VERSION,
            event_time_ms=0,
            written_at_ms=0,
        )
        stand_in = VectorRecord(header, vector).encode()
        return cls(str(space["name"]), dim, dtype, str(space["metric"]), stand_in)


@dataclass(frozen=True, slots=True)
class Pins:
    """The active space of every kind that has one; `pinned_at` is in seconds of a steady clock."""

    spaces: Mapping[EntityKind, PinnedSpace]
    pinned_at: float

    @classmethod
    def read(
        cls, aliases: Sequence[bytes | None], records: Sequence[bytes | None], pinned_at: float
    ) -> Self:
        """Return the pins from what is stored for each of KINDS; raises NoActiveSpace."""
        spaces: dict[EntityKind, PinnedSpace] = {}
        for kind, alias, record in zip(KINDS, aliases, records, strict=True):
            if alias is None:
                continue
            if record is None:
                raise NoActiveSpace(kind.value, f"space {alias.decode()} is unknown")
            try:
                spaces[kind] = PinnedSpace.from_json(record)
            except (ValueError, KeyError, TypeError) as error:
                raise NoActiveSpace(
                    kind.value, f"record of space {alias.decode()} does not decode: {error!r}"
                ) from error
        return cls(spaces, pinned_at)

    def space(self, kind: EntityKind, now: float) -> PinnedSpace:
        """Return the active space of a kind; raises NoActiveSpace or PinExpired."""
        if now - self.pinned_at > PIN_SECONDS:
            raise PinExpired
        if kind not in self.spaces:
            raise NoActiveSpace(kind.value, "none was activated in this Redis")
        return self.spaces[kind]

    def serves_new_views(self, now: float) -> bool:
        """Whether a view pinned now would have at least half a pin's life left."""
        return now - self.pinned_at <= PIN_SECONDS / 2
