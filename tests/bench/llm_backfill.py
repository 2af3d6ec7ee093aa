"""What a running backfill does to a new item's answer.

New items come one at a time, at a low rate, in turns with and without a backfill that has more to
do than it can. Between turns it is paused the way a flooded lane is, and its answers run out.
"""

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Mapping
from itertools import islice
from statistics import median

from deploy.demo.lane_processes import LaneProcess
from schemas.knowledge import RequestKind
from schemas.topics import Topic
from streams.backlog_admission import QUIET_SECONDS
from tests.bench.llm_rig import PREFIX, Rig, lane
from tests.bench.llm_traffic import subjects
from tests.bench.pairs import Bound, alternately, ratio, rounded
from tests.bench.report import Section
from tests.bench.workbench import BenchFailedError
from workers.live.connection import connect
from workers.live.keys import Keys
from workers.live.space_registry import SpaceRegistry

TARGET = 1.2
BACKLOG = "knowledge-backlog"

_GAP_SECONDS = 1.0
"""Between a new item's answer and the next new item."""

_FIRST_OF_BACKLOG = 700
_TURN_SECONDS = 60.0
_LOOK_SECONDS = 0.2


def measure_backfill(rig: Rig, section: Section, variables: Mapping[str, str]) -> None:
    """Add how a new item's latency under a backfill compares with that without, and its price."""
    items = rig.bench.size(5, 3)
    seconds: dict[str, list[float]] = defaultdict(list)
    written = 0
    with lane(rig, BACKLOG, variables) as process:
        _pause(rig, process)
        backlog = list(islice(subjects("backlog", rig.domain, first=_FIRST_OF_BACKLOG), 600))
        rig.requests.send(Topic.KNOWLEDGE_BACKLOG, RequestKind.REFRESH, backlog)
        for number, turn in alternately(("without", "with"), rig.bench.rounds):
            before = _answered(process)
            if turn == "with":
                _resume(rig)
                _await(rig, at_least=1)
            # The first one tells the backlog that new items are about; steady state comes after.
            found = [_ask_one(rig) for _ in range(items + 1)][1:]
            seconds[turn].append(median(found))
            if turn == "with":
                written += _answered(process) - before
                _pause(rig, process)
                _await(rig, at_most=0)
            rig.bench.say(
                f"llm: backfill, round {number + 1}/{rig.bench.rounds} {turn}: "
                f"new items p50 {seconds[turn][-1] * 1000:,.0f} ms"
            )
        section.add_ratio(
            "latency_with_backfill",
            ratio(seconds["with"], seconds["without"], target=TARGET, bound=Bound.AT_MOST),
            "new item with a backfill / without",
        )
        section.add(
            "backfilled_meanwhile",
            written,
            "  requests of the backlog answered meanwhile",
            f"{written}",
        )
        _surprise(rig, process, section, median(seconds["without"]))


def _surprise(rig: Rig, process: LaneProcess, section: Section, usual_seconds: float) -> None:
    """Add what becomes of the first new item after a while in which the backlog had all places."""
    _resume(rig)
    rig.bench.say("llm: backfill, alone for a while")
    time.sleep(QUIET_SECONDS)
    _await(rig, at_least=rig.model.max_num_seqs // 2)
    found = _ask_one(rig) / usual_seconds
    _pause(rig, process)
    section.add(
        "first_after_quiet",
        rounded(found),
        "  the first new item after a quiet time / without a backfill",
        f"{found:.1f}",
    )


def _ask_one(rig: Rig) -> float:
    seconds = rig.through_the_lane(rig.films(1))
    time.sleep(_GAP_SECONDS)
    return seconds


def _pause(rig: Rig, process: LaneProcess) -> None:
    """Return once the backlog is paused; what is being written goes on."""
    asyncio.run(_flag(rig, "the bench asks about new items alone"))
    deadline = time.monotonic() + _TURN_SECONDS
    while "pause" not in process.waits_for():
        _require(deadline, "the backlog did not pause")


def _resume(rig: Rig) -> None:
    asyncio.run(_flag(rig, None))


async def _flag(rig: Rig, detail: str | None) -> None:
    redis = connect(rig.bench.redis_url)
    registry = SpaceRegistry(redis, Keys(PREFIX))
    try:
        if detail is None:
            await registry.resume(BACKLOG)
        else:
            await registry.pause(BACKLOG, detail)
    finally:
        await redis.aclose()


def _await(rig: Rig, *, at_least: float = -math.inf, at_most: float = math.inf) -> None:
    """Return once so many answers are being written."""
    deadline = time.monotonic() + _TURN_SECONDS
    while not at_least <= rig.model.figures().running <= at_most:
        _require(deadline, f"{rig.model.figures().running} answers are being written")


def _require(deadline: float, fact: str) -> None:
    if time.monotonic() > deadline:
        raise BenchFailedError(f"{fact} in {_TURN_SECONDS:g} s")
    time.sleep(_LOOK_SECONDS)


def _answered(process: LaneProcess) -> int:
    """Return how many requests got an answer, usable or not; those that made way got none."""
    figures = process.figures()
    return 0 if figures is None else figures.accepted + sum(figures.rejected.values())
