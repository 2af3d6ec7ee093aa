"""The coalescer: what waits, one unit an entity, and which entities are in a handler.

Single flight per key: while a unit of an entity is being handled, newer records of it fold into one
waiting unit. Every record that folds away stays attached to its survivor and is settled with it,
never earlier. Pure: time is passed in.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from schemas.entities import EntityKey
from streams.engine.lane import Absorbed, Record
from streams.engine.offset_ledger import LedgerError, Position
from streams.engine.outcomes import Outcome
from streams.engine.ready_order import ArrivalOrder, RankedOrder, ReadyOrder

T = TypeVar("T")
Token = TypeVar("Token")

ALONE_AFTER = 3
"""A unit suspected this often is handled by itself, so that it cannot take neighbours down."""


@dataclass(slots=True)
class Passenger(Generic[Token]):
    """A record that folded into a survivor; `outcome` None means that it shares the survivor's.

    `record` is kept as long as the outcome is shared: a dead letter of the survivor would hold only
    the survivor's part of the value, so the passenger's record must become one too.
    """

    position: Position[Token]
    outcome: Outcome | None
    version: int | None
    record: Record | None


@dataclass(slots=True)
class Unit(Generic[T, Token]):
    """One value to handle, the record it came from and the records it absorbed."""

    key: EntityKey
    value: T
    record: Record
    position: Position[Token]
    version: int | None
    tokens: int = 0
    due_at_ms: int = 0
    """When its lane wants it handled; folding never moves it further off, so nothing starves."""
    retry_at_ms: int = 0
    """When it may be tried again after a failure."""
    attempts: int = 0
    suspicions: int = 0
    """Failures while its dependency answered others."""
    failures_alone: int = 0
    """Of these, the ones that were its own."""
    failed_on: str = ""
    answered_before: int = -1
    """What `failed_on` had answered at the last failure: see Pipeline._suspect."""
    passengers: list[Passenger[Token]] = field(default_factory=list)
    sharing: int = 0
    """How many passengers share its outcome."""


class _Slot(Generic[T, Token]):
    """An entity that waits, is in flight, or both; `wake_at_ms` is 0 unless it waits for a time."""

    __slots__ = ("in_flight", "waiting", "wake_at_ms")

    def __init__(self, waiting: Unit[T, Token]) -> None:
        self.waiting: Unit[T, Token] | None = waiting
        self.in_flight = False
        self.wake_at_ms = 0


class Coalescer(Generic[T, Token]):
    """Waiting units by entity; delayed ones are ready by due time.

    Ready ones go in order of first arrival or, with a `rank`, mostly the greatest first.
    """

    def __init__(
        self, absorb: Callable[[T, T], Absorbed[T]], rank: Callable[[T], int] | None = None
    ) -> None:
        self._absorb = absorb
        self._slots: dict[EntityKey, _Slot[T, Token]] = {}
        self._ready: ReadyOrder[_Slot[T, Token]] = (
            ArrivalOrder() if rank is None else RankedOrder(_of_waiting(rank))
        )
        # Entries whose time is not their slot's any more are stale and skipped.
        self._delayed: list[tuple[int, int, _Slot[T, Token]]] = []
        self._sequence = 0
        self._in_flight_count = 0

    @property
    def ready_count(self) -> int:
        """Units that could be taken now, but for those whose time has come unnoticed."""
        return len(self._ready)

    @property
    def waiting_count(self) -> int:
        """Units that wait for anything: a handler, their entity or their time."""
        return sum(slot.waiting is not None for slot in self._slots.values())

    @property
    def in_flight_count(self) -> int:
        """Entities in a handler."""
        return self._in_flight_count

    def offer(self, unit: Unit[T, Token]) -> None:
        """Let a new record's unit wait, folded into what waits of the same entity."""
        slot = self._slots.get(unit.key)
        if slot is None:
            slot = self._slots[unit.key] = _Slot(unit)
            self._queue(slot, unit)
        elif slot.waiting is None:
            slot.waiting = unit
        else:
            slot.waiting = folded = fold(slot.waiting, unit, self._absorb)
            if not slot.wake_at_ms:
                self._ready.changed(slot)
            elif _wake_at_ms(folded) < slot.wake_at_ms:
                self._queue(slot, folded)

    def take(self, *, now_ms: int, max_units: int, max_tokens: int) -> list[Unit[T, Token]]:
        """Return the next batch of distinct entities; they are in flight until `finish`.

        One unit larger than `max_tokens` still goes, by itself.
        """
        self._wake_due(now_ms)
        batch: list[Unit[T, Token]] = []
        tokens = 0
        ready = self._ready
        while ready and len(batch) < max_units:
            slot = ready.first()
            unit = slot.waiting
            if unit is None:
                raise LedgerError("an entity without a unit is in the queue")
            alone = unit.suspicions >= ALONE_AFTER
            if batch and (alone or tokens + unit.tokens > max_tokens):
                break
            tokens += unit.tokens
            ready.popleft()
            slot.waiting = None
            slot.in_flight = True
            batch.append(unit)
            if alone:
                break
        self._in_flight_count += len(batch)
        return batch

    def finish(self, unit: Unit[T, Token]) -> None:
        """Note that the unit left its handler; what waits of its entity becomes ready."""
        slot = self._slots.pop(unit.key)
        self._land(slot)
        if slot.waiting is not None:
            self._slots[unit.key] = slot
            self._queue(slot, slot.waiting)

    def put_back(self, unit: Unit[T, Token], *, due_at_ms: int) -> None:
        """Let a failed unit wait for another attempt, folded with what came meanwhile."""
        slot = self._slots[unit.key]
        self._land(slot)
        unit.retry_at_ms = due_at_ms
        if slot.waiting is not None:
            unit = fold(unit, slot.waiting, self._absorb)
        slot.waiting = unit
        self._queue(slot, unit)

    def next_due_ms(self) -> int | None:
        """Return when the earliest delayed unit is due at the earliest, None without any."""
        return self._delayed[0][0] if self._delayed else None

    def clear(self) -> None:
        """Forget everything (after an abandon)."""
        self._slots.clear()
        self._ready.clear()
        self._delayed.clear()
        self._in_flight_count = 0

    def _land(self, slot: _Slot[T, Token]) -> None:
        if not slot.in_flight:
            raise LedgerError("a unit left its handler twice")
        slot.in_flight = False
        self._in_flight_count -= 1

    def _queue(self, slot: _Slot[T, Token], unit: Unit[T, Token]) -> None:
        slot.wake_at_ms = _wake_at_ms(unit)
        if slot.wake_at_ms:
            self._sequence += 1
            heapq.heappush(self._delayed, (slot.wake_at_ms, self._sequence, slot))
        else:
            self._ready.append(slot)

    def _wake_due(self, now_ms: int) -> None:
        while self._delayed and self._delayed[0][0] <= now_ms:
            wake_at_ms, _, slot = heapq.heappop(self._delayed)
            if slot.wake_at_ms == wake_at_ms:
                slot.wake_at_ms = 0
                self._ready.append(slot)


