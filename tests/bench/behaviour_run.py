"""One run of the behaviour section's loops, in a process of its own.

python -m tests.bench.behaviour_run CONTENDER CONFIG FILE     # leaves a Run in FILE, as JSON
"""

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path

from streams.logs import configure
from tests.bench.behaviour_config import BehaviourConfig
from tests.bench.pairs import Run
from tests.bench.user_state import BENCH_SPACE, put_histories, put_items, register
from workers.live.connection import connect
from workers.live.keys import Keys


def main(contender: str, config: BehaviourConfig, file: Path) -> None:
    def answer(run: Run) -> None:
        file.write_text(json.dumps(asdict(run)))

    configure("warning", "console")
    asyncio.run(_prepare(config))
    match contender:
        case "raw":
            from tests.bench import behaviour_loop

            answer(asyncio.run(behaviour_loop.run(config)))
        case "lane":
            from streams.faust_runtime.run_worker import run_worker
            from tests.bench import behaviour_lane

            sys.exit(run_worker(behaviour_lane.build(config, answer)))
        case _:
            raise SystemExit(f"{contender!r} is no contender")


async def _prepare(config: BehaviourConfig) -> None:
    redis, keys = connect(config.redis_url), Keys(config.key_prefix)
    # The section's own server: whatever the run before it left goes.
    await redis.flushdb()
    await register(redis, keys)
    await put_items(redis, keys, BENCH_SPACE)
    await put_histories(redis, keys, config.users)
    await redis.aclose()


if __name__ == "__main__":
    main(sys.argv[1], BehaviourConfig.decode(sys.argv[2]), Path(sys.argv[3]))
