"""Interactions from files as events, and as the histories that the behaviour lane makes of them.

Offline and through the pipeline the same events are meant, down to their times: an interaction
without a value is a `like`, one with a value a `rate`. Where the file knows no times, a user's
events are a second apart in the order of the file: no more than a minute may hold of them, and far
too close to one another for a half-life of days to make a difference. Pure.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from math import isnan
from typing import NamedTuple

import numpy as np

from schemas.behaviour import UserBehaviour
from schemas.entities import EntityKey, EntityKind
from schemas.errors import ConfigurationError
from schemas.history import NEVER, History, HistoryBounds, HistoryEvent, bounded, event_digest
from streams.settings import BehaviourSettings
from workers.evaluation.interaction_files import NO_TIME, Interactions

UNBOUNDED = HistoryBounds(max_events=2**31, max_per_minute=2**31)
"""The whole history: what published protocols take."""

LIKE = "like"
RATE = "rate"

_SPACING_MS = 1_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Event(NamedTuple):
    user: str
    item: str
    action: str
    value: float | None
    at_ms: int

    @property
    def id(self) -> str:
        """The same whenever the same file is sent again."""
        return f"{self.item}-{self.at_ms}"


def check_actions(interactions: Interactions, behaviour: BehaviourSettings) -> None:
    """Raise ConfigurationError where an action has no weight, or only some events have a time."""
    rated = ~np.isnan(interactions.value)
    for action, is_used in ((RATE, rated.any()), (LIKE, (~rated).any())):
        if is_used and not behaviour.actions.get(action):
            raise ConfigurationError(
                "FRESHET_BEHAVIOUR__ACTIONS", f"{action!r} has no weight: what files are read as"
            )
    if (interactions.at_ms != NO_TIME).any() and not interactions.timed:
        raise ConfigurationError("interactions", "some have a time and some have none")


def behaviour_events(interactions: Interactions) -> Iterator[UserBehaviour]:
    """Yield the events to send."""
    for event in _events(interactions):
        yield UserBehaviour(
            user_id=event.user,
            item_id=event.item,
            action=event.action,
            value=event.value,
            event_id=event.id,
            occurred_at=_EPOCH + timedelta(milliseconds=event.at_ms),
        )


def histories_from(
    interactions: Interactions, bounds: HistoryBounds = UNBOUNDED
) -> dict[EntityKey, History]:
    """Return the users' histories once all of it has happened."""
    events: dict[str, list[HistoryEvent]] = {}
    for event in _events(interactions):
        # The precision in which the lane keeps values.
        value = None if event.value is None else float(np.float32(event.value))
        events.setdefault(event.user, []).append(
            HistoryEvent(event.at_ms, event_digest(event.id), event.item, event.action, value)
        )
    return {
        EntityKey(EntityKind.USER, user): History(1, NEVER, bounded(own, NEVER, bounds))
        for user, own in events.items()
    }


def _events(interactions: Interactions) -> Iterator[_Event]:
    seen: dict[str, int] = {}
    columns = (interactions.user, interactions.item, interactions.value, interactions.at_ms)
    for user, item, value, at_ms in zip(*(column.tolist() for column in columns), strict=True):
        place = seen[user] = seen.get(user, -1) + 1
        is_rated = not isnan(value)
        yield _Event(
            user,
            item,
            RATE if is_rated else LIKE,
            value if is_rated else None,
            place * _SPACING_MS if at_ms == NO_TIME else at_ms,
        )
