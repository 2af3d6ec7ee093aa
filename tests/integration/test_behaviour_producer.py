"""The producer of behaviour events against a real broker: batches, order, reports."""

from datetime import UTC, datetime

import pytest
from kafka import KafkaProducer

from schemas.behaviour import (
    BehaviourLimits,
    Erasure,
    UserBehaviour,
    decode_behaviour,
)
from schemas.errors import InvalidInput, Transient
from schemas.history import event_digest
from schemas.reasons import Reason
from streams.producers import BehaviourProducer, Delivery
from tests.stack import create_topic, read_topic, wait_until_blocking

PARTITIONS = 3
LIMITS = BehaviourLimits(frozenset({"view", "rate"}))
AT = datetime(2013, 6, 1, tzinfo=UTC)
AT_MS = 1_370_044_800_000
LONG_MS = 60_000.0


@pytest.fixture
def topic(kafka, topic_prefix) -> str:
    name = f"{topic_prefix}user.behaviour"
    create_topic(kafka.bootstrap_servers, name, partitions=PARTITIONS)
    return name


@pytest.fixture
def producer_of(kafka, topic_prefix, topic):
    """A function that opens a producer, closed at the end."""
    opened = []

    def open_one(**options) -> BehaviourProducer:
        opened.append(
            BehaviourProducer(kafka.bootstrap_servers, topic_prefix=topic_prefix, **options)
        )
        return opened[-1]

    yield open_one
    for producer in opened:
        producer.close(5)


def _records(kafka, topic: str) -> list:
    return read_topic(kafka.bootstrap_servers, topic)


def _events(record) -> list:
    """What the lane would make of a record; it refuses nothing."""
    decoded = decode_behaviour(
        record.key,
        record.value,
        record.headers,
        timestamp_ms=record.timestamp,
        now_ms=record.timestamp,
        limits=LIMITS,
    )
    assert decoded.refused == ()
    return list(decoded.events)


def test_an_event_alone_arrives_keyed_with_headers_and_passes_the_lanes_check(
    kafka, topic, producer_of
) -> None:
    producer = producer_of(source="/shop")

    producer.interaction("7", "42", "rate", value=9.0, event_id="e1", occurred_at=AT)
    report = producer.flush(timeout=20)

    assert (report.delivered, report.failed, report.pending) == (1, (), 0)
    (record,) = _records(kafka, topic)
    (sent,) = _events(record)
    assert (str(sent.user), sent.event.at_ms, sent.event.id) == (
        "user:7",
        AT_MS,
        event_digest("e1"),
    )
    assert (sent.event.item, sent.event.action, sent.event.value) == ("42", "rate", 9.0)
    headers = dict(record.headers)
    assert (headers["ce_source"], headers["ce_id"]) == (b"/shop", b"e1")
    assert (record.key, headers["ce_subject"]) == (b"user:7", b"user:7")


def test_what_has_neither_id_nor_time_gets_both(kafka, topic, producer_of) -> None:
    producer = producer_of()

    producer.interaction("7", "42", "view")
    producer.interaction("7", "42", "view")
    producer.flush(timeout=20)

    first, second = (_events(record)[0] for record in _records(kafka, topic))
    assert first.event.id != second.event.id
    assert AT_MS < first.event.at_ms <= second.event.at_ms


def test_a_batch_holds_events_of_one_partition_in_the_order_they_were_sent(
    kafka, topic, topic_prefix, producer_of
) -> None:
    producer = producer_of(batch_events=20, batch_ms=LONG_MS)
    users = [str(number % 40) for number in range(400)]

    for number, user in enumerate(users):
        producer.interaction(user, f"i{number}", "view", occurred_at=AT)
    report = producer.flush(timeout=20)

    records = _records(kafka, topic)
    assert (report.delivered, report.failed, report.pending) == (400, (), 0)
    assert len(records) <= 400 // 20 + PARTITIONS
    keyed = KafkaProducer(bootstrap_servers=kafka.bootstrap_servers)
    create_topic(kafka.bootstrap_servers, f"{topic_prefix}keyed", partitions=PARTITIONS)
    partition_of = {
        user: keyed.send(f"{topic_prefix}keyed", key=f"user:{user}".encode()).get(10).partition
        for user in set(users)
    }
    keyed.close()
    assert set(partition_of.values()) == set(range(PARTITIONS))
    items: dict[str, list[str]] = {}
    for record in records:
        events = _events(record)
        assert record.key == events[0].user.encode()
        for sent in events:
            assert record.partition == partition_of[sent.user.id]
            items.setdefault(sent.user.id, []).append(sent.event.item)
    assert items == {
        user: [f"i{n}" for n, sender in enumerate(users) if sender == user] for user in set(users)
    }


def test_an_erasure_goes_at_once_and_after_what_was_sent_before_it(
    kafka, topic, producer_of
) -> None:
    producer = producer_of(batch_events=100, batch_ms=LONG_MS)

    for number in range(3):
        producer.interaction("7", str(number), "view")
    producer.erase("7")
    wait_until_blocking(lambda: len(_records(kafka, topic)) == 2)
    producer.interaction("7", "later", "view")
    producer.flush(timeout=20)

    before, erasure, after = (_events(record) for record in _records(kafka, topic))
    assert [sent.event.item for sent in before] == ["0", "1", "2"]
    assert isinstance(erasure[0], Erasure)
    assert erasure[0].at_ms >= before[-1].event.at_ms
    assert [sent.event.item for sent in after] == ["later"]


