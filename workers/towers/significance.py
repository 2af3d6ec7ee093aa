"""What one interaction says about a user's taste: a signed weight. Pure.

Applied when histories are read, never when they are written: other settings need no rewriting.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from schemas.history import HistoryEvent


@dataclass(frozen=True, slots=True)
class RatingScale:
    """Where a value stops to say anything, and where it says all: best > neutral > worst."""

    neutral: float = 4.5
    best: float = 10.0
    worst: float = 0.0

    def share(self, value: float) -> float:
        """Return how much a value says: 1 for the best or better, -1 for the worst or worse."""
        liked = value >= self.neutral
        span = self.best - self.neutral if liked else self.neutral - self.worst
        return max(-1.0, min(1.0, (value - self.neutral) / span))


@dataclass(frozen=True, slots=True)
class Significance:
    """Weights of actions; those of `rated` actions are scaled by the event's value."""

    actions: Mapping[str, float]
    rated: frozenset[str] = frozenset({"rate"})
    scale: RatingScale = RatingScale()

    def of(self, event: HistoryEvent) -> float:
        """Return the event's weight; 0 for an action that has none (any more)."""
        weight = self.actions.get(event.action, 0.0)
        if event.action not in self.rated:
            return weight
        # Without a value it was stored when the action was not a rated one yet.
        return 0.0 if event.value is None else weight * self.scale.share(event.value)
