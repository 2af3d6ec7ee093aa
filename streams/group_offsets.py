"""Committed offsets of a consumer group, asked of the broker by a short-lived client."""

import asyncio

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