def test_no_event_waits_for_another_longer_than_it_may(kafka, topic, producer_of) -> None:
    told: list[Delivery] = []
    producer = producer_of(batch_events=100, batch_ms=30, on_delivery=told.append)

    producer.interaction("7", "1", "view")
    producer.interaction("7", "2", "view")

    wait_until_blocking(lambda: len(told) == 2)
    assert [getattr(delivery.event, "item_id", None) for delivery in told] == ["1", "2"]
    assert {(delivery.topic, delivery.offset) for delivery in told} == {(topic, 0)}
    assert len(_records(kafka, topic)) == 1


def test_a_batch_of_one_is_an_event_alone(kafka, topic, producer_of) -> None:
    producer = producer_of(batch_events=100, batch_ms=LONG_MS)

    producer.interaction("7", "1", "view", event_id="e1")
    producer.flush(timeout=20)

    (record,) = _records(kafka, topic)
    assert dict(record.headers)["ce_type"] == b"freshet.user.behaviour"
    assert dict(record.headers)["ce_id"] == b"e1"


@pytest.mark.parametrize("batch_events", [1, 10])
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"user_id": "a b"}, Reason.INVALID_ID),
        ({"user_id": "\ud800"}, Reason.INVALID_ID),
        ({"item_id": ""}, Reason.INVALID_ID),
        ({"event_id": ""}, Reason.WRONG_TYPE),
        ({"event_id": "\ud800"}, Reason.INVALID_UNICODE),
        ({"action": "rate"}, Reason.MISSING_FIELD),
        ({"action": "x" * 33}, Reason.UNKNOWN_ACTION),
        ({"value": float("nan")}, Reason.NOT_FINITE),
        ({"value": 1e9}, Reason.WRONG_TYPE),
        ({"occurred_at": datetime(2013, 6, 1)}, Reason.WRONG_TYPE),  # noqa: DTZ001
        ({"occurred_at": datetime(2100, 1, 1, tzinfo=UTC)}, Reason.FUTURE_TIME),
    ],
)
def test_what_the_lane_would_refuse_is_refused_to_the_caller_and_not_sent(
    kafka, topic, producer_of, batch_events, words, reason
) -> None:
    producer = producer_of(batch_events=batch_events)
    event = {"user_id": "7", "item_id": "42", "action": "view"} | words

    with pytest.raises(InvalidInput) as refused:
        producer.interaction(**event)

    assert refused.value.reason is reason
    assert producer.flush(timeout=5).delivered == 0
    assert _records(kafka, topic) == []


def test_actions_are_refused_only_by_a_producer_that_knows_which_there_are(
    kafka, topic, producer_of
) -> None:
    producer_of().interaction("7", "42", "applaud")

    with pytest.raises(InvalidInput) as refused:
        producer_of(limits=LIMITS).interaction("7", "42", "applaud")

    assert refused.value.reason is Reason.UNKNOWN_ACTION


def test_a_missing_topic_is_transient_and_the_event_is_not_counted(kafka, topic_prefix) -> None:
    with BehaviourProducer(
        kafka.bootstrap_servers,
        topic_prefix=f"{topic_prefix}none.",
        batch_events=10,
        max_block_seconds=0.5,
    ) as producer:
        with pytest.raises(Transient, match="kafka"):
            producer.interaction("7", "42", "view")

        assert producer.flush(timeout=1).complete


def test_every_event_of_a_batch_that_a_dead_broker_never_took_is_reported(
    own_kafka, topic_prefix
) -> None:
    server = own_kafka()
    create_topic(server.bootstrap_servers, f"{topic_prefix}user.behaviour")
    producer = BehaviourProducer(
        server.bootstrap_servers,
        topic_prefix=topic_prefix,
        batch_events=10,
        batch_ms=LONG_MS,
        delivery_seconds=2,
        max_block_seconds=1,
    )
    producer.interaction("0", "0", "view")
    assert producer.flush(timeout=10).delivered == 1
    server.kill()

    for number in range(5):
        producer.interaction("7", str(number), "view")
    report = producer.close(timeout=20)

    assert [getattr(failed.event, "item_id", None) for failed in report.failed] == [
        "0",
        "1",
        "2",
        "3",
        "4",
    ]
    assert all(isinstance(failed.error, Transient) for failed in report.failed)
    with pytest.raises(Transient, match="closed"):
        producer.send(UserBehaviour(user_id="7", event_id="e", item_id="42", action="view"))


def test_closing_sends_what_waits(kafka, topic, producer_of) -> None:
    producer = producer_of(batch_events=100, batch_ms=LONG_MS)
    producer.interaction("7", "1", "view")
    producer.interaction("7", "2", "view")

    report = producer.close(timeout=20)

    assert report.delivered == 2
    assert len(_records(kafka, topic)) == 1
