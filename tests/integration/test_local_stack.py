"""The local Kafka and Redis behave as their classes promise, because fault tests build on them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import MessageSizeTooLargeError

from deploy.local.kafka_server import KafkaServer
from deploy.local.redis_server import RedisServer
from deploy.local.server_process import ServerFailedError, ServerProcess, command_line
from tests.stack import create_topic, wait_until_blocking

REPOSITORY = Path(__file__).parents[2]


def produce(kafka: KafkaServer, topic: str, *values: bytes) -> None:
    producer = KafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers,
        max_request_size=8_000_000,
        enable_idempotence=False,
    )
    try:
        for value in values:
            producer.send(topic, key=b"key", value=value).get(timeout=20)
    finally:
        producer.close(timeout=5)


def consume(kafka: KafkaServer, topic: str) -> list[bytes]:
    """Return everything that is in the topic's first partition."""
    consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap_servers)
    partition = TopicPartition(topic, 0)
    try:
        consumer.assign([partition])
        consumer.seek_to_beginning(partition)
        end = consumer.end_offsets([partition])[partition]
        values: list[bytes] = []

        def at_the_end() -> bool:
            polled = consumer.poll(timeout_ms=200)
            values.extend(record.value for records in polled.values() for record in records)
            return consumer.position(partition) >= end

        wait_until_blocking(at_the_end)
        return values
    finally:
        consumer.close()


def client(server: RedisServer) -> "redis.Redis":
    return redis.Redis.from_url(server.url, socket_timeout=5)


def test_a_produced_record_is_consumed(kafka: KafkaServer, topic_prefix: str):
    topic = f"{topic_prefix}records"
    create_topic(kafka.bootstrap_servers, topic)

    produce(kafka, topic, b"value")

    assert consume(kafka, topic) == [b"value"]


def test_a_three_megabyte_value_passes_and_a_five_megabyte_one_does_not(
    kafka: KafkaServer, topic_prefix: str
):
    topic = f"{topic_prefix}large"
    create_topic(kafka.bootstrap_servers, topic)

    produce(kafka, topic, bytes(3_000_000))

    assert len(consume(kafka, topic)[0]) == 3_000_000
    with pytest.raises(MessageSizeTooLargeError):
        produce(kafka, topic, bytes(5_000_000))


def test_compaction_comes_within_seconds_where_a_topic_asks_for_it(
    kafka: KafkaServer, topic_prefix: str
):
    topic = f"{topic_prefix}compacted"
    settings = {
        "cleanup.policy": "compact",
        "segment.ms": "100",
        "min.cleanable.dirty.ratio": "0.01",
    }
    create_topic(kafka.bootstrap_servers, topic, settings=settings)

    def the_old_ones_are_gone() -> bool:
        # Each record closes the segment before it; only closed segments are compacted.
        produce(kafka, topic, b"new")
        return b"old" not in consume(kafka, topic)

    produce(kafka, topic, *[b"old"] * 20)
    assert consume(kafka, topic).count(b"old") >= 1

    # Sooner than the broker's default pause of the cleaner, 15 s, would let it.
    wait_until_blocking(the_old_ones_are_gone, timeout=10, interval=0.3)


def test_a_killed_broker_comes_back_on_its_port_with_its_data(own_kafka):
    kafka = own_kafka()
    address = kafka.bootstrap_servers
    create_topic(address, "records")
    produce(kafka, "records", b"before")

    kafka.kill()
    assert not kafka.running
    kafka.start()
    produce(kafka, "records", b"after")

    assert kafka.bootstrap_servers == address
    assert consume(kafka, "records") == [b"before", b"after"]


def test_a_broker_that_cannot_start_says_why(kafka: KafkaServer, tmp_path: Path):
    second = KafkaServer(tmp_path, port=kafka.port)

    with pytest.raises(ServerFailedError, match=r"(?s)exited with code .*Address already in use"):
        second.start()

    assert not second.running


def test_a_killed_redis_keeps_every_acknowledged_write(own_redis):
    server = own_redis()
    with client(server) as connection:
        connection.set("item", "written")
        server.kill()
        server.start()

        assert connection.get("item") == b"written"


