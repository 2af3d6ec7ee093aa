"""The producer SDK: puts catalogue events on `catalog.items`, checked, keyed and acknowledged.

Needs only kafka-python, pydantic and orjson (extra `[producer]`), so an application can embed it.
What it refuses: events that the items lane would dead-letter. What it never does: lose an event
without saying so; every event that `send` took is in a flush report, delivered or failed.
"""

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Literal, Self

import kafka
import kafka.errors
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from schemas.errors import ConfigurationError, FreshetError, InvalidInput, Transient
from schemas.events import (
    DecodeLimits,
    ItemFields,
    ItemRemoved,
    ItemUpserted,
    cloud_event_headers,
    decode_catalog_event,
    encode_catalog_event,
    entity_of,
)
from schemas.fingerprints import Json
from schemas.reasons import Reason
from schemas.topics import Topic
from streams.delivery_ledger import DeliveryLedger, Event, FailedEvent, FlushReport
from streams.kafka_clients import BOOTSTRAP_SECONDS, KafkaConnection, translated

__all__ = [
    "CatalogProducer",
    "Delivery",
    "FailedEvent",
    "FlushReport",
    "UndeliveredEvents",
]


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event that the broker has acknowledged; `acked_at_ms` is this process's clock."""

    event: Event
    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    acked_at_ms: int


class UndeliveredEvents(FreshetError):
    """Leaving the `with` block found events that were not delivered; `report` names them."""

    def __init__(self, report: FlushReport) -> None:
        super().__init__(report)
        self.report = report

    def __str__(self) -> str:
        first = f", first: {self.report.failed[0].error}" if self.report.failed else ""
        return f"{len(self.report.failed)} events not delivered{first}"


class CatalogProducer:
    """Sends catalogue events: idempotent, acks=all, keyed by item, CloudEvents 1.0 headers.

    with CatalogProducer("127.0.0.1:9092", source="/films") as producer:
        producer.upsert("42", version=7, fields={"title": "Heat", "year": 1995})
        report = producer.flush(timeout=30)

    Thread safe. `send` returns as soon as the event is buffered; when `buffer_bytes` are waiting
    for acknowledgement it blocks, and raises Transient after `max_block_seconds`. `on_delivery` is
    called on the client's network thread: it has to be quick and must not raise.
    """

    def __init__(
        self,
        connection: KafkaConnection | str,
        *,
        topic_prefix: str = "",
        source: str = "/catalog",
        compression: Literal["gzip", "snappy", "lz4", "zstd"] | None = "gzip",
        buffer_bytes: int = 32 * 1024 * 1024,
        max_block_seconds: float = 30.0,
        delivery_seconds: float = 120.0,
        linger_ms: int = 5,
        on_delivery: Callable[[Delivery], None] | None = None,
        limits: DecodeLimits | None = None,
    ) -> None:
        if isinstance(connection, str):
            connection = KafkaConnection(connection)
        self._topic = topic_prefix + Topic.CATALOG_ITEMS
        self._source = source
        self._limits = limits or DecodeLimits()
        self._max_block_seconds = max_block_seconds
        self._on_delivery = on_delivery
        self._ledger = DeliveryLedger(buffer_bytes)
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

    def upsert(
        self,
        item_id: str,
        version: int,
        fields: Mapping[str, Json],
        occurred_at: datetime | None = None,
    ) -> None:
        """Send the full state of an item; raises InvalidInput for what the lane would refuse."""
        _refuse_non_finite(fields)
        try:
            event = ItemUpserted(
                item_id=item_id,
                version=version,
                occurred_at=occurred_at,
                item=ItemFields.model_validate(dict(fields)),
            )
        except ValidationError as error:
            raise _as_invalid_input(error) from error
        self.send(event)

    def remove(self, item_id: str, version: int, occurred_at: datetime | None = None) -> None:
        """Send that an item left the catalogue; raises InvalidInput."""
        try:
            event = ItemRemoved(item_id=item_id, version=version, occurred_at=occurred_at)
        except ValidationError as error:
            raise _as_invalid_input(error) from error
        self.send(event)

    def send(self, event: Event) -> None:
        """Buffer an event for sending.

        Raises InvalidInput for what the items lane would refuse, Transient("kafka") when the
        buffer stays full or the topic's metadata cannot be had: then the event was not taken.
        """
        key = entity_of(event).encode()
        try:
            value = encode_catalog_event(event)
        except PydanticSerializationError as error:
            raise InvalidInput(Reason.INVALID_UNICODE, str(error)) from error
        headers = cloud_event_headers(
            event, source=self._source, id_=f"{event.type}:{event.item_id}:{event.version}"
        )
        now_ms = _now_ms()
        # Exactly the lane's own check, on exactly the bytes that the lane will see.
        decode_catalog_event(
            key, value, headers, timestamp_ms=now_ms, now_ms=now_ms, limits=self._limits
        )
        size = len(key) + len(value)
        ticket = self._ledger.admit(event, size, self._max_block_seconds)
        try:
            with translated():
                future = self._client.send(self._topic, value=value, key=key, headers=headers)
        except FreshetError:
            self._ledger.withdraw(ticket)
            raise
        future.add_callback(self._delivered, ticket)
        future.add_errback(self._failed, ticket)

    def flush(self, timeout: float) -> FlushReport:
        """Wait at most `timeout` seconds for what was sent so far; return what became of it."""
        deadline = time.monotonic() + timeout
        # Whatever is still open when the time is up is counted as pending.
        with contextlib.suppress(kafka.errors.KafkaTimeoutError):
            self._client.flush(timeout=timeout)
        self._ledger.wait_empty(max(0.0, deadline - time.monotonic()))
        return self._ledger.report()

    def close(self, timeout: float = 30.0) -> FlushReport:
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

    def _delivered(self, ticket: int, metadata: "kafka.producer.future.RecordMetadata") -> None:
        event = self._ledger.settle(ticket, None)
        if event is not None and self._on_delivery is not None:
            self._on_delivery(
                Delivery(
                    event,
                    metadata.topic,
                    metadata.partition,
                    metadata.offset,
                    metadata.timestamp,
                    _now_ms(),
                )
            )

    def _failed(self, ticket: int, error: BaseException) -> None:
        self._ledger.settle(ticket, _typed(error))


def _typed(error: BaseException) -> FreshetError:
    if isinstance(error, kafka.errors.MessageSizeTooLargeError):
        return InvalidInput(Reason.TOO_LARGE, str(error))
    try:
        with translated():
            raise error
    except FreshetError as typed:
        return typed


def _as_invalid_input(error: ValidationError) -> InvalidInput:
    first = error.errors(include_url=False, include_input=False)[0]
    path = ".".join(str(step) for step in first["loc"])
    reason = {"missing": Reason.MISSING_FIELD}.get(first["type"], Reason.WRONG_TYPE)
    if path == "version":
        reason = Reason.BAD_VERSION
    return InvalidInput(reason, f"{path}: {first['msg']}")


def _refuse_non_finite(value: object) -> None:
    # JSON writers turn NaN into null without a word: the field would vanish from the item.
    match value:
        case float() if not math.isfinite(value):
            raise InvalidInput(Reason.NOT_FINITE, f"{value} is not JSON")
        case Mapping():
            for entry in value.values():
                _refuse_non_finite(entry)
        case list() | tuple():
            for entry in value:
                _refuse_non_finite(entry)
        case _:
            pass


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
