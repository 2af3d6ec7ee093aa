"""What tests do with a real Kafka: declare topics, read them, and wait for something to be true."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import NewTopic

T = TypeVar("T")


async def wait_until(
    predicate: Callable[[], T | Awaitable[T]], timeout: float = 10.0, interval: float = 0.02
) -> T:
    """Return the predicate's first true value, asked every `interval` seconds.

    The predicate may be a coroutine function. Raises AssertionError after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        answer = predicate()
        value = await answer if inspect.isawaitable(answer) else answer
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(_not_in_time(predicate, timeout, value))
        await asyncio.sleep(interval)


def wait_until_blocking(
    predicate: Callable[[], T], timeout: float = 10.0, interval: float = 0.02
) -> T:
    """Do the same without an event loop."""
    deadline = time.monotonic() + timeout
    while not (value := predicate()):
        if time.monotonic() > deadline:
            raise AssertionError(_not_in_time(predicate, timeout, value))
        time.sleep(interval)
    return value


def create_topic(
    bootstrap_servers: str,
    name: str,
    *,
    partitions: int = 1,
    settings: Mapping[str, str] | None = None,
) -> None:
    """Create a topic of one replica and wait until the broker leads all its partitions."""
    topic = NewTopic(name, partitions, 1, topic_configs=dict(settings or {}))
    admin = KafkaAdminClient(bootstrap_servers=bootstrap_servers)
    try:
        admin.create_topics([topic])

        def led() -> bool:
            (answer,) = admin.describe_topics([name])
            parts = answer["partitions"]
            return len(parts) == partitions and all(part["leader_id"] >= 0 for part in parts)

        wait_until_blocking(led)
    finally:
        admin.close()


def read_topic(bootstrap_servers: str, topic: str) -> list[Any]:
    """Return every record of a topic as of now, as kafka-python reads it."""
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap_servers, group_id=None, enable_auto_commit=False
    )
    try:
        partitions = consumer.partitions_for_topic(topic) or ()
        tps = [TopicPartition(topic, partition) for partition in sorted(partitions)]
        consumer.assign(tps)
        consumer.seek_to_beginning(*tps)
        ends = consumer.end_offsets(tps)
        found: list[Any] = []
        while any(consumer.position(tp) < ends[tp] for tp in tps):
            for batch in consumer.poll(timeout_ms=500).values():
                found += batch
        return found
    finally:
        consumer.close(autocommit=False)


def _not_in_time(predicate: Callable[[], object], timeout: float, value: object) -> str:
    name = getattr(predicate, "__qualname__", repr(predicate))
    return f"{name} was not true within {timeout:g} s; last value {value!r}"
