"""One run of the plumbing section, in a process of its own.

python -m tests.bench.plumbing_run CONTENDER CONFIG FILE     # leaves a Run in FILE, as JSON
"""

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path

from streams.clock import SystemClock
from streams.emitter import KafkaEmitter
from streams.logs import configure
from tests.bench.loop_config import LIMITS, POLICY, LoopConfig
from tests.bench.pairs import Run


def main(contender: str, config: LoopConfig, file: Path) -> None:
    def answer(run: Run) -> None:
        file.write_text(json.dumps(asdict(run)))

    # Imported here: a run pays for what it needs.
    configure("warning", "console")
    match contender:
        case "raw-noop" | "raw-items":
            from tests.bench import raw_loop

            loop = raw_loop.run_noop if contender == "raw-noop" else raw_loop.run_items
            answer(asyncio.run(loop(config)))
        case "faust-noop":
            import faust

            from streams.lanes.items import ItemsLane
            from tests.bench import faust_loop

            clock = SystemClock()
            decoder = ItemsLane(KafkaEmitter(config.kafka), _NoSeen(), POLICY, LIMITS, clock)
            app = faust_loop.build(config, decoder, answer)
            # As `faust worker` runs it: without the lanes' settings of the garbage collector.
            faust.Worker(
                app, override_logging=False, redirect_stdouts=False, quiet=True
            ).execute_from_commandline()
        case "lane-noop" | "lane-items":
            from streams.faust_runtime.run_worker import run_worker
            from tests.bench import lane_loop

            noop = contender == "lane-noop"
            sys.exit(run_worker(lane_loop.build(config, answer, noop=noop)))
        case _:
            raise SystemExit(f"{contender!r} is no contender")


class _NoSeen:
    async def load(self, keys):
        raise AssertionError("the no-op lane sees nothing")

    async def store(self, rows):
        raise AssertionError("the no-op lane sees nothing")


if __name__ == "__main__":
    main(sys.argv[1], LoopConfig.decode(sys.argv[2]), Path(sys.argv[3]))
