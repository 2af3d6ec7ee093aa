"""The behaviour lane as it is deployed, but for what times it.

Made by streams.lane_making and wired as streams.assembly wires it, without the view guard and the
flush of histories (they work once a second and once a minute) and with an acknowledger that counts.
"""

from typing import Any

import faust

from schemas.topics import Topic
from streams.clock import SystemClock
from streams.dead_letter_sink import KafkaDeadLetters
from streams.emitter import KafkaEmitter
from streams.engine.lane import Lane, Record
from streams.engine.pipeline import FailurePolicy, Pipeline
from streams.engine.ports import Acknowledger
from streams.faust_runtime.bridge import FaustBridge
from streams.faust_runtime.build_app import LaneParts, build_app
from streams.faust_runtime.lane_service import Companions
from streams.lane_making import LaneMaker, Shared
from streams.metrics import LaneMetrics
from streams.observer import LaneObserver
from streams.process_exit import leave
from streams.vitals import Vitals
from tests.bench.behaviour_config import BehaviourConfig
from tests.bench.lane_loop import Answer, Countdown
from tests.bench.loop_config import PARTITIONS, Stopwatch
from workers.live.connection import connect
from workers.live.guarded_view import GroupCheckpoints
from workers.live.keys import Keys
from workers.live.traces import TraceStore


class _Whole:
    """In place of the guard: this Redis holds everything."""

    def __init__(self, topic: str) -> None:
        self.whole = frozenset((topic, partition) for partition in range(PARTITIONS))


class _Timed:
    """A lane that notes when its first record comes."""

    def __init__(self, lane: Lane[Any], watch: Stopwatch) -> None:
        self._decode, self._watch = lane.decode, watch
        self.name = lane.name
        self.key, self.version, self.tokens = lane.key, lane.version, lane.tokens
        self.due_at_ms, self.absorb, self.handle = lane.due_at_ms, lane.absorb, lane.handle

    def decode(self, record: Record, now_ms: int) -> Any:
        if not self._watch.started:
            self._watch.start()
        return self._decode(record, now_ms)


def build(config: BehaviourConfig, answer: Answer) -> faust.App:
    """Return the lane's app; it hands its Run to `answer` and leaves when all is acknowledged."""
    settings, clock, keys = config.settings, SystemClock(), Keys(config.key_prefix)
    events = config.topic_prefix + Topic.USER_BEHAVIOUR
    watch, redis = Stopwatch(), connect(config.redis_url)
    emitter, metrics = KafkaEmitter(config.kafka), LaneMetrics("behaviour")
    made = LaneMaker(
        "behaviour",
        Shared(
            settings=settings,
            metrics=metrics,
            clock=clock,
            keys=keys,
            redis=redis,
            probe=redis,
            emitter=emitter,
            group=config.group,
        ),
    ).make()
    assert made.histories is not None
    made.histories.attach(_Whole(events))
    observer = LaneObserver(
        "behaviour",
        metrics,
        TraceStore(redis, keys),
        clock,
        on_flood=lambda _detail: leave(1),
        traced=made.traced,
    )

    def make_parts(acknowledger: Acknowledger[Any], _bridge: FaustBridge) -> LaneParts:
        pipeline: Pipeline[Any, Any] = Pipeline(
            _Timed(made.lane, watch),
            made.limits,
            FailurePolicy(),
            group=config.group,
            acknowledger=Countdown(
                acknowledger, config.records, lambda: answer(watch.stop(config.count))
            ),
            dead_letters=KafkaDeadLetters("behaviour", emitter),
            observer=observer,
            clock=clock,
            checkpoints=GroupCheckpoints(redis, keys, group=config.group),
        )
        return LaneParts(pipeline, Companions(beside=(observer.write_traces, *made.beside)))

    return build_app(
        "behaviour",
        config.group,
        (events, config.topic_prefix + Topic.LIVE_UPDATES),
        config.kafka,
        settings.lane,
        clock=clock,
        vitals=Vitals(),
        make_parts=make_parts,
    )
