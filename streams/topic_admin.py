"""Creates and checks the topics that schemas/topics.py declares: `freshet topics apply|check`.

Lanes never create topics; they ask `check` at start. Nothing here deletes a topic or a record.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.errors import ConfigurationError, Transient
from schemas.topics import TopicSpec, topic_specs
from streams.kafka_clients import KafkaConnection, admin_client
from streams.settings import KafkaSettings
from streams.topology import LANES

if TYPE_CHECKING:
    from kafka import KafkaAdminClient

MISSING = "missing"
PARTITIONS = "partitions"
REPLICATION = "replication.factor"

_SETTLE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a topic is not as declared; `setting` is MISSING, PARTITIONS, REPLICATION or a config.

    `obstacle` says why `apply` leaves it alone; empty where apply puts it right.
    """

    topic: str
    setting: str
    expected: str
    actual: str
    obstacle: str = ""

    def __str__(self) -> str:
        if self.setting == MISSING:
            return f"{self.topic}: missing"
        fact = f"{self.topic}: {self.setting} is {self.actual}, expected {self.expected}"
        return f"{fact} ({self.obstacle})" if self.obstacle else fact


@dataclass(frozen=True, slots=True)
class Applied:
    """What `apply` put right, and what it had to leave."""

    changes: tuple[Difference, ...]
    remaining: tuple[Difference, ...]


def declared(kafka: KafkaSettings, extra_lanes: Sequence[str] = ()) -> tuple[TopicSpec, ...]:
    """Return the topics of this deployment; `extra_lanes` get their dead letters too."""
    return topic_specs(
        prefix=kafka.topic_prefix,
        partitions=kafka.partitions,
        lanes=tuple(dict.fromkeys((*LANES, *extra_lanes))),
    )


def check(
    kafka: KafkaSettings,
    *,
    extra_lanes: Sequence[str] = (),
    topics: Collection[str] | None = None,
) -> tuple[Difference, ...]:
    """Return what is not as declared, nothing when all is right; `topics` (full names) to narrow.

    Raises Transient("kafka") when no broker answers.
    """
    specs = [spec for spec in declared(kafka, extra_lanes) if topics is None or spec.name in topics]
    with admin_client(KafkaConnection.of(kafka)) as admin:
        return _differences(admin, kafka, specs)


def require(kafka: KafkaSettings, topics: Collection[str], extra_lanes: Sequence[str] = ()) -> None:
    """Raise ConfigurationError naming the first of `topics` that is missing or wrong."""
    wrong = check(kafka, extra_lanes=extra_lanes, topics=topics)
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise ConfigurationError("topics", f"{wrong[0]}{more}; run: freshet topics apply")


def apply(kafka: KafkaSettings, *, extra_lanes: Sequence[str] = ()) -> Applied:
    """Create what is missing, add partitions, set configurations; return each change.

    Raises Transient("kafka") when no broker answers, ConfigurationError when it refuses.
    """
    specs = declared(kafka, extra_lanes)
    with admin_client(KafkaConnection.of(kafka)) as admin:
        found = _differences(admin, kafka, specs)
        fixable = [difference for difference in found if not difference.obstacle]
        by_name = {spec.name: spec for spec in specs}
        _create(admin, kafka, [by_name[d.topic] for d in fixable if d.setting == MISSING])
        _grow(admin, {d.topic: int(d.expected) for d in fixable if d.setting == PARTITIONS})
        _configure(admin, [d for d in fixable if d.setting not in (MISSING, PARTITIONS)])
        # The controller has it; the brokers that answer the next `check` may need a moment.
        deadline = time.monotonic() + _SETTLE_SECONDS
        remaining = _differences(admin, kafka, specs)
        while any(not d.obstacle for d in remaining) and time.monotonic() < deadline:
            time.sleep(0.1)
            remaining = _differences(admin, kafka, specs)
        return Applied(tuple(fixable), remaining)


def _differences(
    admin: "KafkaAdminClient", kafka: KafkaSettings, specs: Sequence[TopicSpec]
) -> tuple[Difference, ...]:
    existing = _describe(admin, [spec.name for spec in specs])
    configs = _configs(admin, kafka, [spec for spec in specs if spec.name in existing])
    found: list[Difference] = []
    for spec in specs:
        if spec.name not in existing:
            found.append(Difference(spec.name, MISSING, "present", "missing"))
            continue
        partitions, replicas = existing[spec.name]
        if partitions != spec.partitions:
            found.append(
                Difference(
                    spec.name,
                    PARTITIONS,
                    str(spec.partitions),
                    str(partitions),
                    "partitions cannot be taken away" if partitions > spec.partitions else "",
                )
            )
        if replicas != kafka.replication_factor:
            found.append(
                Difference(
                    spec.name,
                    REPLICATION,
                    str(kafka.replication_factor),
                    str(replicas),
                    "move replicas with Kafka's own reassignment tool",
                )
            )
        expected = spec.config(min_insync_replicas=kafka.min_insync_replicas)
        for setting, value in expected.items():
            actual = configs[spec.name].get(setting, "unset")
            if actual != value:
                found.append(Difference(spec.name, setting, value, actual))
    return _with_growth_checked(admin, specs, found)


