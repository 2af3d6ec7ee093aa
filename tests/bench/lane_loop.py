"""Lanes as they are deployed, but for what times them: a no-op one, and the items lane.

Wired as streams.assembly wires them, without the view guard (it looks once a second) and with an
acknowledger that counts.
"""

from collections.abc import Callable, Sequence
from typing import Any

import faust

from schemas.entities import EntityKey
from schemas.topics import Topic
from schemas.trace import TraceEntry
from streams.clock import SystemClock
from streams.dead_letter_sink import KafkaDeadLetters
from streams.emitter import KafkaEmitter
from streams.engine.lane import Record
from streams.engine.outcomes import Outcome, Result, Settled
from streams.engine.pipeline import FailurePolicy, Pipeline
from streams.engine.ports import Acknowledger
from streams.faust_runtime.bridge import FaustBridge
from streams.faust_runtime.build_app import LaneParts, build_app
from streams.faust_runtime.lane_service import Companions
from streams.lane_making import lane_limits
from streams.lanes.items import ItemChange, ItemsLane
from streams.metrics import LaneMetrics
from streams.observer import LaneObserver
from streams.process_exit import leave
from streams.settings import LaneSettings
from streams.vitals import Vitals
from tests.bench.loop_config import LIMITS, POLICY, LoopConfig, Stopwatch
from tests.bench.pairs import Run
from workers.live.connection import connect
from workers.live.guarded_view import GroupCheckpoints
from workers.live.keys import Keys
from workers.live.seen import SeenStore
from workers.live.traces import TraceStore

Answer = Callable[[Run], None]


class TimedItemsLane(ItemsLane):
    """The items lane, which notes when its first record comes."""

    watch: Stopwatch

    def decode(self, record: Record, now_ms: int) -> ItemChange:
        if not self.watch.started:
            self.watch.start()
        return super().decode(record, now_ms)


class NoopLane(TimedItemsLane):
    """The items lane with a handler that does nothing."""

    async def handle(self, batch: Sequence[ItemChange]) -> Sequence[Result]:
        return [_DONE] * len(batch)


_DONE = Settled(Outcome.UNCHANGED)


class Countdown:
    """Passes acknowledgements on; when all records have theirs, it says so and leaves."""

    def __init__(self, to: Acknowledger[Any], records: int, all_done: Callable[[], None]) -> None:
        self._to = to
        self._open = records
        self._all_done = all_done

    def acknowledge(self, tokens: Sequence[Any]) -> None:
        self._to.acknowledge(tokens)
        self._open -= len(tokens)
        if self._open <= 0:
            self._all_done()
            leave(0)


class _NoTraces:
    async def append(self, entries: Sequence[tuple[EntityKey, TraceEntry]]) -> None:
        pass


def build(config: LoopConfig, answer: Answer, *, noop: bool) -> faust.App:
    """Return the lane's app; it hands its Run to `answer` and leaves when all is acknowledged."""
    clock, keys, watch = SystemClock(), Keys(config.key_prefix), Stopwatch()
    redis = connect(config.redis_url)
    emitter = KafkaEmitter(config.kafka)
    lane_type = NoopLane if noop else TimedItemsLane
    lane = lane_type(emitter, SeenStore(redis, keys), POLICY, LIMITS, clock)
    lane.watch = watch
    traces = _NoTraces() if noop else TraceStore(redis, keys)
    observer = LaneObserver(
        "items", LaneMetrics("items"), traces, clock, on_flood=lambda _detail: leave(1)
    )
    settings = LaneSettings()

    def make_parts(acknowledger: Acknowledger[Any], _bridge: FaustBridge) -> LaneParts:
        pipeline: Pipeline[Any, Any] = Pipeline(
            lane,
            lane_limits(settings),
            FailurePolicy(),
            group=config.group,
            acknowledger=Countdown(
                acknowledger, config.count, lambda: answer(watch.stop(config.count))
            ),
            dead_letters=KafkaDeadLetters("items", emitter),
            observer=observer,
            clock=clock,
            checkpoints=None if noop else GroupCheckpoints(redis, keys, group=config.group),
        )
        return LaneParts(pipeline, Companions(beside=(observer.write_traces,)))

    return build_app(
        "items",
        config.group,
        (config.topic_prefix + Topic.CATALOG_ITEMS,),
        config.kafka,
        settings,
        clock=clock,
        vitals=Vitals(),
        make_parts=make_parts,
    )
