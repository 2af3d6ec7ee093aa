"""Emitting: what lanes produce to Kafka, acknowledged by the broker before anything is settled.

Owns the port and the aiokafka producer behind it. Refuses to leave a record behind: what was not
acknowledged in time is taken back, so that a lane which has lost its partitions cannot write late.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.producer.message_accumulator import MessageAccumulator

from schemas.errors import Transient
from streams.kafka_clients import KafkaConnection
from streams.settings import KafkaSettings

DEPENDENCY = "kafka"

MAX_REQUEST_BYTES = 4 * 1024 * 1024
"""The topics' `max.message.bytes`: a request is at least one record."""

_BATCH_BYTES = 256 * 1024
_RECORD_OVERHEAD_BYTES = 256
_CANCEL_AGAIN_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Outgoing:
    """To produce: `topic` without the deployment's prefix, `value` None for a tombstone.

    Only a dead letter may lack its key, as the record did that it holds. The key chooses the
    partition unless one is given.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    partition: int | None = None


class Emitter(Protocol):
    """Who produces records for a lane."""

    async def emit(self, messages: Sequence[Outgoing]) -> None:
        """Return when the broker has acknowledged all, in order per key; raises Transient("kafka").

        After Transient any of the messages may have been written: emit all of them again.
        """


class KafkaEmitter:
    """An Emitter on one idempotent producer (acks=all), connected at the first emit.

    aiokafka never gives up on a record of an idempotent producer: after a time-out it would still
    be written whenever the broker comes back, after its successor's. So a producer that owes an
    acknowledgement is closed and another one takes its place.
    """

    def __init__(self, settings: KafkaSettings, *, linger_ms: int = 0) -> None:
        self._options: dict[str, object] = {
            **KafkaConnection.of(settings).options(),
            "enable_idempotence": True,
            "acks": "all",
            "linger_ms": linger_ms,
            "request_timeout_ms": round(settings.produce_timeout_seconds * 1000),
            "max_batch_size": _BATCH_BYTES,
            "max_request_size": MAX_REQUEST_BYTES,
        }
        self._prefix = settings.topic_prefix
        self._timeout_seconds = settings.produce_timeout_seconds
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._retired: dict[AIOKafkaProducer, asyncio.Task[None]] = {}

    async def emit(self, messages: Sequence[Outgoing]) -> None:
        """Return when the broker has acknowledged all; raises Transient("kafka")."""
        if not messages:
            return
        _check_sizes(messages)
        producer = await self._connected()
        acknowledged = False
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._deliver(producer, messages)
            acknowledged = True
        except TimeoutError as error:
            raise Transient(
                DEPENDENCY, f"no acknowledgement within {self._timeout_seconds:g} s"
            ) from error
        except KafkaError as error:
            raise Transient(DEPENDENCY, repr(error)) from error
        finally:
            # Also on cancellation: an abandoned handler's records must not be written later.
            if not acknowledged:
                self._retire(producer)

    async def aclose(self) -> None:
        """Close the producer; what nobody waits for any more is dropped."""
        if self._producer is not None:
            self._retire(self._producer)
        await self._await_retired()

    async def _deliver(self, producer: AIOKafkaProducer, messages: Sequence[Outgoing]) -> None:
        deliveries: list[asyncio.Future[object]] = []
        try:
            for message in messages:
                # aiokafka refuses a record of neither; a dead letter may hold one.
                is_void = message.key is None and message.value is None
                delivery = await producer.send(
                    self._prefix + message.topic,
                    key=message.key,
                    value=b"" if is_void else message.value,
                    partition=message.partition,
                    headers=list(message.headers),
                )
                deliveries.append(delivery)
            await asyncio.gather(*deliveries)
        finally:
            for delivery in deliveries:
                delivery.cancel()  # those that are done do not mind

    async def _connected(self) -> AIOKafkaProducer:
        if self._producer is not None:
            return self._producer
        async with self._starting:
            if self._producer is None:
                # One after the other: a predecessor must not write after its successor.
                await self._await_retired()
                self._producer = await self._start()
        return self._producer

    async def _start(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(**self._options)
        started = False
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await producer.start()
            started = True
        except TimeoutError as error:
            raise Transient(
                DEPENDENCY, f"no connection within {self._timeout_seconds:g} s"
            ) from error
        except KafkaError as error:
            raise Transient(DEPENDENCY, repr(error)) from error
        finally:
            if not started:
                self._retire(producer)
        return producer

    def _retire(self, producer: AIOKafkaProducer) -> None:
        """Use the producer no more and close it; safe to call twice and from a cancelled task."""
        if producer is self._producer:
            self._producer = None
        if producer not in self._retired:
            task = asyncio.create_task(_close_now(producer), name="retire-producer")
            self._retired[producer] = task
            task.add_done_callback(lambda _: self._retired.pop(producer))

    async def _await_retired(self) -> None:
        while self._retired:
            await asyncio.wait(self._retired.values())


async def _close_now(producer: AIOKafkaProducer) -> None:
    """Close a producer without waiting for what it still owes.

    `stop()` alone waits until everything is written, for the length of an outage (aiokafka 0.14.0),
    so its sender ends first and its records are failed.
    """
    sender = producer._sender.sender_task  # noqa: SLF001  # no public way, see above
    while sender is not None and not sender.done():
        # A cancelled sender waits for its requests; the next cancellation ends that wait.
        sender.cancel()
        await asyncio.wait([sender], timeout=_CANCEL_AGAIN_SECONDS)
    _fail_all(producer._message_accumulator)  # noqa: SLF001
    await producer.stop()


def _fail_all(accumulator: MessageAccumulator) -> None:
    """Fail every record that still waits, without the stack traces of `fail_all` alone."""
    queued = [batch for batches in accumulator._batches.values() for batch in batches]  # noqa: SLF001
    # The callback of a batch that was tried before takes it out of here, and fails if it is not.
    accumulator._pending_batches.update(batch for batch in queued if batch.retry_count)  # noqa: SLF001
    accumulator.fail_all(KafkaError("the producer was closed"))
    for batch in queued:
        # Fails with the batch, but nobody may wait for it: unread, it would be logged as a bug.
        batch._drain_waiter.exception()  # noqa: SLF001


def _check_sizes(messages: Sequence[Outgoing]) -> None:
    for message in messages:
        size = len(message.key or b"") + len(message.value or b"") + _RECORD_OVERHEAD_BYTES
        if size > MAX_REQUEST_BYTES:
            raise Transient(
                DEPENDENCY,
                f"{message.topic}: a record of {size} bytes, allowed {MAX_REQUEST_BYTES}",
            )
