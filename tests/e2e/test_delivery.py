"""Delivery under faults, on a real broker and a real Redis, with lanes as real processes.

In each test a feed flows while something is killed, added or broken. Afterwards every event is
accounted for, no commit was ahead of its effects, and what rankers read is what an in-order run of
the same feed ends with.
"""

import random
import time
from collections.abc import Callable, Sequence

import pytest

from deploy.local.kafka_server import KafkaServer
from deploy.local.redis_server import RedisServer
from schemas.entities import EntityKey
from tests.delivery import (
    Traffic,
    assert_all_arrived,
    assert_commits_are_covered,
    stored_documents,
)
from tests.deployment import ITEM_PATH, Deploy, Deployment, LaneProcess
from tests.document_equality import LiveView, live_view
from tests.feed import FeedEvent, make_feed, newest_versions
from tests.stack import wait_until_blocking

pytestmark = pytest.mark.timeout(420)


def _ready(*lanes: LaneProcess) -> None:
    wait_until_blocking(lambda: all(lane.ready for lane in lanes), timeout=60, interval=0.1)


def _items(feed: Sequence[FeedEvent]) -> list[EntityKey]:
    return sorted({EntityKey.item(event.item) for event in feed})


def _views(deployment: Deployment, feed: Sequence[FeedEvent]) -> list[LiveView]:
    return [live_view(document) for document in stored_documents(deployment, _items(feed))]


def _calls(deployment: Deployment) -> int:
    log = deployment.root / "calls"
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_lanes_killed_at_random_moments_lose_nothing(deploy: Deploy) -> None:
    deployment = deploy()
    chance = random.Random(20130604)
    feed = make_feed(7, events=5_000)
    lanes = deployment.start_all()
    traffic = Traffic(deployment, feed, per_second=150)
    traffic.start()

    for name in chance.sample(ITEM_PATH, len(ITEM_PATH)) * 2:
        time.sleep(chance.uniform(0.2, 2.0))
        lanes[name].kill()
        assert_commits_are_covered(deployment, name)
        lanes[name] = deployment.start(name)
    traffic.finish()
    _ready(*lanes.values())
    deployment.wait_settled()

    assert_all_arrived(deployment, feed)


def test_a_second_worker_joining_and_leaving_each_lane_loses_nothing(deploy: Deploy) -> None:
    deployment = deploy()
    feed = make_feed(11, events=3_000)
    deployment.start_all()
    traffic = Traffic(deployment, feed, per_second=60)
    traffic.start()

    for name in ITEM_PATH:
        second = deployment.start(name)
        _ready(second)
        time.sleep(1.0)
        assert second.terminate() == 0, second.tail()
    traffic.finish()
    deployment.wait_settled()

    assert_all_arrived(deployment, feed)


def test_a_broker_killed_in_mid_flow_loses_nothing(
    deploy: Deploy, own_kafka: Callable[..., KafkaServer]
) -> None:
    broker = own_kafka()
    deployment = deploy(own_kafka=broker)
    feed = make_feed(13, events=1_500)
    lanes = deployment.start_all()
    traffic = Traffic(deployment, feed, per_second=100)
    traffic.start()

    wait_until_blocking(lambda: traffic.sent > 500, timeout=30)
    broker.kill()
    time.sleep(4.0)
    broker.restart()
    traffic.finish()
    _ready(*lanes.values())
    deployment.wait_settled()
    assert_all_arrived(deployment, feed)

    broker.kill()
    started = time.monotonic()
    for lane in lanes.values():
        lane.process.terminate()
    codes = [lane.process.wait(20) for lane in lanes.values()]
    assert time.monotonic() - started < 12 + 4, "the grace period is 12 s"
    assert set(codes) <= {0, 75}, codes


