"""How far each lane is behind, asked of the broker alone: works when no worker runs.

Records = end offset by RPC minus committed offset. Seconds = age of the oldest record that is not
settled, read from the log at the committed offset. A client's own idea of the end offset is stale
exactly when it lags (faust.md section 6), so nobody's idea is asked for.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from streams.kafka_clients import (
    KafkaConnection,
    admin_client,
    assigned_consumer,
    retried,
    translated,
)
from streams.settings import KafkaSettings
from streams.topology import LANES, group_id, lane_inputs, space_lane_of_group

if TYPE_CHECKING:
    from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition

_TIMESTAMP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """One partition of one lane; `committed` is None where the group never committed.

    `records` is an upper bound on compacted topics, whose logs have gaps. `seconds` is 0 without
    lag, and None when the oldest record could not be read in time.
    """

    lane: str
    group: str
    topic: str
    partition: int
    end: int
    committed: int | None
    records: int
    seconds: float | None


@dataclass(frozen=True, slots=True)
class LaneLag:
    """Sum of a lane's records, and the greatest of its ages."""

    lane: str
    records: int
    seconds: float | None


@dataclass(frozen=True, slots=True)
class LagReport:
    """The lag of some lanes at one moment."""

    at_ms: int
    partitions: tuple[PartitionLag, ...]

    def by_lane(self) -> tuple[LaneLag, ...]:
        """Return one line a lane, in the order of the partitions."""
        lanes = dict.fromkeys(row.lane for row in self.partitions)
        return tuple(self._of_lane(lane) for lane in lanes)

    def over(self, max_records: int | None, max_seconds: float | None) -> tuple[LaneLag, ...]:
        """Return the lanes over a limit; an age that is not known counts as over."""
        return tuple(
            lane
            for lane in self.by_lane()
            if (max_records is not None and lane.records > max_records)
            or (max_seconds is not None and (lane.seconds is None or lane.seconds > max_seconds))
        )

    def to_json(self) -> dict[str, object]:
        """Return JSON-ready values."""
        return {
            "at_ms": self.at_ms,
            "lanes": {
                lane.lane: {"records": lane.records, "seconds": lane.seconds}
                for lane in self.by_lane()
            },
            "partitions": [asdict(row) for row in self.partitions],
        }

    def _of_lane(self, name: str) -> LaneLag:
        rows = [row for row in self.partitions if row.lane == name]
        ages = [row.seconds for row in rows]
        known = [age for age in ages if age is not None]
        return LaneLag(
            name,
            sum(row.records for row in rows),
            max(known, default=0.0) if len(known) == len(ages) else None,
        )


