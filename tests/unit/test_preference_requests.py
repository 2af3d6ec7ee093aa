"""From changed histories to requests: what is emitted, when, and what a crash leaves behind."""

import re
from dataclasses import replace

import numpy as np
import pytest

from schemas.entities import EntityKey, EntityKind
from schemas.errors import Transient
from schemas.fingerprints import content_fingerprint
from schemas.history import NEVER, History
from schemas.knowledge import Content, Document, RegisterName, RequestKind
from schemas.spaces import Space, SpaceRecord, SpaceState
from schemas.topics import Topic
from streams.lanes.preference_requests import (
    PreferenceGateway,
    TasteChange,
    gate_policy,
    taste_bounds,
    wants_user_knowledge,
)
from streams.settings import BehaviourSettings
from tests.fakes.clock import FakeClock
from tests.fakes.emitter import FakeEmitter
from tests.fakes.gate_states import InMemoryGateStates
from tests.fakes.stores import InMemoryEntityStore
from tests.history_builders import DAY_MS, START_MS, event, user
from tests.live_builders import content, factors, item
from workers.knowledge.preference_gate import GateReason, GateState, event_day
from workers.towers.significance import Significance

ANN, BOB = user("ann-7f3"), user("bob-9c1")
EAST, NORTH = np.array([1.0, 0.0], np.float32), np.array([0.0, 1.0], np.float32)
TODAY = event_day(START_MS)


class Spaces:
    """A SpacesWishPort; `looks` counts how often it was asked."""

    def __init__(self) -> None:
        self.wants = True

    def wants_user_knowledge(self) -> bool:
        return self.wants


class World:
    """A gateway and all it talks to; films 0 to 9 have titles."""

    def __init__(self, **settings) -> None:
        self.states = InMemoryGateStates()
        self.documents = InMemoryEntityStore()
        self.spaces = Spaces()
        self.emitter = FakeEmitter()
        self.clock = FakeClock(now_ms=START_MS + 5)
        for n in range(10):
            self.documents.seed(item(n), content(1, f"Film {n}"))
        self.settings = BehaviourSettings(**settings)
        self.restart()

    def restart(self) -> None:
        self.gateway = PreferenceGateway(
            states=self.states,
            documents=self.documents,
            spaces=self.spaces,
            emitter=self.emitter,
            clock=self.clock,
            significance=Significance(self.settings.actions),
            settings=self.settings,
        )

    def state(self, of: EntityKey = ANN) -> GateState:
        return GateState.decode(self.states.rows[of])

    @property
    def requests(self):
        return self.emitter.requests(Topic.KNOWLEDGE_BACKLOG)


@pytest.fixture
def world() -> World:
    return World()


def change(of: EntityKey = ANN, *, likes: int = 3, rev: int = 100, vector=EAST) -> TasteChange:
    """A user who liked the first films, a second between two."""
    events = tuple(event(n, item=n, action="like") for n in range(likes))
    return TasteChange(of, History(rev, NEVER, events), vector)


async def test_a_user_worth_a_call_becomes_content_and_a_request_of_the_historys_revision(world):
    await world.gateway.consider([change()])

    (update,), (request,) = world.emitter.updates, world.requests
    assert (update.entity, update.register) == (ANN, RegisterName.CONTENT)
    assert isinstance(update.value, Content)
    assert (request.entity, request.kind) == (ANN, RequestKind.USER)
    assert update.value.version == request.version == 100
    assert update.value.fields == request.fields
    assert request.content_fingerprint == content_fingerprint(request.fields)
    assert update.value.fingerprint == request.content_fingerprint
    assert update.value.event_time_ms == request.event_time_ms == START_MS + 2_000
    assert request.requested_at_ms == START_MS + 5
    assert [entry["title"] for entry in request.fields["liked"]] == ["Film 2", "Film 1", "Film 0"]
    assert request.fields["disliked"] == []
    assert [message.key for message in world.emitter.sent] == [b"user:ann-7f3"] * 2


async def test_nothing_says_who_the_user_is(world):
    await world.gateway.consider([change()])

    assert not re.search("ann|7f3", str(world.requests[0].fields))


async def test_a_user_not_worth_a_call_is_only_remembered(world):
    await world.gateway.consider([change(likes=2)])

    assert world.emitter.sent == []
    assert world.documents.loads == 0
    assert world.state().reason is GateReason.TOO_FEW_EVENTS
    assert world.states.ttls[ANN] == 90 * DAY_MS
    assert world.gateway.stats.decisions == {"too_few_events": 1}


async def test_a_crash_before_the_state_is_stored_repeats_the_very_same(world):
    world.states.failures.append(Transient("redis", "scripted"))
    with pytest.raises(Transient):
        await world.gateway.consider([change()])
    world.restart()

    await world.gateway.consider([change()])

    assert [sent.key for sent in world.emitter.on(Topic.KNOWLEDGE)] == [ANN.encode()] * 2
    first, second = world.requests
    assert first == second
    assert len({sent.value for sent in world.emitter.on(Topic.KNOWLEDGE)}) == 1


async def test_a_failed_emit_leaves_the_gate_as_it_was(world):
    world.emitter.fail()
    with pytest.raises(Transient):
        await world.gateway.consider([change()])

    assert ANN not in world.states.rows


