"""A user's history: the newest interactions, bounded, in the order they happened.

Histories join like registers: within a minute of one event id the greatest entry is kept, of each
minute the newest few, and of all that the newest `max_events`. An entry leaves only when enough
greater ones are there, and those can only be replaced by greater ones still; so the result is the
same in whatever order, however often and in whatever batches the events came. An erasure is a floor
in time: nothing at or before it is ever kept. `workers/live/append_history.lua` does the same
inside Redis.

A repetition dated to another minute is kept beside the first one, because taking that one out would
leave a gap in its minute that an event dropped earlier may or may not be there to fill. Readers
leave it out (`History.counted`).
"""

import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import NamedTuple, Self

import orjson

from schemas.entities import EntityKey, EntityKind
from schemas.errors import InvalidInput, Permanent
from schemas.reasons import Reason

FORMAT = 1
HEADER = struct.Struct(">BqqqHH")
"""format, rev, erased_at_ms (-1: never), time of the last entry (-1: none), number of entries,
entries in the last one's minute."""

_ENTRY = struct.Struct(">q8sfBB")
"""at_ms, event id's digest, value (NaN: none), length of the action, length of the item's id."""

ID_BYTES = 8
MINUTE_MS = 60_000
NEVER = -1


def event_digest(event_id: str) -> bytes:
    """Return the 8 bytes that stand for an event id: blake2b-64; clashes matter within one user."""
    return blake2b(event_id.encode(), digest_size=ID_BYTES).digest()


class HistoryEvent(NamedTuple):
    """One interaction; `value` (of float32 precision) is None where the action has none.

    A tuple, because decoding a batch's histories makes tens of thousands of them: half the cost of
    a frozen dataclass.
    """

    at_ms: int
    id: bytes
    item: str
    action: str
    value: float | None = None

    @property
    def minute(self) -> int:
        """The minute it happened in, since the epoch."""
        return self.at_ms // MINUTE_MS

    @property
    def packed(self) -> bytes:
        """The stored bytes; as big-endian they sort as the entries do."""
        action, item = self.action.encode(), self.item.encode()
        value = math.nan if self.value is None else self.value
        head = _ENTRY.pack(self.at_ms, self.id, value, len(action), len(item))
        return head + action + item

    @property
    def order(self) -> tuple[int, bytes]:
        """Time first, then the rest: a total order, the same in Python and in Lua."""
        return self.at_ms, self.packed


@dataclass(frozen=True, slots=True)
class HistoryBounds:
    """How much of a user is kept: `max_per_minute` bounds what a flood can push out."""

    max_events: int = 200
    max_per_minute: int = 60


