"""The open records of a lane: from admission to the acknowledgement, over all its partitions.

Owns the ledgers and when their settled prefixes may be acknowledged: at once, or in a lane that
writes Redis after the checkpoint is stored, so that no stored offset is behind a committed one.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from schemas.errors import Transient
from streams.engine.circuits import RetrySchedule
from streams.engine.lane import Record
from streams.engine.offset_ledger import OffsetLedger, Position
from streams.engine.ports import Acknowledger, CheckpointSink
from streams.engine.uncancelled import uncancelled

Token = TypeVar("Token")
Partition = tuple[str, int]


class OpenRecords(Generic[Token]):
    """Counts, bounds nothing: the pipeline decides by `count` and `bytes`."""

    def __init__(
        self,
        acknowledger: Acknowledger[Token],
        checkpoints: CheckpointSink | None,
        schedule: RetrySchedule,
        jitter: Callable[[], float],
        *,
        shrunk: Callable[[], None],
        stored: Callable[[Transient | None], None],
    ) -> None:
        self._acknowledger = acknowledger
        self._checkpoints = checkpoints
        self._schedule = schedule
        self._jitter = jitter
        self._shrunk = shrunk
        self._stored = stored
        self._ledgers: dict[Partition, OffsetLedger[Token]] = {}
        self._may_store = asyncio.Event()
        self._frozen = False
        self._trusted: frozenset[Partition] | None = None
        self.count = 0
        self.bytes = 0
        self.is_storing = False

    def open(self, record: Record, token: Token, *, generation: int, now: float) -> Position[Token]:
        """Return the position of a newly arrived record."""
        ledger = self._ledgers.get((record.topic, record.partition))
        if ledger is None or ledger.generation != generation:
            ledger = self._new_ledger(record, generation)
        size = len(record.value or b"") + len(record.key or b"")
        position = ledger.open(
            record.offset, token, now=now, timestamp_ms=record.timestamp_ms, size=size
        )
        self.count += 1
        self.bytes += size
        return position

    def _new_ledger(self, record: Record, generation: int) -> OffsetLedger[Token]:
        tp = (record.topic, record.partition)
        if tp in self._ledgers:
            # Settlements of an older generation no longer count: its records come again.
            self._forget(self._ledgers[tp].abandon())
        self._ledgers[tp] = OffsetLedger(record.topic, record.partition, generation)
        return self._ledgers[tp]

    def release(self) -> None:
        """Acknowledge what is settled, or let `keep_storing` do so after the checkpoint."""
        if self._checkpoints is not None:
            self._may_store.set()
            return
        for ledger in self._ledgers.values():
            prefix = ledger.settled_prefix()
            if prefix is not None:
                self._acknowledge(ledger, prefix.records)

    def freeze(self) -> None:
        """Store no checkpoint until `thaw`: where they are stored is not trusted."""
        self._frozen = True

    def thaw(self) -> None:
        """Store checkpoints again."""
        self._frozen = False
        self._may_store.set()

    def trust(self, partitions: frozenset[Partition]) -> None:
        """Store checkpoints of these partitions only."""
        self._trusted = partitions
        self._may_store.set()

    @property
    def is_stuck(self) -> bool:
        """Whether nothing here can be acknowledged soon."""
        if self.is_storing:
            return False
        return self._frozen or all(
            ledger.settled_prefix() is None for ledger in self._ledgers.values()
        )

    def abandon(self) -> list[Token]:
        """Forget every record without acknowledging it; return their tokens."""
        abandoned = [position for ledger in self._ledgers.values() for position in ledger.abandon()]
        self._ledgers.clear()
        self._forget(abandoned)
        return [position.token for position in abandoned]

    def oldest_timestamps_ms(self) -> dict[Partition, int]:
        """Return the Kafka timestamp of the record that holds each partition back."""
        return {
            tp: ledger.oldest.timestamp_ms
            for tp, ledger in self._ledgers.items()
            if ledger.oldest is not None
        }

    def settled_ends(self) -> dict[Partition, int]:
        """Return one past the greatest settled offset of each partition of this generation."""
        return {
            tp: ledger.settled_end for tp, ledger in self._ledgers.items() if ledger.settled_end
        }

    async def keep_storing(self) -> None:
        """Store checkpoints, then acknowledge, until cancelled; without checkpoints do nothing."""
        if self._checkpoints is None:
            return
        attempt = 0
        while True:
            await self._may_store.wait()
            self._may_store.clear()
            if self._frozen:
                continue
            try:
                await self._store(self._checkpoints)
            except Transient as error:
                attempt += 1
                self._stored(error)
                await asyncio.sleep(self._schedule.delay(attempt, self._jitter()))
                self._may_store.set()
            else:
                attempt = 0

    async def _store(self, checkpoints: CheckpointSink) -> None:
        prefixes = {
            ledger: prefix
            for ledger in self._ledgers.values()
            if (prefix := ledger.settled_prefix()) is not None and self._trusts(ledger)
        }
        if not prefixes:
            return
        ends = {(ledger.topic, ledger.partition): at.next_offset for ledger, at in prefixes.items()}
        self.is_storing = True
        try:
            await uncancelled(checkpoints.store(ends), "the checkpoint sink")
        finally:
            self.is_storing = False
        for ledger, prefix in prefixes.items():
            self._acknowledge(ledger, prefix.records)
        self._stored(None)

    def _trusts(self, ledger: OffsetLedger[Token]) -> bool:
        return self._trusted is None or (ledger.topic, ledger.partition) in self._trusted

    def _acknowledge(self, ledger: OffsetLedger[Token], records: int) -> None:
        released = ledger.release(records)
        if released:
            self._acknowledger.acknowledge([position.token for position in released])
            self._forget(released)

    def _forget(self, positions: Sequence[Position[Token]]) -> None:
        self.count -= len(positions)
        self.bytes -= sum(position.size for position in positions)
        self._shrunk()