def test_redis_restarts_empty_on_the_same_port(own_redis):
    server = own_redis()
    address = server.url
    with client(server) as connection:
        connection.set("item", "written")
        server.restart(empty=True)

        assert server.url == address
        assert connection.keys() == []


def test_a_restored_snapshot_holds_what_was_there_and_nothing_newer(own_redis):
    server = own_redis()
    with client(server) as connection:
        connection.set("item", "old")
        snapshot = server.snapshot()
        connection.set("item", "new")
        connection.set("later", "new")
        server.restore(snapshot)

        assert connection.get("item") == b"old"
        assert connection.get("later") is None

        connection.set("item", "newest")
        server.kill()
        server.start()
        assert connection.get("item") == b"newest"


def test_a_paused_redis_accepts_connections_and_answers_after_resume(own_redis):
    server = own_redis()
    server.pause()
    with redis.Redis.from_url(server.url, socket_timeout=0.2, retry=None) as connection:
        with pytest.raises(redis.TimeoutError):
            connection.ping()
        server.resume()

        assert connection.ping()


def test_redis_never_evicts(redis_server: RedisServer):
    with client(redis_server) as connection:
        assert connection.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_a_server_dies_with_a_parent_that_is_killed(tmp_path: Path):
    script = (
        "import sys, time; from pathlib import Path\n"
        "from deploy.local.redis_server import RedisServer\n"
        "server = RedisServer(Path(sys.argv[1])); server.start()\n"
        "print(server.pid, flush=True); time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert "redis-server" in command_line(pid)
        parent.send_signal(signal.SIGKILL)

    wait_until_blocking(lambda: "redis-server" not in command_line(pid))


def test_a_server_that_ignores_the_request_to_end_is_killed(tmp_path: Path):
    server = ServerProcess(
        ["/bin/sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.1; done"],
        log_file=tmp_path / "log",
    )
    server.await_ready(
        lambda: "up" in (tmp_path / "log").read_text(), name="sh", timeout_seconds=10
    )

    server.terminate(timeout_seconds=0.3)

    assert not server.running


def test_a_server_that_is_never_ready_is_ended_and_its_log_shown(tmp_path: Path):
    server = ServerProcess(["/bin/sh", "-c", "echo stuck; sleep 60"], log_file=tmp_path / "log")

    with pytest.raises(ServerFailedError, match=r"(?s)not ready after 0.3 s.*stuck"):
        server.await_ready(lambda: False, name="sh", timeout_seconds=0.3)

    assert not server.running


def local(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deploy.local", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )


def test_the_stack_outlives_its_command_and_its_data_outlives_the_stack(tmp_path: Path):
    root = f"--root={tmp_path}"
    try:
        up = local("up", "--json", root)
        assert up.returncode == 0, up.stderr
        first = json.loads(up.stdout)
        assert json.loads(local("up", "--json", root).stdout) == first
        environment = first["environment"]
        exports = local("env", root).stdout.splitlines()
        assert exports == [f"export {name}={value}" for name, value in environment.items()]
        create_topic(environment["FRESHET_KAFKA__BOOTSTRAP_SERVERS"], "records")
        with redis.Redis.from_url(environment["FRESHET_REDIS__URL"]) as connection:
            connection.set("item", "written")

        assert local("down", root).returncode == 0
        assert "redis-server" not in command_line(first["redis_pid"])
        assert "kafka.Kafka" not in command_line(first["kafka_pid"])
        assert local("status", root).returncode == 1
        assert local("env", root).returncode == 1

        second = json.loads(local("up", "--json", root).stdout)
        assert local("status", root).returncode == 0
        with redis.Redis.from_url(second["redis_url"]) as connection:
            assert connection.get("item") == b"written"
        admin = KafkaAdminClient(bootstrap_servers=second["kafka_bootstrap_servers"])
        assert admin.list_topics() == ["records"]
        admin.close()
    finally:
        assert local("down", "--delete-data", root).returncode == 0
    assert list(tmp_path.iterdir()) == []
