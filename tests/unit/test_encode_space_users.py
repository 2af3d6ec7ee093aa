"""The lane of a new space and users: their vectors are there before its items are."""

import numpy as np
import pytest

from schemas.entities import EntityKey, EntityKind
from schemas.knowledge import Document
from schemas.spaces import Space
from schemas.topics import Topic
from schemas.vector_record import VectorRecord
from streams.engine.outcomes import Outcome
from streams.lanes.encode import EncodeLane, EntityUpdate
from streams.lanes.encode_space import Touched
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.emitter import FakeEmitter
from tests.fakes.encoding import FakeSpaces, HashEncoder, SumAdaptor, representer
from tests.fakes.histories import InMemoryHistories
from tests.fakes.inline_executor import InlineExecutor
from tests.fakes.stores import InMemoryEntityStore
from tests.history_builders import BOUNDS, event, user
from tests.lane_builders import outcomes, record
from tests.live_builders import content, item, removed
from tests.space_lane_builders import space_lane
from workers.live.history_records import HistoryChange

BOTH = (EntityKind.ITEM, EntityKind.USER)
ANN, BEN = user("ann"), user("ben")
HISTORY = Touched(ANN, document=False, history=True)


class World:
    """Two films in the raw space, and a new space that is still empty."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store = InMemoryEntityStore()
        self.emitter = FakeEmitter()
        self.histories = InMemoryHistories(self.clock, BOUNDS)
        self.adaptor = SumAdaptor("new", BOTH)
        self.spaces = FakeSpaces(self.adaptor)
        self.lane = space_lane(
            self.adaptor,
            store=self.store,
            emitter=self.emitter,
            clock=self.clock,
            histories=self.histories,
            spaces=self.spaces,
        )

    async def films(self, *documents: tuple[EntityKey, Document]) -> None:
        lane = EncodeLane(
            store=self.store,
            representer=representer(HashEncoder()),
            spaces=FakeSpaces(),
            emitter=FakeEmitter(),
            clock=self.clock,
            executor=InlineExecutor(),
        )
        await lane.handle([EntityUpdate(key, document, 1) for key, document in documents])

    def watch(self, who: EntityKey, *numbers: int, erased_at_ms: int = -1) -> None:
        events = tuple(event(n, item=n) for n in numbers)
        self.histories.apply_now(HistoryChange(who, events, erased_at_ms))

    def vector(self, key: EntityKey) -> VectorRecord:
        return VectorRecord.decode(self.store.vectors["new", key])

    def declare(self, **changes: object) -> None:
        self.adaptor.space = Space(**{**dict(self.adaptor.space), **changes})


@pytest.fixture
async def world() -> World:
    world = World()
    await world.films((item(1), content(1, "Heat")), (item(2), content(1, "Dune")))
    return world


async def test_a_users_vector_is_the_same_before_and_after_the_items_got_theirs(world):
    world.watch(ANN, 1, 2)

    results = await world.lane.handle([HISTORY])

    assert outcomes(results) == [Outcome.WRITTEN]
    before = world.vector(ANN)
    history = world.histories.of(ANN)
    assert (before.header.rev, before.header.event_time_ms) == (history.rev, history.newest_ms)
    assert ("new", item(1)) not in world.store.vectors
    await world.lane.handle([Touched(item(1)), Touched(item(2))])
    await world.lane.handle([HISTORY])
    assert np.array_equal(world.vector(ANN).vector, before.vector)
    expected = sum(world.vector(item(n)).vector.astype(np.float32) for n in (1, 2))
    np.testing.assert_allclose(
        before.vector, expected / np.linalg.norm(expected), atol=0.01, rtol=0
    )


async def test_an_item_without_parts_or_removed_since_has_no_say(world):
    world.watch(ANN, 1, 2, 3)
    world.watch(BEN, 1)
    await world.films((item(2), removed(2)))

    await world.lane.handle([HISTORY, Touched(BEN, document=False, history=True)])

    np.testing.assert_allclose(world.vector(ANN).vector, world.vector(BEN).vector, atol=1e-3)


async def test_a_vector_from_a_later_history_is_kept(world):
    world.watch(ANN, 1)
    await world.lane.handle([HISTORY])
    old = world.histories.stored[ANN]
    world.clock.advance(1)
    world.watch(ANN, 2)
    await world.lane.handle([HISTORY])
    newer = world.store.vectors["new", ANN]

    world.histories.stored[ANN] = old
    await world.lane.handle([HISTORY])

    assert world.store.vectors["new", ANN] == newer


async def test_a_user_who_is_erased_in_the_middle_gets_no_vector_back(world):
    world.watch(ANN, 1)

    def erase() -> None:
        world.histories.after_load = None
        world.clock.advance(1)
        world.watch(ANN, erased_at_ms=START_MS + 10**9)
        world.store.vectors.pop(("new", ANN), None)

    world.histories.after_load = erase
    await world.lane.handle([HISTORY])

    assert ("new", ANN) not in world.store.vectors


async def test_a_user_without_a_history_is_left_alone(world):
    results = await world.lane.handle([HISTORY])

    assert outcomes(results) == [Outcome.STALE]
    assert world.store.vectors.keys().isdisjoint({("new", ANN)})


async def test_nothing_is_announced_about_users(world):
    world.watch(ANN, 1)

    await world.lane.handle([HISTORY])

    assert world.emitter.sent == []


@pytest.mark.parametrize(
    "changes",
    [{"user_vectors": "knowledge"}, {"kinds": (EntityKind.ITEM,)}],
    ids=["from knowledge", "without users"],
)
async def test_a_space_that_takes_nothing_from_histories_passes_them_over(world, changes):
    world.declare(**changes)
    world.watch(ANN, 1)

    results = await world.lane.handle([HISTORY])

    assert outcomes(results) == [Outcome.UNCHANGED]
    assert ("new", ANN) not in world.store.vectors


async def test_what_is_known_of_a_user_does_not_touch_a_vector_from_their_history(world):
    world.watch(ANN, 1)
    await world.lane.handle([HISTORY])

    results = await world.lane.handle([Touched(ANN)])

    assert outcomes(results) == [Outcome.UNCHANGED]
    assert ("new", ANN) in world.store.vectors


async def test_records_of_all_three_topics_about_one_user_are_looked_at_once(world):
    world.watch(ANN, 1)
    decoded = [
        world.lane.decode(record(topic, b"user:ann", b"{}"), START_MS)
        for topic in ("p.histories", Topic.ENTITIES, Topic.REPRESENTATIONS)
    ]

    together = world.lane.absorb(world.lane.absorb(*decoded[:2]).value, decoded[2]).value

    assert decoded[0] == HISTORY
    assert together == Touched(ANN, document=True, history=True)
    assert outcomes(await world.lane.handle([together])) == [Outcome.WRITTEN]
