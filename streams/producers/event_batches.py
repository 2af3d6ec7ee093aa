"""Which events wait to share a record: one open batch a partition, bounded in count, bytes, age.

Pure: time is passed in, in seconds of any monotonic clock.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from schemas.behaviour import UserBehaviour


@dataclass(frozen=True, slots=True)
class HeldEvent:
    """An event that waits; `size` in bytes of its JSON."""

    event: UserBehaviour
    ticket: int
    size: int


Leaving: TypeAlias = tuple[int, tuple[HeldEvent, ...]]
"""A partition, and the events that one record of it has to carry, in the order they came."""


@dataclass(slots=True)
class _OpenBatch:
    due: float
    held: list[HeldEvent] = field(default_factory=list)
    size: int = 0


class EventBatches:
    """Open batches. An event larger than `max_bytes` has a batch of its own."""

    def __init__(self, *, max_events: int, max_bytes: int, max_age_seconds: float) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._max_age_seconds = max_age_seconds
        # In the order they were opened: all wait equally long, so the first is due first.
        self._open: dict[int, _OpenBatch] = {}

    def add(self, partition: int, event: HeldEvent, now: float) -> Iterator[Leaving]:
        """Hold an event; yield the batches that have to leave because of it."""
        batch = self._open.get(partition)
        if batch is not None and batch.size + event.size > self._max_bytes:
            yield from self.take(partition)
            batch = None
        if batch is None:
            batch = self._open[partition] = _OpenBatch(now + self._max_age_seconds)
        batch.held.append(event)
        batch.size += event.size
        if len(batch.held) >= self._max_events or batch.size >= self._max_bytes:
            yield from self.take(partition)

    def take(self, partition: int) -> Iterator[Leaving]:
        """Yield the open batch of a partition, if there is one."""
        batch = self._open.pop(partition, None)
        if batch is not None:
            yield partition, tuple(batch.held)

    def take_due(self, now: float) -> Iterator[Leaving]:
        """Yield the batches that have waited long enough."""
        while self._open:
            partition, batch = next(iter(self._open.items()))
            if batch.due > now:
                return
            yield from self.take(partition)

    def take_all(self) -> Iterator[Leaving]:
        """Yield every open batch."""
        for partition in tuple(self._open):
            yield from self.take(partition)

    @property
    def due(self) -> float | None:
        """When the oldest batch has to leave; None without an open one."""
        return next((batch.due for batch in self._open.values()), None)
