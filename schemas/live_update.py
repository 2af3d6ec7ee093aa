"""A value of `live.updates`: a vector changed, for builders of ANN indices and caches."""

from dataclasses import asdict, dataclass
from typing import Self

import orjson

from schemas.entities import EntityKey, Stage
from schemas.errors import Permanent
from schemas.reasons import Reason


@dataclass(frozen=True, slots=True)
class LiveUpdate:
    """The vector of `entity` in `space` is of revision `rev`; of stage `none` it is gone.

    Versions are -1 where there is none, as in the vector's header; times in ms since the epoch.
    """

    entity: EntityKey
    space: str
    rev: int
    stage: Stage
    content_version: int
    factors_version: int
    event_time_ms: int
    written_at_ms: int

    def encode(self) -> bytes:
        """Return the record value."""
        return orjson.dumps(
            asdict(self) | {"entity": str(self.entity), "stage": self.stage.name.lower()}
        )

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """Return the update in a record value; raises Permanent(unreadable_knowledge)."""
        try:
            raw = orjson.loads(value)
            return cls(
                entity=EntityKey.parse(raw["entity"]),
                space=str(raw["space"]),
                rev=int(raw["rev"]),
                stage=Stage[raw["stage"].upper()],
                content_version=int(raw["content_version"]),
                factors_version=int(raw["factors_version"]),
                event_time_ms=int(raw["event_time_ms"]),
                written_at_ms=int(raw["written_at_ms"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Permanent(Reason.UNREADABLE_KNOWLEDGE, repr(error)) from error
