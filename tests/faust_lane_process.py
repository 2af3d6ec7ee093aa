"""A lane process without Redis: `python -m tests.faust_lane_process BOOTSTRAP GROUP TOPIC FILE`.

Handles each record by a line `partition offset key` in FILE. Keys decide what else happens:
`item:hang-*` hangs for ever, `item:bug-*` raises, and `--batch-seconds` slows every batch down.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from schemas.entities import EntityKey
from streams.clock import SystemClock
from streams.engine.lane import Absorbed, LaneLimits, Record
from streams.engine.outcomes import Outcome, Result, Settled
from streams.engine.pipeline import FailurePolicy, Pipeline
from streams.engine.ports import Acknowledger
from streams.faust_runtime.bridge import FaustBridge
from streams.faust_runtime.build_app import LaneParts, build_app
from streams.faust_runtime.lane_service import Companions
from streams.faust_runtime.run_worker import run_worker
from streams.settings import KafkaSettings, LaneSettings
from streams.vitals import Vitals
from tests.fakes.engine import FakeDeadLetters, RecordingObserver

DRAIN_SECONDS = 2.0
GRACE_SECONDS = 12.0


@dataclass(frozen=True, slots=True)
class Noted:
    """A record by its place."""

    key: EntityKey
    partition: int
    offset: int


class NotingLane:
    """Appends a line for each record; the line is the effect."""

    name = "noting"

    def __init__(self, file: Path, batch_seconds: float) -> None:
        self._file = file
        self._batch_seconds = batch_seconds

    def decode(self, record: Record, now_ms: int) -> Noted:
        return Noted(EntityKey.parse(record.key or b""), record.partition, record.offset)

    def key(self, value: Noted) -> EntityKey:
        return value.key

    def version(self, value: Noted) -> int | None:
        return None

    def tokens(self, value: Noted) -> int:
        return 1

    def due_at_ms(self, value: Noted) -> int:
        return 0

    def absorb(self, waiting: Noted, incoming: Noted) -> Absorbed[Noted]:
        return Absorbed(incoming, incoming_survives=True, loser=Outcome.SUPERSEDED)

    async def handle(self, batch: Sequence[Noted]) -> Sequence[Result]:
        await asyncio.sleep(self._batch_seconds)
        for noted in batch:
            if noted.key.id.startswith("hang"):
                await asyncio.Event().wait()
            if noted.key.id.startswith("bug"):
                raise ValueError("a bug in a handler")
        with self._file.open("a") as file:
            file.writelines(f"{noted.partition} {noted.offset} {noted.key}\n" for noted in batch)
        return [Settled(Outcome.WRITTEN)] * len(batch)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("bootstrap_servers")
    parser.add_argument("group")
    parser.add_argument("topic")
    parser.add_argument("file", type=Path)
    parser.add_argument("--batch-seconds", type=float, default=0.0)
    parser.add_argument("--max-batch", type=int, default=64)
    parser.add_argument("--slow-path", action="store_true")
    arguments = parser.parse_args()
    clock = SystemClock()

    def make_parts(acknowledger: Acknowledger[object], _bridge: FaustBridge) -> LaneParts:
        pipeline: Pipeline[Noted, object] = Pipeline(
            NotingLane(arguments.file, arguments.batch_seconds),
            LaneLimits(max_records=500, max_batch=arguments.max_batch, max_batches_in_flight=4),
            FailurePolicy(),
            group=arguments.group,
            acknowledger=acknowledger,
            dead_letters=FakeDeadLetters(),
            observer=RecordingObserver(),
            clock=clock,
        )
        return LaneParts(pipeline, Companions())

    app = build_app(
        "noting",
        arguments.group,
        (arguments.topic,),
        KafkaSettings(
            bootstrap_servers=arguments.bootstrap_servers,
            session_timeout_seconds=10,
            produce_timeout_seconds=5,
            commit_interval_seconds=0.3,
            fast_path=not arguments.slow_path,
        ),
        LaneSettings(drain_seconds=DRAIN_SECONDS, grace_seconds=GRACE_SECONDS),
        clock=clock,
        vitals=Vitals(),
        make_parts=make_parts,
    )
    return run_worker(app)


if __name__ == "__main__":
    sys.exit(main())
