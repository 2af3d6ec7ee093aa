"""The composition root: wires workers, stores and Kafka into the app of one lane, alone here."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import faust

from schemas.events import ContentPolicy, DecodeLimits
from streams.clock import SystemClock
from streams.dead_letter_sink import KafkaDeadLetters
from streams.emitter import KafkaEmitter
from streams.engine.circuits import RetrySchedule
from streams.engine.lane import Lane, LaneLimits
from streams.engine.pipeline import FailurePolicy, Pipeline
from streams.engine.ports import Acknowledger
from streams.faust_runtime.bridge import FaustBridge
from streams.faust_runtime.build_app import LaneParts, build_app
from streams.faust_runtime.lane_service import Companion, Companions
from streams.group_offsets import committed_offsets
from streams.health import Health
from streams.kafka_clients import KafkaConnection
from streams.lanes.encode import EncodeLane
from streams.lanes.encode_space import EncodeSpaceLane
from streams.lanes.items import ItemsLane
from streams.lanes.knowledge import KnowledgeLane
from streams.metrics import LaneMetrics
from streams.observer import LaneObserver
from streams.pause_switch import PauseSwitch
from streams.replay_input import InputReplay
from streams.settings import LaneSettings, Settings
from streams.topology import SPACE_LANE_PREFIX, group_id, lane_inputs
from streams.view_guard import GuardedLane, ViewGuard
from workers.knowledge.load_domain import load_domain
from workers.knowledge.quality import QualityGate
from workers.knowledge.select_writer import select_writer
from workers.knowledge.vllm_writer import VllmServer
from workers.live.connection import Client, RedisFence, connect
from workers.live.entity_store import EntityStore
from workers.live.guarded_view import GroupCheckpoints, GuardedView
from workers.live.keys import Keys
from workers.live.seen import SeenStore
from workers.live.space_registry import SpaceRegistry
from workers.live.traces import TraceStore


def content_policy(settings: Settings) -> ContentPolicy:
    """Return which item fields carry meaning in this deployment."""
    return ContentPolicy(frozenset(settings.items.semantic_fields))


@dataclass(slots=True)
class _Made:
    """A lane and what it brings along."""

    lane: Lane[Any]
    limits: LaneLimits
    writes_redis: bool
    beside: list[Companion] = field(default_factory=list)
    closed: list[Companion] = field(default_factory=list)
    rebuild: Callable[[set[int]], Any] | None = None


class LaneAssembly:
    """Everything one lane process holds; `app` is ready to run."""

    def __init__(self, name: str, settings: Settings, health: Health, metrics: LaneMetrics) -> None:
        self._name = name
        self._settings = settings
        self._metrics = metrics
        self._health = health
        self._clock = SystemClock()
        self._keys = Keys(settings.redis.key_prefix)
        self._fence = RedisFence()
        self._redis = self._connect(self._fence)
        self._probe = self._connect(None)
        self._emitter = KafkaEmitter(settings.kafka)
        self._group = group_id(settings.kafka.topic_prefix, name)
        self._topics = tuple(settings.kafka.topic_prefix + topic for topic in lane_inputs(name))
        self._made = self._make()
        self.app = build_app(
            name,
            self._group,
            self._topics,
            settings.kafka,
            settings.lane,
            clock=self._clock,
            vitals=health.vitals,
            make_parts=self._parts,
        )

    def _connect(self, fence: RedisFence | None) -> Client:
        redis = self._settings.redis
        return connect(
            redis.url.get_secret_value(),
            timeout_seconds=redis.timeout_seconds,
            ssl_cafile=redis.ssl_cafile,
            fence=fence,
            client_name=f"freshet.{self._name}",
        )

    # ---- the lanes -----------------------------------------------------------------------

    def _make(self) -> _Made:
        match self._name:
            case "items":
                return self._items()
            case "knowledge" | "knowledge-backlog":
                return self._knowledge()
            case "encode":
                return self._encode()
            case _:
                return self._encode_space(self._name.removeprefix(SPACE_LANE_PREFIX))

    def _items(self) -> _Made:
        items = self._settings.items
        limits = DecodeLimits(
            max_bytes=items.max_record_bytes,
            max_clock_skew_ms=round(items.max_clock_skew_seconds * 1000),
            version_from_record_timestamp=items.version_from == "record_timestamp",
        )
        seen = SeenStore(self._redis, self._keys)
        lane = ItemsLane(self._emitter, seen, content_policy(self._settings), limits, self._clock)
        return _Made(lane, lane_limits(self._settings.lane), writes_redis=True)

    def _knowledge(self) -> _Made:
        knowledge = self._settings.knowledge
        domain = load_domain(
            knowledge.domain,
            factors=knowledge.factors,
            max_factor_chars=knowledge.max_factor_chars,
            max_tokens=knowledge.max_tokens,
        )
        writer = select_writer(
            knowledge.writer,
            model=knowledge.model,
            recorded_file=knowledge.recorded_file,
            server=VllmServer(
                knowledge.vllm_url,
                knowledge.vllm_api_key.get_secret_value(),
                call_seconds=knowledge.call_seconds,
                connect_seconds=knowledge.vllm_connect_seconds,
                connections=knowledge.in_flight,
                accepts_priority=knowledge.vllm_accepts_priority,
            ),
        )
        lane = KnowledgeLane(
            self._name,
            emitter=self._emitter,
            documents=EntityStore(self._redis, self._keys),
            writer=writer,
            gate=QualityGate(domain),
            domain=domain,
            settings=knowledge,
            clock=self._clock,
        )
        limits = lane_limits(
            self._settings.lane, max_batch=1, max_batches_in_flight=knowledge.in_flight
        )
        self._metrics.follow_writer(self._name, lane.stats)
        return _Made(lane, limits, writes_redis=False, closed=[writer.aclose])

    def _encode(self) -> _Made:
        # Here and not above: only the encode lanes need torch, which takes seconds to import.
        from streams.rebuild import ViewRebuild
        from streams.space_set import SpaceSet
        from workers.encoding.load_representer import load_representer

        encode = self._settings.encode
        executor = ThreadPoolExecutor(1, "encoder")
        store = EntityStore(self._redis, self._keys)
        registry = SpaceRegistry(self._probe, self._keys)
        spaces = SpaceSet(registry, encode.spaces_dir, lane=self._name)
        representer = load_representer(
            encode.spaces_dir, threads=encode.threads, refuse_below=encode.refuse_parity_below
        )
        lane = EncodeLane(
            store=store,
            representer=representer,
            spaces=spaces,
            emitter=self._emitter,
            clock=self._clock,
            executor=executor,
        )
        rebuild = ViewRebuild(
            self._settings.kafka,
            store=store,
            registry=SpaceRegistry(self._redis, self._keys),
            representer=representer,
            spaces=spaces,
            executor=executor,
        )
        limits = lane_limits(
            self._settings.lane,
            max_batch=encode.max_batch,
            max_batch_tokens=encode.max_batch_tokens,
            max_batches_in_flight=2,
        )
        return _Made(
            lane, limits, writes_redis=True, beside=[spaces.watch], rebuild=rebuild.rebuild
        )

    def _encode_space(self, space: str) -> _Made:
        from streams.space_set import SpaceSet

        registry = SpaceRegistry(self._probe, self._keys)
        spaces = SpaceSet(registry, self._settings.encode.spaces_dir, lane=self._name)
        lane = EncodeSpaceLane(
            space=space,
            spaces=spaces,
            store=EntityStore(self._redis, self._keys),
            emitter=self._emitter,
            clock=self._clock,
            executor=ThreadPoolExecutor(1, "adaptor"),
        )
        return _Made(
            lane, lane_limits(self._settings.lane), writes_redis=True, beside=[spaces.watch]
        )

    # ---- the engine around them ----------------------------------------------------------

    def _parts(self, acknowledger: Acknowledger[Any], bridge: FaustBridge) -> LaneParts:
        settings, made = self._settings, self._made
        registry = SpaceRegistry(self._probe, self._keys)
        switch = PauseSwitch(self._name, registry)
        observer = LaneObserver(
            self._name,
            self._metrics,
            TraceStore(self._redis, self._keys),
            self._clock,
            on_flood=switch.pause,
        )
        schedule = RetrySchedule(
            settings.lane.retry_first_seconds, settings.lane.retry_longest_seconds
        )
        policy = FailurePolicy(
            schedule,
            settings.lane.max_attempts_alone,
            settings.lane.flood_share,
            settings.lane.flood_window,
        )
        checkpoints = GroupCheckpoints(self._redis, self._keys, group=self._group)
        pipeline: Pipeline[Any, Any] = Pipeline(
            made.lane,
            made.limits,
            policy,
            group=self._group,
            acknowledger=acknowledger,
            dead_letters=KafkaDeadLetters(self._name, self._emitter),
            observer=observer,
            clock=self._clock,
            checkpoints=checkpoints if made.writes_redis else None,
        )
        switch.attach(pipeline)
        replay = InputReplay(
            made.lane, settings.kafka, schedule, self._clock, max_batch=made.limits.max_batch
        )
        guard = ViewGuard(
            GuardedLane(
                name=self._name,
                view_partitions=settings.kafka.partitions,
                assignment=bridge.assignment,
                committed=partial(
                    committed_offsets, KafkaConnection.of(settings.kafka), self._group
                ),
                replay=replay.replay if made.writes_redis else None,
                rebuild=made.rebuild,
            ),
            GuardedView(self._probe, self._redis, self._fence, self._keys, group=self._group),
            pipeline,
        )
        self._metrics.follow_vitals(self._name, self._health.vitals, self._clock)
        return LaneParts(
            pipeline,
            Companions(
                beside=(guard.watch, switch.watch, observer.write_traces, *made.beside),
                closed=(observer.flush, *made.closed, self._emitter.aclose, self._close_redis),
            ),
        )

    async def _close_redis(self) -> None:
        await self._redis.aclose()
        await self._probe.aclose()


def lane_limits(
    lane: LaneSettings,
    *,
    max_batch: int | None = None,
    max_batch_tokens: int = 1_000_000,
    max_batches_in_flight: int = 1,
) -> LaneLimits:
    """Return the engine's bounds for a lane."""
    return LaneLimits(
        max_records=lane.max_records,
        max_bytes=lane.max_bytes,
        max_batch=max_batch or lane.max_batch,
        max_batch_tokens=max_batch_tokens,
        max_batches_in_flight=max_batches_in_flight,
        linger_seconds=lane.linger_ms / 1000,
    )


def assemble(name: str, settings: Settings, health: Health, metrics: LaneMetrics) -> faust.App:
    """Return the Faust app of lane `name`; raises ConfigurationError when it cannot be built."""
    return LaneAssembly(name, settings, health, metrics).app
