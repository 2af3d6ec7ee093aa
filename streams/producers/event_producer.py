"""What every producer of events shares: the Kafka client, acknowledgements, flush reports.

One client a producer, idempotent and acks=all, so what a thread sends to a partition keeps order.
"""

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Literal, Self, TypeAlias, TypedDict, TypeVar

import kafka
import kafka.errors
from pydantic import ValidationError

from schemas.behaviour import BehaviourEvent
from schemas.errors import ConfigurationError, FreshetError, InvalidInput, Transient
from schemas.events import CatalogEvent
from schemas.reasons import Reason
from streams.delivery_ledger import DeliveryLedger, FlushReport
from streams.kafka_clients import BOOTSTRAP_SECONDS, KafkaConnection, translated

E = TypeVar("E", bound=CatalogEvent | BehaviourEvent)

Compression: TypeAlias = Literal["gzip", "snappy", "lz4", "zstd"]


@dataclass(frozen=True, slots=True)
class Delivery(Generic[E]):
    """An event that the broker has acknowledged; `acked_at_ms` is this process's clock."""

    event: E
    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    acked_at_ms: int


class UndeliveredEvents(FreshetError):
    """Leaving the `with` block found events that were not delivered; `report` names them."""

    def __init__(self, report: FlushReport[CatalogEvent | BehaviourEvent]) -> None:
        super().__init__(report)
        self.report = report

    def __str__(self) -> str:
        first = f", first: {self.report.failed[0].error}" if self.report.failed else ""
        return f"{len(self.report.failed)} events not delivered{first}"


class DeliveryOptions(TypedDict, total=False):
    """How events travel; EventProducer has the defaults.

    `compression` of a codec that has to be installed (gzip always is); at most `buffer_bytes` wait
    for acknowledgement, then `send` blocks for `max_block_seconds` and raises; what is not
    acknowledged within `delivery_seconds` has failed; a request waits `linger_ms` for more records.
    """

    compression: Compression | None
    buffer_bytes: int
    max_block_seconds: float
    delivery_seconds: float
    linger_ms: int


@dataclass(frozen=True, slots=True)
class OutgoingRecord:
    """A Kafka record; `partition` None leaves it to the key."""

    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]
    partition: int | None = None

    @property
    def size(self) -> int:
        """Bytes of key and value."""
        return len(self.key) + len(self.value)


