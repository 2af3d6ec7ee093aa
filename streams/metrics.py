"""Every metric of Freshet, by name, in one place. Labels are bounded; times are seconds."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from streams.engine.ports import Clock
from streams.vitals import Vitals

# From a batch of content vectors (milliseconds) to a language model under load (minutes).
SECONDS_BUCKETS = (
    0.001,
    0.002,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    30,
    60,
    300,
)
SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class CostCounts(Protocol):
    """What calls of one reason cost since the start."""

    calls: int
    prompt_tokens: int
    completion_tokens: int


class WriterCounts(Protocol):
    """What a knowledge lane counts of its writer since the start; costs and rejections by why."""

    @property
    def costs(self) -> Mapping[str, CostCounts]:
        """Costs by the reason of the calls."""

    @property
    def repairs(self) -> int:
        """Second calls."""

    @property
    def rejected(self) -> Mapping[str, int]:
        """Requests that got no usable answer, by what was wrong with the last one."""

    saved_fingerprint: int
    saved_coalesced: int
    saved_shared: int


class BudgetFigures(Protocol):
    """Tokens of the current hour."""

    @property
    def limit(self) -> int:
        """What may be spent."""

    @property
    def left(self) -> int:
        """What is left of it."""


class BehaviourCounts(Protocol):
    """What the behaviour lane counts of events since the start."""

    limited_events: int
    refused_events: int


class VectorCounts(Protocol):
    """What the behaviour lane counts of user vectors since the start."""

    written: int
    deleted: int
    awaited: int


class LaneMetrics:
    """The metrics of one lane's process."""

    def __init__(self, lane: str) -> None:
        self.registry = CollectorRegistry()
        self._lane = lane
        registry = self.registry
        self.records = Counter(
            "freshet_records", "Records settled", ("lane", "outcome", "reason"), registry=registry
        )
        self.record_seconds = Histogram(
            "freshet_record_seconds",
            "Seconds from admission to settlement",
            ("lane",),
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self.batch_size = Histogram(
            "freshet_batch_size",
            "Entities a batch",
            ("lane",),
            buckets=SIZE_BUCKETS,
            registry=registry,
        )
        self.handler_seconds = Histogram(
            "freshet_handler_seconds",
            "Seconds a batch spent in its handler",
            ("lane",),
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self.retries = Counter(
            "freshet_retries",
            "Units tried again, by dependency",
            ("lane", "dependency"),
            registry=registry,
        )
        self.parts_encoded = Counter(
            "freshet_parts_encoded",
            "Texts that went through the encoder",
            ("lane",),
            registry=registry,
        )
        self.traces_dropped = Counter(
            "freshet_traces_dropped",
            "Trace lines dropped because Redis was slow",
            ("lane",),
            registry=registry,
        )

    def exposition(self) -> tuple[str, bytes]:
        """Return the content type and body of the metrics page."""
        return CONTENT_TYPE_LATEST, generate_latest(self.registry)

    def follow_writer(
        self, lane: str, counts: WriterCounts, budget: BudgetFigures | None = None
    ) -> None:
        """Show a writer's counters and its budget, read whenever the page is asked for."""
        self.registry.register(_WriterCollector(lane, counts, budget))

    def follow_behaviour(
        self,
        lane: str,
        events: BehaviourCounts,
        vectors: VectorCounts,
        decisions: Mapping[str, int],
    ) -> None:
        """Show the behaviour lane's counters, read whenever the page is asked for.

        `decisions` are those of the gate of preference knowledge, by reason.
        """
        self.registry.register(_BehaviourCollector(lane, events, vectors, decisions))

    def follow_vitals(self, lane: str, vitals: Vitals, clock: Clock) -> None:
        """Show what the lane's loop reports about itself."""
        self.registry.register(_VitalsCollector(lane, vitals, clock))


class _WriterCollector:
    def __init__(self, lane: str, counts: WriterCounts, budget: BudgetFigures | None) -> None:
        self._lane = lane
        self._counts = counts
        self._budget = budget

    def collect(self) -> Iterable[Metric]:
        counts = self._counts
        costs = dict(counts.costs)
        yield _counter(
            "freshet_writer_calls",
            "Language model calls, by why they were made",
            self._lane,
            {reason: cost.calls for reason, cost in costs.items()},
            label="reason",
        )
        yield _counter(
            "freshet_writer_repairs",
            "Second calls after an answer the gate refused",
            self._lane,
            {"": counts.repairs},
        )
        yield self._tokens(costs)
        yield _counter(
            "freshet_writer_calls_saved",
            "Calls not needed, by why",
            self._lane,
            {
                "fingerprint": counts.saved_fingerprint,
                "coalesced": counts.saved_coalesced,
                "shared": counts.saved_shared,
            },
            label="why",
        )
        yield _counter(
            "freshet_writer_rejected",
            "Requests that got no usable answer, by what was wrong with the last one",
            self._lane,
            dict(counts.rejected),
            label="rejection",
        )
        if self._budget is not None:
            tokens = GaugeMetricFamily(
                "freshet_token_budget",
                "Tokens that all knowledge lanes may spend this hour, and what is left of them",
                labels=("lane", "what"),
            )
            tokens.add_metric((self._lane, "limit"), self._budget.limit)
            tokens.add_metric((self._lane, "left"), self._budget.left)
            yield tokens

    def _tokens(self, costs: Mapping[str, CostCounts]) -> Metric:
        family = CounterMetricFamily(
            "freshet_writer_tokens",
            "Language model tokens, by why they were spent",
            labels=("lane", "kind", "reason"),
        )
        for reason, cost in costs.items():
            family.add_metric((self._lane, "prompt", reason), cost.prompt_tokens)
            family.add_metric((self._lane, "completion", reason), cost.completion_tokens)
        return family


class _BehaviourCollector:
    def __init__(
        self,
        lane: str,
        events: BehaviourCounts,
        vectors: VectorCounts,
        decisions: Mapping[str, int],
    ) -> None:
        self._lane = lane
        self._events = events
        self._vectors = vectors
        self._decisions = decisions

    def collect(self) -> Iterable[Metric]:
        events, vectors = self._events, self._vectors
        yield _counter(
            "freshet_behaviour_limited_events",
            "Events that the bound per user and minute let go",
            self._lane,
            {"": events.limited_events},
        )
        yield _counter(
            "freshet_behaviour_refused_events",
            "Events of batches that went to the dead letters alone",
            self._lane,
            {"": events.refused_events},
        )
        yield _counter(
            "freshet_behaviour_awaited_items",
            "Times that a user was found to wait for an item without a vector",
            self._lane,
            {"": vectors.awaited},
        )
        yield _counter(
            "freshet_user_vectors",
            "User vectors written to Redis, and deleted because nothing was left to make one from",
            self._lane,
            {"written": vectors.written, "deleted": vectors.deleted},
            label="what",
        )
        yield _counter(
            "freshet_preference_decisions",
            "Whether users were worth a language model's call, by why",
            self._lane,
            self._decisions,
            label="why",
        )


class _VitalsCollector:
    def __init__(self, lane: str, vitals: Vitals, clock: Clock) -> None:
        self._lane = lane
        self._vitals = vitals
        self._clock = clock

    def collect(self) -> Iterable[Metric]:
        vitals, lane = self._vitals, self._lane
        open_records = GaugeMetricFamily(
            "freshet_open_records", "Records admitted and not acknowledged", labels=("lane",)
        )
        open_records.add_metric((lane,), vitals.open_records)
        yield open_records
        oldest = GaugeMetricFamily(
            "freshet_oldest_open_record_seconds",
            "Age of the oldest open record by its Kafka timestamp",
            labels=("lane",),
        )
        timestamp_ms = vitals.oldest_timestamp_ms
        age = 0.0 if timestamp_ms is None else (self._clock.now_ms() - timestamp_ms) / 1000
        oldest.add_metric((lane,), max(0.0, age))
        yield oldest
        lag = GaugeMetricFamily(
            "freshet_lag_records",
            "End offset minus the last acknowledged offset, of the assigned partitions",
            labels=("lane", "topic", "partition"),
        )
        for (topic, partition), records in vitals.lag_records.items():
            lag.add_metric((lane, topic, str(partition)), records)
        yield lag
        circuits = GaugeMetricFamily(
            "freshet_circuit_open",
            "1 while a dependency is failing",
            labels=("lane", "dependency"),
        )
        for dependency in vitals.circuits:
            circuits.add_metric((lane, dependency), 1)
        yield circuits
        held = GaugeMetricFamily(
            "freshet_held", "1 while the lane stands still on purpose", labels=("lane", "hold")
        )
        for hold in vitals.holds:
            held.add_metric((lane, hold), 1)
        yield held
        waiting = GaugeMetricFamily(
            "freshet_waiting",
            "1 while ready records wait though nothing is wrong, by what for",
            labels=("lane", "what"),
        )
        for what in vitals.waits:
            waiting.add_metric((lane, what), 1)
        yield waiting


def _counter(
    name: str, meaning: str, lane: str, values: Mapping[str, int], *, label: str | None = None
) -> CounterMetricFamily:
    labels = ("lane",) if label is None else ("lane", label)
    family = CounterMetricFamily(name, meaning, labels=labels)
    for value_label, value in values.items():
        family.add_metric((lane,) if label is None else (lane, value_label), value)
    return family
