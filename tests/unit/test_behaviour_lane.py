"""The behaviour lane: histories, vectors, waiting for items, erasures, floods, dead letters."""

from functools import reduce

import numpy as np
import orjson
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from schemas.entities import Stage
from schemas.errors import InvalidInput, Permanent, Transient
from schemas.history import History, HistoryBounds, HistoryRecord
from schemas.knowledge import KnowledgeRequest, RequestKind
from schemas.reasons import Reason
from schemas.topics import Topic
from schemas.vector_record import NO_VERSION, VectorRecord
from streams.engine.lane import Record
from streams.engine.outcomes import Outcome
from streams.lanes import behaviour
from tests.behaviour_builders import (
    EVENTS_TOPIC,
    GROUP,
    UPDATES_TOPIC,
    Behaviour,
    behaviour_record,
    entity_update,
    erasure,
    interaction,
    item_update,
    liked,
    mean_space,
)
from tests.fakes.clock import START_MS
from tests.history_builders import user
from tests.lane_builders import outcomes
from tests.live_builders import item
from workers.live.history_records import HistoryChange

ANNA, BERT = user("anna"), user("bert")
SEA, SPACE, WAR = (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0)


@pytest.fixture
def world() -> Behaviour:
    world = Behaviour()
    world.put_item("sea", SEA)
    world.put_item("space", SPACE)
    return world


# ---- vectors ---------------------------------------------------------------------------


async def test_the_first_event_makes_a_user_vector(world):
    results = await world.take(liked("anna", "e1", "sea"))

    assert outcomes(results) == [Outcome.WRITTEN]
    record = VectorRecord.decode(world.store.vectors["pca", ANNA])
    history = world.histories.of(ANNA)
    assert record.vector.tolist() == [1, 0, 0, 0]
    assert record.header.stage == Stage.CONTENT
    assert record.header.rev == record.header.content_version == history.rev
    assert record.header.factors_version == NO_VERSION
    assert record.header.event_time_ms == START_MS
    assert record.header.written_at_ms == world.clock.now_ms()


async def test_a_second_event_moves_the_vector_under_a_later_revision(world):
    await world.take(liked("anna", "e1", "sea"))
    first = world.histories.of(ANNA).rev

    await world.take(liked("anna", "e2", "space", at_s=1))

    np.testing.assert_allclose(world.vector_of(ANNA), [0.7071, 0.7071, 0, 0], atol=1e-3)
    assert world.histories.of(ANNA).rev > first


async def test_events_of_one_user_in_one_batch_are_one_change(world):
    results = await world.take(
        liked("anna", "e1", "sea"),
        behaviour_record(
            interaction("bert", "e1", "sea"), interaction("anna", "e2", "space", at_s=1)
        ),
    )

    assert outcomes(results) == [Outcome.WRITTEN] * 2
    (changes,) = world.histories.applied
    assert {change.user: len(change.events) for change in changes} == {ANNA: 2, BERT: 1}
    (read,) = world.items.reads
    assert sorted(read) == [item("sea"), item("space")]


async def test_a_repetition_is_unchanged_but_its_vector_is_put_again(world):
    await world.take(liked("anna", "e1", "sea"))
    del world.store.vectors["pca", ANNA]  # as if the process had ended in between

    results = await world.take(liked("anna", "e1", "sea"))

    assert outcomes(results) == [Outcome.UNCHANGED]
    assert world.vector_of(ANNA) is not None


async def test_every_space_with_histories_gets_a_vector():
    world = Behaviour(mean_space("a"), mean_space("b", dim=2))
    world.put_item("sea", SEA, space="a")
    world.put_item("sea", (0, 1), space="b")

    await world.take(liked("anna", "e1", "sea"))

    assert world.vector_of(ANNA, space="a").tolist() == [1, 0, 0, 0]
    assert world.vector_of(ANNA, space="b").tolist() == [0, 1]


