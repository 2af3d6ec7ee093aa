"""Compacted topics read to their end, while compaction leaves gaps."""

import asyncio

import pytest
from kafka import KafkaAdminClient, KafkaProducer

from schemas.entities import EntityKey
from schemas.errors import ConfigurationError, Transient
from schemas.knowledge import Content, Document, EntityRecord
from streams.compacted import read_compacted
from streams.entity_log import entity_partitions
from streams.settings import KafkaSettings
from tests.stack import create_topic, wait_until_blocking

QUICK_COMPACTION = {
    "cleanup.policy": "compact",
    "segment.ms": "100",
    "min.cleanable.dirty.ratio": "0.01",
    "max.compaction.lag.ms": "100",
    "delete.retention.ms": "0",
}


@pytest.fixture
def settings(kafka, topic_prefix) -> KafkaSettings:
    return KafkaSettings(
        bootstrap_servers=kafka.bootstrap_servers, topic_prefix=topic_prefix, partitions=2
    )


@pytest.fixture
def produce(settings):
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap_servers)

    def produced(key: bytes, value: bytes | None, partition: int = 0) -> None:
        producer.send(
            f"{settings.topic_prefix}entities", key=key, value=value, partition=partition
        ).get(10)

    yield produced
    producer.close()


def _entity(id_: str, rev: int, title: str = "Heat") -> bytes:
    document = Document(content=Content(rev, {"title": title}, "f", 0))
    return EntityRecord(EntityKey.item(id_), rev, document, 0).encode()


async def _read(settings, partitions=None) -> list[tuple[bytes | None, bytes | None]]:
    return [
        (record.key, record.value)
        async for record in read_compacted(settings, "entities", partitions)
    ]


async def test_every_partition_is_read_to_its_end_and_no_further(settings, produce) -> None:
    create_topic(settings.bootstrap_servers, f"{settings.topic_prefix}entities", partitions=2)
    for index in range(300):
        produce(b"%d" % index, b"v", index % 2)
    progress: list[tuple[int, int]] = []

    records = [
        record.key
        async for record in read_compacted(
            settings, "entities", on_progress=lambda done, total: progress.append((done, total))
        )
    ]
    odd = await _read(settings, [1])

    assert sorted(int(key or b"-1") for key in records) == list(range(300))
    assert [int(key or b"-1") for key, _ in odd] == list(range(1, 300, 2))
    assert progress[-1] == (300, 300)


async def test_an_empty_topic_has_an_end_too(settings) -> None:
    create_topic(settings.bootstrap_servers, f"{settings.topic_prefix}entities", partitions=2)

    assert await _read(settings) == []


def test_gaps_that_compaction_leaves_do_not_stop_the_reading(settings, produce) -> None:
    name = f"{settings.topic_prefix}entities"
    create_topic(settings.bootstrap_servers, name, settings=QUICK_COMPACTION)
    for index in range(50):
        produce(b"often", b"%d" % index)
    produce(b"gone", b"x")
    produce(b"gone", None)

    def has_gaps() -> bool:
        produce(b"late", b"rolls the segment")
        return len(asyncio.run(_read(settings))) < 30

    wait_until_blocking(has_gaps, timeout=30, interval=0.3)
    newest = dict(asyncio.run(_read(settings)))
    assert newest[b"often"] == b"49"
    assert newest.get(b"gone") is None


async def test_records_that_retention_took_are_not_waited_for(settings, produce) -> None:
    from kafka import TopicPartition

    create_topic(settings.bootstrap_servers, f"{settings.topic_prefix}entities")
    produce(b"a", b"1")
    admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    name = f"{settings.topic_prefix}entities"
    admin.alter_configs([_deletable(name)])
    admin.delete_records({TopicPartition(name, 0): 1})
    admin.close()

    assert await _read(settings) == []


def _deletable(name: str):
    from kafka.admin import ConfigResource

    return ConfigResource("TOPIC", name, {"cleanup.policy": "delete"})


async def test_the_newest_state_is_the_greatest_revision_since_the_last_null(
    settings, produce
) -> None:
    create_topic(settings.bootstrap_servers, f"{settings.topic_prefix}entities", partitions=2)
    produce(b"item:a", _entity("a", 1))
    produce(b"item:a", _entity("a", 3))
    produce(b"item:a", _entity("a", 2))  # a paused writer's, late
    produce(b"item:b", _entity("b", 9))
    produce(b"item:b", None)  # swept
    produce(b"item:b", _entity("b", 1))  # and begun anew
    produce(b"item:c", _entity("c", 1))
    produce(b"item:c", None)
    produce(b"item:d", _entity("d", 5), partition=1)

    revs = {
        (partition.partition, str(record.entity)): record.rev
        async for partition in entity_partitions(settings)
        for record in partition.records()
    }

    assert revs == {(0, "item:a"): 3, (0, "item:b"): 1, (1, "item:d"): 5}


async def test_a_missing_topic_and_a_dead_broker_are_errors(settings) -> None:
    with pytest.raises(ConfigurationError, match="missing"):
        await _read(settings)
    with pytest.raises(Transient, match="kafka"):
        await _read(settings.model_copy(update={"bootstrap_servers": "127.0.0.1:1"}))
