"""`freshet erase user:7`: everything known of a user goes, and the command waits until it is gone.

It only sends `user.erased`; the lanes do the rest: the behaviour lane leaves a mark (an id and a
time) in place of the history and takes vectors and the gate's state away, the encode lane drops the
document. What the topics still hold of the user dies with their retention and compaction.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from schemas.entities import EntityKey, EntityKind
from schemas.errors import InvalidInput
from schemas.history import History
from schemas.reasons import Reason
from streams.kafka_clients import KafkaConnection
from streams.producers import BehaviourProducer
from streams.redis_clients import OpenRedis, open_redis
from streams.settings import KafkaSettings, Settings
from workers.live.entity_store import EntityStore, StoredDetails
from workers.live.gate_store import GateStore
from workers.live.history_store import HistoryStore

_LOOK_SECONDS = 0.2
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ErasureReport:
    """`left` names what was still there when the time was up; None when nobody looked.

    `came_back` tells that the user has interacted with something since.
    """

    user: EntityKey
    erased_at_ms: int
    left: tuple[str, ...] | None
    came_back: bool
    seconds: float


async def erase(
    settings: Settings,
    user: EntityKey,
    *,
    wait_seconds: float | None = 60.0,
    source: str = "/freshet/erase",
    on_wait: Callable[[tuple[str, ...]], None] = lambda _: None,
) -> ErasureReport:
    """Send the erasure of a user as of now, and wait until nothing older is left of them.

    With `wait_seconds` None it does not look. `on_wait` is told what is still there. Raises
    InvalidInput for what is no user, UndeliveredEvents when Kafka did not take the event, Transient
    when Kafka or Redis does not answer.
    """
    if user.kind is not EntityKind.USER:
        raise InvalidInput(Reason.INVALID_ID, f"{user} is no user: only user:<id> can be erased")
    started = time.monotonic()
    at_ms = time.time_ns() // 1_000_000
    await asyncio.to_thread(_send, settings.kafka, user, at_ms, source)
    left: tuple[str, ...] | None = None
    came_back = False
    if wait_seconds is not None:
        async with open_redis(settings.redis) as redis:
            while True:
                left, came_back = await _look(settings, redis, user, at_ms)
                if not left or time.monotonic() - started > wait_seconds:
                    break
                on_wait(left)
                await asyncio.sleep(_LOOK_SECONDS)
    return ErasureReport(user, at_ms, left, came_back, time.monotonic() - started)


def left_of(
    history: History | None, stored: StoredDetails | None, gate: bytes | None, at_ms: int
) -> tuple[str, ...]:
    """Return what is left of a user from before `at_ms`; what came later may stay. Pure."""
    left = []
    if history is None or history.erased_at_ms < at_ms:
        left.append("history")
    if stored is not None and any(
        header.event_time_ms <= at_ms for header in stored.vectors.values()
    ):
        left.append("vectors")
    # The removal is the proof: no answer that is still on its way can outrank it.
    removed = None if stored is None else stored.document.removed
    if removed is None or removed.event_time_ms < at_ms:
        left.append("knowledge")
    if gate is not None and not (history is not None and history.newest_ms > at_ms):
        left.append("gate")
    return tuple(left)


def _send(kafka: KafkaSettings, user: EntityKey, at_ms: int, source: str) -> None:
    with BehaviourProducer(
        KafkaConnection.of(kafka),
        topic_prefix=kafka.topic_prefix,
        source=source,
        delivery_seconds=kafka.produce_timeout_seconds,
    ) as producer:
        producer.erase(user.id, _EPOCH + timedelta(milliseconds=at_ms))


async def _look(
    settings: Settings, redis: OpenRedis, user: EntityKey, at_ms: int
) -> tuple[tuple[str, ...], bool]:
    behaviour = settings.behaviour
    histories = HistoryStore(redis.client, redis.keys, behaviour.bounds, behaviour.idle_ms)
    (history,) = await histories.load([user])
    (gate,) = await GateStore(redis.client, redis.keys).load([user])
    stored = await EntityStore(redis.client, redis.keys).load_stored(user)
    came_back = history is not None and history.newest_ms > at_ms
    return left_of(history, stored, gate, at_ms), came_back
