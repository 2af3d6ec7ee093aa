"""Behaviour: events into user vectors: how many a second, how fresh, and the bytes of a user.

The lane is held against a loop written by hand that does the same for the same events, with users
who are all equally active and with users of whom some are far more active than others, one event a
record and fifty. Every run is a process of its own with a new consumer group.
"""

import asyncio
from collections import defaultdict

from deploy.local.redis_server import RedisServer
from schemas.entities import EntityKey, EntityKind
from streams.producers import BehaviourProducer
from streams.settings import KafkaSettings
from streams.topic_admin import apply
from tests.bench.arrival_watch import ArrivalWatch
from tests.bench.behaviour_config import BehaviourConfig
from tests.bench.live_deployment import SPACE, LiveDeployment, live_deployment
from tests.bench.loop_config import PARTITIONS
from tests.bench.pairs import Run, alternately, percentile
from tests.bench.report import Section
from tests.bench.user_events import HISTORY_EVENTS, ITEMS, Crowd, events, item_id, produce
from tests.bench.user_state import BENCH_SPACE, put_gone_through, put_histories, put_items
from tests.bench.workbench import Workbench
from workers.live.connection import connect
from workers.live.keys import Keys
from workers.live.live_vectors import LiveVectors
from workers.live.memory import bytes_per_user, server_facts
from workers.live.space_registry import SpaceRegistry

TARGET = 0.5
"""Of the hand-written loop's rate."""

EVENTS_PER_SECOND = 200
EVENTS_A_BATCH = 50

_WHAT = {Crowd.UNIFORM: "uniform users", Crowd.HOT: "hot users"}


def run(bench: Workbench) -> Section:
    """Measure it."""
    section = Section()
    with RedisServer(bench.folder / "behaviour") as server:
        for crowd in Crowd:
            for events_a_record in (1, EVENTS_A_BATCH):
                _throughput(bench, section, server.url, crowd, events_a_record)
        asyncio.run(_bytes(bench, section, server.url))
    _freshness(bench, section)
    return section


def _throughput(
    bench: Workbench, section: Section, redis_url: str, crowd: Crowd, events_a_record: int
) -> None:
    name = crowd.value if events_a_record == 1 else f"{crowd.value}_batches"
    what = _WHAT[crowd] + ("" if events_a_record == 1 else f", {events_a_record} a record")
    runs = _runs(bench, redis_url, name, crowd, events_a_record)
    section.add_runs(f"{name}_lane", runs["lane"], f"behaviour lane, {what}", "events")
    section.add_runs(f"{name}_raw", runs["raw"], "  raw loop, same work", "events")
    section.add_comparison(
        f"{name}_lane_to_raw", runs["lane"], runs["raw"], "  lane / raw", target=TARGET
    )


def _runs(
    bench: Workbench, redis_url: str, name: str, crowd: Crowd, events_a_record: int
) -> dict[str, list[Run]]:
    prefix = f"behaviour-{name}."
    users = bench.size(2_000, 500)
    apply(
        KafkaSettings(
            bootstrap_servers=bench.bootstrap_servers, topic_prefix=prefix, partitions=PARTITIONS
        )
    )
    single = events_a_record == 1
    count = bench.size(20_000, 4_000) if single else bench.size(40_000, 12_000)
    sent = produce(
        bench.bootstrap_servers,
        prefix,
        events(crowd, count, users),
        events_a_record=events_a_record,
    )
    bench.say(f"behaviour: {sent.events:,} events in {sent.records:,} records")
    runs: dict[str, list[Run]] = defaultdict(list)
    for number, contender in alternately(("lane", "raw"), bench.rounds):
        run_name = f"{prefix}{contender}.{number}"
        config = BehaviourConfig(
            bench.bootstrap_servers,
            redis_url,
            prefix,
            f"{run_name}.",
            run_name,
            sent.events,
            sent.records,
            users,
        )
        answer = bench.measure("tests.bench.behaviour_run", contender, config.encode())
        done = Run(**answer)  # type: ignore[arg-type]  # as behaviour_run writes it
        runs[contender].append(done)
        bench.say(
            f"behaviour: {name}, round {number + 1}/{bench.rounds} {contender}: "
            f"{done.per_second:,.0f}/s, {done.cpu_us:.1f} µs CPU each"
        )
    return runs


