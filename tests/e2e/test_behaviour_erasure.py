"""Nothing brings an erased user back: late events, answers, dead letters and rebuilds in turn."""

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

import orjson
import pytest

from schemas.entities import EntityKey
from schemas.history import History
from schemas.knowledge import (
    Factors,
    KnowledgeUpdate,
    Provenance,
    RegisterName,
    Removed,
)
from schemas.topics import DAY_MS, REMOVED_MARKER_DAYS, Topic
from streams.settings import DEFAULT_ACTIONS
from streams.topology import BEHAVIOUR
from tests.behaviour_delivery import dead_letters, published_histories, stored_histories
from tests.delivery import stored_documents, with_redis
from tests.deployment import Deploy, Deployment, LaneProcess
from tests.shop import AT, Shop
from tests.stack import wait_until_blocking
from workers.live.connection import Client
from workers.live.keys import Keys
from workers.live.view_partitions import ViewPartitions

pytestmark = pytest.mark.timeout(240)

ERASED_AFTER = 60.0
"""Minutes after `AT`."""

FILMS = ("erasure-a", "erasure-b", "erasure-c")
NOWHERE = "erasure-nowhere"
NEW_ACTION = "collect"


@pytest.fixture(scope="module")
def shop(deploy_for_all: Deploy) -> Iterator[Shop]:
    deployment = deploy_for_all(
        partitions=2,
        environment={
            "FRESHET_BEHAVIOUR__HISTORY_FLUSH_SECONDS": "0.5",
            "FRESHET_BEHAVIOUR__KNOWLEDGE": "on",
            "FRESHET_BEHAVIOUR__GATE_MIN_EVENTS": "3",
            "FRESHET_KNOWLEDGE__CALL_SECONDS": "60",
        },
    )
    deployment.start_all("items", "encode", BEHAVIOUR, "knowledge-backlog")
    with closing(Shop(deployment)) as shop:
        for film in FILMS:
            shop.add_item(film)
        for film in FILMS:
            shop.wait_for(f"item:{film}")
        yield shop


def test_events_that_come_after_the_erasure_bring_nothing_back(shop: Shop) -> None:
    _like_everything(shop, "late")
    shop.like("late", NOWHERE)

    shop.erase("late", minutes=ERASED_AFTER)
    shop.wait_gone("user:late")
    _like_everything(shop, "late")  # the same once more
    shop.act("late", FILMS[0], "purchase", minutes=ERASED_AFTER)  # at the very moment
    shop.erase("late", minutes=5)  # an older erasure takes nothing of the mark
    shop.add_item(NOWHERE)  # what the user waited for
    shop.deployment.wait_settled()

    _assert_only_marks_left(shop.deployment, "late")


def test_an_answer_that_was_in_flight_brings_nothing_back(shop: Shop) -> None:
    deployment = shop.deployment
    mood, calls = deployment.root / "mood", deployment.root / "calls"
    mood.write_text("hold")
    _like_everything(shop, "asked")
    wait_until_blocking(
        lambda: calls.exists() and "user:asked " in calls.read_text(), timeout=30, interval=0.1
    )

    shop.erase("asked", minutes=ERASED_AFTER)
    removed = wait_until_blocking(lambda: _removal(deployment, "asked"), timeout=30, interval=0.1)
    assert removed is not None
    mood.unlink()
    answered = wait_until_blocking(
        lambda: [update.value for update in _answers(deployment, "asked")],
        timeout=30,
        interval=0.2,
    )
    # Another worker's, slower still; and of a user who says nothing more, nothing mends it.
    _send_late_answer(deployment, "asked", removed.version - 1)
    deployment.wait_settled()

    assert all(answer.version < removed.version for answer in answered)
    _assert_only_marks_left(deployment, "asked")


def test_replayed_dead_letters_bring_nothing_back(shop: Shop) -> None:
    deployment = shop.deployment
    for user in ("buried", "alive"):
        shop.like(user, FILMS[0])
        shop.act(user, FILMS[1], NEW_ACTION, minutes=1, event_id=f"{user}-letter")
    wait_until_blocking(lambda: len(_letters_of(deployment)) == 2, timeout=30, interval=0.2)
    shop.erase("buried", minutes=ERASED_AFTER)
    shop.wait_gone("user:buried")

    # The action becomes a known one, so the letters can be used now.
    assert _running(deployment, BEHAVIOUR).terminate() == 0
    actions = orjson.dumps({**DEFAULT_ACTIONS, NEW_ACTION: 1}).decode()
    knows_it = deployment.start(BEHAVIOUR, FRESHET_BEHAVIOUR__ACTIONS=actions)
    wait_until_blocking(lambda: knows_it.ready, timeout=60, interval=0.1)
    replayed = deployment.freshet("dead-letters", "replay", BEHAVIOUR)
    deployment.wait_settled()

    assert "replayed 2 letters" in replayed.stdout, replayed.stdout + replayed.stderr
    alive = stored_histories(deployment, "alive")[EntityKey.parse("user:alive")]
    assert [event.action for event in alive.events] == ["like", NEW_ACTION]
    _assert_only_marks_left(deployment, "buried")