@dataclass(frozen=True, slots=True)
class History:
    """`events` ascending by `HistoryEvent.order`; `rev` grows with every change, 0 for none."""

    rev: int = 0
    erased_at_ms: int = NEVER
    events: tuple[HistoryEvent, ...] = ()

    @property
    def newest_ms(self) -> int:
        """Event time of the last interaction, -1 when there is none."""
        return self.events[-1].at_ms if self.events else NEVER

    @property
    def counted(self) -> tuple[HistoryEvent, ...]:
        """The events without repetitions: of one id in several minutes the newest alone."""
        greatest = {event.id: event for event in self.events}
        if len(greatest) == len(self.events):
            return self.events
        return tuple(event for event in self.events if greatest[event.id] is event)

    def join(
        self, events: Iterable[HistoryEvent], erased_at_ms: int, bounds: HistoryBounds
    ) -> Self:
        """Return the history with `events` and an erasure added; the revision is the caller's."""
        floor = max(self.erased_at_ms, erased_at_ms)
        kept = bounded((*self.events, *events), floor, bounds)
        return replace(self, erased_at_ms=floor, events=kept)

    def encode(self) -> bytes:
        """Return the bytes kept in Redis."""
        newest_ms = self.newest_ms
        in_last = sum(event.minute == newest_ms // MINUTE_MS for event in self.events)
        head = HEADER.pack(
            FORMAT, self.rev, self.erased_at_ms, newest_ms, len(self.events), in_last
        )
        return head + b"".join(event.packed for event in self.events)

    @classmethod
    def decode(cls, stored: bytes) -> Self:
        """Return the history that `encode`, or Lua, wrote; raises ValueError."""
        try:
            format_, rev, erased_at_ms, _, count, _ = HEADER.unpack_from(stored)
            if format_ != FORMAT:
                raise ValueError(f"history of format {format_}")
            # The lane's hottest loop: every event costs a decoded history.
            unpack, head_size = _ENTRY.unpack_from, _ENTRY.size
            make, is_nan = HistoryEvent._make, math.isnan
            events, offset = [], HEADER.size
            for _ in range(count):
                at_ms, id_, value, action_size, item_size = unpack(stored, offset)
                action_at = offset + head_size
                item_at = action_at + action_size
                offset = item_at + item_size
                action, item = stored[action_at:item_at].decode(), stored[item_at:offset].decode()
                events.append(make((at_ms, id_, item, action, None if is_nan(value) else value)))
        except struct.error as error:
            raise ValueError(f"history cut short: {error}") from error
        if offset != len(stored):
            raise ValueError(f"history of {len(stored)} bytes, its entries end at {offset}")
        return cls(rev, erased_at_ms, tuple(events))


def distinct(events: Iterable[HistoryEvent], erased_at_ms: int) -> tuple[HistoryEvent, ...]:
    """Return the events after an erasure, each once a minute, ascending."""
    greatest: dict[tuple[int, bytes], HistoryEvent] = {}
    for event in events:
        if event.at_ms > erased_at_ms:
            known = greatest.get((event.minute, event.id))
            if known is None or event.order > known.order:
                greatest[event.minute, event.id] = event
    return tuple(sorted(greatest.values(), key=lambda event: event.order))


def bounded(
    events: Iterable[HistoryEvent], erased_at_ms: int, bounds: HistoryBounds
) -> tuple[HistoryEvent, ...]:
    """Return what a history keeps of `events`, ascending."""
    return bounded_and_limited(events, erased_at_ms, bounds)[0]


def bounded_and_limited(
    events: Iterable[HistoryEvent], erased_at_ms: int, bounds: HistoryBounds
) -> tuple[tuple[HistoryEvent, ...], int]:
    """Return what a history keeps of `events`, and how many the bound per minute let go.

    Those older than all that is kept are not counted once `max_events` are kept.
    """
    kept: list[HistoryEvent] = []
    of_minute: dict[int, int] = {}
    limited = 0
    for event in reversed(distinct(events, erased_at_ms)):
        if len(kept) == bounds.max_events:
            break
        of_minute[event.minute] = of_minute.get(event.minute, 0) + 1
        if of_minute[event.minute] <= bounds.max_per_minute:
            kept.append(event)
        else:
            limited += 1
    return tuple(reversed(kept)), limited


@dataclass(frozen=True, slots=True)
class HistoryRecord:
    """A value of the compacted `histories` topic: a user's history, or only an erasure's mark."""

    user: EntityKey
    history: History
    written_at_ms: int

    def encode(self) -> bytes:
        """Return the record value."""
        return orjson.dumps(
            {
                "user": str(self.user),
                "rev": self.history.rev,
                "erased_at_ms": self.history.erased_at_ms,
                "written_at_ms": self.written_at_ms,
                "events": [
                    {
                        "at_ms": event.at_ms,
                        "id": event.id.hex(),
                        "item": event.item,
                        "action": event.action,
                        "value": event.value,
                    }
                    for event in self.history.events
                ],
            }
        )

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """Return the record in a value; raises Permanent(unreadable_history)."""
        try:
            raw = orjson.loads(value)
            user = EntityKey.parse(str(raw["user"]))
            if user.kind is not EntityKind.USER:
                raise ValueError(f"a {user.kind.value} has no history")
            return cls(user, _history(raw), int(raw["written_at_ms"]))
        except (KeyError, TypeError, ValueError, InvalidInput) as error:
            raise Permanent(Reason.UNREADABLE_HISTORY, repr(error)) from error


def _history(raw: dict[str, object]) -> History:
    events = raw["events"]
    if not isinstance(events, Sequence):
        raise TypeError("events is not a list")
    return History(
        int(str(raw["rev"])),
        int(str(raw["erased_at_ms"])),
        tuple(
            HistoryEvent(
                int(event["at_ms"]),
                _id(event["id"]),
                str(event["item"]),
                str(event["action"]),
                None if event["value"] is None else float(event["value"]),
            )
            for event in events
        ),
    )


def _id(spelled: str) -> bytes:
    id_ = bytes.fromhex(spelled)
    if len(id_) != ID_BYTES:
        raise ValueError(f"event id of {len(id_)} bytes")
    return id_
