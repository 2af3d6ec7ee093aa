"""The producer of behaviour events: what users did with items, and that they want to be forgotten.

Events may share a record (`batch_events`): at high rates a record costs more than what is in it.
kafka-python's linger gathers records for a request, not events for a record, so batches are held
here, and one daemon thread sends those whose time is up while nobody calls `send` or `flush`.
"""

import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Unpack

from kafka.partitioner.default import murmur2
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from schemas.behaviour import (
    MAX_ACTION_BYTES,
    MAX_BATCH_EVENTS,
    BehaviourBatch,
    BehaviourEvent,
    BehaviourLimits,
    UserBehaviour,
    UserErased,
    behaviour_headers,
    decode_behaviour,
    encode_behaviour,
    user_of,
)
from schemas.errors import ConfigurationError, FreshetError, InvalidInput, Transient
from schemas.reasons import Reason
from schemas.topics import Topic
from streams.delivery_ledger import FlushReport
from streams.kafka_clients import KafkaConnection, translated
from streams.producers.event_batches import EventBatches, HeldEvent, Leaving
from streams.producers.event_producer import (
    Delivery,
    DeliveryOptions,
    EventProducer,
    OutgoingRecord,
    as_invalid_input,
    wall_clock_ms,
)

_BATCH_BYTES = 128 * 1024
"""Of events in one record; far below the lane's limit of a record, envelope included."""


