"""The offset ledger: which records of a partition are open, and how far it may be acknowledged.

Records open in arrival order and settle in any order; acknowledgements leave only as a contiguous
prefix, in order. Faust's own gap check loses records when acks come out of order (faust #606), so
it must never see that happen. Pure: time is passed in.
"""

from collections import deque
from typing import Generic, NamedTuple, TypeVar

Token = TypeVar("Token")


class LedgerError(AssertionError):
    """The engine broke the ledger's contract: a bug, never caught."""


class Position(Generic[Token]):
    """One open record: `token` is what the consumer needs to acknowledge it."""

    __slots__ = ("ledger", "offset", "opened_at", "settled", "size", "timestamp_ms", "token")

    def __init__(
        self,
        ledger: "OffsetLedger[Token]",
        offset: int,
        token: Token,
        opened_at: float,
        timestamp_ms: int,
        size: int,
    ) -> None:
        self.ledger = ledger
        self.offset = offset
        self.token = token
        self.opened_at = opened_at
        self.timestamp_ms = timestamp_ms
        self.size = size
        self.settled = False


class Prefix(NamedTuple):
    """The settled prefix: how many records, and the offset to commit after them."""

    records: int
    next_offset: int


class OffsetLedger(Generic[Token]):
    """The open records of one (topic, partition, generation)."""

    __slots__ = (
        "_abandoned",
        "_last_offset",
        "_open",
        "generation",
        "partition",
        "settled_end",
        "topic",
    )

    def __init__(self, topic: str, partition: int, generation: int) -> None:
        self.topic = topic
        self.partition = partition
        self.generation = generation
        self._open: deque[Position[Token]] = deque()
        self._last_offset = -1
        self._abandoned = False
        self.settled_end = 0
        """One past the greatest settled offset, released or not; 0 while nothing is settled."""

    def __len__(self) -> int:
        return len(self._open)

    def open(
        self, offset: int, token: Token, *, now: float, timestamp_ms: int = 0, size: int = 0
    ) -> Position[Token]:
        """Return the position of a newly arrived record; raises LedgerError when out of order."""
        if offset <= self._last_offset or self._abandoned:
            raise LedgerError(
                f"{self.topic}-{self.partition}: offset {offset} opened after {self._last_offset}"
                f"{' in an abandoned ledger' if self._abandoned else ''}"
            )
        self._last_offset = offset
        position = Position(self, offset, token, now, timestamp_ms, size)
        self._open.append(position)
        return position

    def settle(self, position: Position[Token]) -> None:
        """Note that the record's effect is durable; raises LedgerError when settled twice."""
        if position.settled:
            raise LedgerError(f"{self.topic}-{self.partition}@{position.offset} settled twice")
        position.settled = True
        if position.offset >= self.settled_end:
            self.settled_end = position.offset + 1

    def settled_prefix(self) -> Prefix | None:
        """Return the contiguous settled prefix, None while the oldest record is open."""
        count = 0
        for position in self._open:
            if not position.settled:
                break
            count += 1
        return Prefix(count, self._open[count - 1].offset + 1) if count else None

    def release(self, count: int) -> list[Position[Token]]:
        """Remove and return the first `count` records, to be acknowledged in order.

        Returns nothing when the ledger was abandoned meanwhile: those records will come again.
        """
        if self._abandoned:
            return []
        released = [self._open.popleft() for _ in range(count)]
        if not all(position.settled for position in released):
            raise LedgerError(f"{self.topic}-{self.partition}: released an open record")
        return released

    def abandon(self) -> list[Position[Token]]:
        """Forget every record without acknowledging; return what the consumer must drop."""
        self._abandoned = True
        abandoned = list(self._open)
        self._open.clear()
        return abandoned

    @property
    def abandoned(self) -> bool:
        """Whether what is settled here no longer counts."""
        return self._abandoned

    @property
    def oldest(self) -> Position[Token] | None:
        """The record that holds the partition back."""
        return self._open[0] if self._open else None