async def test_histories_are_kept_while_no_space_needs_them(world):
    world.towers.made.clear()

    results = await world.take(liked("anna", "e1", "sea"))

    assert outcomes(results) == [Outcome.WRITTEN]
    assert world.vector_of(ANNA) is None


async def test_nothing_is_done_before_the_spaces_are_known(world):
    world.towers.trouble = Transient("spaces", "not read yet")

    with pytest.raises(Transient, match="not read yet"):
        await world.take(liked("anna", "e1", "sea"))

    assert not world.histories.stored


async def test_actions_without_weight_are_kept_but_say_nothing(world):
    results = await world.take(behaviour_record(interaction("anna", "e1", "sea", action="scroll")))

    assert outcomes(results) == [Outcome.WRITTEN]
    assert len(world.histories.of(ANNA).events) == 1
    assert world.vector_of(ANNA) is None
    assert not world.items.reads


async def test_many_users_and_items_are_read_in_portions(monkeypatch):
    monkeypatch.setattr("streams.lanes.laid_histories.ITEMS_AT_ONCE", 3)
    world = Behaviour()
    for n in range(10):
        world.put_item(n, SEA if n % 2 else SPACE)

    await world.take(*(liked(f"u{n}", "e", n) for n in range(10)))

    assert [len(read) for read in world.items.reads] == [3, 3, 3, 1]
    assert all(world.vector_of(user(f"u{n}")) is not None for n in range(10))


event_lists = st.lists(
    st.tuples(
        st.sampled_from(["anna", "bert"]),
        st.integers(0, 9),
        st.sampled_from(["view", "like", "dislike"]),
        st.integers(0, 200),
    ),
    min_size=1,
    max_size=30,
)


