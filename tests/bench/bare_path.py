"""The floor of freshness: one process doing by hand what an item's way to Redis needs at least.

    python -m tests.bench.bare_path READY_FILE      # settings as a lane's, from FRESHET_ variables

Consume, decode, produce and await the acknowledgement, consume again, encode the same parts, make
the same vectors and compare-and-set them: two Kafka hops on bare aiokafka. It takes all that has
arrived and never waits for more, so it keeps up on a machine that is busy.
"""

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from schemas.events import ItemUpserted, decode_catalog_event, entity_of, event_time_ms
from schemas.fingerprints import content_fingerprint
from schemas.knowledge import Content, Document, KnowledgeUpdate, RegisterName
from schemas.topics import Topic
from streams.lanes.vectors import VectorSource, space_records
from streams.settings import Settings
from tests.bench.loop_config import LIMITS, POLICY
from workers.adaptors.space_files import list_spaces, load_space
from workers.encoding.load_representer import load_representer
from workers.live.connection import connect
from workers.live.entity_store import EntityStore, EntityWrite
from workers.live.keys import Keys


async def main(settings: Settings, ready_file: Path) -> None:
    kafka, prefix = settings.kafka.bootstrap_servers, settings.kafka.topic_prefix
    encode = settings.encode
    representer = load_representer(
        encode.spaces_dir, encode.choice, refuse_below=encode.refuse_parity_below
    )
    adaptors = [
        load_space(encode.spaces_dir, name).adaptor for name in list_spaces(encode.spaces_dir)
    ]
    store = EntityStore(
        connect(settings.redis.url.get_secret_value()), Keys(settings.redis.key_prefix)
    )
    producer = AIOKafkaProducer(bootstrap_servers=kafka, enable_idempotence=True, acks="all")
    hops = [
        AIOKafkaConsumer(prefix + topic, bootstrap_servers=kafka, group_id=f"{prefix}bare.{topic}")
        for topic in (Topic.CATALOG_ITEMS, Topic.KNOWLEDGE)
    ]
    for client in (producer, *hops):
        await client.start()
    for hop in hops:
        await hop.seek_to_end()
    items, registers = hops

    async def first_hop() -> None:
        while True:
            arrived, topic = await _next(items), prefix + Topic.KNOWLEDGE
            deliveries = [
                await producer.send(topic, value=_register(record), key=record.key)
                for record in arrived
            ]
            await asyncio.gather(*deliveries)

    async def second_hop() -> None:
        while True:
            updates = [KnowledgeUpdate.decode(record.value) for record in await _next(registers)]
            now_ms = time.time_ns() // 1_000_000
            sources = [
                VectorSource(update.entity, Document.of(update.register, update.value), 1, now_ms)
                for update in updates
            ]
            values, mask, _ = await asyncio.to_thread(
                representer.represent,
                [(None, None, representer.texts(source.document)) for source in sources],
            )
            vectors = space_records(sources, values, mask, adaptors)
            await store.put(
                [
                    EntityWrite(source.key, 0, source.document, records)
                    for source, records in zip(sources, vectors, strict=True)
                ]
            )

    async with asyncio.TaskGroup() as group:
        group.create_task(first_hop())
        group.create_task(second_hop())
        ready_file.touch()


async def _next(consumer: Any) -> list[Any]:
    """Return whatever has arrived, as soon as something has; every record is of another item."""
    while True:
        fetched = await consumer.getmany(timeout_ms=1_000)
        if fetched:
            return [record for some in fetched.values() for record in some]


def _register(record: Any) -> bytes:
    event = decode_catalog_event(
        record.key,
        record.value,
        record.headers,
        timestamp_ms=record.timestamp,
        now_ms=time.time_ns() // 1_000_000,
        limits=LIMITS,
    )
    assert isinstance(event, ItemUpserted)
    fields = POLICY.content_of(event)
    content = Content(
        event.version, fields, content_fingerprint(fields), event_time_ms(event, record.timestamp)
    )
    return KnowledgeUpdate(entity_of(event), RegisterName.CONTENT, content).encode()


if __name__ == "__main__":
    asyncio.run(main(Settings.load(), Path(sys.argv[1])))
