"""Overload: what items get when there is no time, or no budget, for a call about each."""

import asyncio
from dataclasses import replace
from functools import partial

import pytest

from schemas.entities import EntityKey, EntityKind, Stage
from schemas.errors import Permanent, Transient
from schemas.fingerprints import content_fingerprint
from schemas.knowledge import Document, RegisterName, Removed, RequestKind
from schemas.reasons import Reason, Rejection
from schemas.topics import Topic
from streams.engine.outcomes import Outcome, Settled
from streams.lanes.collective import PATIENCE
from streams.lanes.shared_answers import STRIKES
from tests.fakes.clock import START_MS
from tests.fakes.version_writer import VersionWriter
from tests.lane_builders import movies, outcomes, request
from tests.overload_builders import RAW, OverloadWorld, groups_of, item_content, raw_record
from tests.stack import wait_until
from workers.knowledge.shared_prompt import shared_prompt_id
from workers.knowledge.writer import Rejected

ITEM = EntityKey.item("42")


@pytest.fixture
def world() -> OverloadWorld:
    world = OverloadWorld()
    world.seed("42")
    return world


async def reasons(world: OverloadWorld, *requests) -> list[tuple[Outcome, str]]:
    results = await world.handle(*requests)
    assert all(isinstance(result, Settled) for result in results), results
    return [(one.outcome, one.reason) for one in results if isinstance(one, Settled)]


COLLECTIVE = (Outcome.EMITTED, "collective")
DEFERRED = (Outcome.EMITTED, "deferred")


# ---- when ----------------------------------------------------------------------------------------


async def test_a_request_that_did_not_wait_long_gets_a_call_of_its_own(world):
    fresh = request(1, requested_at_ms=world.clock.now_ms() - 29_000)

    assert await reasons(world, fresh) == [(Outcome.EMITTED, "")]
    assert [update.register for update in world.emitter.updates] == [RegisterName.INDIVIDUAL]
    assert world.upgrades == []


async def test_with_the_budget_spent_not_even_a_fresh_request_gets_a_call(world):
    world.budget.is_out = True

    assert await reasons(world, request(1, requested_at_ms=world.clock.now_ms())) == [COLLECTIVE]
    assert world.shared_calls == [["42"]]


async def test_the_backlog_has_no_way_out_and_needs_none(world):
    assert outcomes(await world.upgrade(request(1, kind=RequestKind.UPGRADE))) == [Outcome.EMITTED]
    assert len(world.individual) == 1


async def test_users_are_never_served_from_a_group():
    world = OverloadWorld()
    taste = {"liked": [{"title": "Heat", "signal": "loved"}], "disliked": []}
    user = replace(
        request(1, kind=RequestKind.USER),
        entity=EntityKey(EntityKind.USER, "7"),
        fields=taste,
        content_fingerprint=content_fingerprint(taste),
    )
    world.budget.is_out = True

    await world.handle(user)

    assert world.collective == []
    assert [call.entity for call in world.writer.requests] == [user.entity]


async def test_what_needs_no_call_is_settled_as_ever(world):
    await world.handle(request(1, requested_at_ms=world.clock.now_ms()))

    assert await reasons(world, request(1)) == [(Outcome.UNCHANGED, "same_fingerprint")]
    assert world.upgrades == []


# ---- what ----------------------------------------------------------------------------------------


async def test_an_item_gets_a_phrase_of_its_own_and_a_place_on_the_backlog(world):
    assert await reasons(world, request(1)) == [COLLECTIVE]

    (factors,) = world.collective
    assert list(factors.factors) == ["mood"]
    assert factors.factors["mood"].startswith("mood 1 of item:42")
    assert (factors.version, factors.event_time_ms) == (1, START_MS + 1)
    assert (factors.provenance.group, factors.provenance.model) == ("a", world.writer.model)
    assert factors.provenance.prompt_id == shared_prompt_id(movies())
    assert world.upgrades == [replace(request(1), kind=RequestKind.UPGRADE)]
    # Both at once: no item is left without the wish for knowledge of its own.
    (messages,) = world.emitter.calls
    assert [message.topic for message in messages] == [Topic.KNOWLEDGE, Topic.KNOWLEDGE_BACKLOG]


