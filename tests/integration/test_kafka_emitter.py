"""The emitter against a real broker: what is acknowledged is there, what is not never will be."""

import asyncio
import gc

import pytest
from kafka import KafkaConsumer, TopicPartition

from deploy.local.kafka_server import KafkaServer
from schemas.errors import Transient
from streams.emitter import MAX_REQUEST_BYTES, KafkaEmitter, Outgoing
from streams.settings import KafkaSettings
from tests.stack import create_topic, wait_until_blocking


def settings(kafka: KafkaServer, **overrides) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, **overrides)


def log_of(kafka: KafkaServer, topic: str) -> list[tuple[bytes | None, bytes | None]]:
    """Return (key, value) of everything in the topic's first partition."""
    consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap_servers)
    partition = TopicPartition(topic, 0)
    rows: list[tuple[bytes | None, bytes | None]] = []

    def at_the_end() -> bool:
        for records in consumer.poll(timeout_ms=200).values():
            rows.extend((record.key, record.value) for record in records)
        return consumer.position(partition) >= end

    try:
        consumer.assign([partition])
        consumer.seek_to_beginning(partition)
        end = consumer.end_offsets([partition])[partition]
        wait_until_blocking(at_the_end)
        return rows
    finally:
        consumer.close()


async def test_what_is_emitted_is_there_in_order_tombstones_too(kafka, topic_prefix):
    create_topic(kafka.bootstrap_servers, topic_prefix + "knowledge")
    emitter = KafkaEmitter(settings(kafka, topic_prefix=topic_prefix))
    values = [str(n).encode() for n in range(500)]

    try:
        await emitter.emit([Outgoing("knowledge", b"item:1", value) for value in values])
        await emitter.emit([Outgoing("knowledge", b"item:1", None, (("name", b"value"),))])
        await emitter.emit([])
    finally:
        await emitter.aclose()

    rows = log_of(kafka, topic_prefix + "knowledge")
    assert rows == [(b"item:1", value) for value in [*values, None]]


async def test_a_dead_letter_of_a_record_without_key_and_value_can_be_sent(kafka, topic_prefix):
    create_topic(kafka.bootstrap_servers, topic_prefix + "dead-letters.items")
    emitter = KafkaEmitter(settings(kafka, topic_prefix=topic_prefix))

    try:
        await emitter.emit([Outgoing("dead-letters.items", None, None, (("reason", b"null"),))])
    finally:
        await emitter.aclose()

    assert log_of(kafka, topic_prefix + "dead-letters.items") == [(None, b"")]


async def test_a_record_over_the_size_limit_is_transient_and_does_no_harm(kafka, topic_prefix):
    create_topic(kafka.bootstrap_servers, topic_prefix + "knowledge")
    emitter = KafkaEmitter(settings(kafka, topic_prefix=topic_prefix))
    try:
        await emitter.emit([Outgoing("knowledge", b"item:1", b"before")])
        with pytest.raises(Transient):
            await emitter.emit([Outgoing("knowledge", b"item:1", bytes(MAX_REQUEST_BYTES))])
        await emitter.emit([Outgoing("knowledge", b"item:1", b"after")])
    finally:
        await emitter.aclose()

    assert [value for _, value in log_of(kafka, topic_prefix + "knowledge")] == [
        b"before",
        b"after",
    ]


async def test_a_missing_topic_is_transient_within_the_time_limit(kafka, topic_prefix):
    emitter = KafkaEmitter(settings(kafka, topic_prefix=topic_prefix, produce_timeout_seconds=1))
    try:
        with pytest.raises(Transient):
            await emitter.emit([Outgoing("knowledge", b"item:1", b"value")])
    finally:
        await emitter.aclose()


async def test_no_broker_is_transient_and_the_emitter_recovers(own_kafka):
    kafka = own_kafka()
    create_topic(kafka.bootstrap_servers, "knowledge")
    kafka.kill()
    emitter = KafkaEmitter(settings(kafka, produce_timeout_seconds=2))
    try:
        with pytest.raises(Transient):
            await emitter.emit([Outgoing("knowledge", b"item:1", b"early")])
        await asyncio.to_thread(kafka.restart)
        await _emit_until_it_works(emitter, b"late")
    finally:
        await emitter.aclose()

    assert log_of(kafka, "knowledge")[-1:] == [(b"item:1", b"late")]


async def test_what_timed_out_in_an_outage_is_not_written_when_the_broker_is_back(own_kafka):
    kafka = own_kafka()
    create_topic(kafka.bootstrap_servers, "knowledge")
    emitter = KafkaEmitter(settings(kafka, produce_timeout_seconds=2))
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, said: complaints.append(said))
    try:
        await emitter.emit([Outgoing("knowledge", b"item:1", b"before")])
        kafka.kill()
        # Several at once, as from several handlers, share the one producer.
        results = await asyncio.gather(
            *(
                emitter.emit([Outgoing("knowledge", b"item:1", f"lost {n}".encode())])
                for n in range(5)
            ),
            return_exceptions=True,
        )
        assert all(isinstance(result, Transient) for result in results)
        await asyncio.to_thread(kafka.restart)
        await _emit_until_it_works(emitter, b"after")
    finally:
        await emitter.aclose()

    assert [value for _, value in log_of(kafka, "knowledge")] == [b"before", b"after"]
    gc.collect()
    assert complaints == []


async def test_a_cancelled_emit_is_not_written_when_the_broker_is_back(own_kafka):
    kafka = own_kafka()
    create_topic(kafka.bootstrap_servers, "knowledge")
    emitter = KafkaEmitter(settings(kafka, produce_timeout_seconds=20))
    try:
        await emitter.emit([Outgoing("knowledge", b"item:1", b"before")])
        kafka.kill()
        abandoned = asyncio.ensure_future(
            emitter.emit([Outgoing("knowledge", b"item:1", b"abandoned")])
        )
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(abandoned, timeout=1)
        await asyncio.to_thread(kafka.restart)
        await _emit_until_it_works(emitter, b"after")
    finally:
        await emitter.aclose()

    assert [value for _, value in log_of(kafka, "knowledge")] == [b"before", b"after"]


async def test_closing_during_an_outage_does_not_wait_for_its_end(own_kafka):
    kafka = own_kafka()
    create_topic(kafka.bootstrap_servers, "knowledge")
    emitter = KafkaEmitter(settings(kafka, produce_timeout_seconds=30))
    await emitter.emit([Outgoing("knowledge", b"item:1", b"before")])
    kafka.kill()
    waiting = asyncio.ensure_future(emitter.emit([Outgoing("knowledge", b"item:1", b"lost")]))
    await asyncio.sleep(0)

    async with asyncio.timeout(5):
        await emitter.aclose()

    with pytest.raises(Transient):
        await waiting


async def _emit_until_it_works(emitter: KafkaEmitter, value: bytes) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                return await emitter.emit([Outgoing("knowledge", b"item:1", value)])
            except Transient:
                await asyncio.sleep(0.05)
