"""Groups in the encode lane: what is written about one is kept, and has no vector by default."""

import pytest

from schemas.entities import EntityKey, EntityKind, Stage
from schemas.knowledge import Document, EntityRecord, Removed
from schemas.topics import Topic
from schemas.vector_record import VectorRecord
from streams.engine.outcomes import Outcome
from streams.lanes.encode import EncodeLane, EntityUpdate
from tests.fakes.clock import FakeClock
from tests.fakes.emitter import FakeEmitter
from tests.fakes.encoding import FakeSpaces, HashEncoder, SumAdaptor, representer
from tests.fakes.inline_executor import InlineExecutor
from tests.fakes.stores import InMemoryEntityStore
from tests.lane_builders import outcomes
from tests.live_builders import factors

GROUP = EntityKey(EntityKind.GROUP, "films-13")


class World:
    """A lane and all it talks to; the spaces are of items."""

    def __init__(self) -> None:
        self.store = InMemoryEntityStore()
        self.encoder = HashEncoder()
        self.spaces = FakeSpaces(SumAdaptor())
        self.emitter = FakeEmitter()
        self.lane = EncodeLane(
            store=self.store,
            representer=representer(self.encoder),
            spaces=self.spaces,
            emitter=self.emitter,
            clock=FakeClock(),
            executor=InlineExecutor(),
        )

    async def handle(self, *documents: Document) -> list[Outcome]:
        return outcomes(await self.lane.handle([EntityUpdate(GROUP, one, 1) for one in documents]))

    @property
    def entities(self) -> list[EntityRecord]:
        return [EntityRecord.decode(sent.value or b"") for sent in self.emitter.on(Topic.ENTITIES)]


@pytest.fixture
def world() -> World:
    return World()


def written(version: int, mood: str) -> Document:
    return Document(individual=factors(version, mood))


async def test_a_groups_text_is_kept_but_neither_encoded_nor_announced(world):
    ended = await world.handle(written(3, "tense"))

    assert ended == [Outcome.WRITTEN]
    assert world.store.stored(GROUP).document == written(3, "tense")
    assert [(one.entity, one.document) for one in world.entities] == [(GROUP, written(3, "tense"))]
    assert world.encoder.texts == []
    assert world.store.vectors == {}
    assert {sent.topic for sent in world.emitter.sent} == {Topic.ENTITIES}


async def test_the_newest_text_wins_and_the_same_again_is_unchanged(world):
    await world.handle(written(3, "tense"))

    assert await world.handle(written(3, "tense")) == [Outcome.UNCHANGED]
    assert await world.handle(written(2, "older")) == [Outcome.STALE]
    assert await world.handle(written(4, "calm")) == [Outcome.WRITTEN]
    assert world.store.stored(GROUP).document == written(4, "calm")


async def test_a_removed_group_keeps_no_text(world):
    await world.handle(written(3, "tense"))

    await world.handle(Document(removed=Removed(5, 0)))

    assert world.store.stored(GROUP).document == Document(removed=Removed(5, 0))


async def test_a_space_of_groups_gets_vectors_of_their_texts(world):
    world.spaces.written.append(SumAdaptor("groups", kinds=(EntityKind.GROUP,)))

    await world.handle(written(3, "tense"))

    assert {space for space, _ in world.store.vectors} == {"groups"}
    record = VectorRecord.decode(world.store.vectors["groups", GROUP])
    assert (record.header.stage, record.header.mask) == (Stage.INDIVIDUAL, 0b100)
    assert world.encoder.texts == ["tense"]