async def test_items_share_a_call_with_others_of_the_group_that_they_are_nearest_to(world):
    world.seed("7", axis=1)
    world.seed("8", axis=1)

    await world.handle(request(1), request(1, id_="7"), request(1, id_="8"))

    assert sorted(world.shared_calls) == [["42"], ["7", "8"]]
    assert {
        str(update.entity): update.value.provenance.group
        for update in world.updates(RegisterName.COLLECTIVE)
    } == {"item:42": "a", "item:7": "b", "item:8": "b"}


async def test_twelve_items_cost_one_call_and_each_gets_what_is_said_of_it(world):
    wishes = [request(1, id_=world.seed(str(number)).id) for number in range(100, 130)]

    results = await world.handle(*wishes)

    assert {result.reason for result in results} == {"collective"}
    assert sorted(map(len, world.shared_calls)) == [6, 12, 12]
    for update in world.updates(RegisterName.COLLECTIVE):
        assert f"of {update.entity}" in update.value.factors["mood"]
    assert set(world.writer.priorities) == {-1}
    stats = world.lane.stats
    assert (stats.saved_shared, stats.calls, stats.costs["shared"].calls) == (27, 3, 3)
    assert world.budget.spent == stats.prompt_tokens + stats.completion_tokens > 0
    provenances = [factors.provenance for factors in world.collective]
    assert sum(one.prompt_tokens for one in provenances) == stats.prompt_tokens
    assert sum(one.completion_tokens for one in provenances) == stats.completion_tokens


async def test_a_full_call_waits_for_nobody():
    world = OverloadWorld(share_seconds=30, share_members=3)
    wishes = [request(1, id_=world.seed(str(number)).id) for number in range(3)]

    async with asyncio.timeout(10):
        assert await reasons(world, *wishes) == [COLLECTIVE] * 3

    assert world.shared_calls == [["0", "1", "2"]]


async def test_calls_may_be_about_one_item_each():
    world = OverloadWorld(share_seconds=30, share_members=1)
    wishes = [request(1, id_=world.seed(str(number)).id) for number in range(3)]

    async with asyncio.timeout(10):
        assert await reasons(world, *wishes) == [COLLECTIVE] * 3

    assert world.shared_calls == [["0"], ["1"], ["2"]]


async def test_who_comes_while_all_calls_are_in_flight_still_joins():
    world = OverloadWorld(share_seconds=0, in_flight=1)
    world.writer.gate.clear()
    async with asyncio.TaskGroup() as group:
        group.create_task(world.handle(request(1, id_=world.seed("0", axis=1).id)))
        await wait_until(lambda: world.writer.in_flight == 1)
        for number in range(1, 4):
            group.create_task(world.handle(request(1, id_=world.seed(str(number)).id)))
            await asyncio.sleep(0.01)
        world.writer.gate.set()

    assert world.shared_calls == [["0"], ["1", "2", "3"]]


async def test_those_who_wait_for_one_another_take_no_place_of_those_who_work(world):
    world.writer.gate.clear()
    wishes = [request(1, id_=world.seed(str(number)).id) for number in range(5)]

    handled = [asyncio.create_task(world.handle(wish)) for wish in wishes]
    await wait_until(lambda: world.lane.aside.freed == 5)
    world.writer.gate.set()
    await asyncio.gather(*handled)

    assert world.lane.aside.freed == 0


async def test_an_answer_counts_as_evidence_that_the_writer_is_there(world):
    (result,) = await world.handle(request(1))
    (again,) = await world.handle(request(1))

    assert "vllm" in result.called
    assert "vllm" not in again.called


async def test_an_item_that_no_prompt_can_tell_of_costs_the_others_nothing(world):
    world.seed("7")
    untitled = replace(request(1, id_="7"), fields={"title": " "})

    refused, served = await world.handle(untitled, request(1))

    assert isinstance(refused, Permanent)
    assert refused.reason is Reason.EMPTY_TITLE
    assert served.reason == "collective"