def _of_waiting(rank: Callable[[T], int]) -> Callable[[_Slot[T, Token]], int]:
    def of_slot(slot: _Slot[T, Token]) -> int:
        if slot.waiting is None:
            raise LedgerError("an entity without a unit is in the queue")
        return rank(slot.waiting.value)

    return of_slot


def _wake_at_ms(unit: Unit[T, Token]) -> int:
    return max(unit.due_at_ms, unit.retry_at_ms)


def fold(
    waiting: Unit[T, Token], incoming: Unit[T, Token], absorb: Callable[[T, T], Absorbed[T]]
) -> Unit[T, Token]:
    """Return one unit that carries both: the survivor, with the other among its passengers."""
    folded = absorb(waiting.value, incoming.value)
    survivor, loser = (incoming, waiting) if folded.incoming_survives else (waiting, incoming)
    shares = folded.loser is None
    if loser.sharing and not shares:
        # They shared the loser's outcome, which is known now.
        for passenger in loser.passengers:
            if passenger.outcome is None:
                passenger.outcome, passenger.record = folded.loser, None
        loser.sharing = 0
    # The shorter list joins the longer one: a hot entity absorbs thousands.
    more, fewer = survivor.passengers, loser.passengers
    if len(more) < len(fewer):
        more, fewer = fewer, more
    more += fewer
    more.append(
        Passenger(loser.position, folded.loser, loser.version, loser.record if shares else None)
    )
    survivor.passengers = more
    survivor.sharing += loser.sharing + shares
    survivor.value = folded.value
    survivor.tokens = max(waiting.tokens, incoming.tokens)
    survivor.due_at_ms = min(waiting.due_at_ms, incoming.due_at_ms)
    # Only what waited can have failed: its backoff and its isolation stay with the entity, the
    # blame stays with the value.
    survivor.retry_at_ms = waiting.retry_at_ms
    survivor.attempts = waiting.attempts
    survivor.suspicions = waiting.suspicions
    if shares:
        survivor.failures_alone = waiting.failures_alone
        survivor.failed_on = waiting.failed_on
        survivor.answered_before = waiting.answered_before
    return survivor
