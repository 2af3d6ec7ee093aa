"""The gate of preference knowledge: when is a user worth a call of the language model? Pure.

A call is the scarce resource, and most events change nothing that a text could say. The first call
waits for a few events. After it there are three reasons for another one: enough weight of new
events (`new_events`: ten likes, or fifty views at a fifth of a like), a vector that moved away from
where it was (`drift`), or knowledge that grew old while the user went on. Against each stand the
minimum interval, the user's calls a day and everybody's.

All times are event times, so that a replay decides as the first run did, and a revision of a
history is decided once: deciding it again changes nothing. An event that comes late, with a time
at or before the last call's, does not count as new; it is in the next call all the same.
"""

import struct
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Protocol, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from schemas.history import NEVER, History, HistoryEvent

FORMAT = 1

Vector: TypeAlias = npt.NDArray[np.floating]

_HEAD = struct.Struct(">BqqqqIIfIfBH")
"""format, decided_rev, decided_ms, asked_rev, asked_ms, calls, calls_that_day, drift (NaN: none),
new events, their weight, length of the reason, values of the vector."""

_DAY_MS = 86_400_000
_VALUE = np.dtype(">f2")


class GateReason(StrEnum):
    """Why the gate decided as it did: stable codes, shown by `explain`."""

    ASKED_FIRST = "asked_first"  # enough is known for a first text
    ASKED_NEW_EVENTS = "asked_new_events"
    ASKED_DRIFT = "asked_drift"
    ASKED_AGE = "asked_age"
    TOO_FEW_EVENTS = "too_few_events"
    NOTHING_NEW = "nothing_new"  # since the last call, or since the last decision
    BELOW_THRESHOLD = "below_threshold"
    TOO_SOON = "too_soon"
    USER_BUDGET = "user_budget"
    GLOBAL_BUDGET = "global_budget"
    NO_TITLES = "no_titles"  # none of the items has a title yet
    OFF = "off"  # no space wants to know


class SignificancePort(Protocol):
    """What an event is worth."""

    def of(self, event: HistoryEvent) -> float:
        """Return its signed weight: 1 is a like."""


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """The numbers of the gate; `new_events` is a sum of absolute weights, times are in ms."""

    enabled: bool = True
    min_events: int = 3
    new_events: float = 10.0
    drift: float = 0.3
    max_age_ms: int = 30 * _DAY_MS
    min_interval_ms: int = _DAY_MS
    user_calls_per_day: int = 1
    calls_per_day: int = 10_000


@dataclass(frozen=True, slots=True)
class GateState:
    """What the gate remembers of a user: the last call, and the last decision for `explain`.

    `calls_that_day` counts the calls on the event-day of `asked_ms`; `vector` (dim,) is the user's
    at the last call, in half precision. `decided_ms` is the newest event's time then.
    """

    decided_rev: int = 0
    decided_ms: int = NEVER
    reason: GateReason = GateReason.NOTHING_NEW
    new_events: int = 0
    new_weight: float = 0.0
    drift: float | None = None
    asked_rev: int = 0
    asked_ms: int = NEVER
    calls: int = 0
    calls_that_day: int = 0
    vector: Vector | None = field(default=None, compare=False)

    @property
    def was_asked(self) -> bool:
        """Whether there ever was a call."""
        return self.asked_ms != NEVER

    def encode(self) -> bytes:
        """Return the bytes kept in Redis."""
        reason = self.reason.value.encode()
        vector = b"" if self.vector is None else self.vector.astype(_VALUE).tobytes()
        head = _HEAD.pack(
            FORMAT,
            self.decided_rev,
            self.decided_ms,
            self.asked_rev,
            self.asked_ms,
            self.calls,
            self.calls_that_day,
            np.nan if self.drift is None else self.drift,
            self.new_events,
            self.new_weight,
            len(reason),
            len(vector) // _VALUE.itemsize,
        )
        return head + reason + vector

    @classmethod
    def decode(cls, stored: bytes) -> Self:
        """Return the state that `encode` wrote; raises ValueError."""
        try:
            format_, *numbers, drift, new, weight, size, count = _HEAD.unpack_from(stored)
        except struct.error as error:
            raise ValueError(f"gate state cut short: {error}") from error
        ends = _HEAD.size + size
        if format_ != FORMAT or len(stored) != ends + count * _VALUE.itemsize:
            raise ValueError(f"gate state of format {format_} and {len(stored)} bytes")
        decided_rev, decided_ms, asked_rev, asked_ms, calls, calls_that_day = numbers
        vector = np.frombuffer(stored, _VALUE, count, ends).astype(np.float32) if count else None
        return cls(
            decided_rev=decided_rev,
            decided_ms=decided_ms,
            reason=GateReason(stored[_HEAD.size : ends].decode()),
            new_events=new,
            new_weight=weight,
            drift=None if np.isnan(drift) else drift,
            asked_rev=asked_rev,
            asked_ms=asked_ms,
            calls=calls,
            calls_that_day=calls_that_day,
            vector=vector,
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to ask, why, and what to remember once what was asked for is on its way.

    `new_events` is their number since the last call, `drift` the cosine distance from then, None
    where there is nothing to compare.
    """

    ask: bool
    reason: GateReason
    drift: float | None
    new_events: int
    state: GateState


def decide(
    state: GateState | None,
    history: History,
    vector: Vector | None,
    policy: GatePolicy,
    significance: SignificancePort,
    calls_today_global: int,
) -> Decision:
    """Return whether to write about the user now, and what to remember of it.

    `vector` (dim,) is the user's in one space of theirs, the same space every time; without one
    there is no drift. `calls_today_global` counts everybody's calls on the event-day of the newest
    event (`event_day`).
    """
    before = state or GateState()
    if not policy.enabled:
        return Decision(False, GateReason.OFF, before.drift, before.new_events, before)
    if history.rev <= before.decided_rev:
        return Decision(False, GateReason.NOTHING_NEW, before.drift, before.new_events, before)
    events = history.counted
    weights = [abs(significance.of(event)) for event in events]
    new = [
        weight
        for event, weight in zip(events, weights, strict=True)
        if weight and event.at_ms > before.asked_ms
    ]
    looked = replace(
        before,
        decided_rev=history.rev,
        decided_ms=history.newest_ms,
        new_events=len(new),
        new_weight=sum(new),
        drift=_distance(vector, before.vector),
    )
    reason = _wish(looked, policy, known_events=sum(map(bool, weights)))
    if reason in _WISHES:
        reason = _refusal(before, history, policy, calls_today_global) or reason
    if reason not in _WISHES:
        return _decision(replace(looked, reason=reason), ask=False)
    return _decision(_asked(looked, history, vector, reason), ask=True)


def declined(decision: Decision, before: GateState | None, reason: GateReason) -> Decision:
    """Return a decision to ask turned into one that does not, for a reason found out since."""
    kept, made = before or GateState(), decision.state
    return _decision(
        replace(
            kept,
            decided_rev=made.decided_rev,
            decided_ms=made.decided_ms,
            new_events=made.new_events,
            new_weight=made.new_weight,
            drift=made.drift,
            reason=reason,
        ),
        ask=False,
    )


def event_day(at_ms: int) -> str:
    """Return the UTC day of an event time as yyyymmdd: what budgets of a day count by."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y%m%d")


