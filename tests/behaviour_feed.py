"""Seeded traffic of users with everything that the real one has, and what it must end in.

Users like each other and one in a hurry, single records and batches, repeated events, events out
of order and hours late, items that come after their users did, events nobody can use, and users
who are erased: some go on afterwards, some are gone for good although old events still come.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from schemas.behaviour import (
    BehaviourEvent,
    Checked,
    Interaction,
    UserBehaviour,
    UserErased,
    decode_behaviour,
    encode_behaviour,
    user_of,
)
from schemas.entities import EntityKey
from schemas.errors import InvalidInput
from schemas.events import ItemFields, ItemUpserted
from schemas.history import NEVER, History
from streams.producers import BehaviourProducer, CatalogProducer
from streams.settings import BehaviourSettings
from tests.deployment import Deployment
from tests.feed import TITLES

AT = datetime(2024, 5, 1, 12, tzinfo=UTC)
BETWEEN = timedelta(milliseconds=200)
ACTIONS = ("view", "click", "like", "dislike", "purchase", "play", "skip")
NO_ACTION = "teleport"

ITEMS = 32
LATE_ITEMS = 12
GONE_USERS = 5

SMALL = {
    # Small enough for what histories leave out to be seen.
    "FRESHET_BEHAVIOUR__MAX_EVENTS": "40",
    "FRESHET_BEHAVIOUR__MAX_PER_MINUTE": "8",
    # A crash finds something flushed and something not.
    "FRESHET_BEHAVIOUR__HISTORY_FLUSH_SECONDS": "0.5",
}
"""The environment that such traffic asks for."""


@dataclass(frozen=True, slots=True)
class Step:
    """One event; `alone` in its record, or in whatever batch there is."""

    event: BehaviourEvent | ItemUpserted
    alone: bool = True


def make_behaviour(seed: int, name: str, *, events: int = 2_000, users: int = 50) -> list[Step]:
    """Return events in the order they are sent; all users and items begin with `name`."""
    chance = random.Random(seed)
    items = [f"{name}-i{number:02d}" for number in range(ITEMS)]
    ids = [f"{name}-u{number:02d}" for number in range(users)]
    steps: list[Step] = []
    for number in range(events):
        kind = chance.random()
        if steps and kind < 0.1:
            known = steps[-chance.randint(1, min(50, len(steps)))]
            steps.append(replace(known, alone=chance.random() < 0.5))
            continue
        now = AT + number * BETWEEN
        user = ids[0] if chance.random() < 0.1 else chance.choice(ids)
        if kind < 0.11:
            erased_at = now - timedelta(seconds=chance.randint(0, 60))
            steps.append(Step(UserErased(user_id=user, occurred_at=erased_at)))
            continue
        if kind < 0.16:
            now -= timedelta(minutes=chance.randint(1, 180))
        event = UserBehaviour(
            user_id=user,
            event_id=f"{name}-{number}",
            # One item is never in the catalogue.
            item_id=f"{name}-nowhere" if chance.random() < 0.02 else chance.choice(items),
            action=NO_ACTION if 0.16 <= kind < 0.18 else chance.choice(ACTIONS),
            occurred_at=now,
        )
        steps.append(Step(event, alone=chance.random() < 0.3))
    _shuffle_nearby(steps, chance)
    for item in items[-LATE_ITEMS:]:
        steps.insert(chance.randrange(events // 3, events), _in_catalogue(item))
    return [
        *(_in_catalogue(item) for item in items[:-LATE_ITEMS]),
        *steps,
        *_gone(ids[-GONE_USERS:], steps, AT + (events + 1) * BETWEEN),
    ]


def _gone(users: Iterable[str], steps: Iterable[Step], at: datetime) -> list[Step]:
    """Return the erasure of users, and then all that they ever did once more."""
    gone = {user: Step(UserErased(user_id=user, occurred_at=at)) for user in users}
    again = [
        step
        for step in steps
        if isinstance(step.event, UserBehaviour) and step.event.user_id in gone
    ]
    return [*gone.values(), *again]


def _in_catalogue(item: str) -> Step:
    title = f"{TITLES[int(item[-2:]) % len(TITLES)]} {item}"
    return Step(
        ItemUpserted(item_id=item, version=1, item=ItemFields(title=title, genres=["Drama"]))
    )


def _shuffle_nearby(steps: list[Step], chance: random.Random) -> None:
    for index in range(len(steps) - 1):
        if chance.random() < 0.1:
            other = min(len(steps) - 1, index + chance.randint(1, 20))
            steps[index], steps[other] = steps[other], steps[index]


Send: TypeAlias = Callable[[Step], None]


@contextmanager
def behaviour_sender(deployment: Deployment) -> Iterator[Send]:
    """Give a function that sends steps; all are acknowledged in the end."""
    kafka = deployment.settings.kafka
    servers, prefix = kafka.bootstrap_servers, kafka.topic_prefix
    with (
        CatalogProducer(servers, topic_prefix=prefix) as catalog,
        BehaviourProducer(servers, topic_prefix=prefix) as single,
        BehaviourProducer(servers, topic_prefix=prefix, batch_events=20) as batched,
    ):

        def send(step: Step) -> None:
            if isinstance(step.event, ItemUpserted):
                catalog.send(step.event)
            else:
                (single if step.alone else batched).send(step.event)

        yield send
        for producer in (catalog, single, batched):
            report = producer.flush(120)
            assert not report.failed, report.failed[:3]


def behaviour_of(feed: Iterable[Step]) -> list[BehaviourEvent]:
    """Return the events of users."""
    return [step.event for step in feed if not isinstance(step.event, ItemUpserted)]


def expected_histories(
    feed: Iterable[Step], behaviour: BehaviourSettings
) -> dict[EntityKey, History]:
    """Return what each user's history must be: that of a run in order, one event at a time."""
    events: defaultdict[EntityKey, list[Checked]] = defaultdict(list)
    for event in behaviour_of(feed):
        checked = _checked(event, behaviour)
        if checked is not None:
            events[checked.user].append(checked)
    return {user: _in_order(listed, behaviour) for user, listed in events.items()}


def unusable_events(feed: Iterable[Step], behaviour: BehaviourSettings) -> set[str]:
    """Return the ids of the events that must become dead letters."""
    return {
        event.event_id
        for event in behaviour_of(feed)
        if isinstance(event, UserBehaviour) and _checked(event, behaviour) is None
    }


def _in_order(events: Iterable[Checked], behaviour: BehaviourSettings) -> History:
    history = History()
    for one in sorted(events, key=_happened_at_ms):
        if isinstance(one, Interaction):
            history = history.join([one.event], NEVER, behaviour.bounds)
        else:
            history = history.join([], one.at_ms, behaviour.bounds)
    return history


def _happened_at_ms(one: Checked) -> int:
    return one.event.at_ms if isinstance(one, Interaction) else one.at_ms


def _checked(event: BehaviourEvent, behaviour: BehaviourSettings) -> Checked | None:
    now_ms = round(AT.timestamp() * 1000)
    try:
        decoded = decode_behaviour(
            user_of(event).encode(),
            encode_behaviour(event),
            [],
            timestamp_ms=now_ms,
            now_ms=now_ms,
            limits=behaviour.limits,
        )
    except InvalidInput:
        return None
    (checked,) = decoded.events
    return checked
