"""What the doctor looks at in Kafka: brokers, topics, lanes and dead letters."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from schemas.errors import FreshetError
from schemas.topics import dead_letters_topic
from streams import topic_admin
from streams.doctor.finding import Finding
from streams.kafka_clients import KafkaConnection, admin_client, retried
from streams.lag import LagReport, lag_reader
from streams.redis_clients import open_redis
from streams.settings import KafkaSettings, Settings
from streams.topology import LANES, deployed_lanes, group_id
from workers.live.space_registry import SpaceRegistry

LATE_SECONDS = 300.0


async def look_at_kafka(kafka: KafkaSettings) -> AsyncIterator[Finding]:
    """Yield how many brokers answer, and whether that is enough."""

    def look() -> int:
        with admin_client(KafkaConnection.of(kafka)) as admin:
            return len(admin.describe_cluster()["brokers"])

    brokers = await asyncio.to_thread(look)
    enough = brokers >= kafka.replication_factor
    yield Finding(
        enough,
        "kafka",
        f"{kafka.bootstrap_servers} answers, brokers: {brokers}",
        "" if enough else f"replication factor {kafka.replication_factor} needs as many brokers",
    )
    if kafka.replication_factor == 1:
        yield Finding(
            True,
            "kafka",
            "one replica of every record: fine for one broker",
            "in production: FRESHET_KAFKA__REPLICATION_FACTOR=3, MIN_INSYNC_REPLICAS=2",
        )


async def look_at_topics(kafka: KafkaSettings) -> AsyncIterator[Finding]:
    """Yield every difference between topics and their declaration."""
    differences = await asyncio.to_thread(topic_admin.check, kafka)
    for difference in differences:
        advice = difference.obstacle or "run: freshet topics apply"
        yield Finding(False, "topics", str(difference), advice)
    if not differences:
        count = len(topic_admin.declared(kafka))
        yield Finding(True, "topics", f"all {count} are as declared")


async def look_at_lanes(settings: Settings) -> AsyncIterator[Finding]:
    """Yield the workers and the lag of every lane that has to run, and which are paused."""
    lanes, paused = await _registered(settings)
    lags, workers = await asyncio.to_thread(_lag_and_workers, settings.kafka, lanes)
    for lag in lags.by_lane():
        age = "of unknown age" if lag.seconds is None else f"oldest {lag.seconds:.0f} s"
        behind = f"{lag.records} records behind ({age})" if lag.records else "nothing to do"
        subject = f"lane {lag.lane}"
        if lag.lane in paused:
            yield Finding(
                False,
                subject,
                f"paused: {paused[lag.lane]}",
                f"see freshet dead-letters list {lag.lane}, then: freshet lane resume {lag.lane}",
            )
        elif not workers[lag.lane]:
            yield Finding(False, subject, f"no worker, {behind}", f"run: freshet lane {lag.lane}")
        else:
            late = lag.records > 0 and (lag.seconds is None or lag.seconds > LATE_SECONDS)
            yield Finding(
                not late,
                subject,
                f"{behind}, workers: {workers[lag.lane]}",
                "add workers, or look at the lane's /readyz and log" if late else "",
            )


async def _registered(settings: Settings) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the lanes that have to run, and why those that are paused are."""
    try:
        async with open_redis(settings.redis) as redis:
            registry = SpaceRegistry(redis.client, redis.keys)
            lanes = deployed_lanes((await registry.spaces()).values())
            flags = {lane: await registry.paused(lane) for lane in lanes}
    except FreshetError:
        return tuple(LANES), {}  # Redis has findings of its own
    return lanes, {lane: detail for lane, detail in flags.items() if detail is not None}


def _lag_and_workers(
    kafka: KafkaSettings, lanes: Sequence[str]
) -> tuple[LagReport, dict[str, int]]:
    groups = {group_id(kafka.topic_prefix, lane): lane for lane in lanes}
    with lag_reader(kafka) as reader:
        report = reader.read(lanes)
    with admin_client(KafkaConnection.of(kafka)) as admin:
        described = retried(lambda: admin.describe_groups(list(groups)))
    return report, {groups[name]: len(group["members"]) for name, group in described.items()}


async def look_at_dead_letters(kafka: KafkaSettings) -> AsyncIterator[Finding]:
    """Yield how many dead letters each lane has."""

    def look() -> dict[str, int]:
        from kafka import OffsetSpec, TopicPartition

        counts: dict[str, int] = {}
        with admin_client(KafkaConnection.of(kafka)) as admin:
            names = {kafka.topic_prefix + dead_letters_topic(lane): lane for lane in LANES}
            for topic in admin.describe_topics(list(names)):
                tps = [
                    TopicPartition(topic["name"], each["partition_index"])
                    for each in topic["partitions"]
                ]
                if tps:
                    ends = admin.list_partition_offsets(dict.fromkeys(tps, OffsetSpec.LATEST))
                    starts = admin.list_partition_offsets(dict.fromkeys(tps, OffsetSpec.EARLIEST))
                    counts[names[topic["name"]]] = sum(
                        ends[tp].offset - starts[tp].offset for tp in tps
                    )
        return counts

    for lane, count in (await asyncio.to_thread(look)).items():
        advice = f"see: freshet dead-letters list {lane}" if count else ""
        yield Finding(True, "dead letters", f"{count} of lane {lane}", advice)