_WISHES = frozenset(
    {
        GateReason.ASKED_FIRST,
        GateReason.ASKED_NEW_EVENTS,
        GateReason.ASKED_DRIFT,
        GateReason.ASKED_AGE,
    }
)


def _wish(looked: GateState, policy: GatePolicy, *, known_events: int) -> GateReason:
    """Return why a call would be worth its cost, or why not."""
    if known_events < policy.min_events:
        return GateReason.TOO_FEW_EVENTS
    if not looked.was_asked:
        return GateReason.ASKED_FIRST
    if not looked.new_events:
        return GateReason.NOTHING_NEW
    if looked.new_weight >= policy.new_events:
        return GateReason.ASKED_NEW_EVENTS
    if looked.drift is not None and looked.drift >= policy.drift:
        return GateReason.ASKED_DRIFT
    if looked.decided_ms - looked.asked_ms >= policy.max_age_ms:
        return GateReason.ASKED_AGE
    return GateReason.BELOW_THRESHOLD


def _refusal(
    before: GateState, history: History, policy: GatePolicy, calls_today_global: int
) -> GateReason | None:
    """Return which limit forbids a call now, None when none does."""
    if before.was_asked and history.newest_ms - before.asked_ms < policy.min_interval_ms:
        return GateReason.TOO_SOON
    if _calls_that_day(before, history) >= policy.user_calls_per_day:
        return GateReason.USER_BUDGET
    if calls_today_global >= policy.calls_per_day:
        return GateReason.GLOBAL_BUDGET
    return None


def _calls_that_day(state: GateState, history: History) -> int:
    same_day = state.was_asked and event_day(state.asked_ms) == event_day(history.newest_ms)
    return state.calls_that_day if same_day else 0


def _asked(
    looked: GateState, history: History, vector: Vector | None, reason: GateReason
) -> GateState:
    return replace(
        looked,
        reason=reason,
        asked_rev=history.rev,
        asked_ms=history.newest_ms,
        calls=looked.calls + 1,
        calls_that_day=_calls_that_day(looked, history) + 1,
        vector=None if vector is None else vector.astype(np.float16),
    )


def _decision(state: GateState, *, ask: bool) -> Decision:
    return Decision(ask, state.reason, state.drift, state.new_events, state)


def _distance(now: Vector | None, before: Vector | None) -> float | None:
    """Return 1 - cosine; None without two vectors of one width that have a direction."""
    if now is None or before is None or now.shape != before.shape:
        return None
    left, right = now.astype(np.float64), before.astype(np.float64)
    norm = float(np.linalg.norm(left) * np.linalg.norm(right))
    return 1.0 - float(left @ right) / norm if norm > 0 else None
