"""The producer SDK against a real broker."""

import threading
from datetime import UTC, datetime

import pytest

from schemas.errors import ConfigurationError, InvalidInput, Transient
from schemas.events import DecodeLimits, ItemFields, ItemRemoved, ItemUpserted, decode_catalog_event
from schemas.reasons import Reason
from streams.producers import CatalogProducer, Delivery, UndeliveredEvents
from tests.stack import create_topic, read_topic, wait_until_blocking

PARTITIONS = 3


@pytest.fixture
def topic(kafka, topic_prefix) -> str:
    name = f"{topic_prefix}catalog.items"
    create_topic(kafka.bootstrap_servers, name, partitions=PARTITIONS)
    return name


@pytest.fixture
def producer(kafka, topic_prefix, topic):
    with CatalogProducer(
        kafka.bootstrap_servers, topic_prefix=topic_prefix, source="/films"
    ) as open_producer:
        yield open_producer


def _records(kafka, topic: str) -> list:
    return read_topic(kafka.bootstrap_servers, topic)


def test_events_arrive_keyed_with_cloud_event_headers_and_pass_the_lanes_check(
    kafka, topic, producer
) -> None:
    at = datetime(2013, 6, 1, tzinfo=UTC)

    producer.upsert("42", 7, {"title": "Heat", "year": 1995}, at)
    producer.remove("43", 9)
    report = producer.flush(timeout=20)

    assert (report.delivered, report.failed, report.pending) == (2, (), 0)
    events = {}
    for record in _records(kafka, topic):
        events[record.key] = decode_catalog_event(
            record.key,
            record.value,
            record.headers,
            timestamp_ms=record.timestamp,
            now_ms=record.timestamp,
            limits=DecodeLimits(),
        )
        headers = dict(record.headers)
        assert headers["ce_source"] == b"/films"
        assert headers["ce_subject"] == record.key
    upserted = events[b"item:42"]
    assert isinstance(upserted, ItemUpserted)
    assert (upserted.version, upserted.occurred_at, upserted.item.title) == (7, at, "Heat")
    assert events[b"item:43"] == ItemRemoved(item_id="43", version=9)


def test_events_of_one_item_stay_in_order(kafka, topic, producer) -> None:
    for version in range(200):
        producer.upsert(f"{version % 5}", version, {"title": "x" * (version % 40 + 1)})
    producer.flush(timeout=20)

    versions: dict[bytes, list[int]] = {}
    for record in _records(kafka, topic):
        body = record.value.decode()
        versions.setdefault(record.key, []).append(int(body.split('"version":')[1].split(",")[0]))
    assert len(versions) == 5
    assert all(seen == sorted(seen) and len(seen) == 40 for seen in versions.values())


@pytest.mark.parametrize(
    ("item_id", "version", "fields", "reason"),
    [
        ("a b", 1, {"title": "x"}, Reason.INVALID_ID),
        ("1", -1, {"title": "x"}, Reason.BAD_VERSION),
        ("1", 2**63, {"title": "x"}, Reason.BAD_VERSION),
        ("1", 1, {"title": " "}, Reason.EMPTY_TITLE),
        ("1", 1, {"name": "x"}, Reason.MISSING_FIELD),
        ("1", 1, {"title": "x", "score": float("nan")}, Reason.NOT_FINITE),
        ("1", 1, {"title": "x", "tags": ["a", float("inf")]}, Reason.NOT_FINITE),
        ("1", 1, {"title": "\ud800"}, Reason.INVALID_UNICODE),
        ("1", 1, {"title": "x", "plot": "y" * 1_100_000}, Reason.TOO_LARGE),
    ],
)
def test_what_the_lane_would_refuse_is_refused_to_the_caller_and_not_sent(
    kafka, topic, producer, item_id, version, fields, reason
) -> None:
    with pytest.raises(InvalidInput) as refused:
        producer.upsert(item_id, version, fields)

    assert refused.value.reason is reason
    assert producer.flush(timeout=5).delivered == 0
    assert _records(kafka, topic) == []


def test_every_delivery_is_told_with_its_place_in_the_log(kafka, topic, topic_prefix) -> None:
    told: list[Delivery] = []

    with CatalogProducer(
        kafka.bootstrap_servers, topic_prefix=topic_prefix, on_delivery=told.append
    ) as producer:
        for version in range(50):
            producer.upsert("42", version, {"title": "Heat"})

    assert [delivery.event.version for delivery in told] == list(range(50))
    assert [delivery.offset for delivery in told] == list(range(50))
    assert {delivery.topic for delivery in told} == {topic}
    assert all(delivery.acked_at_ms >= delivery.timestamp_ms for delivery in told)