class BehaviourProducer(EventProducer[BehaviourEvent]):
    """Sends behaviour events: idempotent, acks=all, keyed by user, CloudEvents 1.0 headers.

    with BehaviourProducer("127.0.0.1:9092", source="/shop", batch_events=100) as producer:
        producer.interaction("7", "42", "rate", value=9.0)
        producer.erase("8")
        report = producer.flush(timeout=30)

    Thread safe. With `batch_events` above 1, events of one partition share a record until it holds
    so many of them or the first has waited `batch_ms`. Reports and `on_delivery` speak of events
    all the same. An event without a time gets the time of `send`, because the record may be
    younger. Without `limits` any action is taken: the lane's settings say which have a weight.
    """

    def __init__(
        self,
        connection: KafkaConnection | str,
        *,
        topic_prefix: str = "",
        source: str = "/behaviour",
        batch_events: int = 1,
        batch_ms: float = 50.0,
        on_delivery: Callable[[Delivery[BehaviourEvent]], None] | None = None,
        limits: BehaviourLimits | None = None,
        **options: Unpack[DeliveryOptions],
    ) -> None:
        if not 1 <= batch_events <= MAX_BATCH_EVENTS:
            raise ConfigurationError(
                "batch_events", f"{batch_events}, allowed 1-{MAX_BATCH_EVENTS}"
            )
        super().__init__(
            connection, topic_prefix + Topic.USER_BEHAVIOUR, on_delivery=on_delivery, **options
        )
        self._source = source
        self._limits = limits
        self._holds = batch_events > 1
        # Guards the batches and the order in which they and erasures reach the client.
        self._changed = threading.Condition()
        self._batches = EventBatches(
            max_events=batch_events, max_bytes=_BATCH_BYTES, max_age_seconds=batch_ms / 1000
        )
        self._closed = False
        self._timer = threading.Thread(target=self._send_due, name="behaviour-batches", daemon=True)
        if self._holds:
            self._timer.start()

    def interaction(
        self,
        user_id: str,
        item_id: str,
        action: str,
        value: float | None = None,
        event_id: str | None = None,
        occurred_at: datetime | None = None,
    ) -> None:
        """Send that a user did something with an item; raises as `send`.

        `event_id` (a random UUID if absent) is what repetitions are known by: give one of your own
        wherever the same event may be sent twice.
        """
        try:
            event = UserBehaviour(
                user_id=user_id,
                item_id=item_id,
                action=action,
                value=value,
                event_id=uuid.uuid4().hex if event_id is None else event_id,
                occurred_at=occurred_at,
            )
        except ValidationError as error:
            raise as_invalid_input(error) from error
        self.send(event)

    def erase(self, user_id: str, occurred_at: datetime | None = None) -> None:
        """Send that everything known of a user up to a time has to go; raises as `send`."""
        try:
            event = UserErased(user_id=user_id, occurred_at=occurred_at)
        except ValidationError as error:
            raise as_invalid_input(error) from error
        self.send(event)

    def send(self, event: BehaviourEvent) -> None:
        """Buffer an event for sending; an erasure never waits, and what came before it goes first.

        Raises InvalidInput for what the behaviour lane would refuse, Transient("kafka") when the
        buffer stays full or the topic's metadata cannot be had: then the event was not taken.
        """
        if event.occurred_at is None:
            event = event.model_copy(update={"occurred_at": datetime.now(UTC)})
        record = self._checked(event)
        if not self._holds:
            self._send_alone(event, record)
            return
        partition = self._partition_of(record.key)
        ticket = self._admit(event, record.size)
        try:
            self._hold(event, ticket, replace(record, partition=partition), partition)
        except FreshetError:
            self._ledger.withdraw(ticket)
            raise

    def flush(self, timeout: float) -> FlushReport[BehaviourEvent]:
        """Wait at most `timeout` seconds for what was sent so far; return what became of it."""
        self._send_open()
        return super().flush(timeout)

    def close(self, timeout: float = 30.0) -> FlushReport[BehaviourEvent]:
        """Flush and close; what is still open then is reported as failed. Never raises."""
        deadline = time.monotonic() + timeout
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._send_open()
        if self._holds:
            self._timer.join(timeout)
        return super().close(max(0.0, deadline - time.monotonic()))

    def _checked(self, event: BehaviourEvent) -> OutgoingRecord:
        key = user_of(event).encode()
        try:
            value = encode_behaviour(event)
            headers = behaviour_headers(event, source=self._source, id_=_id(event))
        except PydanticSerializationError as error:
            raise InvalidInput(Reason.INVALID_UNICODE, "lone surrogates") from error
        now_ms = wall_clock_ms()
        # Exactly the lane's own check, on exactly the bytes that the lane will see.
        decode_behaviour(
            key,
            value,
            headers,
            timestamp_ms=now_ms,
            now_ms=now_ms,
            limits=self._limits or _any_action(event),
        )
        return OutgoingRecord(key, value, headers)

    def _partition_of(self, key: bytes) -> int:
        # As kafka-python's default partitioner chooses, and the clients of other languages with it.
        with translated():
            partitions = sorted(self._client.partitions_for(self._topic))
        partition: int = partitions[(murmur2(key) & 0x7FFFFFFF) % len(partitions)]
        return partition

    def _hold(
        self, event: BehaviourEvent, ticket: int, record: OutgoingRecord, partition: int
    ) -> None:
        with self._changed:
            if self._closed:
                raise Transient("kafka", "the producer is closed")
            if isinstance(event, UserErased):
                self._send_batches(self._batches.take(partition))
                self._put(record, (ticket,))
                return
            held = HeldEvent(event, ticket, len(record.value))
            self._send_batches(self._batches.add(partition, held, time.monotonic()))
            self._changed.notify()

    def _send_open(self) -> None:
        with self._changed:
            self._send_batches(self._batches.take_all())

    def _send_due(self) -> None:
        with self._changed:
            while not self._closed:
                due = self._batches.due
                # Without an open batch nothing can be late: `send` and `close` wake this thread.
                self._changed.wait(None if due is None else max(0.0, due - time.monotonic()))
                self._send_batches(self._batches.take_due(time.monotonic()))

    def _send_batches(self, leaving: Iterable[Leaving]) -> None:
        for partition, held in leaving:
            tickets = tuple(one.ticket for one in held)
            try:
                self._put(self._record_of([one.event for one in held], partition), tickets)
            except FreshetError as error:
                # Their `send` is long over: the next report says what became of them.
                for ticket in tickets:
                    self._ledger.settle(ticket, error)

    def _record_of(self, events: list[UserBehaviour], partition: int) -> OutgoingRecord:
        first = events[0]
        whole = first if len(events) == 1 else BehaviourBatch(events=tuple(events))
        id_ = _id(first) if len(events) == 1 else uuid.uuid4().hex
        return OutgoingRecord(
            user_of(first).encode(),
            encode_behaviour(whole),
            behaviour_headers(whole, source=self._source, id_=id_),
            partition,
        )


def _id(event: BehaviourEvent) -> str:
    return uuid.uuid4().hex if isinstance(event, UserErased) else event.event_id


def _any_action(event: BehaviourEvent) -> BehaviourLimits:
    if isinstance(event, UserErased):
        return BehaviourLimits(frozenset())
    # Longer ones cannot be in the lane's settings: a history has no room for them.
    fits = 0 < len(event.action.encode()) <= MAX_ACTION_BYTES
    return BehaviourLimits(frozenset({event.action} if fits else ()))