class EventProducer(Generic[E]):
    """Sends events of one topic and says what became of each. Thread safe.

    `on_delivery` is called for every event on the client's network thread: it has to be quick, must
    not raise and must not use the producer.
    """

    def __init__(
        self,
        connection: KafkaConnection | str,
        topic: str,
        *,
        on_delivery: Callable[[Delivery[E]], None] | None = None,
        compression: Compression | None = "gzip",
        buffer_bytes: int = 32 * 1024 * 1024,
        max_block_seconds: float = 30.0,
        delivery_seconds: float = 120.0,
        linger_ms: int = 5,
    ) -> None:
        if isinstance(connection, str):
            connection = KafkaConnection(connection)
        self._topic = topic
        self._on_delivery = on_delivery
        self._max_block_seconds = max_block_seconds
        self._ledger: DeliveryLedger[E] = DeliveryLedger(buffer_bytes)
        try:
            with translated():
                self._client = kafka.KafkaProducer(
                    **connection.options(),
                    bootstrap_timeout_ms=_ms(BOOTSTRAP_SECONDS),
                    enable_idempotence=True,
                    acks="all",
                    compression_type=compression,
                    linger_ms=linger_ms,
                    batch_size=256 * 1024,
                    # The limit that counts is the topic's; this one only must not be below it.
                    max_request_size=4 * 1024 * 1024,
                    max_block_ms=_ms(max_block_seconds),
                    delivery_timeout_ms=_ms(delivery_seconds),
                    # Sent as a 32-bit integer: a float would kill the client's network thread.
                    request_timeout_ms=_ms(min(30.0, delivery_seconds / 2)),
                    allow_auto_create_topics=False,
                )
        except (RuntimeError, ValueError) as error:  # of a codec that is not installed
            raise ConfigurationError("compression", str(error)) from error

    def flush(self, timeout: float) -> FlushReport[E]:
        """Wait at most `timeout` seconds for what was sent so far; return what became of it."""
        deadline = time.monotonic() + timeout
        # Whatever is still open when the time is up is counted as pending.
        with contextlib.suppress(kafka.errors.KafkaTimeoutError):
            self._client.flush(timeout=timeout)
        self._ledger.wait_empty(max(0.0, deadline - time.monotonic()))
        return self._ledger.report()

    def close(self, timeout: float = 30.0) -> FlushReport[E]:
        """Flush and close; what is still open then is reported as failed. Never raises."""
        deadline = time.monotonic() + timeout
        self._ledger.wait_empty(timeout)
        # Its flush may run out of time: the events are reported as failed below.
        with contextlib.suppress(kafka.errors.KafkaError):
            self._client.close(timeout=max(0.1, deadline - time.monotonic()))
        self._ledger.abandon(Transient("kafka", f"not acknowledged within {timeout:g} s"))
        return self._ledger.report()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        report = self.close()
        if error is None and not report.complete:
            raise UndeliveredEvents(report)

    def _admit(self, event: E, size: int) -> int:
        """Return the event's ticket; raises Transient when the buffer stays full."""
        return self._ledger.admit(event, size, self._max_block_seconds)

    def _send_alone(self, event: E, record: OutgoingRecord) -> None:
        """Send a record of one event; raises FreshetError, then the event was not taken."""
        ticket = self._admit(event, record.size)
        try:
            self._put(record, (ticket,))
        except FreshetError:
            self._ledger.withdraw(ticket)
            raise

    def _put(self, record: OutgoingRecord, tickets: Sequence[int]) -> None:
        """Hand a record to the client; its acknowledgement settles the tickets."""
        with translated():
            future = self._client.send(
                self._topic,
                key=record.key,
                value=record.value,
                headers=record.headers,
                partition=record.partition,
            )
        future.add_callback(self._delivered, tickets)
        future.add_errback(self._failed, tickets)

    def _delivered(
        self, tickets: Sequence[int], metadata: "kafka.producer.future.RecordMetadata"
    ) -> None:
        now_ms = wall_clock_ms()
        for ticket in tickets:
            event = self._ledger.settle(ticket, None)
            if event is not None and self._on_delivery is not None:
                self._on_delivery(
                    Delivery(
                        event,
                        metadata.topic,
                        metadata.partition,
                        metadata.offset,
                        metadata.timestamp,
                        now_ms,
                    )
                )

    def _failed(self, tickets: Sequence[int], error: BaseException) -> None:
        typed = _typed(error)
        for ticket in tickets:
            self._ledger.settle(ticket, typed)


_REASON_OF_ERROR: Mapping[str, Reason] = {
    "missing": Reason.MISSING_FIELD,
    "finite_number": Reason.NOT_FINITE,
    "string_unicode": Reason.INVALID_UNICODE,
}


def as_invalid_input(error: ValidationError) -> InvalidInput:
    """Return a model's refusal with the reason that the lane would give."""
    first = error.errors(include_url=False, include_input=False)[0]
    path = ".".join(str(step) for step in first["loc"])
    reason = _REASON_OF_ERROR.get(first["type"], Reason.WRONG_TYPE)
    if path == "version":
        reason = Reason.BAD_VERSION
    return InvalidInput(reason, f"{path}: {first['msg']}")


def refuse_non_finite(value: object) -> None:
    """Raise InvalidInput for a NaN or an infinity anywhere in a JSON value.

    JSON writers turn them into null without a word: the field would vanish from the item.
    """
    match value:
        case float() if not math.isfinite(value):
            raise InvalidInput(Reason.NOT_FINITE, f"{value} is not JSON")
        case Mapping():
            for entry in value.values():
                refuse_non_finite(entry)
        case list() | tuple():
            for entry in value:
                refuse_non_finite(entry)
        case _:
            pass


def wall_clock_ms() -> int:
    """Return the time, milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def _typed(error: BaseException) -> FreshetError:
    if isinstance(error, kafka.errors.MessageSizeTooLargeError):
        return InvalidInput(Reason.TOO_LARGE, str(error))
    try:
        with translated():
            raise error
    except FreshetError as typed:
        return typed


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
