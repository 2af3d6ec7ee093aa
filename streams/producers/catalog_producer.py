"""The producer of catalogue events: items whole, or removed."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Unpack

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from schemas.errors import InvalidInput
from schemas.events import (
    CatalogEvent,
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
from streams.kafka_clients import KafkaConnection
from streams.producers.event_producer import (
    Delivery,
    DeliveryOptions,
    EventProducer,
    OutgoingRecord,
    as_invalid_input,
    refuse_non_finite,
    wall_clock_ms,
)


class CatalogProducer(EventProducer[CatalogEvent]):
    """Sends catalogue events: idempotent, acks=all, keyed by item, CloudEvents 1.0 headers.

    with CatalogProducer("127.0.0.1:9092", source="/films") as producer:
        producer.upsert("42", version=7, fields={"title": "Heat", "year": 1995})
        report = producer.flush(timeout=30)

    Thread safe. `send` returns as soon as the event is buffered; when `buffer_bytes` are waiting
    for acknowledgement it blocks, and raises Transient after `max_block_seconds`.
    """

    def __init__(
        self,
        connection: KafkaConnection | str,
        *,
        topic_prefix: str = "",
        source: str = "/catalog",
        on_delivery: Callable[[Delivery[CatalogEvent]], None] | None = None,
        limits: DecodeLimits | None = None,
        **options: Unpack[DeliveryOptions],
    ) -> None:
        super().__init__(
            connection, topic_prefix + Topic.CATALOG_ITEMS, on_delivery=on_delivery, **options
        )
        self._source = source
        self._limits = limits or DecodeLimits()

    def upsert(
        self,
        item_id: str,
        version: int,
        fields: Mapping[str, Json],
        occurred_at: datetime | None = None,
    ) -> None:
        """Send the full state of an item; raises InvalidInput for what the lane would refuse."""
        refuse_non_finite(fields)
        try:
            event = ItemUpserted(
                item_id=item_id,
                version=version,
                occurred_at=occurred_at,
                item=ItemFields.model_validate(dict(fields)),
            )
        except ValidationError as error:
            raise as_invalid_input(error) from error
        self.send(event)

    def remove(self, item_id: str, version: int, occurred_at: datetime | None = None) -> None:
        """Send that an item left the catalogue; raises InvalidInput."""
        try:
            event = ItemRemoved(item_id=item_id, version=version, occurred_at=occurred_at)
        except ValidationError as error:
            raise as_invalid_input(error) from error
        self.send(event)

    def send(self, event: CatalogEvent) -> None:
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
        now_ms = wall_clock_ms()
        # Exactly the lane's own check, on exactly the bytes that the lane will see.
        decode_catalog_event(
            key, value, headers, timestamp_ms=now_ms, now_ms=now_ms, limits=self._limits
        )
        self._send_alone(event, OutgoingRecord(key, value, headers))
