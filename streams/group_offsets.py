"""Committed offsets of a consumer group, read and written by short-lived clients.

Written only for groups that have no members: there the offsets are a note, nobody's position.
"""

import asyncio
from collections.abc import Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from schemas.errors import Transient
from streams.kafka_clients import KafkaConnection

ANSWER_SECONDS = 15.0


async def committed_offsets(
    connection: KafkaConnection, group: str, partitions: set[tuple[str, int]]
) -> dict[tuple[str, int], int]:
    """Return the committed offset of each (topic, partition) that has one; raises Transient."""
    admin = AIOKafkaAdminClient(**connection.options())
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await admin.start()
            found = await admin.list_consumer_group_offsets(group)
    except KafkaError as error:
        raise Transient("kafka", str(error) or type(error).__name__) from error
    except TimeoutError as error:
        raise Transient("kafka", f"no answer within {ANSWER_SECONDS:g} s") from error
    finally:
        await admin.close()
    return {
        (tp.topic, tp.partition): metadata.offset
        for tp, metadata in found.items()
        if (tp.topic, tp.partition) in partitions and metadata.offset >= 0
    }


async def commit_offsets(
    connection: KafkaConnection, group: str, offsets: Mapping[tuple[str, int], int]
) -> None:
    """Commit offsets by (topic, partition) for a group without members; raises Transient."""
    if not offsets:
        return
    consumer = AIOKafkaConsumer(**connection.options(), group_id=group, enable_auto_commit=False)
    tps = {TopicPartition(*tp): offset for tp, offset in offsets.items()}
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await consumer.start()
            # Assigned by hand, so it never joins the group.
            consumer.assign(list(tps))
            await consumer.commit(tps)
    except KafkaError as error:
        raise Transient("kafka", str(error) or type(error).__name__) from error
    except TimeoutError as error:
        raise Transient("kafka", f"no answer within {ANSWER_SECONDS:g} s") from error
    finally:
        await consumer.stop()