# ---- what was there already ----------------------------------------------------------------------


async def test_what_was_written_about_the_item_itself_is_never_covered(world):
    fresh = request(1, requested_at_ms=world.clock.now_ms())
    await world.handle(fresh)
    (own,) = world.individual
    world.seed("42", version=2, individual=own)
    edited = item_content(2, "Heat, restored")
    world.documents.seed(ITEM, Document(content=edited, individual=own))
    changed = request(2, "Heat, restored", kind=RequestKind.CHANGED)

    assert await reasons(world, changed) == [DEFERRED]
    assert world.collective == []
    assert world.upgrades == [replace(changed, kind=RequestKind.UPGRADE)]


async def test_the_same_request_again_changes_nothing_of_the_item(world):
    await world.handle(request(1))
    world.merge()
    before = world.documents.stored(ITEM).document
    world.restart()

    assert await reasons(world, request(1)) == [COLLECTIVE]
    world.merge()

    assert world.documents.stored(ITEM).document == before
    first, second = world.upgrades
    assert first == second


async def test_what_was_said_of_the_same_content_is_not_asked_again(world):
    await world.handle(request(1))
    world.merge()
    world.restart()
    stored = world.documents.stored(ITEM).document
    edited = replace(stored.content, version=2)
    world.documents.seed(ITEM, replace(stored, content=edited))

    assert await reasons(world, request(2)) == [COLLECTIVE]

    assert len(world.shared_calls) == 1
    first, second = world.collective
    assert (second.version, second.factors) == (2, first.factors)
    assert world.lane.stats.saved_fingerprint == 1


async def test_what_another_model_said_is_asked_anew_and_replaced(world):
    await world.handle(request(1))
    world.merge()
    world.writer = VersionWriter(model="another")
    world.restart()

    await world.handle(request(1))
    world.merge()

    stored = world.documents.stored(ITEM).document
    assert stored.collective.provenance.model == "another"
    assert stored.merge(Document(collective=world.collective[0])) == stored


async def test_an_edit_is_told_anew(world):
    await world.handle(request(1))
    world.merge()
    edited = item_content(2, "Heat, restored")
    stored = world.documents.stored(ITEM).document
    world.seed("42", version=2, collective=stored.collective)
    world.documents.seed(ITEM, replace(stored, content=edited), vectors={RAW.name: raw_record(1)})

    assert await reasons(world, request(2, "Heat, restored")) == [COLLECTIVE]

    assert world.shared_calls == [["42"], ["42"]]
    assert [one.version for one in world.collective] == [1, 2]


async def test_an_answer_from_the_backlog_outranks_the_group_whatever_comes_first(world):
    await world.handle(request(1))
    (upgrade,) = world.upgrades
    assert outcomes(await world.upgrade(upgrade, upgrade)) == [Outcome.EMITTED, Outcome.EMITTED]

    for registers in (world.emitter.updates, world.emitter.updates[::-1]):
        document = Document(content=item_content(1))
        for update in registers:
            if update.entity == ITEM:
                document = document.merge(Document.of(update.register, update.value))
        assert document.stage is Stage.INDIVIDUAL
        assert document.live_factors is not None
        assert document.live_factors.provenance.group is None


async def test_an_upgrade_that_was_asked_for_twice_costs_one_call(world):
    await world.handle(request(1))
    await world.handle(request(1))
    calls = len(world.writer.requests)
    first, second = world.upgrades

    await world.upgrade(first)
    (result,) = await world.upgrade(second)

    assert (result.outcome, result.reason) == (Outcome.UNCHANGED, "same_fingerprint")
    assert len(world.writer.requests) == calls + 1


# ---- what no call comes to -----------------------------------------------------------------------


def old(world: OverloadWorld, seconds: float, id_: str, **parts):
    """A request that has waited so long."""
    return request(
        1, id_=id_, requested_at_ms=world.clock.now_ms() - round(seconds * 1000), **parts
    )