def test_a_missing_topic_is_transient_and_the_event_is_not_counted(kafka, topic_prefix) -> None:
    with CatalogProducer(
        kafka.bootstrap_servers, topic_prefix=f"{topic_prefix}none.", max_block_seconds=0.5
    ) as producer:
        with pytest.raises(Transient, match="kafka"):
            producer.upsert("42", 1, {"title": "Heat"})

        assert producer.flush(timeout=1).complete


def test_no_broker_is_transient(monkeypatch) -> None:
    monkeypatch.setattr("streams.producers.event_producer.BOOTSTRAP_SECONDS", 1)

    with pytest.raises(Transient, match="kafka"):
        CatalogProducer("127.0.0.1:1")


def test_a_codec_that_is_not_installed_is_a_configuration_error(kafka) -> None:
    with pytest.raises(ConfigurationError, match="compression"):
        CatalogProducer(kafka.bootstrap_servers, compression="zstd")


def test_what_a_dead_broker_never_acknowledged_is_reported_failed(own_kafka, topic_prefix) -> None:
    server = own_kafka()
    create_topic(server.bootstrap_servers, f"{topic_prefix}catalog.items")
    producer = CatalogProducer(
        server.bootstrap_servers,
        topic_prefix=topic_prefix,
        delivery_seconds=2,
        max_block_seconds=1,
    )
    producer.upsert("0", 0, {"title": "Heat"})
    assert producer.flush(timeout=10).delivered == 1
    server.kill()

    for version in range(5):
        producer.upsert("1", version, {"title": "Heat"})
    pending = producer.flush(timeout=0.2)
    report = producer.flush(timeout=20)

    assert pending.pending == 5
    assert report.delivered == 0
    assert [failed.event.version for failed in report.failed] == list(range(5))
    assert all(isinstance(failed.error, Transient) for failed in report.failed)
    assert producer.close(timeout=1).complete


def test_leaving_the_block_with_undelivered_events_raises(own_kafka, topic_prefix) -> None:
    server = own_kafka()
    create_topic(server.bootstrap_servers, f"{topic_prefix}catalog.items")

    def send_to_a_dead_broker() -> None:
        with CatalogProducer(
            server.bootstrap_servers, topic_prefix=topic_prefix, delivery_seconds=1
        ) as producer:
            producer.upsert("0", 0, {"title": "Heat"})
            producer.flush(timeout=10)
            server.kill()
            producer.upsert("1", 1, {"title": "Heat"})

    with pytest.raises(UndeliveredEvents) as raised:
        send_to_a_dead_broker()

    assert [failed.event for failed in raised.value.report.failed] == [
        ItemUpserted(item_id="1", version=1, item=ItemFields(title="Heat"))
    ]


def test_a_full_buffer_blocks_and_then_refuses_but_takes_events_again_later(
    own_kafka, topic_prefix
) -> None:
    server = own_kafka()
    create_topic(server.bootstrap_servers, f"{topic_prefix}catalog.items")
    producer = CatalogProducer(
        server.bootstrap_servers,
        topic_prefix=topic_prefix,
        buffer_bytes=50_000,
        max_block_seconds=0.5,
    )
    producer.upsert("0", 0, {"title": "Heat"})
    producer.flush(timeout=10)
    server.pause()
    try:
        producer.upsert("1", 1, {"title": "Heat", "plot": "p" * 30_000})

        with pytest.raises(Transient, match="unacknowledged"):
            producer.upsert("2", 2, {"title": "Heat", "plot": "p" * 30_000})
    finally:
        server.resume()

    wait_until_blocking(lambda: producer.flush(timeout=1).delivered)
    producer.upsert("2", 2, {"title": "Heat", "plot": "p" * 30_000})
    assert producer.flush(timeout=10).delivered == 1
    producer.close()


def test_threads_may_share_a_producer(kafka, topic, producer) -> None:
    def send(name: str) -> None:
        for version in range(100):
            producer.upsert(name, version, {"title": name})

    threads = [threading.Thread(target=send, args=(str(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert producer.flush(timeout=20).delivered == 400
