"""Faust's own `async for` loop over a raw topic, as its documentation shows it.

No engine and no fast path. It decodes with the same functions, and runs with the same buffers as
the lanes.
"""

import tempfile
from pathlib import Path
from typing import Any

import faust

from schemas.topics import Topic
from streams.engine.lane import Record
from streams.lanes.items import ItemsLane
from streams.process_exit import leave
from tests.bench.loop_config import LoopConfig, Stopwatch


def build(config: LoopConfig, decoder: ItemsLane, answer: Any) -> faust.App:
    """Return the app; it hands its Run to `answer` and leaves when all records are through."""
    kafka = config.kafka
    app = faust.App(
        config.group,
        broker=f"kafka://{config.bootstrap_servers}",
        store="memory://",
        datadir=Path(tempfile.gettempdir(), "freshet"),
        autodiscover=False,
        web_enabled=False,
        worker_redirect_stdouts=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        consumer_auto_offset_reset="earliest",
        stream_buffer_maxsize=kafka.stream_buffer_records,
        broker_max_poll_records=kafka.fetch_records,
        broker_commit_interval=kafka.commit_interval_seconds,
        broker_session_timeout=kafka.session_timeout_seconds,
        broker_heartbeat_interval=kafka.heartbeat_interval_seconds,
        broker_request_timeout=kafka.request_timeout_seconds,
    )
    topic = app.topic(
        config.topic_prefix + Topic.CATALOG_ITEMS,
        key_type=bytes,
        value_type=bytes,
        key_serializer="raw",
        value_serializer="raw",
    )
    watch = Stopwatch()

    @app.agent(topic)
    async def pump(stream: Any) -> None:
        done = 0
        async for event in stream.events():
            if not watch.started:
                watch.start()
            message = event.message
            timestamp_ms = round(message.timestamp * 1000)
            decoder.decode(
                Record(
                    message.topic,
                    message.partition,
                    message.offset,
                    message.key,
                    message.value,
                    tuple(message.headers or ()),
                    timestamp_ms,
                ),
                timestamp_ms,
            )
            done += 1
            if done == config.count:
                answer(watch.stop(done))
                leave(0)

    return app