def _with_growth_checked(
    admin: "KafkaAdminClient", specs: Sequence[TopicSpec], found: Sequence[Difference]
) -> tuple[Difference, ...]:
    # A key moves to another partition when partitions are added. In a compacted topic its old
    # record would stay behind, out of reach of newer ones and of nulls: removed items would come
    # back at a rebuild. The entity topics share one count, so either all of them grow or none.
    growing = {d.topic for d in found if d.setting == PARTITIONS and not d.obstacle}
    counts = {d.topic: int(d.actual) for d in found if d.setting == PARTITIONS}
    compacted = {spec.name for spec in specs if spec.compacted} & growing
    filled = [name for name in sorted(compacted) if _holds_records(admin, name, counts[name])]
    if not filled:
        return tuple(found)
    obstacle = f"{filled[0]} holds records and keys would move: recreate the topics instead"
    return tuple(
        Difference(d.topic, d.setting, d.expected, d.actual, obstacle)
        if d.setting == PARTITIONS and not d.obstacle
        else d
        for d in found
    )


def _describe(admin: "KafkaAdminClient", names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return (partitions, least replication factor) of the topics that exist."""
    import kafka.errors

    known: dict[str, tuple[int, int]] = {}
    for topic in admin.describe_topics(list(names)):
        if topic["error_code"] == kafka.errors.UnknownTopicOrPartitionError.errno:
            continue
        if topic["error_code"]:
            error = kafka.errors.for_code(topic["error_code"])
            raise Transient("kafka", f"{topic['name']}: {error.__name__}")
        replicas = [len(partition["replica_nodes"]) for partition in topic["partitions"]]
        known[str(topic["name"])] = (len(replicas), min(replicas, default=0))
    return known


def _configs(
    admin: "KafkaAdminClient", kafka: KafkaSettings, specs: Sequence[TopicSpec]
) -> Mapping[str, Mapping[str, str]]:
    from kafka.admin import ConfigResource

    if not specs:
        return {}
    wanted = [
        ConfigResource(
            "TOPIC",
            spec.name,
            dict.fromkeys(spec.config(min_insync_replicas=kafka.min_insync_replicas)),
        )
        for spec in specs
    ]
    described = admin.describe_configs(wanted, config_filter="all").get("topic", {})
    return {
        name: {setting: str(entry["value"]) for setting, entry in entries.items()}
        for name, entries in described.items()
    }


def _holds_records(admin: "KafkaAdminClient", topic: str, partitions: int) -> bool:
    from kafka import OffsetSpec, TopicPartition

    tps = [TopicPartition(topic, partition) for partition in range(partitions)]
    ends = admin.list_partition_offsets(dict.fromkeys(tps, OffsetSpec.LATEST))
    starts = admin.list_partition_offsets(dict.fromkeys(tps, OffsetSpec.EARLIEST))
    return any(ends[tp].offset > starts[tp].offset for tp in tps)


def _create(admin: "KafkaAdminClient", kafka: KafkaSettings, specs: Sequence[TopicSpec]) -> None:
    from kafka.errors import TopicAlreadyExistsError

    if not specs:
        return
    response = admin.create_topics(
        {
            spec.name: {
                "num_partitions": spec.partitions,
                "replication_factor": kafka.replication_factor,
                "configs": spec.config(min_insync_replicas=kafka.min_insync_replicas),
            }
            for spec in specs
        },
        raise_errors=False,
    )
    for topic in response["topics"]:
        code = topic["error_code"]
        # Someone else's `apply` may have been faster; `check` will tell whether it agreed.
        if code and code != TopicAlreadyExistsError.errno:
            raise ConfigurationError(str(topic["name"]), str(topic["error_message"]))
    admin.wait_for_topics([spec.name for spec in specs])


def _grow(admin: "KafkaAdminClient", partitions: Mapping[str, int]) -> None:
    if partitions:
        admin.create_partitions(dict(partitions))


def _configure(admin: "KafkaAdminClient", differences: Sequence[Difference]) -> None:
    from kafka.admin import ConfigResource

    by_topic: dict[str, dict[str, str]] = {}
    for difference in differences:
        by_topic.setdefault(difference.topic, {})[difference.setting] = difference.expected
    if not by_topic:
        return
    answers = admin.alter_configs(
        [ConfigResource("TOPIC", topic, configs) for topic, configs in by_topic.items()]
    )
    for topic, answer in answers.get("topic", {}).items():
        if answer != "OK":
            raise ConfigurationError(str(topic), str(answer))
