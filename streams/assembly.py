"""The composition root: puts Kafka, Redis and the engine around a lane, alone here."""

from functools import partial
from typing import Any

import faust

from streams.clock import SystemClock
from streams.dead_letter_sink import KafkaDeadLetters
from streams.emitter import KafkaEmitter
from streams.engine.circuits import RetrySchedule
from streams.engine.pipeline import FailurePolicy, Pipeline
from streams.engine.ports import Acknowledger
from streams.faust_runtime.bridge import FaustBridge
from streams.faust_runtime.build_app import LaneParts, build_app
from streams.faust_runtime.lane_service import Companions
from streams.group_offsets import committed_offsets
from streams.health import Health
from streams.kafka_clients import KafkaConnection
from streams.lane_making import LaneMaker, Shared
from streams.metrics import LaneMetrics
from streams.observer import LaneObserver
from streams.pause_switch import PauseSwitch
from streams.replay_input import InputReplay
from streams.settings import Settings
from streams.topology import group_id, lane_inputs
from streams.view_guard import HOLD, GuardedLane, ViewGuard
from workers.live.connection import Client, RedisFence, connect
from workers.live.guarded_view import GroupCheckpoints, GuardedView
from workers.live.keys import Keys
from workers.live.space_registry import SpaceRegistry
from workers.live.traces import TraceStore


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
        self._made = LaneMaker(
            name,
            Shared(
                settings=settings,
                metrics=metrics,
                clock=self._clock,
                keys=self._keys,
                redis=self._redis,
                probe=self._probe,
                emitter=self._emitter,
                group=self._group,
            ),
        ).make()
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
            traced=made.traced,
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
        checkpoints = GroupCheckpoints(
            self._redis, self._keys, group=self._group, fence=self._fence
        )
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
            admission=made.admission,
            rank=made.rank,
            aside=made.aside,
        )
        switch.attach(pipeline)
        histories = made.histories
        replay = InputReplay(
            made.lane,
            settings.kafka,
            schedule,
            self._clock,
            max_batch=made.limits.max_batch,
            not_from_earliest=frozenset() if histories is None else histories.announcements,
        )
        view = GuardedView(self._probe, self._redis, self._fence, self._keys, group=self._group)
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
                restore=None if histories is None else histories.restore,
            ),
            view,
            pipeline,
        )
        beside, closed = [*made.beside], [*made.closed]
        if histories is not None:
            histories.attach(guard)
            flush = histories.flush(view, bridge.assignment, lambda: HOLD not in pipeline.holds)
            beside.append(flush.keep_flushing)
            closed.append(flush.flush_last)
        self._metrics.follow_vitals(self._name, self._health.vitals, self._clock)
        return LaneParts(
            pipeline,
            Companions(
                beside=(guard.watch, switch.watch, observer.write_traces, *beside),
                closed=(observer.flush, *closed, self._emitter.aclose, self._close_redis),
            ),
        )

    async def _close_redis(self) -> None:
        await self._redis.aclose()
        await self._probe.aclose()


def assemble(name: str, settings: Settings, health: Health, metrics: LaneMetrics) -> faust.App:
    """Return the Faust app of lane `name`; raises ConfigurationError when it cannot be built."""
    return LaneAssembly(name, settings, health, metrics).app