def test_a_redis_that_comes_back_older_or_empty_is_caught_up_without_a_call(
    deploy: Deploy, own_redis: Callable[..., RedisServer]
) -> None:
    redis = own_redis()
    deployment = deploy(own_redis=redis)
    feed = make_feed(17, events=1_800, items=60)
    lanes = deployment.start_all()
    first, second = Traffic(deployment, feed[:900], 150), Traffic(deployment, feed[900:], 150)
    first.start()
    wait_until_blocking(lambda: first.sent > 400, timeout=30)
    snapshot = redis.snapshot()

    redis.kill()
    time.sleep(1.0)
    redis.restart()
    first.finish()
    _ready(*lanes.values())
    deployment.wait_settled()
    assert_all_arrived(deployment, feed[:900])

    calls, before = _calls(deployment), _views(deployment, feed[:900])
    for old in (None, snapshot):
        redis.kill()
        if old is None:
            redis.restart(empty=True)
        else:
            redis.restore(old)
        time.sleep(1.5)
        _ready(*lanes.values())
        deployment.wait_settled()
        assert _views(deployment, feed[:900]) == before
        assert _calls(deployment) == calls, "a rebuild must not ask the language model"
        assert_all_arrived(deployment, feed[:900])

    second.start()
    wait_until_blocking(lambda: second.sent > 300, timeout=30)
    redis.kill()
    redis.restore(snapshot)
    second.finish()
    _ready(*lanes.values())
    deployment.wait_settled()
    assert_all_arrived(deployment, feed)


@pytest.mark.parametrize("mood", ["down", "hang", "garbage"])
def test_a_writer_in_trouble_delays_knowledge_and_nothing_else(deploy: Deploy, mood: str) -> None:
    deployment = deploy()
    feed = make_feed(19, events=400, items=60)
    mood_file = deployment.root / "mood"
    mood_file.write_text(mood)
    lanes = deployment.start_all()
    traffic = Traffic(deployment, feed, per_second=200)
    traffic.start()
    traffic.finish()

    def contents_are_live() -> bool:
        documents = stored_documents(deployment, _items(feed))
        return all(document.content or document.removed for document in documents)

    wait_until_blocking(contents_are_live, timeout=30, interval=0.2)
    assert all(d.individual is None for d in stored_documents(deployment, _items(feed)))
    if mood != "garbage":  # refused answers are outcomes, retried from the backlog
        wait_until_blocking(
            lambda: "vllm" in lanes["knowledge"].readiness()["reasons"], timeout=30, interval=0.2
        )

    mood_file.unlink()
    deployment.wait_settled(240)
    assert_all_arrived(deployment, feed)


def test_sigterm_in_mid_flow_drains_and_loses_nothing(deploy: Deploy) -> None:
    deployment = deploy()
    feed = make_feed(23, events=1_500)
    lanes = deployment.start_all()
    traffic = Traffic(deployment, feed, per_second=100)
    traffic.start()

    for name in ITEM_PATH:
        started = time.monotonic()
        code = lanes[name].terminate()
        assert code == 0, lanes[name].tail()
        # Drained or abandoned after 5 s; the hard exit of the grace period would give 75.
        assert time.monotonic() - started < 14
        assert_commits_are_covered(deployment, name)
        lanes[name] = deployment.start(name)
    traffic.finish()
    _ready(*lanes.values())
    deployment.wait_settled()

    assert_all_arrived(deployment, feed)


def test_no_removed_item_comes_back_after_compaction_and_a_rebuild(
    deploy: Deploy, own_redis: Callable[..., RedisServer]
) -> None:
    redis = own_redis()
    deployment = deploy(own_redis=redis)
    feed = make_feed(29, events=400, items=40)
    # Edits first, so that there is something to compact; then every third item goes.
    last = newest_versions(feed)
    removals = [
        FeedEvent(item, version + 1, None, 0)
        for number, (item, version) in enumerate(sorted(last.items()))
        if number % 3 == 0
    ]
    others = [FeedEvent(f"x{number:02d}", 1, "Amber Road", 0) for number in range(16)]
    lanes = deployment.start_all()
    _send(deployment, [*feed, *removals])
    deployment.wait_settled()
    before = len(deployment.records(deployment.prefix + "entities"))
    deployment.compact("entities", "representations")
    _send(deployment, others)  # a record closes the segment before it, and closed ones are cleaned
    wait_until_blocking(
        lambda: len(deployment.records(deployment.prefix + "entities")) < before,
        timeout=60,
        interval=0.5,
    )

    redis.kill()
    redis.restart(empty=True)
    time.sleep(1.5)
    _ready(*lanes.values())
    _send(deployment, random.Random(29).sample(feed, 100))  # late and repeated events
    deployment.wait_settled()

    assert_all_arrived(deployment, [*feed, *removals, *others])


def _send(deployment: Deployment, feed: Sequence[FeedEvent]) -> None:
    traffic = Traffic(deployment, feed, per_second=400)
    traffic.start()
    traffic.finish()