def _freshness(bench: Workbench, section: Section) -> None:
    """Add how long after their acknowledgement events are in vectors that rankers can read."""
    count = EVENTS_PER_SECOND * bench.size(15, 5)
    milliseconds: list[float] = []
    # The encode lane declares the view whole, which every other lane waits for.
    with live_deployment(bench, "behave.", "encode", "behaviour") as deployment:
        asyncio.run(_give_items(deployment))
        rounds = ("warm", *map(str, range(bench.rounds)))
        for number in rounds:
            of_round = count if number != "warm" else EVENTS_PER_SECOND * 2
            asyncio.run(_give_histories(deployment, of_round, f"{number}-"))
            found = _send_and_watch(deployment, f"{number}-", of_round)
            if number != "warm":
                milliseconds += found
            bench.say(
                f"behaviour: freshness, round {number}: p50 {percentile(found, 0.5):.1f} ms, "
                f"p99 {percentile(found, 0.99):.1f} ms"
            )
    section.add_latency(
        "freshness", milliseconds, f"event to user vector, {EVENTS_PER_SECOND} events/s"
    )


async def _give_items(deployment: LiveDeployment) -> None:
    settings = deployment.settings
    redis, keys = connect(settings.redis.url.get_secret_value()), Keys(deployment.prefix)
    record = (await SpaceRegistry(redis, keys).spaces())[SPACE]
    await put_items(redis, keys, record.space)
    await redis.aclose()


async def _give_histories(deployment: LiveDeployment, users: int, prefix: str) -> None:
    redis = connect(deployment.settings.redis.url.get_secret_value())
    await put_histories(redis, Keys(deployment.prefix), users, prefix=prefix)
    await redis.aclose()


def _send_and_watch(deployment: LiveDeployment, prefix: str, count: int) -> list[float]:
    """Return ms from acknowledgement to a readable vector, for users without one so far."""
    settings = deployment.settings
    with LiveVectors(
        settings.redis.url.get_secret_value(), key_prefix=settings.redis.key_prefix
    ) as live:
        watch = ArrivalWatch(live)
        users = iter(range(count))
        with BehaviourProducer(
            settings.kafka.bootstrap_servers,
            topic_prefix=settings.kafka.topic_prefix,
            linger_ms=0,
            on_delivery=lambda done: watch.acknowledged(f"user:{done.event.user_id}"),
        ) as producer:

            def send() -> None:
                user = next(users)
                producer.interaction(f"{prefix}{user}", item_id(user % ITEMS), "like")

            return watch.send_all(send, count, EVENTS_PER_SECOND)


async def _bytes(bench: Workbench, section: Section, redis_url: str) -> None:
    """Add what a user takes: what Redis grew by, and by family of keys.

    The families' figures are of a sample, and lack what Redis spends on the tables of keys.
    """
    users = bench.size(20_000, 2_000)
    bench.say(f"behaviour: loading {users:,} users into Redis")
    redis, keys = connect(redis_url), Keys("bytes.")
    await redis.flushdb()
    before = (await server_facts(redis)).used_memory_bytes
    await put_gone_through(redis, keys, users)
    grown = (await server_facts(redis)).used_memory_bytes - before
    sample = [EntityKey(EntityKind.USER, str(n)) for n in range(0, users, 100)]
    found = await bytes_per_user(redis, keys, sample, (BENCH_SPACE.name,))
    await redis.aclose()
    families = {name: round(size) for name, size in found.by_family.items() if size}
    total = round(grown / users)
    section.add(
        "redis_bytes_per_user",
        {"users": users, "events": HISTORY_EVENTS, "total": total, **families},
        f"Redis, {users:,} users of {HISTORY_EVENTS} events",
        f"{total:,} bytes a user: "
        + ", ".join(f"{name} {size:,}" for name, size in families.items()),
    )
