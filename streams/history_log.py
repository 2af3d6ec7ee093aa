"""The compacted `histories` topic: its records, and the newest one of every user.

A history may be large and users are many, so a partition is read twice: first to find out which
record of each user counts, then to hand these on one by one. Memory holds keys, never histories.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import orjson

from schemas.entities import EntityKey
from schemas.errors import Permanent, Transient
from schemas.history import NEVER, History, HistoryRecord
from schemas.reasons import Reason
from schemas.topics import DAY_MS, REMOVED_MARKER_DAYS, Topic
from streams.compacted import read_compacted
from streams.emitter import Outgoing
from streams.settings import KafkaSettings

MARK_MS = REMOVED_MARKER_DAYS * DAY_MS
"""An erasure's mark outlives every record that could bring back what was erased."""


def history_message(
    user: EntityKey, history: History, *, partition: int, written_at_ms: int
) -> Outgoing:
    """Return the record of a user's history, for the partition that the user's events are in.

    Not for the one that the key would choose here: producers of events may choose otherwise, and
    a restore of a partition has to find the users whose events come from that partition.
    """
    value = HistoryRecord(user, history, written_at_ms).encode()
    return Outgoing(Topic.HISTORIES, user.encode(), value, partition=partition)


def no_history_message(user: EntityKey, *, partition: int) -> Outgoing:
    """Return the null that ends a user in the topic."""
    return Outgoing(Topic.HISTORIES, user.encode(), None, partition=partition)


def is_over(record: HistoryRecord, now_ms: int, idle_ms: int) -> bool:
    """Whether a record counts no more: idle for too long, or a mark with nothing left to erase.

    Pure. Counted from when it was written, which is soon after the user's last change.
    """
    history = record.history
    if not history.events:
        kept_ms = MARK_MS
    elif history.erased_at_ms != NEVER:
        kept_ms = max(MARK_MS, idle_ms)
    else:
        kept_ms = idle_ms
    return now_ms - record.written_at_ms > kept_ms


@dataclass(frozen=True, slots=True)
class Place:
    """Where the record of a user that counts lies."""

    rev: int
    offset: int


async def newest_histories(
    kafka: KafkaSettings, partition: int
) -> AsyncGenerator[HistoryRecord, None]:
    """Yield the newest record of every user in a partition as of now, in the order of the log.

    Newest is the greatest revision since the last null: another owner of the partition may have
    produced an older revision late. Raises Transient("kafka"), also when compaction takes a record
    away in the middle; Permanent for a record that is not of ours; ConfigurationError.
    """
    places: dict[bytes, Place] = {}
    async with aclosing(read_compacted(kafka, Topic.HISTORIES, [partition])) as records:
        async for record in records:
            fold(places, record.key, record.value, record.offset)
    waiting = {place.offset for place in places.values()}
    if not waiting:
        return
    async with aclosing(read_compacted(kafka, Topic.HISTORIES, [partition])) as records:
        async for record in records:
            if record.offset in waiting:
                waiting.discard(record.offset)
                yield HistoryRecord.decode(record.value)
    if waiting:
        raise Transient("kafka", f"{Topic.HISTORIES}-{partition} was compacted while it was read")


def fold(places: dict[bytes, Place], key: bytes | None, value: bytes | None, offset: int) -> None:
    """Take one record into `places` (by key), in log order; raises Permanent. Pure."""
    if key is None:
        return
    if value is None:
        places.pop(key, None)
        return
    rev = _rev(value)
    known = places.get(key)
    if known is None or rev >= known.rev:
        places[key] = Place(rev, offset)


def _rev(value: bytes) -> int:
    try:
        return int(orjson.loads(value)["rev"])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise Permanent(Reason.UNREADABLE_HISTORY, repr(error)) from error
