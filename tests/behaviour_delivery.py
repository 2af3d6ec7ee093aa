"""What must hold of users at every moment, and once a deployment is quiet; for fault tests."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from schemas.behaviour import Interaction, decode_behaviour
from schemas.dead_letter import DeadLetter
from schemas.entities import EntityKey
from schemas.errors import InvalidInput
from schemas.history import NEVER, History, HistoryEvent, HistoryRecord
from schemas.topics import DAY_MS, Topic, dead_letters_topic
from streams.settings import BehaviourSettings
from streams.topology import BEHAVIOUR, history_watermark_group
from streams.user_parts import history_store, significance_of
from tests.behaviour_feed import Step, expected_histories, unusable_events
from tests.delivery import LEAST_COSINE, cosine, records_before, with_redis
from tests.deployment import Deployment
from tests.stack import wait_until_blocking
from workers.live.connection import Client
from workers.live.keys import Keys
from workers.live.live_vectors import LiveVectors

Histories = dict[EntityKey, History]

FLUSHED_SECONDS = 30.0


def stored_histories(deployment: Deployment, starting: str = "") -> Histories:
    """Return the histories in Redis, of users whose id starts so."""

    async def load(redis: Client, keys: Keys) -> Histories:
        store = history_store(deployment.settings.behaviour, redis, keys)
        users = sorted({user async for user in store.scan() if user.id.startswith(starting)})
        histories = await store.load(users)
        return {
            user: history
            for user, history in zip(users, histories, strict=True)
            if history is not None
        }

    return with_redis(deployment, load)


def published_histories(deployment: Deployment, starting: str = "") -> Histories:
    """Return what `histories` says of users: their greatest revision, as a restore takes it."""
    newest: Histories = {}
    for record in deployment.records(deployment.prefix + Topic.HISTORIES):
        user = EntityKey.parse(record.key)
        if not user.id.startswith(starting):
            continue
        assert record.value is not None, f"{user}: nobody swept"
        history = HistoryRecord.decode(record.value).history
        if user not in newest or history.rev >= newest[user].rev:
            newest[user] = history
    return newest


def contents(histories: Mapping[EntityKey, History]) -> Histories:
    """Return histories without their revisions, which depend on what came together."""
    return {
        user: History(0, history.erased_at_ms, history.events)
        for user, history in histories.items()
    }


def dead_letters(deployment: Deployment) -> list[DeadLetter]:
    """Return the behaviour lane's dead letters."""
    return [
        DeadLetter.from_record(record.key, record.value, record.headers)
        for record in deployment.records(deployment.prefix + dead_letters_topic(BEHAVIOUR))
    ]


def assert_behaviour_is_covered(deployment: Deployment) -> None:
    """Assert that nothing is committed ahead of its effects.

    What the lane committed is in Redis or in a dead letter, what it noted as flushed is in
    `histories`. Holds at any moment: offsets are read first.
    """
    topic = deployment.prefix + Topic.USER_BEHAVIOUR
    committed = deployment.committed(BEHAVIOUR)
    flushed = deployment.committed_by(history_watermark_group(deployment.prefix))
    records = deployment.records(topic)
    behaviour = deployment.settings.behaviour

    news, unusable = _news(records_before(records, committed), behaviour)
    _assert_within(news, stored_histories(deployment), behaviour, "committed but not in Redis")
    assert unusable <= _buried(deployment)
    news, _ = _news(records_before(records, flushed), behaviour)
    _assert_within(news, published_histories(deployment), behaviour, "flushed but not in the topic")


def _assert_within(
    news: Mapping[EntityKey, History],
    histories: Mapping[EntityKey, History],
    behaviour: BehaviourSettings,
    problem: str,
) -> None:
    for user, new in news.items():
        history = histories.get(user, History())
        joined = history.join(new.events, new.erased_at_ms, behaviour.bounds)
        assert joined == history, f"{user}: {problem}"


