"""Reads the dead letters of a lane, and sends them back through the topic they came from.

A replayed letter is the original record again: key, value and headers untouched. Sending one twice
does no harm, because its version decides in the lane; a note of what was sent is kept all the same,
as the committed offset of the group `freshet.replay.<lane>` and, in that commit's metadata, one
mark for each reason, because a replay may be limited to one reason. Kafka forgets the offsets of
an idle group after `offsets.retention.minutes` (7 days by default): then letters may go twice.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.dead_letter import DeadLetter
from schemas.errors import ConfigurationError, Transient
from schemas.reasons import Reason
from schemas.topics import DAY_MS, dead_letters_topic
from streams.kafka_clients import (
    KafkaConnection,
    admin_client,
    assigned_consumer,
    translated,
)
from streams.replay_progress import Progress, advanced, note_progress, read_progress
from streams.settings import KafkaSettings
from streams.topology import lane_inputs, replay_group_id

if TYPE_CHECKING:
    from kafka import KafkaConsumer, TopicPartition

_READ_SECONDS = 30.0
_PRODUCE_SECONDS = 60.0
_OLDEST_TIMESTAMP_MS = 3 * DAY_MS


@dataclass(frozen=True, slots=True)
class StoredLetter:
    """A dead letter and where it lies; `letter` is None for a record that is not one."""

    partition: int
    offset: int
    timestamp_ms: int
    letter: DeadLetter | None


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What a replay did.

    `refused` letters hold only the head of their value, or nothing at all; `foreign` records are
    no dead letters of ours.
    """

    replayed: int
    refused: int
    foreign: int
    by_reason: Mapping[str, int]
    by_topic: Mapping[str, int]
    dry_run: bool


def list_letters(
    kafka: KafkaSettings,
    lane: str,
    *,
    newest: int | None = 50,
    reason: Reason | None = None,
    since_ms: int | None = None,
) -> list[StoredLetter]:
    """Return the letters of a lane, oldest first; `newest` None for all of them.

    With a reason or a time, `newest` counts the letters that match. Raises Transient("kafka"), or
    ConfigurationError when the lane has no dead-letter topic.
    """
    with assigned_consumer(KafkaConnection.of(kafka)) as consumer:
        tps = _partitions(consumer, kafka, lane)
        starts = _starts(consumer, tps, since_ms)
        if newest is not None and reason is None:
            ends = consumer.end_offsets(tps)
            starts = {tp: max(start, ends[tp] - newest) for tp, start in starts.items()}
        letters = [
            letter
            for letter in _read(consumer, starts)
            if reason is None or (letter.letter is not None and letter.letter.reason == reason)
        ]
    letters.sort(key=lambda letter: (letter.timestamp_ms, letter.partition, letter.offset))
    return letters if newest is None else letters[-newest:]


def replay(
    kafka: KafkaSettings,
    lane: str,
    *,
    reason: Reason | None = None,
    limit: int | None = None,
    dry_run: bool = False,
    again: bool = False,
    on_progress: Callable[[int], None] | None = None,
) -> ReplayReport:
    """Send letters back to the topics they came from, oldest first, and note how far it got.

    Letters of earlier replays are left out unless `again`. Bounded by the letters there are at the
    start, so a letter that fails once more is not sent in circles. Progress is noted only after
    the broker acknowledged. Raises Transient("kafka"), ConfigurationError.
    """
    connection = KafkaConnection.of(kafka)
    group = replay_group_id(kafka.topic_prefix, lane)
    with (
        admin_client(connection) as admin,
        assigned_consumer(connection) as consumer,
    ):
        tps = _partitions(consumer, kafka, lane)
        before = {} if again else read_progress(admin, group)
        # Everything below a floor was replayed whatever its reason: no need to read it.
        starts = {
            tp: max(start, before.get(tp, Progress()).floor)
            for tp, start in _starts(consumer, tps, None).items()
        }
        selected: list[tuple[TopicPartition, StoredLetter]] = []
        for tp, letter in _read_with_partition(consumer, starts):
            if limit is not None and len(selected) >= limit:
                break
            if _wanted(letter, before.get(tp, Progress()), reason):
                selected.append((tp, letter))
        report = _report([letter for _, letter in selected], dry_run=dry_run)
        if dry_run or not selected:
            return report
        _produce(connection, [letter for _, letter in selected], on_progress)
        after = dict(before) if not again else read_progress(admin, group)
        for tp, letter in selected:
            after[tp] = advanced(after.get(tp, Progress()), letter.offset, reason)
        note_progress(admin, group, after)
        return report


def _wanted(stored: StoredLetter, progress: Progress, reason: Reason | None) -> bool:
    if stored.letter is None:
        return reason is None
    if reason is not None and stored.letter.reason != reason:
        return False
    return not progress.covers(stored.offset, stored.letter.reason)


def _is_whole(letter: DeadLetter) -> bool:
    # A record without key and value says nothing, and no client would send it.
    nothing = letter.key is None and letter.value is None
    return letter.original_bytes is None and not nothing


