"""Sends the feed: the back catalogue as fast as it goes, the summer at a chosen speed-up.

Drives the producer SDK as any source would, and a bare Kafka producer for the records that the SDK
refuses. Tells the watcher of every acknowledged event that must become visible.
"""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Protocol, Self

import kafka

from deploy.demo.broken import BrokenRecord
from deploy.demo.films import SUMMER_STARTS_MS
from deploy.demo.schedule import FeedEvent
from schemas.errors import Transient
from schemas.topics import Topic
from streams.producers import CatalogProducer, Delivery

SOURCE = "/movietweetings"
_LONGEST_WAIT_SECONDS = 0.1
_FLUSH_SECONDS = 30.0
_CLOSE_SECONDS = 5.0


class Expectations(Protocol):
    """Who looks out for the effects of events."""

    def expect(self, event: FeedEvent, acknowledged_at_ms: float) -> None:
        """Look out for an event that Kafka accepted."""


class Replay:
    """A producer of the feed, as a context manager.

    Args:
        bootstrap_servers: of the broker.
        watcher: is told of every event that must become visible, once it is acknowledged.
        on_sent: called with each record after it was handed to the producer.
        check: called several times a second; raises to end the replay.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        watcher: Expectations,
        *,
        on_sent: Callable[[FeedEvent | BrokenRecord], None] = lambda _: None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._watcher = watcher
        self._on_sent = on_sent
        self._check = check
        # By what a delivery says of itself. A repetition is acknowledged too: the first one counts.
        self._news: dict[tuple[str, int], FeedEvent] = {}
        self._producer = CatalogProducer(
            bootstrap_servers, source=SOURCE, linger_ms=1, on_delivery=self._delivered
        )
        self._raw = kafka.KafkaProducer(
            bootstrap_servers=bootstrap_servers,
            acks="all",
            compression_type="gzip",
            max_request_size=4 * 1024 * 1024,
            allow_auto_create_topics=False,
        )

    def load(self, events: Sequence[FeedEvent]) -> None:
        """Send events as fast as Kafka takes them; raises Transient when some were not taken."""
        for index, event in enumerate(events):
            self._send(event)
            if index % 100 == 0:
                self._check()
        self._flush()

    def play(self, records: Sequence[FeedEvent | BrokenRecord], *, speed: float) -> None:
        """Send records in event time, `speed` seconds of it a second; raises Transient as `load`.

        A source that cannot keep up sends late rather than less.
        """
        started = time.monotonic()
        for record in records:
            due = started + (record.at_ms - SUMMER_STARTS_MS) / 1000 / speed
            self._check()
            while (wait := due - time.monotonic()) > 0:
                time.sleep(min(wait, _LONGEST_WAIT_SECONDS))
                self._check()
            if isinstance(record, BrokenRecord):
                self._send_broken(record)
            else:
                self._send(record)
        self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # After Ctrl-C nobody waits for what is still on its way.
        seconds = _CLOSE_SECONDS if error is None else 0.1
        self._producer.close(seconds)
        self._raw.close(timeout=seconds)

    def _send(self, event: FeedEvent) -> None:
        occurred_at = datetime.fromtimestamp(event.at_ms / 1000, UTC)
        if event.is_news:
            self._news[event.item_id, event.version] = event
        if event.fields is None:
            self._producer.remove(event.item_id, event.version, occurred_at)
        else:
            self._producer.upsert(event.item_id, event.version, event.fields, occurred_at)
        self._on_sent(event)

    def _send_broken(self, record: BrokenRecord) -> None:
        self._raw.send(
            Topic.CATALOG_ITEMS.value,
            key=record.key,
            value=record.value,
            headers=list(record.headers),
        )
        self._on_sent(record)

    def _flush(self) -> None:
        report = self._producer.flush(_FLUSH_SECONDS)
        self._raw.flush(timeout=_FLUSH_SECONDS)
        if not report.complete:
            raise Transient(
                "kafka", f"{len(report.failed)} events refused, {report.pending} not acknowledged"
            )

    def _delivered(self, delivery: Delivery) -> None:
        event = self._news.pop((delivery.event.item_id, delivery.event.version), None)
        if event is not None:
            self._watcher.expect(event, delivery.acked_at_ms)
