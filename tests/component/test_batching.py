"""How the pipeline forms batches when its handler never keeps it waiting."""

import asyncio
from collections.abc import Sequence

from streams.engine.lane import LaneLimits
from streams.engine.outcomes import Result
from tests.fakes.engine import DONE, Bench, Change, FakeLane
from tests.fakes.virtual_time import in_virtual_time


@in_virtual_time
async def test_a_handler_that_answers_at_once_gets_batches_under_load() -> None:
    async def answer_at_once(batch: Sequence[Change]) -> Sequence[Result]:
        return [DONE] * len(batch)

    limits = LaneLimits(max_batch=64, linger_seconds=0.005)
    async with Bench(FakeLane(answer_at_once), limits) as bench:
        for number in range(2_000):
            bench.admit(f"i{number}", 1)
            # One record a pass of the loop, as Faust hands them over, and 20 passes a millisecond.
            await asyncio.sleep(0 if number % 20 else 0.001)

    sizes = bench.observer.batches
    assert sum(sizes) / len(sizes) > 10