def _report(letters: list[StoredLetter], *, dry_run: bool) -> ReplayReport:
    known = [stored.letter for stored in letters if stored.letter is not None]
    whole = [letter for letter in known if _is_whole(letter)]
    return ReplayReport(
        replayed=len(whole),
        refused=len(known) - len(whole),
        foreign=len(letters) - len(known),
        by_reason=dict(Counter(letter.reason.value for letter in whole)),
        by_topic=dict(Counter(letter.topic for letter in whole)),
        dry_run=dry_run,
    )


def _produce(
    connection: KafkaConnection,
    letters: list[StoredLetter],
    on_progress: Callable[[int], None] | None,
) -> None:
    import kafka as kafka_python

    now_ms = time.time_ns() // 1_000_000
    with translated():
        producer = kafka_python.KafkaProducer(
            **connection.options(),
            enable_idempotence=True,
            acks="all",
            linger_ms=5,
            max_request_size=8 * 1024 * 1024,
            max_block_ms=10_000,
            delivery_timeout_ms=round(_PRODUCE_SECONDS * 1000),
            allow_auto_create_topics=False,
        )
        try:
            for start in range(0, len(letters), 500):
                futures = [
                    producer.send(
                        letter.topic,
                        key=letter.key,
                        value=letter.value,
                        headers=list(letter.headers),
                        partition=_partition(letter),
                        timestamp_ms=_timestamp_ms(letter, now_ms),
                    )
                    for stored in letters[start : start + 500]
                    if (letter := stored.letter) is not None and _is_whole(letter)
                ]
                for future in futures:
                    future.get(timeout=_PRODUCE_SECONDS)
                if on_progress is not None:
                    on_progress(min(start + 500, len(letters)))
        finally:
            producer.close(timeout=5)


def _partition(letter: DeadLetter) -> int | None:
    # Without a key only the original partition keeps the record beside its neighbours.
    return letter.partition if letter.key is None else None


def _timestamp_ms(letter: DeadLetter, now_ms: int) -> int:
    # Where the record's time stands in for a version or an event time, the original's counts; but
    # not so old that retention deletes the record before the lane has read it.
    return max(letter.first_seen_ms, now_ms - _OLDEST_TIMESTAMP_MS)


def _partitions(
    consumer: "KafkaConsumer", kafka: KafkaSettings, lane: str
) -> "list[TopicPartition]":
    from kafka import TopicPartition

    lane_inputs(lane)  # refuses a lane that does not exist
    topic = kafka.topic_prefix + dead_letters_topic(lane)
    partitions = consumer.partitions_for_topic(topic)
    if not partitions:
        raise ConfigurationError("topics", f"{topic} is missing; run: freshet topics apply")
    return [TopicPartition(topic, partition) for partition in sorted(partitions)]


def _starts(
    consumer: "KafkaConsumer", tps: "list[TopicPartition]", since_ms: int | None
) -> "dict[TopicPartition, int]":
    starts = dict(consumer.beginning_offsets(tps))
    if since_ms is None:
        return starts
    ends = consumer.end_offsets(tps)
    found = consumer.offsets_for_times(dict.fromkeys(tps, since_ms))
    return {tp: ends[tp] if found[tp] is None else found[tp].offset for tp in starts}


def _read(
    consumer: "KafkaConsumer", starts: "Mapping[TopicPartition, int]"
) -> Iterator[StoredLetter]:
    return (letter for _, letter in _read_with_partition(consumer, starts))


def _read_with_partition(
    consumer: "KafkaConsumer", starts: "Mapping[TopicPartition, int]"
) -> "Iterator[tuple[TopicPartition, StoredLetter]]":
    """Yield the letters from `starts` to the end as it is now; raises Transient when it stalls."""
    ends = consumer.end_offsets(list(starts))
    open_ = {tp for tp, start in starts.items() if start < ends[tp]}
    consumer.assign(list(open_))
    for tp in open_:
        consumer.seek(tp, starts[tp])
    deadline = time.monotonic() + _READ_SECONDS
    while open_:
        for tp, records in consumer.poll(timeout_ms=1000).items():
            deadline = time.monotonic() + _READ_SECONDS
            for record in records:
                if record.offset < ends[tp]:
                    yield tp, _stored(record)
        open_ = {tp for tp in open_ if consumer.position(tp) < ends[tp]}
        if time.monotonic() > deadline:
            raise Transient("kafka", f"no dead letter read for {_READ_SECONDS:g} s")


def _stored(record: object) -> StoredLetter:
    key, value, headers = record.key, record.value, record.headers  # type: ignore[attr-defined]
    try:
        letter = DeadLetter.from_record(key, value, headers)
    except ValueError:
        letter = None
    return StoredLetter(
        record.partition,  # type: ignore[attr-defined]
        record.offset,  # type: ignore[attr-defined]
        record.timestamp,  # type: ignore[attr-defined]
        letter,
    )
