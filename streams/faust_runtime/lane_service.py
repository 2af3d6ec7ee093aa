"""The lane's service in a Faust app: runs the pipeline, drains it, watches for stalls."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mode
import structlog
from aiokafka.errors import KafkaError

from streams.engine.pipeline import Pipeline
from streams.engine.ports import Clock
from streams.faust_runtime.bridge import FaustBridge
from streams.faust_runtime.watchdog import EXIT_STALLED, HardExit
from streams.process_exit import leave
from streams.vitals import Vitals

log = structlog.get_logger("freshet.lane")

POLL_SECONDS = 0.02
HEALTH_SECONDS = 1.0
LAG_SECONDS = 5.0

Companion = Callable[[], Awaitable[None]]
"""A coroutine function that runs beside the pipeline until cancelled."""


@dataclass(frozen=True, slots=True)
class Companions:
    """What a lane brings along: opened before the first record, closed after the last."""

    opened: Sequence[Companion] = ()
    beside: Sequence[Companion] = ()
    closed: Sequence[Companion] = ()


class LaneService(mode.Service):
    """Started before the consumer, stopped after it has drained."""

    def __init__(
        self,
        pipeline: Pipeline[Any, Any],
        bridge: FaustBridge,
        companions: Companions,
        *,
        clock: Clock,
        vitals: Vitals,
        drain_seconds: float,
        grace_seconds: float,
        stall_seconds: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._pipeline = pipeline
        self._bridge = bridge
        self._companions = companions
        self._clock = clock
        self._vitals = vitals
        self._drain_seconds = drain_seconds
        self._stall_seconds = stall_seconds
        self._hard_exit = HardExit(lambda: bridge.is_stopping, grace_seconds)

    async def on_start(self) -> None:
        """Open what the lane needs before the first record can arrive."""
        self._hard_exit.start()
        for opened in self._companions.opened:
            await opened()

    async def on_shutdown(self) -> None:
        """Close it, after the drain and after the last task that may use it."""
        for closed in self._companions.closed:
            await closed()

    @mode.Service.task
    async def _run_pipeline(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pipeline.run())
            for beside in self._companions.beside:
                group.create_task(_run(beside))

    @mode.Service.task
    async def _drain_when_suspended(self) -> None:
        pipeline, bridge = self._pipeline, self._bridge
        while True:
            await bridge.wait_suspended()
            pipeline.start_drain()
            deadline = self._clock.monotonic() + self._drain_seconds
            # On a real broker a rebalance takes 10-20 ms: suspend and resume both happen inside one
            # poll, so what is open may belong to the new generation. Only a flow that has not
            # resumed may be abandoned, with no await between the look and the deed (faust.md 11.1).
            while (  # noqa: ASYNC110  # one of the four conditions is a time
                pipeline.open_records
                and not bridge.is_flowing
                and not pipeline.is_stuck
                and self._clock.monotonic() < deadline
            ):
                await asyncio.sleep(POLL_SECONDS)
            if pipeline.open_records and not bridge.is_flowing:
                abandoned = pipeline.abandon()
                bridge.forget(abandoned)
                log.warning("drain_abandoned", records=len(abandoned))
            pipeline.end_drain()
            await bridge.wait_flowing()

    @mode.Service.task
    async def _report_vitals(self) -> None:
        quiet_since = self._clock.monotonic()
        while True:
            await asyncio.sleep(HEALTH_SECONDS)
            pipeline, vitals = self._pipeline, self._vitals
            now = self._clock.monotonic()
            vitals.beat_at = now
            vitals.flowing = self._bridge.is_flowing
            vitals.assigned = bool(self._bridge.assignment())
            vitals.holds = pipeline.holds
            before, vitals.circuits = vitals.circuits, pipeline.circuits.open_circuits()
            self._say_what_changed(before, vitals.circuits)
            vitals.waits = pipeline.waits
            vitals.open_records = pipeline.open_records
            oldest = pipeline.oldest_timestamps_ms()
            vitals.oldest_timestamp_ms = min(oldest.values()) if oldest else None
            excused = not pipeline.open_records or vitals.is_excused
            if excused or pipeline.last_settled_at > quiet_since:
                quiet_since = max(pipeline.last_settled_at, now if excused else 0.0)
            elif now - quiet_since > self._stall_seconds:
                log.error("stalled", open_records=vitals.open_records, seconds=now - quiet_since)
                leave(EXIT_STALLED)

    def _say_what_changed(self, before: Mapping[str, str], now: Mapping[str, str]) -> None:
        for dependency in now.keys() - before.keys():
            log.warning("circuit_opened", dependency=dependency, detail=now[dependency])
        for dependency in before.keys() - now.keys():
            log.info("circuit_closed", dependency=dependency)

    @mode.Service.task
    async def _report_lag(self) -> None:
        while True:
            await asyncio.sleep(LAG_SECONDS)
            assigned = self._bridge.assignment()
            if not assigned:
                self._vitals.lag_records = {}
                continue
            try:
                ends = await self._bridge.end_offsets(assigned)
            except (TimeoutError, KafkaError):
                continue  # an outage: the numbers stay, and readiness says why
            committed = self._bridge.committed_offsets(assigned)
            self._vitals.lag_records = {
                tp: max(0, end - committed.get(tp, 0)) for tp, end in ends.items()
            }


async def _run(companion: Companion) -> None:
    await companion()