def _news(
    records: Iterable[Any], behaviour: BehaviourSettings
) -> tuple[dict[EntityKey, History], set[str]]:
    """Return all events of users, unbounded, and the ids of those that cannot be used."""
    events: defaultdict[EntityKey, list[HistoryEvent]] = defaultdict(list)
    erased_at_ms: defaultdict[EntityKey, int] = defaultdict(lambda: NEVER)
    unusable: set[str] = set()
    for record in records:
        try:
            decoded = decode_behaviour(
                record.key,
                record.value,
                record.headers,
                timestamp_ms=record.timestamp,
                now_ms=record.timestamp,
                limits=behaviour.limits,
            )
        except InvalidInput:
            unusable |= _event_ids(record.value)
            continue
        unusable |= {id_ for refused in decoded.refused for id_ in _event_ids(refused.value)}
        for one in decoded.events:
            if isinstance(one, Interaction):
                events[one.user].append(one.event)
            else:
                erased_at_ms[one.user] = max(erased_at_ms[one.user], one.at_ms)
    return {
        user: History(0, erased_at_ms[user], tuple(events[user]))
        for user in events.keys() | erased_at_ms.keys()
    }, unusable


def assert_behaviour_arrived(deployment: Deployment, feed: Sequence[Step], starting: str) -> None:
    """Assert that a quiet deployment holds exactly what an in-order run of the feed ends with.

    Histories in Redis and in `histories`, user vectors, what erasures took back, dead letters.
    `starting` is how the ids of the feed's users and items begin.
    """
    behaviour = deployment.settings.behaviour
    expected = expected_histories(feed, behaviour)
    stored = stored_histories(deployment, starting)
    assert contents(stored) == expected
    wait_until_blocking(
        lambda: published_histories(deployment, starting) == stored,
        timeout=FLUSHED_SECONDS,
        interval=0.3,
    )
    assert_user_vectors_follow(deployment, stored)
    entities = deployment.entities()
    for user, history in stored.items():
        if history.erased_at_ms != NEVER:
            removed = entities[str(user)].document.removed
            assert removed is not None, user
            assert removed.event_time_ms == history.erased_at_ms, user
    buried = {id_ for id_ in _buried(deployment) if id_.startswith(starting)}
    assert buried == unusable_events(feed, behaviour)


def _buried(deployment: Deployment) -> set[str]:
    letters = dead_letters(deployment)
    return {id_ for letter in letters for id_ in _event_ids(letter.value or b"")}


def _event_ids(value: bytes) -> set[str]:
    """Return the ids of the event, or of all the events of a batch."""
    body = orjson.loads(value)
    return {event["event_id"] for event in body.get("events", [body])}


def assert_user_vectors_follow(
    deployment: Deployment, histories: Mapping[EntityKey, History]
) -> None:
    """Assert that rankers read the vectors that these histories ask for, and nobody else's."""
    users = list(histories)
    items = sorted({event.item for one in histories.values() for event in one.events})
    with (
        LiveVectors(deployment.redis_url, key_prefix=deployment.prefix) as live,
        live.pin() as view,
    ):
        got = view.get([str(user) for user in users])
        read = view.get([f"item:{item}" for item in items])
    vectors = {
        item: values.astype(np.float64)
        for item, values, found in zip(items, read.values, read.found, strict=True)
        if found
    }
    for row, user in enumerate(users):
        history = histories[user]
        wanted = recomputed(history, vectors, deployment.settings.behaviour)
        assert bool(got.found[row]) == (wanted is not None), user
        if wanted is not None:
            assert cosine(got.values[row], wanted) >= LEAST_COSINE, user
            assert got.revs[row] == history.rev, user
            assert got.event_times_ms[row] == history.newest_ms, user


def recomputed(
    history: History,
    vectors: Mapping[str, npt.NDArray[np.float64]],
    behaviour: BehaviourSettings,
) -> npt.NDArray[np.float64] | None:
    """Return the recency-weighted mean of a history, from the definition; None for nothing."""
    significance = significance_of(behaviour)
    weighted = [
        (event, weight)
        for event in history.counted
        if (weight := significance.of(event)) and event.item in vectors
    ]
    if not weighted:
        return None
    newest_ms = max(event.at_ms for event, _ in weighted)
    half_life_ms = behaviour.half_life_days * DAY_MS
    total = np.zeros(next(iter(vectors.values())).shape)
    for event, weight in weighted:
        share = behaviour.negative_share if weight < 0 else 1.0
        age = (newest_ms - event.at_ms) / half_life_ms
        total += weight * share * 2.0**-age * vectors[event.item]
    return total