def aside(world: OverloadWorld, handlers: int) -> bool:
    """Whether so many wait for one another."""
    return world.lane.aside.freed == handlers


async def test_a_request_that_no_call_comes_to_in_time_is_left_to_the_backlog():
    world = OverloadWorld(in_flight=1, share_members=2, longest_wait_seconds=60)
    world.writer.gate.clear()
    async with asyncio.TaskGroup() as group:
        asked = [
            group.create_task(reasons(world, old(world, 31, world.seed(id_).id))) for id_ in "ab"
        ]
        await wait_until(lambda: world.writer.in_flight == 1)
        # The call is about none of these, and a second one may not be made beside it.
        left = [
            group.create_task(reasons(world, old(world, 59.8, world.seed(id_).id))) for id_ in "cd"
        ]
        await wait_until(lambda: all(task.done() for task in left))
        assert [task.result() for task in left] == [[DEFERRED]] * 2
        assert not any(task.done() for task in asked), "whom a call is about wait for it"
        world.writer.gate.set()

    assert [task.result() for task in asked] == [[COLLECTIVE]] * 2
    assert [sorted(ids) for ids in world.shared_calls] == [["a", "b"]]
    assert {wish.entity.id for wish in world.upgrades} == {"a", "b", "c", "d"}
    assert world.lane.aside.freed == 0


async def test_a_late_request_still_takes_a_place_that_is_free(world):
    """A lane that stood still finds the server idle and nothing but late requests."""
    assert await reasons(world, old(world, 86_400, "42")) == [COLLECTIVE]


async def test_an_item_without_parts_waits_for_them_while_others_have_all_the_places():
    world = OverloadWorld(in_flight=1)
    world.writer.gate.clear()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(world.handle(request(1, id_=world.seed("0", axis=1).id)))
        await wait_until(lambda: world.writer.in_flight == 1)
        handled = [group.create_task(reasons(world, request(1, id_=id_))) for id_ in "12"]
        await wait_until(lambda: world.documents.loads >= 8)
        for id_ in "12":
            world.seed(id_)
        await wait_until(lambda: world.lane.aside.freed == 3)
        world.writer.gate.set()

    assert [task.result() for task in handled] == [[COLLECTIVE]] * 2
    assert [sorted(ids) for ids in world.shared_calls] == [["0"], ["1", "2"]]


async def test_a_fresh_request_joins_others_once_it_has_waited_in_vain():
    world = OverloadWorld(in_flight=1)
    world.writer.gate.clear()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(world.handle(request(1, id_=world.seed("0", axis=1).id)))
        await wait_until(lambda: world.writer.in_flight == 1)
        fresh = group.create_task(reasons(world, old(world, 29.9, world.seed("1").id)))
        await asyncio.sleep(0.05)
        assert world.lane.aside.freed == 1
        world.clock.advance(1)
        await wait_until(lambda: world.lane.aside.freed == 2)
        world.writer.gate.set()

    assert fresh.result() == [COLLECTIVE]


async def test_late_items_without_parts_leave_the_places_to_others():
    world = OverloadWorld(longest_wait_seconds=120)

    assert await reasons(world, old(world, 121, "42")) == [DEFERRED]
    assert world.writer.requests == []


async def test_late_users_are_left_to_the_backlog():
    world = OverloadWorld(longest_wait_seconds=120)
    taste = {"liked": [{"title": "Heat", "signal": "loved"}], "disliked": []}

    def user(seconds: float):
        return replace(
            old(world, seconds, "7", kind=RequestKind.USER),
            entity=EntityKey(EntityKind.USER, "7"),
            fields=taste,
            content_fingerprint=content_fingerprint(taste),
        )

    assert await reasons(world, user(121)) == [DEFERRED]
    (wish,) = world.upgrades
    assert (wish.entity, wish.kind) == (user(0).entity, RequestKind.UPGRADE)
    assert await reasons(world, user(119)) == [(Outcome.EMITTED, "")]


async def test_nobody_is_late_before_calls_are_shared():
    world = OverloadWorld(longest_wait_seconds=1)

    assert await reasons(world, old(world, 29, "42")) == [(Outcome.EMITTED, "")]


