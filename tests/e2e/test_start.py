"""Starting a lane: it waits for what is unreachable and says so; what is wrong is one line."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from deploy.local.kafka_server import KafkaServer
from deploy.local.ports import free_port
from deploy.local.redis_server import RedisServer
from tests.deployment import REPOSITORY, Deploy, Deployment, LaneProcess
from tests.stack import wait_until_blocking

pytestmark = pytest.mark.timeout(180)


def _reasons(lane) -> set[str]:
    return set(lane.readiness()["reasons"])


def test_a_lane_waits_for_redis_and_kafka_and_says_which(
    deploy: Deploy, own_kafka: Callable[..., KafkaServer], own_redis: Callable[..., RedisServer]
) -> None:
    broker, redis = own_kafka(), own_redis()
    deployment = deploy(own_kafka=broker, own_redis=redis)
    broker.kill()
    redis.kill()

    items, encode = deployment.start("items"), deployment.start("encode")
    wait_until_blocking(lambda: _reasons(items) >= {"kafka", "redis"}, timeout=30)
    broker.restart()
    wait_until_blocking(lambda: "redis" in _reasons(items) - {"kafka"}, timeout=30)
    redis.restart()

    wait_until_blocking(lambda: items.ready and encode.ready, timeout=60, interval=0.2)
    assert "Traceback" not in items.tail(500)


def test_a_missing_topic_and_a_bad_setting_are_one_clear_line(
    kafka: KafkaServer, redis_server: RedisServer, topic_prefix: str, tmp_path
) -> None:
    deployment = Deployment(tmp_path, kafka.bootstrap_servers, redis_server.url, topic_prefix)

    missing = deployment.freshet("lane", "items")
    deployment.environment = {"FRESHET_LANE__DRAIN_SECONDS": "never"}
    bad = deployment.freshet("lane", "items")
    unknown = deployment.freshet("lane", "itmes")

    assert (missing.returncode, bad.returncode, unknown.returncode) == (2, 2, 2)
    assert "catalog.items" in missing.stderr
    assert "freshet topics apply" in missing.stderr
    assert "FRESHET_LANE__DRAIN_SECONDS" in bad.stderr
    assert "itmes" in unknown.stderr
    for ended in (missing, bad, unknown):
        assert "Traceback" not in ended.stderr


def test_sigterm_while_waiting_for_dependencies_ends_at_once(
    redis_server: RedisServer, topic_prefix: str, tmp_path
) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    deployment = Deployment(tmp_path, nobody, redis_server.url, topic_prefix)
    lane = deployment.start("items")
    wait_until_blocking(lambda: "kafka" in _reasons(lane), timeout=30)

    assert lane.terminate(15) == 0


def test_a_plain_faust_worker_runs_a_lane(deploy: Deploy) -> None:
    deployment = deploy()
    deployment.start_all("encode")
    port = free_port()
    log = deployment.root / "faust.log"
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [sys.executable, "-m", "faust", "-A", "streams.apps:items", "worker", "--without-web"],
            cwd=REPOSITORY,
            env={**os.environ, **deployment.variables, "FRESHET_WEB__PORT": str(port)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        lane = LaneProcess("items", worker, port, log)
        wait_until_blocking(lambda: lane.ready, timeout=60, interval=0.2)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(20) == 0, lane.tail()
    finally:
        worker.kill()