@given(event_lists, st.randoms(use_true_random=False), st.integers(1, 5))
async def test_an_incremental_result_equals_a_full_recompute(listed, random, batch_size):
    # Late, repeated and in any batches, against everything at once and in order.
    records = [
        behaviour_record(interaction(who, f"e{n}", n % 7, action=action, at_s=3_600.0 * hours))
        for who, n, action, hours in listed
    ]
    small = HistoryBounds(max_events=5, max_per_minute=3)
    one, other = Behaviour(bounds=small), Behaviour(bounds=small)
    for world in (one, other):
        for n in range(7):
            world.put_item(n, np.cos(np.arange(4) * (n + 1)))
    shuffled = random.sample(records, len(records)) + random.sample(records, len(records) // 2)

    await one.take(*records)
    for start in range(0, len(shuffled), batch_size):
        await other.take(*shuffled[start : start + batch_size])

    for who in (ANNA, BERT):
        full, incremental = one.vector_of(who), other.vector_of(who)
        assert (full is None) == (incremental is None)
        if full is not None:
            np.testing.assert_allclose(incremental, full, atol=1e-3)


# ---- items without a vector ------------------------------------------------------------


async def test_an_item_that_arrives_later_refreshes_who_waits_for_it(world):
    await world.take(liked("anna", "e1", "war"), liked("bert", "e1", "sea"))
    assert world.vector_of(ANNA) is None
    assert world.awaited.of(ANNA) == {item("war")}
    rev = world.histories.of(ANNA).rev

    world.put_item("war", WAR)
    results = await world.take(item_update("war"), item_update("sea"))

    assert outcomes(results) == [Outcome.WRITTEN, Outcome.UNCHANGED]
    assert world.vector_of(ANNA).tolist() == list(WAR)
    assert world.histories.of(ANNA).rev == rev
    assert not world.awaited.of(ANNA)


async def test_a_vector_is_made_from_what_is_there_meanwhile(world):
    await world.take(liked("anna", "e1", "war"), liked("anna", "e2", "sea"))

    assert world.vector_of(ANNA).tolist() == list(SEA)
    assert world.awaited.of(ANNA) == {item("war")}


@pytest.mark.parametrize("reads", [1, 2])
async def test_an_item_that_comes_at_any_moment_is_not_missed(world, reads):
    def arrive() -> None:
        if len(world.items.reads) == reads:
            world.put_item("war", WAR)

    world.items.after_read = arrive

    await world.take(liked("anna", "e1", "war"))
    if reads == 2:  # after the last look: but then it is announced to those who wait
        await world.take(item_update("war"))

    assert world.vector_of(ANNA).tolist() == list(WAR)


async def test_an_item_is_awaited_until_every_space_has_it():
    world = Behaviour(mean_space("a"), mean_space("b"))
    await world.take(liked("anna", "e1", "sea"))

    world.put_item("sea", SEA, space="a")
    await world.take(item_update("sea", space="a"))
    assert world.vector_of(ANNA, space="a") is not None
    assert world.awaited.of(ANNA) == {item("sea")}

    world.put_item("sea", SEA, space="b")
    await world.take(item_update("sea", space="b"))
    assert world.vector_of(ANNA, space="b") is not None
    assert not world.awaited.of(ANNA)


async def test_updates_that_bring_no_item_vector_change_nothing(world):
    await world.take(liked("anna", "e1", "war"))

    results = await world.take(item_update("war", stage=Stage.NONE), entity_update(BERT))

    assert outcomes(results) == [Outcome.UNCHANGED] * 2
    assert world.awaited.of(ANNA) == {item("war")}


async def test_an_item_and_its_first_event_in_one_batch_are_enough(world):
    world.put_item("war", WAR)

    await world.take(item_update("war"), liked("anna", "e1", "war"))

    assert world.vector_of(ANNA).tolist() == list(WAR)


async def test_a_crowd_that_waits_is_refreshed_a_few_users_at_a_time(world, monkeypatch):
    monkeypatch.setattr(behaviour, "REFRESHED_AT_ONCE", 2)
    crowd = [f"fan{n}" for n in range(5)]
    await world.take(*(liked(name, "e1", "war") for name in crowd))
    world.put_item("war", WAR)
    loads: list[int] = []
    load = world.histories.load

    async def counted(users):
        loads.append(len(users))
        return await load(users)

    monkeypatch.setattr(world.histories, "load", counted)

    results = await world.take(item_update("war"))

    assert outcomes(results) == [Outcome.WRITTEN]
    assert max(loads) == 2
    for name in crowd:
        assert world.vector_of(user(name)).tolist() == list(WAR)
        assert not world.awaited.of(user(name))


async def test_a_user_without_a_history_waits_no_longer(world):
    await world.awaited.add([(item("sea"), ANNA)], 1)  # their history expired

    await world.take(item_update("sea"))

    assert world.vector_of(ANNA) is None
    assert not world.awaited.of(ANNA)


async def test_a_refresh_does_not_bring_back_a_user_erased_meanwhile(world):
    await world.take(liked("anna", "e1", "war"), liked("anna", "e2", "sea"))
    world.put_item("war", WAR)
    loads = []

    def erase() -> None:
        loads.append(1)
        if len(loads) == 1:  # another worker, between the look at the history and the write
            world.histories.apply_now(HistoryChange(ANNA, erased_at_ms=START_MS + 60_000))
            del world.store.vectors["pca", ANNA]

    world.histories.after_load = erase

    await world.take(item_update("war"))

    assert world.vector_of(ANNA) is None


# ---- erasure ---------------------------------------------------------------------------


async def test_an_erasure_takes_everything_and_says_so(world):
    await world.take(liked("anna", "e1", "sea"), liked("anna", "e2", "war"))
    before = world.histories.of(ANNA).rev

    (result,) = await world.take(behaviour_record(erasure("anna", at_s=10), partition=3))

    assert (result.outcome, result.reason) == (Outcome.WRITTEN, "erased")
    history = world.histories.of(ANNA)
    assert history == History(history.rev, START_MS + 10_000)
    assert history.rev > before
    assert world.vector_of(ANNA) is None
    assert not world.awaited.of(ANNA)
    assert world.gate.forgotten == [ANNA]
    (record,) = world.emitter.on(Topic.HISTORIES)
    assert record.partition == 3
    assert HistoryRecord.decode(record.value).history == history
    (update,) = world.emitter.updates
    assert update.entity == ANNA
    assert (update.value.version, update.value.event_time_ms) == (history.rev, START_MS + 10_000)
    (request,) = world.emitter.requests(Topic.KNOWLEDGE_BACKLOG)
    assert request == KnowledgeRequest(
        ANNA, RequestKind.REMOVE, history.rev, {}, "", START_MS + 10_000, world.clock.now_ms()
    )


async def test_an_erasure_is_carried_on_again_when_it_is_repeated(world):
    erased = behaviour_record(erasure("anna", at_s=10))
    world.emitter.fail()

    with pytest.raises(Transient):
        await world.take(erased)
    await world.take(erased)

    rev = world.histories.of(ANNA).rev
    assert [update.value.version for update in world.emitter.updates] == [rev]


async def test_a_late_event_does_not_bring_an_erased_user_back(world):
    await world.take(behaviour_record(erasure("anna", at_s=10)))

    (late,) = await world.take(liked("anna", "e1", "sea", at_s=10))

    assert (late.outcome, late.reason) == (Outcome.STALE, "erased")
    assert world.vector_of(ANNA) is None


async def test_what_comes_after_an_erasure_counts(world):
    await world.take(liked("anna", "e1", "sea", at_s=1))

    await world.take(
        behaviour_record(erasure("anna", at_s=10)), liked("anna", "e2", "space", at_s=11)
    )

    assert world.vector_of(ANNA).tolist() == list(SPACE)
    assert [event.item for event in world.histories.of(ANNA).events] == ["space"]


async def test_no_knowledge_is_asked_for_under_the_version_that_removes_it(world):
    await world.take(
        behaviour_record(erasure("anna", at_s=10)), liked("anna", "e2", "space", at_s=11)
    )
    assert not world.gate.considered

    await world.take(liked("anna", "e3", "sea", at_s=12))
    (change,) = world.gate.considered
    assert change.history.rev > world.emitter.updates[0].value.version


# ---- knowledge of users ----------------------------------------------------------------


async def test_the_gate_hears_of_every_user_with_the_vector_of_the_first_space():
    world = Behaviour(mean_space("a"), mean_space("b"))
    world.put_item("sea", SEA, space="a")

    await world.take(liked("anna", "e1", "sea"), liked("bert", "e1", "war"))

    by_user = {change.user: change for change in world.gate.considered}
    taste = by_user[ANNA].vector
    assert taste is not None
    assert taste.tolist() == list(SEA)
    assert by_user[BERT].vector is None
    assert by_user[BERT].history == world.histories.of(BERT)


# ---- floods ----------------------------------------------------------------------------


async def test_a_flood_of_one_user_folds_into_one_bounded_unit():
    bounds = HistoryBounds(max_events=10, max_per_minute=4)
    world = Behaviour(bounds=bounds)
    records = [liked("anna", f"e{n}", n % 3, at_s=n) for n in range(1_000)]
    values = [world.decode(record) for record in records]

    folded = reduce(lambda waiting, incoming: world.lane.absorb(waiting, incoming).value, values)
    with structlog.testing.capture_logs() as logs:
        results = await world.lane.handle([folded])

    assert world.lane.tokens(folded) <= 40
    assert outcomes(results) == [Outcome.WRITTEN]
    events = [event for value in values for event in value.users[ANNA].events]
    kept = world.histories.of(ANNA)
    assert kept is not None
    assert kept.events == History().join(events, -1, bounds).events
    assert world.lane.counts.limited_events > 0
    assert [line["event"] for line in logs] == ["behaviour_limited"]
    assert "anna" not in str(logs)


async def test_limited_events_are_said_once_in_ten_seconds():
    world = Behaviour(bounds=HistoryBounds(max_events=10, max_per_minute=2))

    with structlog.testing.capture_logs() as logs:
        for n in range(6):
            await world.take(liked("anna", f"e{n}", 1, at_s=n))
        world.clock.advance(10)
        await world.take(liked("anna", "e6", 1, at_s=6))

    assert [line["events"] for line in logs] == [1, 4]
    assert world.lane.counts.limited_events == 5


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 240)), max_size=60),
    st.integers(1, 4),
    st.integers(1, 3),
)
async def test_folding_first_ends_in_the_same_history(listed, max_events, max_per_minute):
    bounds = HistoryBounds(max_events, max_per_minute)
    folding, plain = Behaviour(bounds=bounds), Behaviour(bounds=bounds)
    records = [liked("anna", f"e{n}", n, at_s=at_s) for n, at_s in listed]
    records.append(behaviour_record(erasure("anna", at_s=30)))
    values = [folding.decode(record) for record in records]

    await folding.lane.handle([reduce(lambda a, b: folding.lane.absorb(a, b).value, values)])
    for record in records:
        await plain.take(record)

    one, other = folding.histories.of(ANNA), plain.histories.of(ANNA)
    assert one is not None
    assert other is not None
    assert (one.events, one.erased_at_ms) == (other.events, other.erased_at_ms)