async def test_the_time_goes_on_for_those_whose_call_was_cancelled():
    world = OverloadWorld(share_members=2, in_flight=1, longest_wait_seconds=60)
    world.writer.gate.clear()
    leader = asyncio.create_task(world.handle(old(world, 31, world.seed("a").id)))
    follower = asyncio.create_task(reasons(world, old(world, 59.7, world.seed("b").id)))
    await wait_until(lambda: world.writer.in_flight == 1)
    await asyncio.sleep(0.6)
    assert not follower.done()
    other = asyncio.create_task(world.handle(request(1, id_="c", requested_at_ms=10**15)))

    await cancel(leader)

    # Its place went to another, and its own time is long over.
    assert await follower == [DEFERRED]
    await cancel(other)


async def test_a_free_place_goes_to_the_group_that_has_most_of_a_call_together():
    world = OverloadWorld(groups_of("a", "b", "c"), in_flight=1, share_seconds=0)
    world.writer.gate.clear()
    async with asyncio.TaskGroup() as group:
        # By group: one that takes the place, then a first of b, and two of c.
        for number, axis in enumerate((0, 1, 2, 2)):
            world.seed(str(number), axis=axis)
            group.create_task(world.handle(request(1, id_=str(number))))
            await wait_until(partial(aside, world, number + 1))
        await wait_until(lambda: world.writer.in_flight == 1)
        world.writer.gate.set()

    assert world.shared_calls == [["0"], ["2", "3"], ["1"]]


# ---- what is missing -----------------------------------------------------------------------------


async def test_without_groups_there_is_only_the_backlog(world):
    world.groupings.groups = None

    assert await reasons(world, request(1)) == [DEFERRED]
    assert world.upgrades == [replace(request(1), kind=RequestKind.UPGRADE)]
    assert world.emitter.updates == []


@pytest.mark.parametrize("what", ["other encoder", "no raw space", "no usable part"])
async def test_an_item_that_has_no_group_is_deferred(world, what):
    match what:
        case "other encoder":
            world.groupings.groups = groups_of("a", encoder_id="another")
        case "no raw space":
            world.groupings.space = None
        case "no usable part":
            world.groupings.groups = replace(groups_of("a"), parts=("synopsis",))

    assert await reasons(world, request(1)) == [DEFERRED]
    assert world.writer.requests == []


async def test_while_an_item_has_no_parts_a_call_about_it_is_the_best_use_of_the_time():
    world = OverloadWorld(parts_wait_seconds=60)

    assert await reasons(world, request(1)) == [(Outcome.EMITTED, "")]
    assert len(world.individual) == 1
    assert world.upgrades == []


async def test_with_the_budget_spent_a_new_item_is_waited_for_until_its_parts_are_there():
    world = OverloadWorld(parts_wait_seconds=60)
    world.budget.is_out = True

    async with asyncio.TaskGroup() as group:
        handled = group.create_task(reasons(world, request(1)))
        await wait_until(lambda: world.documents.loads >= 2)
        world.seed("42")

    assert handled.result() == [COLLECTIVE]


async def test_the_parts_of_an_older_version_are_not_taken_for_the_newers():
    world = OverloadWorld()
    world.budget.is_out = True
    world.seed("42", version=1)

    assert await reasons(world, request(2, "Heat, restored")) == [DEFERRED]


async def test_an_item_whose_parts_never_come_is_deferred_in_bounded_time(world):
    world.budget.is_out = True
    absent = [request(1, id_=f"x{number}") for number in range(PATIENCE)]

    assert {reason for _, reason in await reasons(world, *absent)} == {"deferred"}
    looks = world.documents.loads
    assert await reasons(world, request(1, id_="another")) == [DEFERRED]

    # The encode lane stands: no more waiting, so that the queue empties.
    assert world.documents.loads == looks + 2
    assert await reasons(world, request(1)) == [COLLECTIVE]


