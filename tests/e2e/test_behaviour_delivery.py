"""Delivery of users' events under faults, on a real broker and a real Redis, with real lanes.

In each test traffic flows while something is killed, added or broken. Afterwards every event is
accounted for, no commit was ahead of its effects, and histories and vectors of users are those of
an in-order run of the same traffic.
"""

import random
import time
from collections.abc import Callable

import pytest

from deploy.local.kafka_server import KafkaServer
from deploy.local.redis_server import RedisServer
from streams.topology import BEHAVIOUR, history_watermark_group
from tests.behaviour_delivery import (
    assert_behaviour_arrived,
    assert_behaviour_is_covered,
    contents,
    published_histories,
    stored_histories,
)
from tests.behaviour_feed import (
    SMALL,
    Step,
    behaviour_sender,
    expected_histories,
    make_behaviour,
)
from tests.delivery import Traffic
from tests.deployment import Deploy, Deployment, LaneProcess
from tests.stack import wait_until_blocking

pytestmark = pytest.mark.timeout(240)

LANES = ("items", "encode", BEHAVIOUR)


@pytest.fixture(scope="module")
def deployment(deploy_for_all: Deploy) -> Deployment:
    """For the tests that break nothing but behaviour lanes."""
    deployment = deploy_for_all(partitions=2, environment=SMALL)
    deployment.start_all(*LANES)
    return deployment


@pytest.fixture
def lane(deployment: Deployment) -> LaneProcess:
    """The behaviour lane that runs, whatever the test before did to it."""
    running = [
        lane
        for lane in deployment.running
        if lane.name == BEHAVIOUR and lane.process.poll() is None
    ]
    lane = running[0] if running else deployment.start(BEHAVIOUR)
    _ready(lane)
    return lane


def _ready(*lanes: LaneProcess) -> None:
    wait_until_blocking(lambda: all(lane.ready for lane in lanes), timeout=60, interval=0.1)


def _flowing(deployment: Deployment, feed: list[Step], per_second: float) -> Traffic[Step]:
    traffic = Traffic(deployment, feed, per_second, behaviour_sender)
    traffic.start()
    return traffic


def _wait_sent(traffic: Traffic[Step], count: int) -> None:
    wait_until_blocking(lambda: traffic.sent >= count or traffic.failure, timeout=60)


def test_a_lane_killed_at_random_moments_loses_and_doubles_nothing(
    deployment: Deployment, lane: LaneProcess
) -> None:
    chance = random.Random(20260101)
    feed = make_behaviour(3, "killed", events=2_400)
    traffic = _flowing(deployment, feed, per_second=130)

    for part in range(3):
        _ready(lane)
        _wait_sent(traffic, 800 * part + chance.randint(100, 700))
        lane.kill()
        assert_behaviour_is_covered(deployment)
        lane = deployment.start(BEHAVIOUR)
    traffic.finish()
    _ready(lane)
    deployment.wait_settled()

    assert_behaviour_arrived(deployment, feed, "killed")


def test_a_second_worker_joining_and_leaving_loses_and_doubles_nothing(
    deployment: Deployment, lane: LaneProcess
) -> None:
    feed = make_behaviour(5, "joined", events=1_600)
    traffic = _flowing(deployment, feed, per_second=130)

    _wait_sent(traffic, 200)
    second = deployment.start(BEHAVIOUR)
    _ready(second)
    wait_until_blocking(lambda: second.metric("freshet_records_total") > 0, timeout=30)
    assert second.terminate() == 0, second.tail()
    assert_behaviour_is_covered(deployment)
    traffic.finish()
    deployment.wait_settled()

    assert lane.process.poll() is None
    assert_behaviour_arrived(deployment, feed, "joined")


def test_sigterm_in_mid_flow_drains_and_leaves_nothing_to_flush(
    deployment: Deployment, lane: LaneProcess
) -> None:
    feed = make_behaviour(7, "stopped", events=1_000)
    traffic = _flowing(deployment, feed, per_second=200)

    _wait_sent(traffic, 400)
    started = time.monotonic()
    code = lane.terminate()
    took = time.monotonic() - started
    assert code == 0, lane.tail()
    # Drained or abandoned after 5 s, then 5 s at most for histories; the hard exit gives 75.
    assert took < 14
    assert_behaviour_is_covered(deployment)
    stored = stored_histories(deployment, "stopped")
    assert stored
    assert published_histories(deployment, "stopped") == stored

    _ready(deployment.start(BEHAVIOUR))
    traffic.finish()
    deployment.wait_settled()
    assert_behaviour_arrived(deployment, feed, "stopped")


def test_a_broker_killed_in_mid_flow_loses_and_doubles_nothing(
    deploy: Deploy, own_kafka: Callable[..., KafkaServer]
) -> None:
    broker = own_kafka()
    deployment = deploy(own_kafka=broker, partitions=2, environment=SMALL)
    feed = make_behaviour(11, "cut", events=1_000)
    lanes = deployment.start_all(*LANES)
    traffic = _flowing(deployment, feed, per_second=150)

    _wait_sent(traffic, 400)
    broker.kill()
    broker.restart()
    traffic.finish()
    _ready(*lanes.values())
    deployment.wait_settled()
    assert_behaviour_arrived(deployment, feed, "cut")

    broker.kill()
    started = time.monotonic()
    assert lanes[BEHAVIOUR].terminate(20) in {0, 75}
    assert time.monotonic() - started < 12 + 4, "the grace period is 12 s"


def test_a_redis_that_comes_back_older_or_empty_gets_all_users_back(
    deploy: Deploy, own_redis: Callable[..., RedisServer]
) -> None:
    redis = own_redis()
    deployment = deploy(own_redis=redis, partitions=2, environment=SMALL)
    watermarks = history_watermark_group(deployment.prefix)
    feed = make_behaviour(13, "put", events=1_000)
    second_feed = make_behaviour(17, "next", events=600)
    lanes = deployment.start_all(*LANES)
    first = _flowing(deployment, feed, per_second=200)

    _wait_sent(first, 300)
    wait_until_blocking(lambda: deployment.committed_by(watermarks), timeout=30, interval=0.2)
    snapshot = redis.snapshot()
    _wait_sent(first, 500)
    redis.kill()
    wait_until_blocking(
        lambda: "redis" in lanes[BEHAVIOUR].readiness()["reasons"], timeout=30, interval=0.1
    )
    redis.restart()
    first.finish()
    _ready(*lanes.values())
    deployment.wait_settled()
    assert_behaviour_arrived(deployment, feed, "put")

    expected = expected_histories(feed, deployment.settings.behaviour)
    # What is in `histories` need not be in the events any more.
    flushed = deployment.committed_by(watermarks)
    assert set(flushed.values()) != {0}
    deployment.delete_before(flushed)
    for old in (None, snapshot):
        redis.kill()
        if old is None:
            redis.restart(empty=True)
        else:
            redis.restore(old)
        wait_until_blocking(
            lambda: contents(stored_histories(deployment)) == expected, timeout=60, interval=0.3
        )
        _ready(*lanes.values())
        deployment.wait_settled()
        assert_behaviour_arrived(deployment, feed, "put")

    second = _flowing(deployment, second_feed, per_second=200)
    _wait_sent(second, 300)
    redis.kill()
    redis.restart(empty=True)
    second.finish()
    _ready(*lanes.values())
    deployment.wait_settled()
    assert_behaviour_arrived(deployment, feed, "put")
    assert_behaviour_arrived(deployment, second_feed, "next")
