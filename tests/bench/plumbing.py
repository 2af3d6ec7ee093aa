"""Plumbing: what a lane costs beside its work, against loops written by hand (faust.md's targets).

Every run is a process of its own with a new consumer group; all read the same records.
"""

from collections import defaultdict

from streams.settings import KafkaSettings
from streams.topic_admin import apply
from tests.bench.films import produce
from tests.bench.loop_config import PARTITIONS, LoopConfig
from tests.bench.pairs import Run, alternately
from tests.bench.report import Section
from tests.bench.workbench import Workbench

NOOP_TO_FAUST = 1.5
NOOP_TO_RAW = 0.2

_NOOP = ("raw-noop", "lane-noop", "faust-noop")
_ITEMS = ("raw-items", "lane-items")


def run(bench: Workbench) -> Section:
    """Measure it."""
    section = Section()
    noop_count = bench.size(60_000, 20_000)
    noop = _runs(bench, _NOOP, noop_count)
    items = _runs(bench, _ITEMS, bench.size(30_000, 10_000))

    section.add_runs("noop_lane", noop["lane-noop"], "no-op lane", "events")
    section.add_runs("noop_faust", noop["faust-noop"], "Faust's own async for", "events")
    section.add_runs("noop_raw", noop["raw-noop"], "raw aiokafka getmany", "events")
    for name, target in (("faust", NOOP_TO_FAUST), ("raw", NOOP_TO_RAW)):
        _compare(section, f"noop_lane_to_{name}", noop["lane-noop"], noop[f"{name}-noop"], target)
    section.add_runs("items_lane", items["lane-items"], "whole items lane", "items")
    section.add_runs("items_raw", items["raw-items"], "raw loop, same work", "items")
    _compare(section, "items_lane_to_raw", items["lane-items"], items["raw-items"], None)
    return section


def _compare(
    section: Section, name: str, ours: list[Run], theirs: list[Run], target: float | None
) -> None:
    what = name.replace("_", " ").replace(" to ", " / ")
    section.add_comparison(name, ours, theirs, what, target=target)


def _runs(bench: Workbench, contenders: tuple[str, ...], count: int) -> dict[str, list[Run]]:
    prefix = f"plumbing-{contenders[0]}."
    apply(
        KafkaSettings(
            bootstrap_servers=bench.bootstrap_servers, topic_prefix=prefix, partitions=PARTITIONS
        )
    )
    bench.say(f"plumbing: producing {count:,} events")
    produce(bench.bootstrap_servers, prefix, count)
    runs: dict[str, list[Run]] = defaultdict(list)
    for number, contender in alternately(contenders, bench.rounds):
        name = f"{prefix}{contender}.{number}"
        config = LoopConfig(
            bench.bootstrap_servers, bench.redis_url, prefix, f"{name}.", name, count
        )
        answer = bench.measure("tests.bench.plumbing_run", contender, config.encode())
        done = Run(**answer)  # type: ignore[arg-type]  # as plumbing_run writes it
        runs[contender].append(done)
        bench.say(
            f"plumbing: round {number + 1}/{bench.rounds} {contender}: "
            f"{done.per_second:,.0f}/s, {done.cpu_us:.1f} µs CPU each"
        )
    return runs