async def test_the_same_revision_is_decided_once(world):
    await world.gateway.consider([change()])
    await world.gateway.consider([change(vector=NORTH)])

    assert len(world.requests) == 1
    assert world.state().reason is GateReason.ASKED_FIRST


async def test_without_any_title_nobody_is_asked_until_something_else_happens(world):
    for n in range(3):
        world.documents.seed(item(n), Document())
    await world.gateway.consider([change()])
    declined = world.state()
    world.documents.seed(item(0), content(1, "Heat"))

    await world.gateway.consider([change(likes=4, rev=101)])

    assert (declined.reason, declined.was_asked) == (GateReason.NO_TITLES, False)
    assert world.states.counted[TODAY] == 1
    assert [entry["title"] for entry in world.requests[0].fields["liked"]] == ["Film 3", "Heat"]


async def test_the_budget_of_all_is_never_overdrawn():
    world = World(gate_calls_per_day=2)
    crowd = [change(user(n)) for n in range(4)]

    await world.gateway.consider(crowd[:3])
    await world.gateway.consider(crowd[3:])

    assert [request.entity for request in world.requests] == [user(0), user(1)]
    assert world.state(user(2)).reason is GateReason.GLOBAL_BUDGET
    assert world.state(user(3)).reason is GateReason.GLOBAL_BUDGET
    assert world.states.counted[TODAY] == 2


async def test_a_call_that_another_worker_took_meanwhile_is_not_ours(monkeypatch):
    world = World(gate_calls_per_day=1)
    add_call = world.states.add_call

    async def taken_first(day: str) -> int:
        world.states.counted[day] += 1
        return await add_call(day)

    monkeypatch.setattr(world.states, "add_call", taken_first)
    await world.gateway.consider([change()])

    assert world.requests == []
    assert world.state().reason is GateReason.GLOBAL_BUDGET
    assert not world.state().was_asked


async def test_a_redis_that_lost_the_states_asks_nobody_anew_about_the_same(world):
    written = replace(factors(100), event_time_ms=START_MS + 2_000)
    world.documents.seed(ANN, Document(individual=written))

    await world.gateway.consider([change(likes=4, rev=101), change(BOB)])

    assert [request.entity for request in world.requests] == [BOB]
    state = world.state()
    assert (state.reason, state.new_events) == (GateReason.BELOW_THRESHOLD, 1)
    assert (state.asked_rev, state.calls) == (100, 1)


async def test_a_state_of_another_format_counts_as_lost(world):
    world.states.rows[ANN] = b"\x63"

    await world.gateway.consider([change()])

    assert len(world.requests) == 1


async def test_forgotten_users_begin_anew(world):
    await world.gateway.consider([change()])

    await world.gateway.forget([ANN])
    await world.gateway.forget([])

    assert world.states.rows == {}


@pytest.mark.parametrize(
    ("mode", "wants", "asks"),
    [
        ("auto", True, 1),
        ("auto", False, 0),
        ("on", False, 1),
        ("off", True, 0),
    ],
)
async def test_users_are_written_about_when_somebody_wants_it(mode, wants, asks):
    world = World(knowledge=mode)
    world.spaces.wants = wants

    await world.gateway.consider([change()])

    assert len(world.requests) == asks
    assert world.states.loads == asks


async def test_an_empty_batch_costs_nothing(world):
    await world.gateway.consider([])

    assert world.states.loads == 0


async def test_titles_are_read_only_for_those_who_ask(world):
    await world.gateway.consider([change(likes=2), change(BOB)])

    assert world.documents.loads == 1


def space(name: str, state: SpaceState = SpaceState.ACTIVE, **changes) -> SpaceRecord:
    fields = {
        "kinds": (EntityKind.ITEM, EntityKind.USER),
        "encoder_id": "encoder",
        "adaptor_id": "parts-pca",
        "parts": ("title",),
        "part_dim": 2,
        "dim": 2,
        "user_vectors": "knowledge",
    }
    made = Space(name=name, **(fields | changes))
    return SpaceRecord(space=made, state=state, writer="encode", changed_at_ms=1)


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        (space("s"), True),
        (space("s", SpaceState.BACKFILLING), True),
        (space("s", SpaceState.RETIRING), False),
        (space("s", user_vectors="histories"), False),
        (space("s", kinds=(EntityKind.ITEM,)), False),
        (space("raw", adaptor_id="raw"), False),
    ],
)
def test_a_live_space_that_takes_users_from_knowledge_is_who_wants_it(record, wanted):
    assert wants_user_knowledge([space("t", user_vectors="histories"), record]) is wanted


def test_settings_become_the_numbers_of_the_gate():
    settings = BehaviourSettings(
        gate_max_age_days=2, gate_min_interval_hours=3, half_life_days=5, liked_titles=7
    )

    policy, bounds = gate_policy(settings), taste_bounds(settings)

    assert (policy.max_age_ms, policy.min_interval_ms) == (2 * DAY_MS, 3 * 3_600_000)
    assert (bounds.liked, bounds.half_life_ms) == (7, 5 * DAY_MS)
