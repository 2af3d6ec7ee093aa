"""What the behaviour lane takes from its records, and how it adds up. Pure.

Values of this lane never compete: adding them is commutative and associative, and the histories
they end in take every event once, so it does not matter which of them travel together.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Self

from schemas.behaviour import DecodedBehaviour, Interaction, RefusedEvent
from schemas.dead_letter import DeadLetter
from schemas.entities import EntityKey
from schemas.history import NEVER, HistoryBounds, HistoryEvent, bounded_and_limited
from streams.engine.lane import Record

TRIM_AT = 4
"""Events of a user are trimmed once they are this many times what a history keeps."""


@dataclass(frozen=True, slots=True)
class UserNews:
    """New events of one user and the latest erasure; `partition` of the topic they came from.

    `limited` events are gone already, because their minute had too many.
    """

    partition: int
    events: tuple[HistoryEvent, ...] = ()
    erased_at_ms: int = NEVER
    limited: int = 0

    def plus(self, other: Self, bounds: HistoryBounds) -> Self:
        """Return both together, trimmed when a history would keep a fraction of them only.

        What is trimmed could not stay in any history: a bound of a union is the bound of the union
        of bounds.
        """
        events = self.events + other.events
        limited = self.limited + other.limited
        erased_at_ms = max(self.erased_at_ms, other.erased_at_ms)
        if len(events) > TRIM_AT * bounds.max_events:
            events, over = bounded_and_limited(events, erased_at_ms, bounds)
            limited += over
        return type(self)(self.partition, events, erased_at_ms, limited)


@dataclass(frozen=True, slots=True)
class BehaviourNews:
    """A value of the lane: news of users, items that have vectors now, or nothing at all.

    `refused` are the events of batches that cannot be used, on their way to the dead letters.
    """

    key: EntityKey
    users: Mapping[EntityKey, UserNews] = field(default_factory=dict)
    arrived: frozenset[EntityKey] = frozenset()
    refused: tuple[DeadLetter, ...] = ()

    @property
    def event_count(self) -> int:
        """Events in it."""
        return sum(len(news.events) for news in self.users.values())

    def plus(self, other: Self, bounds: HistoryBounds) -> Self:
        """Return both together, under this one's key."""
        return replace(
            self,
            users=users_together(chain(self.users.items(), other.users.items()), bounds),
            arrived=self.arrived | other.arrived,
            refused=self.refused + other.refused,
        )


def users_together(
    news: Iterable[tuple[EntityKey, UserNews]], bounds: HistoryBounds
) -> dict[EntityKey, UserNews]:
    """Return one sum for each user."""
    together: dict[EntityKey, UserNews] = {}
    for user, one in news:
        known = together.get(user)
        together[user] = one if known is None else known.plus(one, bounds)
    return together


def news_of_users(decoded: DecodedBehaviour, partition: int) -> dict[EntityKey, UserNews]:
    """Return what a record says, by user."""
    events: dict[EntityKey, list[HistoryEvent]] = {}
    erased_at_ms: dict[EntityKey, int] = {}
    for one in decoded.events:
        listed = events.setdefault(one.user, [])
        if isinstance(one, Interaction):
            listed.append(one.event)
        else:
            erased_at_ms[one.user] = max(erased_at_ms.get(one.user, NEVER), one.at_ms)
    return {
        user: UserNews(partition, tuple(listed), erased_at_ms.get(user, NEVER))
        for user, listed in events.items()
    }


def letter_of(
    refused: RefusedEvent, record: Record, *, stage: str, group: str, now_ms: int
) -> DeadLetter:
    """Return the dead letter of one event of a batch: the event as it would be alone.

    The batch's own CloudEvents headers would contradict it.
    """
    return DeadLetter(
        key=record.key if refused.user is None else refused.user.encode(),
        value=refused.value,
        headers=tuple((name, data) for name, data in record.headers if not name.startswith("ce_")),
        reason=refused.reason,
        detail=f"event {refused.index} of a batch: {refused.detail}",
        stage=stage,
        attempts=1,
        first_seen_ms=now_ms,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        group=group,
    )
