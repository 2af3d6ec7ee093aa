"""One line of an entity's trace: what a lane did with a record, for `freshet explain`."""

from dataclasses import dataclass
from typing import Self

import orjson


@dataclass(frozen=True, slots=True)
class TraceEntry:
    """`outcome` is an Outcome value; `reason` a Reason or Rejection code, or empty."""

    at_ms: int
    lane: str
    outcome: str
    version: int | None = None
    reason: str = ""
    detail: str = ""

    def encode(self) -> bytes:
        """Return the stored bytes (JSON array, compact: twenty are kept for every entity)."""
        return orjson.dumps(
            [self.at_ms, self.lane, self.outcome, self.version, self.reason, self.detail]
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the entry in `data`."""
        return cls(*orjson.loads(data))
