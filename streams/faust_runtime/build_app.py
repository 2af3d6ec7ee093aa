"""Builds the Faust app of a lane: raw bytes, at-least-once, one thin agent that never raises."""

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faust
import structlog
from faust.app.base import BootStrategy
from mode import CrashingSupervisor, ServiceT

from streams.engine.pipeline import Pipeline
from streams.engine.ports import Acknowledger, Clock
from streams.faust_runtime import fast_transport
from streams.faust_runtime.bridge import FaustBridge, to_record
from streams.faust_runtime.credentials import credentials
from streams.faust_runtime.lane_service import Companions, LaneService
from streams.faust_runtime.lean_monitor import LeanMonitor
from streams.faust_runtime.raw_schema import RawSchema
from streams.kafka_clients import KafkaConnection
from streams.settings import KafkaSettings, LaneSettings
from streams.vitals import Vitals

log = structlog.get_logger("freshet.lane")


class LaneFirst(BootStrategy):
    """Starts the lane's service before the consumer; it stops after it, in reverse order.

    `App.service` would start it after the first assignment: a rebalance or a stop before would find
    nobody who drains, and a stop during a JoinGroup nobody who ends the process.
    """

    def __init__(self, app: faust.App, service: LaneService) -> None:
        super().__init__(app)
        self._service = service

    def server(self) -> Iterable[ServiceT]:
        """Return the services of a worker, in the order of their start."""
        return (self._service, *super().server())


@dataclass(frozen=True, slots=True)
class LaneParts:
    """What assembly hands over once it knows how to acknowledge."""

    pipeline: Pipeline[Any, Any]
    companions: Companions


def build_app(
    name: str,
    group: str,
    topics: tuple[str, ...],
    kafka: KafkaSettings,
    lane: LaneSettings,
    *,
    clock: Clock,
    vitals: Vitals,
    make_parts: Callable[[Acknowledger[Any], FaustBridge], LaneParts],
) -> faust.App:
    """Return the app of lane `name`, reading `topics` (full names) as `group`."""
    app = faust.App(
        group,
        broker=[f"kafka://{server.strip()}" for server in kafka.bootstrap_servers.split(",")],
        broker_credentials=credentials(KafkaConnection.of(kafka)),
        store="memory://",
        datadir=Path(tempfile.gettempdir(), "freshet"),  # made, never written to: no tables
        monitor=LeanMonitor(),
        autodiscover=False,
        web_enabled=False,
        worker_redirect_stdouts=False,
        processing_guarantee="at_least_once",
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        consumer_auto_offset_reset="earliest",
        stream_wait_empty=True,
        stream_buffer_maxsize=kafka.stream_buffer_records,
        broker_max_poll_records=kafka.fetch_records,
        broker_commit_interval=kafka.commit_interval_seconds,
        broker_session_timeout=kafka.session_timeout_seconds,
        broker_heartbeat_interval=kafka.heartbeat_interval_seconds,
        broker_rebalance_timeout=kafka.rebalance_timeout_seconds,
        broker_request_timeout=kafka.request_timeout_seconds,
        broker_max_poll_interval=kafka.max_poll_interval_seconds,
        producer_request_timeout=kafka.produce_timeout_seconds,
        producer_acks=-1,
    )
    if kafka.fast_path and fast_transport.can_use():
        fast_transport.install(app)
    elif kafka.fast_path:
        log.warning("fast_path_refused", tested=fast_transport.TESTED_VERSIONS)

    bridge = FaustBridge(app)
    parts = make_parts(bridge, bridge)
    service = LaneService(
        parts.pipeline,
        bridge,
        parts.companions,
        clock=clock,
        vitals=vitals,
        drain_seconds=lane.drain_seconds,
        grace_seconds=lane.grace_seconds,
        stall_seconds=lane.stall_seconds,
    )
    app.boot_strategy = LaneFirst(app, service)

    raw = RawSchema(key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
    topic = app.topic(*topics, schema=raw)
    pipeline = parts.pipeline

    @app.agent(topic, name=name, supervisor_strategy=CrashingSupervisor)
    async def pump(stream: Any) -> None:
        # The record is admitted before waiting for room: a pulled record that is in no ledger would
        # make the next drain wait for it for ever.
        async for event in stream.noack().events():
            message = event.message
            if message.generation_id != app.consumer_generation_id:
                app.consumer.unacked.discard(message)
                continue
            pipeline.admit(to_record(message), message, generation=message.generation_id)
            if not pipeline.has_room:
                await pipeline.room()

    return app
