"""What is asked of users while the summer is replayed: whose vector is read, and when. Pure.

The questions of the cold-start protocol, and those about new users: how near is the next film they
like, once so many of their events are known?
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from deploy.demo.films import Rating
from deploy.demo.schedule import Schedule
from deploy.demo.user_plans import NEW_ACTS, UserEvent
from workers.evaluation.cold_start import RatingTable, questions
from workers.evaluation.rating_replay import DEFAULT_RULES

EVENTS_KNOWN = (1, 2, 5, 10)
"""After so many events a new user is looked at."""


@dataclass(frozen=True, slots=True)
class NextLike:
    """The film that a user likes next, and when."""

    item_id: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class UserQuestions:
    """`queries` are ratings (user, item) before which their user is read.

    `audiences` are the users who are read before the first rating of a film, `first_steps` the next
    films liked by new users after so many events: (user, number of events). `new_films` are those
    whose ratings wait until they are live.
    """

    queries: frozenset[tuple[str, str]]
    audiences: Mapping[str, tuple[str, ...]]
    new_users: frozenset[str]
    first_steps: Mapping[tuple[str, int], NextLike]
    new_films: frozenset[str]

    @classmethod
    def of(cls, schedule: Schedule) -> Self:
        """Return the questions of a feed."""
        asked = questions(rating_table(schedule.ratings), schedule.released_ms.keys())
        events = [event for event in schedule.summer if isinstance(event, UserEvent)]
        known = {event.user_id for event in schedule.history}
        new = frozenset(event.user_id for event in events) - known
        return cls(
            queries=asked.queries,
            audiences=asked.audiences,
            new_users=new,
            first_steps=_first_steps(events, new),
            new_films=frozenset(schedule.released_ms),
        )

    def asks_before(self, event: UserEvent, known: int) -> bool:
        """Return whether its user is read before an event is sent, of whom `known` were."""
        if event.kind not in NEW_ACTS:
            return False
        user, item = event.user_id, event.item_id
        return (user, item) in self.queries or (user, known) in self.first_steps


def rating_table(ratings: Sequence[Rating]) -> RatingTable:
    """Return the ratings as the protocol takes them."""
    return RatingTable(
        user=np.array([rating.user_id for rating in ratings]),
        item=np.array([rating.item_id for rating in ratings]),
        rating=np.array([rating.rating for rating in ratings]),
        at_ms=np.array([rating.at_ms for rating in ratings], np.int64),
    )


def _first_steps(
    events: Sequence[UserEvent], new: frozenset[str]
) -> dict[tuple[str, int], NextLike]:
    """Return what is liked next in the order in which it is sent; nobody rates a film twice."""
    of_user: dict[str, list[UserEvent]] = {}
    for event in events:
        if event.user_id in new and event.kind in NEW_ACTS:
            of_user.setdefault(event.user_id, []).append(event)
    found: dict[tuple[str, int], NextLike] = {}
    for user, sent in of_user.items():
        for known in EVENTS_KNOWN:
            liked = next((e for e in sent[known:] if e.rating >= DEFAULT_RULES.liked_from), None)
            if liked is not None:
                found[user, known] = NextLike(liked.item_id, liked.at_ms)
    return found