# ---- records that cannot be used -------------------------------------------------------


async def test_a_bad_event_of_a_batch_becomes_its_own_dead_letter(world):
    bad = interaction("bert", "e2", "sea", action="fly")
    record = behaviour_record(
        interaction("anna", "e1", "sea"),
        bad,
        {"type": "user.behaviour"},
        headers=(("ce_id", b"1"), ("ce_type", b"user.behaviour.batch"), ("trace", b"x")),
    )

    results = await world.take(record)

    assert outcomes(results) == [Outcome.WRITTEN]
    unknown, incomplete = world.letters.letters
    assert unknown.key == b"user:bert"
    assert orjson.loads(unknown.value) == bad
    assert unknown.headers == (("trace", b"x"),)
    assert unknown.reason is Reason.UNKNOWN_ACTION
    assert unknown.detail.startswith("event 1 of a batch: ")
    assert (unknown.topic, unknown.partition, unknown.offset) == (EVENTS_TOPIC, 0, 7)
    assert (unknown.group, unknown.stage) == (GROUP, "behaviour.decode")
    assert incomplete.key == record.key
    assert world.lane.counts.refused_events == 2


async def test_nothing_is_settled_before_its_dead_letters_are_there(world):
    world.letters.is_down = True

    with pytest.raises(Transient):
        await world.take(
            behaviour_record(
                interaction("anna", "e1", "sea"), interaction("anna", "e2", "sea", action="fly")
            )
        )


async def test_a_batch_that_begins_with_a_bad_event_goes_on(world):
    await world.take(
        behaviour_record(
            interaction("bert", "e1", "sea", action="fly"), interaction("anna", "e1", "sea")
        )
    )

    assert world.vector_of(ANNA) is not None
    assert world.histories.of(BERT) is None


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (Record(EVENTS_TOPIC, 0, 0, b"user:1", b"{", (), 0), Reason.NOT_JSON),
        (Record(EVENTS_TOPIC, 0, 0, None, b"{}", (), 0), Reason.NULL_KEY),
        (Record(UPDATES_TOPIC, 0, 0, b"item:1", None, (), 0), Reason.NULL_VALUE),
        (Record(UPDATES_TOPIC, 0, 0, b"item:1", b"{}", (), 0), Reason.UNREADABLE_KNOWLEDGE),
    ],
)
def test_unusable_records_are_refused_with_a_reason(world, record, reason):
    with pytest.raises(Permanent) as refused:
        world.decode(record)

    assert refused.value.reason is reason
    assert isinstance(refused.value, InvalidInput) == (record.topic == EVENTS_TOPIC)
