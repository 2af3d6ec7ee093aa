"""Freshness: from the broker's acknowledgement to a content vector that LiveVectors can read.

Measured at a steady rate in a process that is none of the lanes. The floor is `bare_path`: the same
hops, encoder and compare-and-set without anything around them.
"""

import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from deploy.local.server_process import ServerProcess
from streams.producers import CatalogProducer
from tests.bench.arrival_watch import ArrivalWatch
from tests.bench.films import catalogue
from tests.bench.live_deployment import LiveDeployment, live_deployment
from tests.bench.pairs import Bound, alternately, percentile, ratio
from tests.bench.report import Section
from tests.bench.workbench import Workbench, environment
from workers.live.live_vectors import LiveVectors

EVENTS_PER_SECOND = 20
TARGET = 1.5

_READY_SECONDS = 120.0


def run(bench: Workbench) -> Section:
    """Measure it."""
    seconds = bench.size(15, 6)
    found: dict[str, list[list[float]]] = defaultdict(list)
    with (
        live_deployment(bench, "fresh.", "items", "encode") as lanes,
        live_deployment(bench, "floor.") as floor,
        _bare_path(bench, floor),
    ):
        contenders = {"lanes": lanes, "floor": floor}
        for name, deployment in contenders.items():
            _send_and_watch(deployment, f"warm-{name}-", EVENTS_PER_SECOND * 2)
        for number, name in alternately(tuple(contenders), bench.rounds):
            count = EVENTS_PER_SECOND * seconds
            found[name].append(_send_and_watch(contenders[name], f"r{number}-", count))
            bench.say(
                f"freshness: round {number + 1}/{bench.rounds} {name}: "
                f"p50 {percentile(found[name][-1], 0.5):.1f} ms, "
                f"p99 {percentile(found[name][-1], 0.99):.1f} ms"
            )
    section = Section()
    for name, what in (("lanes", "items and encode lanes"), ("floor", "bare path")):
        section.add_latency(name, [ms for run in found[name] for ms in run], what)
    for share, target in ((0.5, TARGET), (0.99, None)):
        ours, theirs = (
            [percentile(run, share) for run in found[name]] for name in ("lanes", "floor")
        )
        name = f"p{round(share * 100)}"
        section.add_ratio(
            f"{name}_to_floor",
            ratio(ours, theirs, target=target, bound=Bound.AT_MOST),
            f"{name}, lanes / bare path",
        )
    return section


@contextmanager
def _bare_path(bench: Workbench, floor: LiveDeployment) -> Iterator[None]:
    ready_file = bench.folder / "bare-path.ready"
    process = ServerProcess(
        [sys.executable, "-m", "tests.bench.bare_path", str(ready_file)],
        log_file=bench.folder / "bare-path.log",
        environment=environment(floor.variables),
    )
    try:
        process.await_ready(ready_file.exists, name="bare path", timeout_seconds=_READY_SECONDS)
        yield
    finally:
        process.terminate(timeout_seconds=10)


def _send_and_watch(deployment: LiveDeployment, prefix: str, count: int) -> list[float]:
    """Return ms from acknowledgement to a readable vector, for `count` new items."""
    settings = deployment.settings
    with LiveVectors(
        settings.redis.url.get_secret_value(), key_prefix=settings.redis.key_prefix
    ) as live:
        watch = ArrivalWatch(live)
        items = catalogue(count, prefix=prefix)
        with CatalogProducer(
            settings.kafka.bootstrap_servers,
            topic_prefix=settings.kafka.topic_prefix,
            linger_ms=0,
            on_delivery=lambda done: watch.acknowledged(f"item:{done.event.item_id}"),
        ) as producer:

            def send() -> None:
                item_id, fields = next(items)
                producer.upsert(item_id, 1, fields)

            return watch.send_all(send, count, EVENTS_PER_SECOND)