async def test_content_that_changed_while_the_item_waited_ends_the_wait():
    world = OverloadWorld(parts_wait_seconds=60)
    world.budget.is_out = True
    world.seed("42", version=0)

    async with asyncio.TaskGroup() as group:
        handled = group.create_task(reasons(world, request(1)))
        await wait_until(lambda: world.documents.loads >= 2)
        world.documents.seed(ITEM, Document(content=item_content(2, "Heat 2")))

    assert handled.result() == [(Outcome.STALE, "newer_content")]
    assert world.emitter.sent == []


async def test_an_item_that_was_removed_while_it_waited_gets_nothing():
    world = OverloadWorld(parts_wait_seconds=60)
    world.budget.is_out = True

    async with asyncio.TaskGroup() as group:
        handled = group.create_task(reasons(world, request(1)))
        await wait_until(lambda: world.documents.loads >= 2)
        world.documents.seed(ITEM, Document(removed=Removed(3, START_MS)))

    assert handled.result() == [(Outcome.STALE, "removed")]
    assert world.emitter.sent == []


# ---- while they are asked about ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("news", "ended"),
    [
        (Document(removed=Removed(3, START_MS)), (Outcome.STALE, "removed")),
        (Document(content=item_content(2, "Heat 2")), (Outcome.STALE, "newer_content")),
    ],
)
async def test_what_happens_to_the_item_during_the_call_counts(world, news, ended):
    world.writer.gate.clear()
    world.seed("7")

    async with asyncio.TaskGroup() as group:
        handled = group.create_task(reasons(world, request(1), request(1, id_="7")))
        await wait_until(lambda: world.writer.in_flight == 1)
        stored = world.documents.stored(ITEM).document
        world.documents.seed(ITEM, stored.merge(news))
        world.writer.gate.set()

    assert handled.result() == [ended, COLLECTIVE]
    assert len(world.collective) == 1


async def test_knowledge_of_its_own_that_came_during_the_call_is_not_covered(world):
    await world.upgrade(request(1, kind=RequestKind.UPGRADE))
    (own,) = world.individual
    world.emitter.sent.clear()
    world.writer.gate.clear()

    async with asyncio.TaskGroup() as group:
        handled = group.create_task(reasons(world, request(1)))
        await wait_until(lambda: world.writer.in_flight == 1)
        world.seed("42", individual=own)
        world.writer.gate.set()

    assert handled.result() == [(Outcome.UNCHANGED, "same_fingerprint")]
    assert world.collective == []


async def test_groups_that_change_while_items_wait_change_nothing_for_them():
    world = OverloadWorld(share_seconds=30, share_members=2)
    world.seed("42")
    world.seed("7")
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        first = group.create_task(reasons(world, request(1)))
        await wait_until(lambda: world.lane.aside.freed == 1)
        world.groupings.groups = replace(groups_of("a", "c"), name="newer")
        second = group.create_task(reasons(world, request(1, id_="7")))

    assert first.result() + second.result() == [COLLECTIVE, COLLECTIVE]
    assert world.shared_calls == [["42", "7"]]


async def test_a_budget_that_is_spent_to_the_last_leaves_the_backlog(world):
    world.budget.is_out = world.budget.is_out_for_shared = True

    assert await reasons(world, request(1)) == [DEFERRED]
    assert world.writer.requests == []


async def test_a_budget_that_ends_before_the_call_leaves_the_backlog_to_all(world):
    world.seed("7")
    async with asyncio.TaskGroup() as group:
        handled = group.create_task(reasons(world, request(1), request(1, id_="7")))
        await wait_until(lambda: world.lane.aside.freed == 2, interval=0)
        world.budget.is_out = world.budget.is_out_for_shared = True

    assert handled.result() == [DEFERRED, DEFERRED]
    assert world.writer.requests == []


# ---- what goes wrong -----------------------------------------------------------------------------


