"""Lag asked of a real broker, with no worker anywhere."""

import json
import time

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.structs import OffsetAndMetadata

from schemas.errors import ConfigurationError, Transient
from streams import topic_admin
from streams.kafka_clients import retried
from streams.lag import read_lag
from streams.settings import KafkaSettings
from tests.cli_runner import run_freshet

HOUR_MS = 3_600_000


@pytest.fixture
def settings(kafka, topic_prefix) -> KafkaSettings:
    settings = KafkaSettings(
        bootstrap_servers=kafka.bootstrap_servers, topic_prefix=topic_prefix, partitions=2
    )
    topic_admin.apply(settings)
    return settings


def _produce(settings, topic: str, partition: int, ages_ms: list[int]) -> None:
    now_ms = time.time_ns() // 1_000_000
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap_servers)
    for age_ms in ages_ms:
        producer.send(
            settings.topic_prefix + topic,
            key=b"item:42",
            value=b"x" * 100,
            partition=partition,
            timestamp_ms=now_ms - age_ms,
        )
    producer.flush(10)
    producer.close()


def _commit(settings, lane: str, topic: str, partition: int, offset: int) -> None:
    admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    tp = TopicPartition(settings.topic_prefix + topic, partition)
    group = f"{settings.topic_prefix}freshet.{lane}"

    try:
        # A fresh cluster has no coordinator for its very first group yet.
        retried(lambda: admin.alter_group_offsets(group, {tp: OffsetAndMetadata(offset, "", -1)}))
    finally:
        admin.close()


def test_nothing_to_do_is_no_lag(settings) -> None:
    report = read_lag(settings)

    assert [lane.lane for lane in report.by_lane()] == [
        "items",
        "knowledge",
        "knowledge-backlog",
        "encode",
        "behaviour",
    ]
    assert all(lane.records == 0 and lane.seconds == 0 for lane in report.by_lane())


def test_a_group_that_never_committed_lags_by_everything(settings) -> None:
    _produce(settings, "catalog.items", 0, [2 * HOUR_MS, HOUR_MS])
    _produce(settings, "catalog.items", 1, [HOUR_MS // 2])

    report = read_lag(settings, ["items"])

    (lane,) = report.by_lane()
    assert lane.records == 3
    assert lane.seconds == pytest.approx(7200, abs=30)
    assert [row.committed for row in report.partitions] == [None, None]


def test_seconds_are_the_age_of_the_first_record_that_is_not_settled(settings) -> None:
    _produce(settings, "catalog.items", 0, [3 * HOUR_MS, 2 * HOUR_MS, HOUR_MS])
    _commit(settings, "items", "catalog.items", 0, 2)

    (row, _) = read_lag(settings, ["items"]).partitions

    assert (row.end, row.committed, row.records) == (3, 2, 1)
    assert row.seconds == pytest.approx(3600, abs=30)


def test_a_lane_that_settled_everything_does_not_lag(settings) -> None:
    _produce(settings, "knowledge", 1, [HOUR_MS])
    _commit(settings, "encode", "knowledge", 1, 1)

    (lane,) = read_lag(settings, ["encode"]).by_lane()

    assert (lane.records, lane.seconds) == (0, 0)


def test_the_lane_of_a_space_shows_once_it_has_a_group(settings) -> None:
    _produce(settings, "entities", 0, [HOUR_MS])
    _commit(settings, "encode.parts-pca-2", "entities", 0, 0)

    lanes = {lane.lane: lane.records for lane in read_lag(settings).by_lane()}

    assert lanes["encode.parts-pca-2"] == 1


def test_missing_topics_leave_a_lane_without_rows(kafka, topic_prefix) -> None:
    settings = KafkaSettings(
        bootstrap_servers=kafka.bootstrap_servers, topic_prefix=f"{topic_prefix}none."
    )

    assert read_lag(settings).partitions == ()


def test_unknown_lanes_and_dead_brokers_are_errors(settings, monkeypatch) -> None:
    with pytest.raises(ConfigurationError, match="nosuch"):
        read_lag(settings, ["nosuch"])

    monkeypatch.setattr("streams.kafka_clients.BOOTSTRAP_SECONDS", 1)
    with pytest.raises(Transient, match="kafka"):
        read_lag(settings.model_copy(update={"bootstrap_servers": "127.0.0.1:1"}))


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ([], 0),
        (["--max-records", "1"], 0),
        (["--max-records", "0"], 1),
        (["--max-seconds", "7200"], 0),
        (["--max-seconds", "60"], 1),
    ],
)
def test_the_command_ends_with_1_over_a_limit(capsys, monkeypatch, settings, limits, code) -> None:
    monkeypatch.setenv("FRESHET_KAFKA__BOOTSTRAP_SERVERS", settings.bootstrap_servers)
    monkeypatch.setenv("FRESHET_KAFKA__TOPIC_PREFIX", settings.topic_prefix)
    _produce(settings, "catalog.items", 0, [HOUR_MS])

    ran = run_freshet(capsys, "lag", "--lane", "items", "--json", *limits)

    assert ran.code == code
    assert json.loads(ran.out)["lanes"]["items"]["records"] == 1
    assert ("lane items is 1 records" in ran.err) == bool(code)
