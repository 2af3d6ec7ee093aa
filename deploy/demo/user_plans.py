"""What users do in a season: every rating once, some again or late, and some ask to be forgotten.

Drawn from a seed. Pure. The ratings before the summer are what a shop would load when it begins.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random

from deploy.demo.films import SUMMER_STARTS_MS, Rating
from deploy.demo.plans import DAY_MS, HOUR_MS, FeedShape

_ERASED_FROM = 50
"""The users who are forgotten are among the so many who rated the most: they have much to lose."""

_LEFT_MS = 3 * DAY_MS
"""They rate nothing in the last days of the season."""


class Act(StrEnum):
    """Why a behaviour event is in the feed."""

    RATING = "rating"
    LATE = "late"  # a rating that comes hours after the user's next ones
    DUPLICATE = "duplicate"  # a rating that came before
    ERASURE = "erasure"  # all that is known of the user has to go
    GHOST = "ghost"  # a rating of an erased user from before the erasure: must bring nothing back


NEW_ACTS = frozenset({Act.RATING, Act.LATE})
"""What adds to a history."""


@dataclass(frozen=True, slots=True)
class UserEvent:
    """A behaviour event that is sent at `at_ms` of the season; `occurred_ms` is its event time.

    An erasure has no `item_id` and no `rating`.
    """

    at_ms: int
    occurred_ms: int
    kind: Act
    user_id: str
    item_id: str = ""
    rating: int = 0

    @property
    def event_id(self) -> str:
        """What repetitions are known by; differs between all ratings."""
        return f"{self.user_id}:{self.item_id}:{self.occurred_ms}"


@dataclass(frozen=True, slots=True)
class UserFeed:
    """All behaviour events: those before the summer in time order, those of the summer in none."""

    history: tuple[UserEvent, ...]
    summer: tuple[UserEvent, ...]
    erased: frozenset[str]


def draw_user_feed(ratings: Sequence[Rating], rng: Random, shape: FeedShape) -> UserFeed:
    """Return what users do: the same for the same seed. `ratings` are in time order."""
    ends_ms = ratings[-1].at_ms
    events = [
        UserEvent(one.at_ms, one.at_ms, Act.RATING, one.user_id, one.item_id, one.rating)
        for one in ratings
    ]
    history = [event for event in events if event.at_ms < SUMMER_STARTS_MS]
    summer = [event for event in events if event.at_ms >= SUMMER_STARTS_MS]
    late = set(rng.sample(range(len(summer)), min(len(summer), shape.late_ratings)))
    summer = [
        _later(event, Act.LATE, rng, HOUR_MS, DAY_MS, ends_ms) if index in late else event
        for index, event in enumerate(summer)
    ]
    repeated = rng.sample(summer, min(len(summer), shape.repeated_ratings))
    again = [_later(event, Act.DUPLICATE, rng, 1_000, HOUR_MS, ends_ms) for event in repeated]
    erasures = _erasures((*history, *summer), rng, shape.erasures, ends_ms)
    return UserFeed(
        tuple(history),
        (*summer, *again, *erasures),
        frozenset(event.user_id for event in erasures),
    )


def _later(
    event: UserEvent, kind: Act, rng: Random, soonest_ms: int, latest_ms: int, ends_ms: int
) -> UserEvent:
    at_ms = min(event.at_ms + rng.randrange(soonest_ms, latest_ms), ends_ms)
    return replace(event, at_ms=at_ms, kind=kind)


def _erasures(
    events: Iterable[UserEvent], rng: Random, count: int, ends_ms: int
) -> list[UserEvent]:
    """Return the wishes to be forgotten, each with a ghost that comes a day later."""
    of_user: dict[str, list[UserEvent]] = {}
    for event in events:
        of_user.setdefault(event.user_id, []).append(event)
    left = [
        user
        for user, given in of_user.items()
        if max(event.at_ms for event in given) < ends_ms - _LEFT_MS
    ]
    left.sort(key=lambda user: (-len(of_user[user]), user))
    found: list[UserEvent] = []
    for user in rng.sample(left[:_ERASED_FROM], min(count, len(left))):
        last = max(of_user[user], key=lambda event: event.at_ms)
        at_ms = max(last.at_ms, SUMMER_STARTS_MS) + rng.randrange(HOUR_MS, DAY_MS)
        found.append(UserEvent(at_ms, at_ms, Act.ERASURE, user))
        found.append(replace(last, at_ms=at_ms + DAY_MS, kind=Act.GHOST))
    return found
