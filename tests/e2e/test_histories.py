"""Users survive the loss of Redis: real lanes, Kafka and Redis, events flowing all along."""

import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta

import numpy as np
import pytest
from redis import Redis

from deploy.local.redis_server import RedisServer
from schemas.history import History, HistoryRecord
from tests.deployment import Deploy, Deployment, LaneProcess
from tests.shop import AT, Shop
from tests.stack import wait_until_blocking

pytestmark = pytest.mark.timeout(300)

ITEMS = [f"f{n}" for n in range(8)]
USERS = [f"u{n}" for n in range(30)]


class Crowd:
    """Users who like films; `likes` is what each of them did, by event id."""

    def __init__(self, shop: Shop, seed: int) -> None:
        self._shop = shop
        self._chance = random.Random(seed)
        self._sent = 0
        self.likes: defaultdict[str, set[tuple[str, int]]] = defaultdict(set)

    def like(self, events: int, per_second: float = 10_000) -> None:
        for _ in range(events):
            self._sent += 1
            user, item = self._chance.choice(USERS), self._chance.choice(ITEMS)
            at = AT + timedelta(minutes=self._sent)
            self._shop.behaviour.interaction(
                user, item, "like", event_id=f"e{self._sent}", occurred_at=at
            )
            self.likes[user].add((item, round(at.timestamp() * 1000)))
            time.sleep(1 / per_second)
        self._shop.behaviour.flush(30)


@pytest.fixture
def redis(own_redis: Callable[..., RedisServer]) -> RedisServer:
    return own_redis()


@pytest.fixture
def deployment(deploy: Deploy, redis: RedisServer) -> Deployment:
    return deploy(own_redis=redis, environment={"FRESHET_BEHAVIOUR__HISTORY_FLUSH_SECONDS": "1"})


@pytest.fixture
def shop(deployment: Deployment) -> Iterator[Shop]:
    with closing(Shop(deployment)) as shop:
        yield shop


def _open(lanes: dict[str, LaneProcess]) -> None:
    wait_until_blocking(
        lambda: all(lane.ready for lane in lanes.values()), timeout=60, interval=0.1
    )


def _published(deployment: Deployment) -> dict[str, History]:
    """Return the newest history of each user in the topic; fails on two partitions of one user."""
    newest: dict[str, tuple[int, History]] = {}
    for record in deployment.records(deployment.prefix + "histories"):
        history = HistoryRecord.decode(record.value).history
        partition, known = newest.get(record.key.decode(), (record.partition, History()))
        assert partition == record.partition
        if history.rev >= known.rev:
            newest[record.key.decode()] = partition, history
    return {key: history for key, (_, history) in newest.items()}


def _stored(deployment: Deployment) -> dict[str, History]:
    with Redis.from_url(deployment.redis_url) as redis:
        values = {user: redis.get(f"{deployment.prefix}history:{{user:{user}}}") for user in USERS}
    return {f"user:{user}": History.decode(value) for user, value in values.items() if value}


def _assert_all_there(shop: Shop, crowd: Crowd) -> None:
    stored = _stored(shop.deployment)
    done = {
        key: {(event.item, event.at_ms) for event in history.events}
        for key, history in stored.items()
    }
    assert done == {f"user:{user}": likes for user, likes in crowd.likes.items()}
    vectors = shop.read(*stored)
    assert vectors.found.all()
    assert vectors.revs.tolist() == [history.rev for history in stored.values()]


def test_users_come_back_with_all_they_did(
    deployment: Deployment, redis: RedisServer, shop: Shop
) -> None:
    lanes = deployment.start_all("items", "encode", "behaviour")
    for item in ITEMS:
        shop.add_item(item)
    deployment.wait_settled()
    crowd = Crowd(shop, 31)
    crowd.like(200)
    deployment.wait_settled()
    wait_until_blocking(lambda: _published(deployment) == _stored(deployment), timeout=30)
    snapshot = redis.snapshot()
    crowd.like(100)
    deployment.wait_settled()
    _assert_all_there(shop, crowd)
    before = shop.read(*_stored(deployment))

    for old in (None, snapshot):
        redis.kill()
        if old is None:
            redis.restart(empty=True)
        else:
            redis.restore(old)
        time.sleep(1.5)
        _open(lanes)
        deployment.wait_settled()
        _assert_all_there(shop, crowd)
        after = shop.read(*_stored(deployment))
        np.testing.assert_allclose(after.values, before.values, atol=2e-3)

    # Emptied under a lane that goes on: the process is the same, and nobody tells it.
    flowing = threading.Thread(target=crowd.like, args=(400, 100))
    flowing.start()
    for _ in range(2):
        time.sleep(1.0)
        with Redis.from_url(redis.url) as client:
            client.flushall()
    flowing.join()
    time.sleep(1.5)
    _open(lanes)
    deployment.wait_settled()
    _assert_all_there(shop, crowd)

    # Killed with events on the way, and its Redis gone when it comes back.
    flowing = threading.Thread(target=crowd.like, args=(200, 100))
    flowing.start()
    time.sleep(1.0)
    lanes["behaviour"].kill()
    redis.kill()
    redis.restart(empty=True)
    lanes["behaviour"] = deployment.start("behaviour")
    flowing.join()
    _open(lanes)
    deployment.wait_settled()
    _assert_all_there(shop, crowd)

    # A clean stop leaves nothing to the next owner.
    assert lanes["behaviour"].terminate() == 0, lanes["behaviour"].tail()
    assert _published(deployment) == _stored(deployment)


def test_users_move_to_a_new_space_with_their_items(
    deployment: Deployment, redis: RedisServer, shop: Shop
) -> None:
    lanes = deployment.start_all("items", "encode", "behaviour")
    for item in ITEMS:
        shop.add_item(item)
    deployment.wait_settled()
    crowd = Crowd(shop, 37)
    crowd.like(120)
    deployment.wait_settled()
    wait_until_blocking(lambda: _published(deployment) == _stored(deployment), timeout=30)

    for words in (
        ("spaces", "fit", "second", "--catalog", "topic", "--dim", "4"),
        ("spaces", "create", "second"),
        ("topics", "apply", "--lane", "encode.second"),
    ):
        ran = deployment.freshet(*words)
        assert ran.returncode == 0, ran.stderr
    refused = deployment.freshet("spaces", "activate", "second")
    assert refused.returncode != 0
    lanes["encode.second"] = deployment.start("encode.second")
    _open(lanes)
    # One user goes on meanwhile; all others have nothing but what `histories` says.
    shop.like(USERS[0], ITEMS[0], minutes=10_000)
    deployment.wait_settled()
    activated = deployment.freshet("spaces", "activate", "second")
    assert activated.returncode == 0, activated.stderr

    with Redis.from_url(redis.url) as client:
        aliases = client.mget([f"{deployment.prefix}alias:{kind}" for kind in ("item", "user")])
    assert aliases == [b"second", b"second"]
    stored = _stored(deployment)
    with closing(Shop(deployment)) as ranker:
        users, items = ranker.read(*stored), ranker.read(*(f"item:{item}" for item in ITEMS))
    assert (users.space, items.space) == ("second", "second")
    assert users.values.shape == (len(stored), 4)
    assert users.found.all()
    assert items.found.all()
    assert users.revs.tolist() == [history.rev for history in stored.values()]
