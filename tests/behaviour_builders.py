"""The behaviour lane around stores in memory, and the records that it reads."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from schemas.behaviour import BehaviourLimits
from schemas.entities import EntityKey, EntityKind, Stage
from schemas.history import HistoryBounds
from schemas.live_update import LiveUpdate
from schemas.spaces import Space
from schemas.topics import Topic
from schemas.vector_record import VectorRecord
from streams.engine.lane import Record
from streams.engine.outcomes import Result
from streams.lanes.behaviour import BehaviourLane
from streams.lanes.behaviour_news import BehaviourNews
from streams.lanes.preference_requests import TasteChange
from streams.lanes.user_vectors import UserVectors
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.emitter import FakeEmitter
from tests.fakes.engine import FakeDeadLetters
from tests.fakes.histories import InMemoryAwaited, InMemoryHistories, StoredItemVectors
from tests.fakes.inline_executor import InlineExecutor
from tests.fakes.stores import InMemoryEntityStore
from tests.history_builders import DAY_MS
from tests.live_builders import item, vector
from workers.towers.recency_mean import RecencyMean
from workers.towers.significance import RatingScale, Significance
from workers.towers.user_tower import UserTower

UPDATES_TOPIC = "p." + Topic.LIVE_UPDATES
EVENTS_TOPIC = "p." + Topic.USER_BEHAVIOUR
GROUP = "p.freshet.behaviour"
TTL_MS = 90 * DAY_MS
ACTIONS = {"view": 0.2, "like": 1.0, "dislike": -1.0, "rate": 1.0, "scroll": 0.0}
SIGNIFICANCE = Significance(ACTIONS, frozenset({"rate"}), RatingScale())


def mean_space(name: str = "pca", dim: int = 4, **changes: object) -> Space:
    """A space with user vectors from histories."""
    fields: dict[str, Any] = {
        "name": name,
        "kinds": (EntityKind.ITEM, EntityKind.USER),
        "encoder_id": "encoder",
        "adaptor_id": "parts-pca",
        "parts": ("title", "content"),
        "part_dim": 2,
        "dim": dim,
        **changes,
    }
    return Space(**fields)


class FakeTowers:
    """A TowersPort whose towers a test may change; raises `trouble` when there is some."""

    def __init__(self, *spaces: Space) -> None:
        self.made: list[UserTower] = [RecencyMean(space, 30 * DAY_MS, 0.5) for space in spaces]
        self.trouble: Exception | None = None

    def towers(self) -> Sequence[UserTower]:
        if self.trouble is not None:
            raise self.trouble
        return tuple(self.made)


class FakeGate:
    """A PreferencePort that keeps what it was told."""

    def __init__(self) -> None:
        self.considered: list[TasteChange] = []
        self.forgotten: list[EntityKey] = []

    async def consider(self, changes: Sequence[TasteChange]) -> None:
        self.considered += changes

    async def forget(self, users: Sequence[EntityKey]) -> None:
        self.forgotten += users


class Behaviour:
    """The lane and everything around it."""

    def __init__(self, *spaces: Space, bounds: HistoryBounds | None = None) -> None:
        self.bounds = bounds or HistoryBounds()
        self.clock = FakeClock(now_ms=START_MS + 30 * DAY_MS)
        self.spaces = spaces or (mean_space(),)
        self.histories = InMemoryHistories(self.clock, self.bounds)
        self.awaited = InMemoryAwaited()
        self.store = InMemoryEntityStore()
        self.items = StoredItemVectors(self.store)
        self.towers = FakeTowers(*self.spaces)
        self.gate = FakeGate()
        self.emitter = FakeEmitter()
        self.letters = FakeDeadLetters()
        self.user_vectors = UserVectors(
            towers=self.towers,
            items=self.items,
            awaited=self.awaited,
            store=self.store,
            significance=SIGNIFICANCE,
            clock=self.clock,
            executor=InlineExecutor(),
            ttl_ms=TTL_MS,
        )
        self.lane = BehaviourLane(
            histories=self.histories,
            awaited=self.awaited,
            user_vectors=self.user_vectors,
            gate=self.gate,
            emitter=self.emitter,
            dead_letters=self.letters,
            clock=self.clock,
            bounds=self.bounds,
            limits=BehaviourLimits(actions=frozenset(ACTIONS)),
            updates_topic=UPDATES_TOPIC,
            group=GROUP,
        )

    def decode(self, record: Record) -> BehaviourNews:
        return self.lane.decode(record, self.clock.now_ms())

    async def take(self, *records: Record) -> Sequence[Result]:
        """Handle records as one batch, without folding those of one key."""
        return await self.lane.handle([self.decode(record) for record in records])

    def put_item(self, id_: object, values: object, *, space: str = "pca") -> None:
        self.store.vectors[space, item(id_)] = vector(1, values)

    def vector_of(self, user: EntityKey, *, space: str = "pca") -> Any:
        stored = self.store.vectors.get((space, user))
        return None if stored is None else VectorRecord.decode(stored).vector.astype(np.float32)


def interaction(
    user: str,
    event_id: str,
    item_id: object,
    *,
    at_s: float = 0,
    action: str = "like",
    value: float | None = None,
) -> dict[str, object]:
    """The JSON of an event, `at_s` seconds after START_MS."""
    event: dict[str, object] = {
        "type": "user.behaviour",
        "user_id": user,
        "event_id": event_id,
        "item_id": str(item_id),
        "action": action,
        "occurred_at": _iso(at_s),
    }
    return event if value is None else event | {"value": value}


def erasure(user: str, *, at_s: float) -> dict[str, object]:
    return {"type": "user.erased", "user_id": user, "occurred_at": _iso(at_s)}


def behaviour_record(
    *events: Mapping[str, object], partition: int = 0, headers: tuple[tuple[str, bytes], ...] = ()
) -> Record:
    """The record of one event, or of a batch of several."""
    first = events[0]
    body = first if len(events) == 1 else {"type": "user.behaviour.batch", "events": list(events)}
    key = f"user:{first['user_id']}".encode()
    return Record(EVENTS_TOPIC, partition, 7, key, orjson.dumps(body), headers, START_MS)


def liked(user: str, event_id: str, item_id: object, *, at_s: float = 0) -> Record:
    return behaviour_record(interaction(user, event_id, item_id, at_s=at_s))


def item_update(id_: object, *, space: str = "pca", stage: Stage = Stage.CONTENT) -> Record:
    return entity_update(item(id_), space=space, stage=stage)


def entity_update(entity: EntityKey, *, space: str = "pca", stage: Stage = Stage.CONTENT) -> Record:
    update = LiveUpdate(entity, space, 1, stage, 1, -1, START_MS, START_MS)
    return Record(UPDATES_TOPIC, 0, 3, entity.encode(), update.encode(), (), START_MS)


def _iso(at_s: float) -> str:
    return str(np.datetime64(START_MS + round(at_s * 1000), "ms")) + "Z"
