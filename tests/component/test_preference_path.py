"""From what a user did to a vector made from what was written about it: gate, writer, encoder."""

from typing import Any

import numpy as np
import pytest

from schemas.entities import EntityKey, EntityKind, Stage
from schemas.history import NEVER, History
from schemas.knowledge import Document, Removed
from schemas.topics import Topic
from schemas.vector_record import VectorRecord
from streams.emitter import Outgoing
from streams.engine.outcomes import Outcome, Settled
from streams.lanes.encode import EncodeLane, EntityUpdate
from streams.lanes.knowledge import KnowledgeLane
from streams.lanes.preference_requests import PreferenceGateway, TasteChange
from streams.settings import BehaviourSettings, KnowledgeSettings
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.emitter import FakeEmitter
from tests.fakes.encoding import FakeSpaces, HashEncoder, SumAdaptor, representer, text_vector
from tests.fakes.gate_states import InMemoryGateStates
from tests.fakes.inline_executor import InlineExecutor
from tests.fakes.stores import InMemoryEntityStore
from tests.history_builders import event, user
from tests.lane_builders import as_record, movies
from tests.live_builders import content, item
from workers.knowledge.quality import QualityGate
from workers.knowledge.recorded_writer import RecordedWriter
from workers.towers.significance import Significance

ANN = user("ann")
MOODS = {
    "1": {"mood": "salt-grey and hushed, lit by a single lamp"},
    "2": {"mood": "neon-bright, brisk and restless"},
    "3": {"mood": "dusty afternoons, slow and warm"},
}


class World:
    """The lanes that knowledge about a user passes, around stores in memory."""

    def __init__(self) -> None:
        self.store = InMemoryEntityStore()
        self.emitter = FakeEmitter()
        self.encoder = HashEncoder()
        self.seen = 0
        clock, settings = FakeClock(), BehaviourSettings(knowledge="on")
        self.gateway = PreferenceGateway(
            states=InMemoryGateStates(),
            documents=self.store,
            spaces=NobodyWants(),
            emitter=self.emitter,
            clock=clock,
            significance=Significance(settings.actions),
            settings=settings,
        )
        self.knowledge = KnowledgeLane(
            "knowledge-backlog",
            emitter=self.emitter,
            documents=self.store,
            writer=RecordedWriter(MOODS, model="recorded-answers"),
            gate=QualityGate(movies()),
            domain=movies(),
            settings=KnowledgeSettings(),
            clock=clock,
        )
        self.encode = EncodeLane(
            store=self.store,
            representer=representer(self.encoder),
            spaces=FakeSpaces(SumAdaptor("taste", (EntityKind.USER,), "knowledge")),
            emitter=self.emitter,
            clock=clock,
            executor=InlineExecutor(),
        )
        for id_ in MOODS:
            self.store.seed(item(id_), content(1, f"Film {id_}"))

    async def settle(self) -> list[Outcome]:
        """Let the lanes take what was emitted until nothing new comes."""
        outcomes: list[Outcome] = []
        while self.seen < len(self.emitter.sent):
            message = self.emitter.sent[self.seen]
            self.seen += 1
            outcomes += await self._take(message)
        return outcomes

    async def _take(self, message: Outgoing) -> list[Outcome]:
        lanes: dict[Topic, Any] = {
            Topic.KNOWLEDGE: self.encode,
            Topic.KNOWLEDGE_BACKLOG: self.knowledge,
        }
        lane = lanes.get(Topic(message.topic))
        if lane is None:
            return []
        results = await lane.handle([lane.decode(as_record(message), START_MS)])
        assert all(isinstance(result, Settled) for result in results), results
        return [result.outcome for result in results]

    def vector(self, key: EntityKey = ANN) -> VectorRecord | None:
        stored = self.store.vectors.get(("taste", key))
        return None if stored is None else VectorRecord.decode(stored)


class NobodyWants:
    """A SpacesWishPort that is not asked: the setting says on."""

    def wants_user_knowledge(self) -> bool:
        return False


@pytest.fixture
def world() -> World:
    return World()


def liked(*ids: str, rev: int) -> TasteChange:
    events = tuple(event(n, item=id_, action="like") for n, id_ in enumerate(ids))
    return TasteChange(ANN, History(rev, NEVER, events), None)


async def test_what_a_user_likes_becomes_a_vector_of_what_is_written_about_it(world):
    await world.gateway.consider([liked("1", "2", "3", rev=50)])

    await world.settle()

    told = world.store.stored(ANN).document
    assert told.content is not None
    assert told.content.version == 50
    assert told.individual is not None
    assert told.individual.version == 50
    mood = told.individual.factors["mood"]
    assert all(word in mood for word in ("dusty", "neon", "salt"))
    vector = world.vector()
    assert vector is not None
    assert vector.header.stage == Stage.INDIVIDUAL
    assert np.allclose(vector.vector, text_vector(mood), atol=0.01)


async def test_before_anything_is_written_there_is_no_vector(world):
    await world.gateway.consider([liked("1", "2", rev=50)])

    await world.settle()

    assert world.vector() is None
    assert world.store.stored(ANN).document == Document()


async def test_an_erasure_outruns_the_answer_that_is_on_its_way(world):
    await world.gateway.consider([liked("1", "2", "3", rev=50)])
    await world.encode.handle(
        [EntityUpdate(ANN, Document(removed=Removed(51, START_MS)), tokens=1)]
    )

    outcomes = await world.settle()

    assert outcomes.count(Outcome.STALE) == 2
    assert world.vector() is None
    assert world.store.stored(ANN).document.individual is None
    assert world.encoder.texts == []


async def test_the_request_delivered_twice_costs_one_text(world):
    await world.gateway.consider([liked("1", "2", "3", rev=50)])
    again = list(world.emitter.sent)
    await world.settle()
    rev = world.store.stored(ANN).rev

    world.emitter.sent += again
    await world.settle()

    assert world.knowledge.stats.calls == 1
    assert world.store.stored(ANN).rev == rev
