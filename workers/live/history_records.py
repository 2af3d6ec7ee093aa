"""What the behaviour lane and the history store hand each other.

Needs no Redis: lanes and fakes import it.
"""

from dataclasses import dataclass

from schemas.entities import EntityKey
from schemas.history import NEVER, History, HistoryEvent


@dataclass(frozen=True, slots=True)
class HistoryChange:
    """What to add to one user's history: events in any order, and the time of an erasure."""

    user: EntityKey
    events: tuple[HistoryEvent, ...] = ()
    erased_at_ms: int = NEVER


@dataclass(frozen=True, slots=True)
class AppliedHistory:
    """A user's history after a change.

    `changed` is False for a repetition, and for events too late to count. `limited` is how many
    events, new or stored, the bound per minute let go.
    """

    history: History
    changed: bool
    limited: int