async def test_an_item_whose_phrases_are_refused_is_deferred_and_its_neighbours_are_served(world):
    world.seed("7")
    world.writer.garbled.add("42")

    refused, served = await world.handle(request(1), request(1, id_="7"))

    assert (refused.outcome, refused.reason) == DEFERRED
    assert served.reason == "collective"
    assert "vllm" in refused.called
    assert [update.entity.id for update in world.updates(RegisterName.COLLECTIVE)] == ["7"]
    assert {wish.entity.id for wish in world.upgrades} == {"42", "7"}
    assert sum(world.lane.stats.rejected.values()) == 1


async def test_a_writer_of_which_no_phrase_can_be_used_counts_as_ill_in_the_end():
    world = OverloadWorld(share_members=1)
    ids = [world.seed(str(number)).id for number in range(30)]
    world.writer.garbled.update(ids)

    results = [(await world.handle(request(1, id_=id_)))[0] for id_ in ids]

    assert outcomes(results) == [Outcome.EMITTED] * 19
    assert all(isinstance(result, Transient) for result in results[19:])
    assert world.collective == []


async def test_an_answer_that_cannot_be_read_defers_all_that_it_was_about(world):
    world.seed("7")
    world.writer.failures.append(Rejected(Rejection.TRUNCATED, "scripted"))

    assert await reasons(world, request(1), request(1, id_="7")) == [DEFERRED, DEFERRED]
    assert world.collective == []
    assert world.lane.stats.rejected == {"truncated": 1}


async def test_a_call_that_the_server_will_never_answer_defers_all_that_it_was_about(world):
    world.seed("7")
    world.writer.failures.append(Permanent(Reason.REFUSED, "longer than the model's context"))

    assert await reasons(world, request(1), request(1, id_="7")) == [DEFERRED, DEFERRED]


async def test_a_call_without_an_answer_in_time_is_tried_again(world):
    world = OverloadWorld(call_seconds=0.01)
    world.seed("42")
    world.writer.gate.clear()

    (held,) = await world.handle(request(1))

    assert isinstance(held, Transient)
    world.writer.gate.set()
    assert await reasons(world, request(1)) == [COLLECTIVE]


async def test_a_writer_in_trouble_holds_all_items_of_the_call_and_blames_none(world):
    wishes = [request(1, id_=world.seed(str(number)).id) for number in range(5)]
    world.writer.failures.append(Transient("vllm", "HTTP 500"))

    results = await world.handle(*wishes)

    assert all(isinstance(result, Transient) for result in results)
    # The engine never buries a record for an error that names a time to try again.
    assert all(result.retry_after_seconds is not None for result in results)
    assert len(world.writer.requests) == 1
    assert world.emitter.sent == []
    assert await reasons(world, *wishes) == [COLLECTIVE] * 5


async def test_an_item_whose_calls_fail_while_others_are_answered_takes_part_no_more(world):
    results = []
    for number in range(STRIKES + 2):
        world.writer.failures.append(Transient("vllm", "HTTP 500"))
        results += await world.handle(request(1))
        world.writer.failures.clear()
        fresh = request(1, id_=f"fresh{number}", requested_at_ms=world.clock.now_ms())
        await world.handle(fresh)

    assert [isinstance(result, Transient) for result in results] == [True] * 4 + [False]
    assert isinstance(results[-1], Settled)
    assert results[-1].reason == "deferred"


async def test_items_whose_calls_fail_in_an_outage_are_tried_again_and_again(world):
    for _ in range(10):
        world.writer.failures.append(Transient("vllm", "HTTP 500"))
        (result,) = await world.handle(request(1))
        assert isinstance(result, Transient)

    assert await reasons(world, request(1)) == [COLLECTIVE]


# ---- a drain -------------------------------------------------------------------------------------


async def cancel(task: asyncio.Task) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()


async def test_whoever_waits_takes_over_when_the_leader_is_cancelled_during_the_call(world):
    world.seed("7")
    world.writer.gate.clear()
    leader = asyncio.create_task(world.handle(request(1)))
    follower = asyncio.create_task(reasons(world, request(1, id_="7")))
    await wait_until(lambda: world.writer.in_flight == 1)

    await cancel(leader)
    await wait_until(lambda: world.writer.in_flight == 1)
    world.writer.gate.set()

    assert await follower == [COLLECTIVE]
    assert world.shared_calls == [["42", "7"], ["7"]]


