"""What users do, for the bench: who is how active, with which items, and what they did before."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from schemas.behaviour import UserBehaviour
from schemas.entities import EntityKey, EntityKind
from schemas.history import NEVER, History, HistoryEvent, event_digest
from streams.producers import BehaviourProducer

ITEMS = 4_000
HISTORY_EVENTS = 50
HOT_SHARE = 0.05

START_MS = 1_750_000_000_000
STEP_MS = 3_000
"""Between two events of all users: the hot user's stay below the bound of events a minute."""

_BEFORE_MS = 6 * 3_600_000
_ACTIONS = ("view", "like", "rate", "skip")
_ACTION_SHARES = (0.6, 0.2, 0.1, 0.1)
_FLUSH_SECONDS = 120.0


class Crowd(StrEnum):
    """How activity is spread over users."""

    UNIFORM = "uniform"
    HOT = "hot"


def user_shares(crowd: Crowd, users: int) -> npt.NDArray[np.float64]:
    """Return each user's share of all events: (users,), sums to 1.

    In a hot crowd the first user has `HOT_SHARE`, and the others follow Zipf's law below that.
    """
    if crowd is Crowd.UNIFORM:
        return np.full(users, 1 / users)
    return np.concatenate([[HOT_SHARE], (1 - HOT_SHARE) * _zipf(users - 1, 0.75)])


def events(crowd: Crowd, count: int, users: int) -> Iterator[UserBehaviour]:
    """Yield events in the order they happened, the same in every call."""
    draw = np.random.default_rng(count)
    acting = draw.choice(users, count, p=user_shares(crowd, users))
    for n, (user, (item, action, value)) in enumerate(
        zip(acting.tolist(), _interactions(draw, count), strict=True)
    ):
        yield UserBehaviour(
            user_id=str(user),
            event_id=f"{crowd.value}-{n}",
            item_id=item,
            action=action,
            value=value,
            occurred_at=datetime.fromtimestamp((START_MS + n * STEP_MS) / 1000, UTC),
        )


def histories(count: int, *, prefix: str = "") -> Iterator[tuple[EntityKey, History]]:
    """Yield users with what they did before START_MS: HISTORY_EVENTS events each."""
    draw = np.random.default_rng(HISTORY_EVENTS)
    for user in range(count):
        done = tuple(
            HistoryEvent(
                START_MS - (HISTORY_EVENTS - n) * _BEFORE_MS,
                event_digest(f"before-{user}-{n}"),
                item,
                action,
                value,
            )
            for n, (item, action, value) in enumerate(_interactions(draw, HISTORY_EVENTS))
        )
        yield EntityKey(EntityKind.USER, f"{prefix}{user}"), History(1, NEVER, done)


def item_id(number: int) -> str:
    """Return the id of an item, of the length that ids of catalogues have."""
    return str(100_000 + number)


@dataclass(frozen=True, slots=True)
class Produced:
    """What is on the topic."""

    events: int
    records: int


def produce(
    bootstrap_servers: str,
    topic_prefix: str,
    sent: Iterator[UserBehaviour],
    *,
    events_a_record: int,
) -> Produced:
    """Put events on `user.behaviour`; returns once all are acknowledged."""
    records: set[tuple[int, int]] = set()
    count = 0
    with BehaviourProducer(
        bootstrap_servers,
        topic_prefix=topic_prefix,
        batch_events=events_a_record,
        batch_ms=_FLUSH_SECONDS * 1000,
        on_delivery=lambda done: records.add((done.partition, done.offset)),
    ) as producer:
        for event in sent:
            producer.send(event)
            count += 1
        producer.flush(_FLUSH_SECONDS)
    return Produced(count, len(records))


def _interactions(draw: np.random.Generator, count: int) -> Iterator[tuple[str, str, float | None]]:
    """Yield (item, action, value): popular items more often, as in every catalogue."""
    items = draw.choice(ITEMS, count, p=_zipf(ITEMS, 0.6)).tolist()
    actions = draw.choice(len(_ACTIONS), count, p=_ACTION_SHARES).tolist()
    stars = draw.integers(1, 11, count).tolist()
    for item, action, value in zip(items, actions, stars, strict=True):
        name = _ACTIONS[action]
        yield item_id(item), name, float(value) if name == "rate" else None


def _zipf(count: int, exponent: float) -> npt.NDArray[np.float64]:
    weights = np.arange(1, count + 1) ** -exponent
    shares: npt.NDArray[np.float64] = weights / weights.sum()
    return shares
