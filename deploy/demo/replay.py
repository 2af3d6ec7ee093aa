"""Sends the feed: what was before the summer as fast as it goes, the summer at a chosen speed-up.

Drives the producer SDK as any source would, and a bare Kafka producer for the records that the SDK
refuses. Tells the watchers of every acknowledged event that must become visible.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Protocol, Self

import kafka

from deploy.demo.broken import BrokenRecord
from deploy.demo.films import SUMMER_STARTS_MS
from deploy.demo.schedule import FeedEvent, SummerRecord
from deploy.demo.user_plans import Act, UserEvent
from deploy.demo.user_questions import UserQuestions
from deploy.demo.user_replay import UserReadings, UserReplay
from deploy.demo.watch import Reader
from schemas.behaviour import BehaviourEvent
from schemas.errors import Transient
from schemas.events import CatalogEvent
from streams.producers import BehaviourProducer, CatalogProducer, Delivery

SOURCE = "/movietweetings"

EVENTS_A_RECORD = 200
RECORD_MS = 100.0
"""Ratings of one partition share a Kafka record for so long: several hours of the season."""

_TICK_SECONDS = 0.005
_LONGEST_WAIT_SECONDS = 0.1
_HELD_SECONDS = 20.0
_FLUSH_SECONDS = 30.0
_CLOSE_SECONDS = 5.0


class Expectations(Protocol):
    """Who looks out for the effects of catalogue events, and sees which films are live."""

    def expect(self, event: FeedEvent, acknowledged_at_ms: float) -> None:
        """Look out for an event that Kafka accepted."""

    def is_live(self, item_id: str) -> bool:
        """Return whether a film was readable when it was looked for last."""


class UserExpectations(Protocol):
    """Who looks out for new users."""

    def expect(self, user_id: str, acknowledged_at_ms: float) -> None:
        """Look out for a user one of whose events Kafka accepted."""


class Replay:
    """A producer of the feed, as a context manager.

    Args:
        bootstrap_servers: of the broker.
        watcher: is told of every event that must become visible, once it is acknowledged.
        new_users: is told of the users whose first event was acknowledged.
        asked: whose vectors are read when.
        on_sent: called with each record after it was handed to the producer.
        check: called several times a second; raises to end the replay.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        watcher: Expectations,
        new_users: UserExpectations,
        asked: UserQuestions,
        *,
        on_sent: Callable[[SummerRecord], None] = lambda _: None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._watcher = watcher
        self._new_users = new_users
        self._asked = asked
        self._on_sent = on_sent
        self._check = check
        # By what a delivery says of itself. A repetition is acknowledged too: the first one counts.
        self._news: dict[tuple[str, int], FeedEvent] = {}
        self._catalog = CatalogProducer(
            bootstrap_servers, source=SOURCE, linger_ms=1, on_delivery=self._delivered
        )
        self._behaviour = BehaviourProducer(
            bootstrap_servers,
            source=SOURCE,
            batch_events=EVENTS_A_RECORD,
            batch_ms=RECORD_MS,
            linger_ms=5,
            compression=None,  # on one machine bytes are cheaper than the processor's time
            on_delivery=self._behaviour_delivered,
        )
        self._raw = kafka.KafkaProducer(
            bootstrap_servers=bootstrap_servers,
            acks="all",
            compression_type="gzip",
            max_request_size=4 * 1024 * 1024,
            allow_auto_create_topics=False,
        )

    def load(self, events: Iterable[FeedEvent | UserEvent]) -> None:
        """Send events as fast as Kafka takes them; raises Transient when some were not taken."""
        for index, event in enumerate(events):
            self._send(event)
            if index % 100 == 0:
                self._check()
        self._flush()

    def play(
        self,
        records: Sequence[SummerRecord],
        *,
        speed: float,
        reader: Reader,
        known: Sequence[UserEvent] = (),
    ) -> UserReadings:
        """Send records in event time, `speed` seconds of it a second; raises Transient as `load`.

        Reads users through `reader` meanwhile and returns what was read; `known` was loaded before.
        A source that cannot keep up sends late rather than less.
        """
        users = UserReplay(self._send, reader, self._watcher.is_live, self._asked)
        users.known(known)
        started, sent = time.monotonic(), 0
        while sent < len(records):
            season_ms = SUMMER_STARTS_MS + (time.monotonic() - started) * speed * 1000
            while sent < len(records) and records[sent].at_ms <= season_ms:
                self._put(records[sent], users)
                users.pump()
                sent += 1
            self._check()
            users.pump()
            if sent < len(records):
                wait = (records[sent].at_ms - season_ms) / 1000 / speed
                longest = _TICK_SECONDS if users.held else _LONGEST_WAIT_SECONDS
                time.sleep(max(_TICK_SECONDS, min(wait, longest)))
        self._await_held(users)
        self._flush()
        return users.readings

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
        self._catalog.close(seconds)
        self._behaviour.close(seconds)
        self._raw.close(timeout=seconds)

    def _await_held(self, users: UserReplay) -> None:
        deadline = time.monotonic() + _HELD_SECONDS
        while users.held:
            if time.monotonic() > deadline:
                users.lose_patience()
            self._check()
            users.pump()
            time.sleep(_TICK_SECONDS)

    def _put(self, record: SummerRecord, users: UserReplay) -> None:
        match record:
            case UserEvent():
                users.take(record)
            case FeedEvent():
                self._send(record)
            case BrokenRecord():
                self._raw.send(
                    record.topic.value,
                    key=record.key,
                    value=record.value,
                    headers=list(record.headers),
                )
                self._on_sent(record)

    def _send(self, event: FeedEvent | UserEvent) -> None:
        if isinstance(event, UserEvent):
            self._send_behaviour(event)
        else:
            self._send_catalog(event)
        self._on_sent(event)

    def _send_catalog(self, event: FeedEvent) -> None:
        if event.is_news:
            self._news[event.item_id, event.version] = event
        if event.fields is None:
            self._catalog.remove(event.item_id, event.version, _moment(event.at_ms))
        else:
            self._catalog.upsert(event.item_id, event.version, event.fields, _moment(event.at_ms))

    def _send_behaviour(self, event: UserEvent) -> None:
        occurred_at = _moment(event.occurred_ms)
        if event.kind is Act.ERASURE:
            self._behaviour.erase(event.user_id, occurred_at)
            return
        self._behaviour.interaction(
            event.user_id,
            event.item_id,
            "rate",
            value=event.rating,
            event_id=event.event_id,
            occurred_at=occurred_at,
        )

    def _flush(self) -> None:
        catalog = self._catalog.flush(_FLUSH_SECONDS)
        behaviour = self._behaviour.flush(_FLUSH_SECONDS)
        self._raw.flush(timeout=_FLUSH_SECONDS)
        if not (catalog.complete and behaviour.complete):
            raise Transient(
                "kafka",
                f"{len(catalog.failed) + len(behaviour.failed)} events refused, "
                f"{catalog.pending + behaviour.pending} not acknowledged",
            )

    def _delivered(self, delivery: Delivery[CatalogEvent]) -> None:
        event = self._news.pop((delivery.event.item_id, delivery.event.version), None)
        if event is not None:
            self._watcher.expect(event, delivery.acked_at_ms)

    def _behaviour_delivered(self, delivery: Delivery[BehaviourEvent]) -> None:
        if delivery.event.user_id in self._asked.new_users:
            self._new_users.expect(delivery.event.user_id, delivery.acked_at_ms)


def _moment(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)
