"""What became of the events that a producer was given: open, delivered or failed. No I/O."""

import threading
from dataclasses import dataclass
from typing import Generic, TypeVar

from schemas.errors import FreshetError, Transient

E = TypeVar("E")
E_co = TypeVar("E_co", covariant=True)


@dataclass(frozen=True, slots=True)
class FailedEvent(Generic[E_co]):
    """An event that Kafka did not take. Transient: sending it again is safe and may work."""

    event: E_co
    error: FreshetError


@dataclass(frozen=True, slots=True)
class FlushReport(Generic[E_co]):
    """What became of the events since the last report; `pending` ones will be in the next."""

    delivered: int
    failed: tuple[FailedEvent[E_co], ...] = ()
    pending: int = 0

    @property
    def complete(self) -> bool:
        """Whether every event was delivered."""
        return not self.failed and not self.pending


class DeliveryLedger(Generic[E]):
    """The events between `send` and their acknowledgement, bounded by bytes. Thread safe."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._changed = threading.Condition()
        self._open: dict[int, tuple[E, int]] = {}
        self._open_bytes = 0
        self._next_ticket = 0
        self._delivered = 0
        self._failed: list[FailedEvent[E]] = []

    def admit(self, event: E, size: int, timeout: float) -> int:
        """Return a ticket once there is room (an event alone always fits); raises Transient."""
        with self._changed:
            if not self._changed.wait_for(
                lambda: not self._open or self._open_bytes + size <= self._capacity_bytes, timeout
            ):
                raise Transient(
                    "kafka", f"{self._open_bytes} bytes unacknowledged for {timeout:g} s"
                )
            ticket = self._next_ticket
            self._next_ticket += 1
            self._open[ticket] = (event, size)
            self._open_bytes += size
            return ticket

    def withdraw(self, ticket: int) -> None:
        """Forget an event that the client did not take."""
        with self._changed:
            self._pop(ticket)

    def settle(self, ticket: int, error: FreshetError | None) -> E | None:
        """Count an event as delivered, or as failed; None when `abandon` was faster."""
        with self._changed:
            event = self._pop(ticket)
            if event is None:
                return None
            if error is None:
                self._delivered += 1
            else:
                self._failed.append(FailedEvent(event, error))
            return event

    def abandon(self, error: FreshetError) -> None:
        """Count everything still open as failed."""
        with self._changed:
            for ticket in tuple(self._open):
                event = self._pop(ticket)
                if event is not None:
                    self._failed.append(FailedEvent(event, error))

    def wait_empty(self, timeout: float) -> None:
        """Return when nothing is open, or after `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: not self._open, timeout)

    def report(self) -> FlushReport[E]:
        """Return the counts since the last report and start anew."""
        with self._changed:
            report = FlushReport(self._delivered, tuple(self._failed), len(self._open))
            self._delivered = 0
            self._failed = []
            return report

    def _pop(self, ticket: int) -> E | None:
        event, size = self._open.pop(ticket, (None, 0))
        self._open_bytes -= size
        self._changed.notify_all()
        return event
