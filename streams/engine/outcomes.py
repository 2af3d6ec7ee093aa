"""How a record ends. Every record that a lane admits is settled in exactly one of these ways."""

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from schemas.errors import Permanent, Transient


class Outcome(StrEnum):
    """The ways a record ends; the names of the metric's labels and of `explain`'s lines."""

    WRITTEN = "written"  # its effect is in Redis (and in `entities`)
    UNCHANGED = "unchanged"  # a duplicate: the same version with the same content
    CONFIRMED = "confirmed"  # a newer version that says nothing new: no record, no model call
    SUPERSEDED = "superseded"  # absorbed by a newer record of the same entity
    STALE = "stale"  # older than what is known
    EMITTED = "emitted"  # passed on to the next topic
    REJECTED = "rejected"  # the quality gate refused the answer; the last good one stays
    DEAD_LETTERED = "dead_lettered"


@dataclass(frozen=True, slots=True)
class Settled:
    """What a handler says of one unit of work whose effects are durable."""

    outcome: Outcome
    reason: str = ""
    detail: str = ""
    called: tuple[str, ...] = ()
    """Dependencies that answered for this unit: evidence against a neighbour that keeps failing."""


Result: TypeAlias = Settled | Transient | Permanent
"""A handler answers each unit with how it ended, or with the error that kept it from ending."""
