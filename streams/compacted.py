"""Reads compacted topics from their beginning to the end they have at the start, with aiokafka.

For rebuild, refresh, sweep and audit. Without a consumer group: it commits nothing and disturbs no
lane. A key may come more than once, because compaction lags: the reader folds by revision.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection
from typing import TYPE_CHECKING, TypeAlias

from schemas.errors import ConfigurationError, Transient
from streams.kafka_clients import KafkaConnection
from streams.settings import KafkaSettings

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

CompactedRecord: TypeAlias = "ConsumerRecord[bytes, bytes]"

_STALL_SECONDS = 30.0
_FETCH_BYTES = 4 * 1024 * 1024
_POLL_MS = 500


async def read_compacted(
    kafka: KafkaSettings,
    topic: str,
    partitions: Collection[int] | None = None,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> "AsyncGenerator[CompactedRecord, None]":
    """Yield every record of `topic` (name without the prefix) up to its end offsets as of now.

    `partitions` narrows; `on_progress(offsets_passed, offsets_in_all)` is called for every fetch.
    Raises Transient("kafka") when no broker answers or reading stalls, ConfigurationError when
    the topic is missing.
    """
    from aiokafka import AIOKafkaConsumer
    from aiokafka.errors import KafkaError

    consumer = AIOKafkaConsumer(
        **KafkaConnection.of(kafka).options(),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=_FETCH_BYTES,
    )
    try:
        async with asyncio.timeout(_STALL_SECONDS):
            await consumer.start()
        async for record in _read(consumer, kafka.topic_prefix + topic, partitions, on_progress):
            yield record
    except KafkaError as error:
        raise Transient("kafka", str(error) or type(error).__name__) from error
    except TimeoutError as error:
        raise Transient("kafka", f"no answer within {_STALL_SECONDS:g} s") from error
    finally:
        await consumer.stop()


async def _read(
    consumer: "AIOKafkaConsumer",
    topic: str,
    partitions: Collection[int] | None,
    on_progress: Callable[[int, int], None] | None,
) -> "AsyncIterator[CompactedRecord]":
    assigned = await _assigned(consumer, topic)
    chosen = [tp for tp in assigned if partitions is None or tp.partition in partitions]
    consumer.pause(*assigned)
    async with asyncio.timeout(_STALL_SECONDS):
        starts = await consumer.beginning_offsets(chosen)
        ends = await consumer.end_offsets(chosen)
    waiting = {tp for tp in chosen if starts[tp] < ends[tp]}
    total = sum(ends[tp] - starts[tp] for tp in chosen)
    positions = {tp: starts[tp] for tp in chosen}
    for tp in waiting:
        consumer.seek(tp, starts[tp])
        consumer.resume(tp)
    deadline = time.monotonic() + _STALL_SECONDS
    while waiting:
        batches = await consumer.getmany(*waiting, timeout_ms=_POLL_MS)
        for tp, records in batches.items():
            for record in records:
                if record.offset < ends[tp]:
                    yield record
        # Not the last record's offset: compaction leaves gaps, at the end of the log too.
        for tp in tuple(waiting):
            async with asyncio.timeout(_STALL_SECONDS):
                position = await consumer.position(tp)
            if position > positions[tp]:
                deadline = time.monotonic() + _STALL_SECONDS
            positions[tp] = min(position, ends[tp])
            if position >= ends[tp]:
                waiting.discard(tp)
                consumer.pause(tp)
        if on_progress is not None:
            on_progress(sum(positions.values()) - sum(starts.values()), total)
        if time.monotonic() > deadline:
            raise Transient("kafka", f"{topic} gave nothing for {_STALL_SECONDS:g} s")


async def _assigned(consumer: "AIOKafkaConsumer", topic: str) -> "list[TopicPartition]":
    """Return all partitions of the topic, assigned to this consumer (it has no group)."""
    # Asked first, because subscribing to a missing topic only fails after 40 s of warnings.
    if topic not in await consumer.topics():
        raise ConfigurationError("topics", f"{topic} is missing; run: freshet topics apply")
    consumer.subscribe([topic])
    deadline = time.monotonic() + _STALL_SECONDS
    while not consumer.assignment():
        if time.monotonic() > deadline:
            raise Transient("kafka", f"no metadata of {topic} for {_STALL_SECONDS:g} s")
        await asyncio.sleep(0.02)
    return sorted(consumer.assignment())