async def test_whoever_waits_takes_over_when_the_leader_is_cancelled_before_the_call():
    world = OverloadWorld(share_seconds=0.2)
    world.seed("42")
    world.seed("7")
    leader = asyncio.create_task(world.handle(request(1)))
    follower = asyncio.create_task(reasons(world, request(1, id_="7")))
    await wait_until(lambda: world.lane.aside.freed == 2)

    await cancel(leader)

    assert await follower == [COLLECTIVE]
    assert world.shared_calls == [["7"]]


async def test_who_is_cancelled_while_waiting_is_not_asked_about():
    world = OverloadWorld(share_seconds=0.2)
    world.seed("42")
    world.seed("7")
    leader = asyncio.create_task(reasons(world, request(1)))
    follower = asyncio.create_task(world.handle(request(1, id_="7")))
    await wait_until(lambda: world.lane.aside.freed == 2)

    await cancel(follower)

    assert await leader == [COLLECTIVE]
    assert world.shared_calls == [["42"]]


@pytest.mark.parametrize(("share_seconds", "calls"), [(0.01, 1), (30, 0)])
async def test_when_all_are_cancelled_at_once_nothing_is_left_behind(share_seconds, calls):
    world = OverloadWorld(share_seconds=share_seconds, share_members=6)
    wishes = [request(1, id_=world.seed(str(number)).id) for number in range(6)]
    world.writer.gate.clear()
    before = asyncio.all_tasks()
    handlers = [asyncio.create_task(world.handle(wish)) for wish in wishes[:5]]
    await wait_until(lambda: (world.lane.aside.freed, world.writer.in_flight) == (5, calls))

    for handler in handlers:
        handler.cancel()
    await asyncio.gather(*handlers, return_exceptions=True)

    assert asyncio.all_tasks() == before
    assert (world.lane.aside.freed, world.writer.in_flight) == (0, 0)
    world.writer.gate.set()
    async with asyncio.timeout(10):
        assert await reasons(world, *wishes) == [COLLECTIVE] * 6
    assert len(world.shared_calls[-1]) == 6


# ---- an outage -----------------------------------------------------------------------------------


async def silence(world: OverloadWorld) -> None:
    """Let a call fail, so that the lane knows of the trouble."""
    world.writer.failures.append(Transient("vllm", "connection refused"))
    fresh = request(1, id_="fresh", requested_at_ms=world.clock.now_ms())
    (result,) = await world.handle(fresh)
    assert isinstance(result, Transient)


async def test_in_an_outage_what_was_said_before_is_still_served(world):
    await world.handle(request(1))
    world.merge()
    world.restart()
    await silence(world)

    assert await reasons(world, request(1)) == [COLLECTIVE]


async def test_in_an_outage_what_no_group_serves_is_held_and_not_shifted(world):
    world.groupings.groups = None
    await silence(world)
    world.writer.failures.append(Transient("vllm", "connection refused"))

    (held,) = await world.handle(request(1))
    assert isinstance(held, Transient)
    assert world.emitter.sent == []

    # It is the probe, too: answered, it ends the outage.
    assert await reasons(world, request(1)) == [(Outcome.EMITTED, "")]
    assert await reasons(world, request(1, id_="7")) == [DEFERRED]


# ---- a worker that dies --------------------------------------------------------------------------


@pytest.mark.parametrize("written", [0, 1])
async def test_a_death_between_the_items_register_and_its_wish_is_made_up_for(world, written):
    world.emitter.written_before_failing = written
    world.emitter.fail()

    (failed,) = await world.handle(request(1))
    world.merge()
    world.restart()
    again = await reasons(world, request(1))

    assert isinstance(failed, Transient)
    assert again == [COLLECTIVE]
    assert len(world.shared_calls) == 2 - written
    world.merge()
    assert world.documents.stored(ITEM).document.stage is Stage.COLLECTIVE
    assert world.upgrades[-1] == replace(request(1), kind=RequestKind.UPGRADE)