def test_a_rebuild_from_the_topics_brings_nothing_back(shop: Shop) -> None:
    deployment = shop.deployment
    for user in ("rebuilt", "kept"):
        _like_everything(shop, user)
    kept = _history(deployment, "kept")
    shop.erase("rebuilt", minutes=ERASED_AFTER)
    shop.wait_gone("user:rebuilt")
    deployment.wait_settled()
    wait_until_blocking(
        lambda: published_histories(deployment) == stored_histories(deployment),
        timeout=30,
        interval=0.2,
    )

    _empty_redis(deployment)
    wait_until_blocking(lambda: _history(deployment, "kept") == kept, timeout=60, interval=0.2)
    wait_until_blocking(lambda: all(lane.ready for lane in _all_running(deployment)), timeout=60)
    _like_everything(shop, "rebuilt")
    deployment.wait_settled()

    assert shop.has("user:kept")
    _assert_only_marks_left(deployment, "rebuilt")


def _like_everything(shop: Shop, user: str) -> None:
    for minutes, film in enumerate(FILMS):
        shop.like(user, film, minutes=minutes)
    wait_until_blocking(lambda: _history(shop.deployment, user) is not None, timeout=30)


def _assert_only_marks_left(deployment: Deployment, user: str) -> None:
    """Assert that Redis and the compacted topics know an id and a time, and nothing else."""
    erased_at_ms = round((AT + timedelta(minutes=ERASED_AFTER)).timestamp() * 1000)
    key = EntityKey.parse(f"user:{user}")
    history = _history(deployment, user)
    assert history is not None
    assert (history.erased_at_ms, history.events) == (erased_at_ms, ())
    (document,) = stored_documents(deployment, [key])
    assert document.removed is not None
    for known in (document, deployment.entities()[str(key)].document):
        assert known.removed == document.removed
        assert (known.content, known.individual, known.collective) == (None, None, None)

    def published() -> bool:
        return published_histories(deployment, user).get(key) == history

    wait_until_blocking(published, timeout=30, interval=0.2)

    async def kept(redis: Client, keys: Keys) -> tuple[set[str], int, list[str]]:
        names = {name.decode() async for name in redis.scan_iter(f"{keys.prefix}*{{{key}}}*")}
        waits_for = [
            name.decode()
            async for name in redis.scan_iter(f"{keys.prefix}awaiting:*")
            if await redis.zscore(name, str(key)) is not None
        ]
        return names - {keys.trace(key)}, await redis.pttl(keys.history(key)), waits_for

    names, ttl_ms, waits_for = with_redis(deployment, kept)
    keys = Keys(deployment.prefix)
    assert names == {keys.history(key), keys.doc(key)}
    assert ttl_ms > REMOVED_MARKER_DAYS * DAY_MS
    assert waits_for == []


def _history(deployment: Deployment, user: str) -> History | None:
    return stored_histories(deployment, user).get(EntityKey.parse(f"user:{user}"))


def _removal(deployment: Deployment, user: str) -> Removed | None:
    (document,) = stored_documents(deployment, [EntityKey.parse(f"user:{user}")])
    return document.removed


def _answers(deployment: Deployment, user: str) -> list[KnowledgeUpdate]:
    updates = [
        KnowledgeUpdate.decode(record.value)
        for record in deployment.records(deployment.prefix + Topic.KNOWLEDGE)
    ]
    return [
        update
        for update in updates
        if update.entity.id == user and update.register is RegisterName.INDIVIDUAL
    ]


def _send_late_answer(deployment: Deployment, user: str, version: int) -> None:
    (known, *_) = _answers(deployment, user)
    assert isinstance(known.value, Factors)
    late = Factors(
        version,
        known.value.generated_at_ms + DAY_MS,
        known.value.factors,
        Provenance("version-writer", "late", "late"),
        known.value.event_time_ms,
    )
    update = KnowledgeUpdate(known.entity, RegisterName.INDIVIDUAL, late)
    deployment.produce(Topic.KNOWLEDGE, (known.entity.encode(), update.encode()))


def _letters_of(deployment: Deployment) -> list[bytes | None]:
    return [letter.key for letter in dead_letters(deployment)]


def _all_running(deployment: Deployment) -> list[LaneProcess]:
    return [lane for lane in deployment.running if lane.process.poll() is None]


def _running(deployment: Deployment, name: str) -> LaneProcess:
    (lane,) = (lane for lane in _all_running(deployment) if lane.name == name)
    return lane


def _empty_redis(deployment: Deployment) -> None:
    """Let all that the deployment has in the shared Redis go, and wait until a lane says so."""

    async def unlink(redis: Client, keys: Keys) -> None:
        names = [name async for name in redis.scan_iter(f"{keys.prefix}*")]
        # The proof that the view is whole goes first: nobody builds on half of it.
        await redis.unlink(keys.view(), keys.view_partitions())
        await redis.unlink(*names)

    async def verified(redis: Client, keys: Keys) -> int:
        return len(await ViewPartitions(redis, keys).load())

    with_redis(deployment, unlink)
    wait_until_blocking(
        lambda: with_redis(deployment, verified) == deployment.partitions, timeout=60, interval=0.2
    )