class LagReader:
    """Reads the lag again and again over the same two connections; see `lag_reader`."""

    def __init__(
        self, admin: "KafkaAdminClient", consumer: "KafkaConsumer", topic_prefix: str
    ) -> None:
        self._admin = admin
        self._consumer = consumer
        self._prefix = topic_prefix

    def lanes(self) -> tuple[str, ...]:
        """Return the lanes of every deployment, and those of spaces that have a group."""
        groups = retried(self._admin.list_groups)
        spaces = {space_lane_of_group(self._prefix, group["group_id"]) for group in groups}
        return (*LANES, *sorted(lane for lane in spaces if lane is not None))

    def read(self, lanes: Sequence[str] | None = None) -> LagReport:
        """Return the lag of `lanes` (default: all); raises Transient("kafka").

        A lane whose topic does not exist has no rows: `topics check` is what tells.
        """
        from kafka import OffsetSpec

        with translated():
            chosen = self.lanes() if lanes is None else tuple(lanes)
            groups = {lane: group_id(self._prefix, lane) for lane in chosen}
            inputs = {
                lane: [self._prefix + topic.value for topic in lane_inputs(lane)] for lane in chosen
            }
            tps = self._partitions({topic for topics in inputs.values() for topic in topics})
            flat = [tp for partitions in tps.values() for tp in partitions]
            if not flat:
                return LagReport(_now_ms(), ())
            ends = self._offsets(flat, OffsetSpec.LATEST)
            starts = self._offsets(flat, OffsetSpec.EARLIEST)
            committed = retried(
                lambda: self._admin.list_group_offsets(dict.fromkeys(groups.values()))
            )
            at_ms = _now_ms()
            positions: dict[tuple[str, TopicPartition], tuple[int | None, int]] = {}
            for lane in chosen:
                offsets = committed[groups[lane]]
                for tp in (tp for topic in inputs[lane] for tp in tps.get(topic, ())):
                    entry = offsets.get(tp)
                    offset = None if entry is None or entry.offset < 0 else int(entry.offset)
                    # What retention deleted cannot be settled any more.
                    positions[lane, tp] = (offset, max(offset or 0, starts[tp]))
            oldest = self._timestamps(
                {(tp, at) for (_, tp), (_, at) in positions.items() if at < ends[tp]}
            )
        return LagReport(
            at_ms,
            tuple(
                PartitionLag(
                    lane,
                    groups[lane],
                    tp.topic,
                    tp.partition,
                    ends[tp],
                    offset,
                    max(0, ends[tp] - at),
                    _age(at_ms, oldest.get((tp, at))) if at < ends[tp] else 0.0,
                )
                for (lane, tp), (offset, at) in positions.items()
            ),
        )

    def _partitions(self, topics: set[str]) -> dict[str, list["TopicPartition"]]:
        from kafka import TopicPartition

        return {
            topic["name"]: [
                TopicPartition(topic["name"], index)
                for index in sorted(p["partition_index"] for p in topic["partitions"])
            ]
            for topic in retried(lambda: self._admin.describe_topics(sorted(topics)))
            if not topic["error_code"]
        }

    def _offsets(
        self, tps: Sequence["TopicPartition"], spec: object
    ) -> Mapping["TopicPartition", int]:
        answers = retried(lambda: self._admin.list_partition_offsets(dict.fromkeys(tps, spec)))
        return {tp: int(answer.offset) for tp, answer in answers.items()}

    def _timestamps(
        self, positions: set[tuple["TopicPartition", int]]
    ) -> dict[tuple["TopicPartition", int], int]:
        """Return the time of the first record at or after each position, where read in time."""
        found: dict[tuple[TopicPartition, int], int] = {}
        deadline = time.monotonic() + _TIMESTAMP_SECONDS
        for round_ in _one_position_a_partition(positions):
            waiting = dict(round_)
            self._consumer.assign(list(waiting))
            for tp, offset in waiting.items():
                self._consumer.seek(tp, offset)
            while waiting and (left := deadline - time.monotonic()) > 0:
                for tp, records in self._consumer.poll(timeout_ms=round(left * 1000)).items():
                    if tp in waiting:
                        found[tp, waiting.pop(tp)] = int(records[0].timestamp)
                        self._consumer.pause(tp)
        return found


@contextmanager
def lag_reader(kafka: KafkaSettings) -> Iterator[LagReader]:
    """Yield a connected reader; raises Transient("kafka") when no broker answers."""
    connection = KafkaConnection.of(kafka)
    with (
        admin_client(connection) as admin,
        # One record of each partition is all that is wanted.
        assigned_consumer(connection, max_partition_fetch_bytes=64 * 1024) as consumer,
    ):
        yield LagReader(admin, consumer, kafka.topic_prefix)


def read_lag(kafka: KafkaSettings, lanes: Sequence[str] | None = None) -> LagReport:
    """Return the lag once; raises Transient("kafka")."""
    with lag_reader(kafka) as reader:
        return reader.read(lanes)


def _one_position_a_partition(
    positions: set[tuple["TopicPartition", int]],
) -> Iterator[list[tuple["TopicPartition", int]]]:
    # Two lanes may read one topic from two places, but a consumer has one position a partition.
    by_partition: dict[TopicPartition, list[int]] = {}
    for tp, offset in sorted(positions):
        by_partition.setdefault(tp, []).append(offset)
    while by_partition:
        yield [(tp, offsets.pop()) for tp, offsets in by_partition.items()]
        by_partition = {tp: offsets for tp, offsets in by_partition.items() if offsets}


def _age(at_ms: int, timestamp_ms: int | None) -> float | None:
    return None if timestamp_ms is None else max(0.0, (at_ms - timestamp_ms) / 1000)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
