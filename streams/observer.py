"""The engine's observer: counts what ended, and keeps each entity's last outcomes for `explain`."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from schemas.entities import EntityKey
from schemas.errors import Transient
from schemas.trace import TraceEntry
from streams.engine.outcomes import Outcome
from streams.engine.ports import Clock, Ended
from streams.metrics import LaneMetrics

log = structlog.get_logger("freshet.lane")

MAX_WAITING_TRACES = 20_000
FLUSH_SECONDS = 0.25
WARN_EVERY_SECONDS = 10.0


class TracePort(Protocol):
    """Where traces are kept."""

    async def append(self, entries: Sequence[tuple[EntityKey, TraceEntry]]) -> None:
        """Keep the entries; raises Transient."""


class LaneObserver:
    """Counts at once; traces are written behind, and dropped rather than waited for.

    Of what ended otherwise than `traced` nothing is kept but the counts.
    """

    def __init__(
        self,
        lane: str,
        metrics: LaneMetrics,
        traces: TracePort,
        clock: Clock,
        *,
        on_flood: Callable[[str], None],
        traced: frozenset[Outcome] = frozenset(Outcome),
    ) -> None:
        self._lane = lane
        self._metrics = metrics
        self._traces = traces
        self._clock = clock
        self._on_flood = on_flood
        self._traced = traced
        self._waiting: deque[tuple[EntityKey, TraceEntry]] = deque(maxlen=MAX_WAITING_TRACES)
        self._warned_at: dict[str, float] = {}
        self._record_seconds = metrics.record_seconds.labels(lane)

    def ended(self, records: Sequence[Ended]) -> None:
        """Count the records and queue their trace lines."""
        now_ms = self._clock.now_ms()
        counts: dict[tuple[str, str], int] = {}
        for record in records:
            label = (record.outcome.value, record.reason)
            counts[label] = counts.get(label, 0) + 1
            self._record_seconds.observe(record.seconds)
            if record.key is not None and record.outcome in self._traced:
                if len(self._waiting) == MAX_WAITING_TRACES:
                    self._metrics.traces_dropped.labels(self._lane).inc()
                self._waiting.append((record.key, self._line(record, now_ms)))
            if record.outcome is Outcome.DEAD_LETTERED:
                self._warn(f"dead_lettered.{record.reason}", "dead_lettered", record.detail)
        for (outcome, reason), count in counts.items():
            self._metrics.records.labels(self._lane, outcome, reason).inc(count)

    def _line(self, record: Ended, now_ms: int) -> TraceEntry:
        return TraceEntry(
            now_ms, self._lane, record.outcome.value, record.version, record.reason, record.detail
        )

    def batch_handled(self, size: int, seconds: float) -> None:
        """Record a handler's batch."""
        self._metrics.batch_size.labels(self._lane).observe(size)
        self._metrics.handler_seconds.labels(self._lane).observe(seconds)

    def retried(self, dependency: str, detail: str, units: int) -> None:
        """Count a transient failure and say so, at most every ten seconds a dependency."""
        self._metrics.retries.labels(self._lane, dependency).inc(units)
        self._warn(f"retry.{dependency}", "dependency_failing", f"{dependency}: {detail}")

    def flooded(self, detail: str) -> None:
        """Pause the lane: most of what arrives is invalid."""
        log.error("lane_paused", lane=self._lane, cause="flood of invalid records", last=detail)
        self._on_flood(detail)

    async def write_traces(self) -> None:
        """Write queued trace lines until cancelled; a failure drops them: they are no promise."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Write what is queued."""
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(512, len(self._waiting)))]
            try:
                await self._traces.append(batch)
            except Transient:
                self._metrics.traces_dropped.labels(self._lane).inc(len(batch))
                return

    def _warn(self, subject: str, event: str, detail: str) -> None:
        now = self._clock.monotonic()
        if now - self._warned_at.get(subject, -WARN_EVERY_SECONDS) >= WARN_EVERY_SECONDS:
            self._warned_at[subject] = now
            log.warning(event, lane=self._lane, detail=detail)
