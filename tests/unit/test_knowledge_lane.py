import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from schemas.entities import EntityKey, EntityKind
from schemas.errors import Permanent, Transient
from schemas.fingerprints import content_fingerprint, knowledge_fingerprint
from schemas.knowledge import (
    Content,
    Document,
    Factors,
    KnowledgeRequest,
    Provenance,
    RegisterName,
    Removed,
    RequestKind,
)
from schemas.reasons import Reason, Rejection
from schemas.topics import Topic
from streams.engine.outcomes import Outcome, Result, Settled
from streams.giving_way import GaveWay
from streams.lanes.knowledge import HOLD_MS, KnowledgeLane, Wanted
from streams.lanes.knowledge_stats import Cost
from streams.lanes.recent_knowledge import RecentKnowledge, RefusalShare
from streams.settings import KnowledgeSettings
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.emitter import FakeEmitter
from tests.fakes.stores import InMemoryEntityStore
from tests.fakes.version_writer import VersionWriter
from tests.lane_builders import movies, outcomes, record, request
from tests.stack import wait_until
from workers.knowledge.prompts import prompt_id
from workers.knowledge.user_prompt import user_prompt_id
from workers.knowledge.writer import Rejected

ITEM = EntityKey.item("42")
DOMAIN = movies()


class ScriptedGate:
    """Refuses the next answers as told, then accepts all."""

    def __init__(self) -> None:
        self.refusals: list[Rejection] = []
        self.kinds: list[EntityKind] = []

    def judge(self, answer, fields, kind) -> Rejected | None:
        self.kinds.append(kind)
        return Rejected(self.refusals.pop(0), "scripted") if self.refusals else None


class World:
    """A lane and all it talks to."""

    def __init__(self, **settings) -> None:
        self.emitter = FakeEmitter()
        self.documents = InMemoryEntityStore()
        self.writer = VersionWriter()
        self.gate = ScriptedGate()
        self.clock = FakeClock()
        self.settings = KnowledgeSettings(**settings)
        self.restart()

    def restart(self) -> None:
        self.lane = KnowledgeLane(
            "knowledge",
            emitter=self.emitter,
            documents=self.documents,
            writer=self.writer,
            gate=self.gate,
            domain=DOMAIN,
            settings=self.settings,
            clock=self.clock,
        )

    async def handle(self, *requests: KnowledgeRequest) -> Sequence[Result]:
        return await self.lane.handle([Wanted(one, one.not_before_ms) for one in requests])

    @property
    def factors(self) -> list[Factors]:
        return [
            update.value for update in self.emitter.updates if isinstance(update.value, Factors)
        ]


@pytest.fixture
def world() -> World:
    return World()


def content(version: int, title: str = "Heat") -> Content:
    fields = {"title": title}
    return Content(version, fields, content_fingerprint(fields), START_MS + version)


def known_factors(
    version: int, title: str = "Heat", *, generated_at_ms: int = START_MS, model="version-writer"
) -> Factors:
    fingerprint = knowledge_fingerprint(
        content_fingerprint({"title": title}), prompt_id(DOMAIN), model
    )
    provenance = Provenance(model, prompt_id(DOMAIN), fingerprint)
    return Factors(version, generated_at_ms, {"mood": "tense"}, provenance, START_MS + version)


async def test_an_answer_becomes_individual_factors_under_the_requests_version(world):
    results = await world.handle(request(3))

    assert outcomes(results) == [Outcome.EMITTED]
    (update,) = world.emitter.updates
    assert (update.entity, update.register) == (ITEM, RegisterName.INDIVIDUAL)
    (factors,) = world.factors
    assert (factors.version, factors.generated_at_ms) == (3, START_MS)
    assert factors.event_time_ms == START_MS + 3
    assert "version 3" in factors.factors["mood"]
    provenance = factors.provenance
    assert provenance.fingerprint == known_factors(3).provenance.fingerprint
    assert (provenance.model, provenance.prompt_id) == ("version-writer", prompt_id(DOMAIN))
    assert provenance.prompt_tokens > 0
    stats = world.lane.stats
    assert (stats.calls, stats.prompt_tokens) == (1, provenance.prompt_tokens)


async def test_knowledge_of_the_same_fingerprint_and_version_costs_no_call(world):
    world.documents.seed(ITEM, Document(content=content(3), individual=known_factors(3)))

    results = await world.handle(request(3))

    assert outcomes(results) == [Outcome.UNCHANGED]
    assert world.writer.requests == []
    assert world.emitter.sent == []
    assert world.lane.stats.saved_fingerprint == 1


async def test_the_same_fingerprint_under_a_newer_version_is_restamped_without_a_call(world):
    known = known_factors(1, generated_at_ms=START_MS - 5)
    world.documents.seed(ITEM, Document(content=content(1), individual=known))

    results = await world.handle(request(3))

    assert results == [Settled(Outcome.EMITTED, reason="restamped", called=("redis", "kafka"))]
    assert world.factors == [replace(known, version=3, event_time_ms=START_MS + 3)]
    assert world.writer.requests == []
    assert world.lane.stats.saved_fingerprint == 1


async def test_another_prompt_or_model_asks_again(world):
    known = known_factors(3, model="older-model")
    world.documents.seed(ITEM, Document(content=content(3), individual=known))

    await world.handle(request(3, kind=RequestKind.REFRESH, requested_at_ms=START_MS))

    assert len(world.writer.requests) == 1
    assert world.factors[0].generated_at_ms > known.generated_at_ms


async def test_a_refresh_rewrites_factors_older_than_the_wish_and_only_once(world):
    world.documents.seed(
        ITEM,
        Document(content=content(3), individual=known_factors(3, generated_at_ms=START_MS - 10)),
    )
    wish = request(3, kind=RequestKind.REFRESH, requested_at_ms=START_MS)

    first = await world.handle(wish)
    again = await world.handle(wish)

    assert outcomes([*first, *again]) == [Outcome.EMITTED, Outcome.UNCHANGED]
    assert world.lane.stats.calls == 1


async def test_a_new_answer_beats_the_one_it_replaces_even_if_the_clock_went_back(world):
    known = known_factors(3, model="older-model", generated_at_ms=START_MS + 60_000)
    world.documents.seed(ITEM, Document(content=content(3), individual=known))

    await world.handle(request(3))

    assert Document(individual=known).merge(Document(individual=world.factors[0])) == Document(
        individual=world.factors[0]
    )


async def test_a_request_older_than_the_removal_is_stale(world):
    world.documents.seed(ITEM, Document(removed=Removed(3, START_MS)))

    results = await world.handle(request(3))

    assert results == [Settled(Outcome.STALE, reason="removed", called=("redis",))]


async def test_a_request_older_than_the_content_is_stale(world):
    world.documents.seed(ITEM, Document(content=content(4, "Heat 2")))

    results = await world.handle(request(3))

    assert results == [Settled(Outcome.STALE, reason="newer_content", called=("redis",))]
    assert world.writer.requests == []


async def test_a_request_older_than_other_knowledge_is_stale(world):
    world.documents.seed(ITEM, Document(individual=known_factors(4, "Heat 2")))

    results = await world.handle(request(3))

    assert results == [Settled(Outcome.STALE, reason="newer_knowledge", called=("redis",))]


async def test_a_request_about_an_older_version_of_the_same_content_is_answered_for_the_newer(
    world,
):
    # Version 4 was emitted, its request was lost in a crash, and version 3 came again.
    world.documents.seed(ITEM, Document(content=content(4)))

    results = await world.handle(request(3))

    assert outcomes(results) == [Outcome.EMITTED]
    assert [factors.version for factors in world.factors] == [4]


async def test_a_removal_needs_no_call_and_outruns_a_request_that_is_late(world):
    removal = await world.handle(request(4, kind=RequestKind.REMOVE))
    late = await world.handle(request(3))

    assert outcomes([*removal, *late]) == [Outcome.UNCHANGED, Outcome.STALE]
    assert world.writer.requests == []
    assert world.emitter.sent == []


async def test_what_was_emitted_counts_before_the_encode_lane_has_merged_it(world):
    await world.handle(request(1))

    results = await world.handle(request(2))

    assert [result.reason for result in results] == ["restamped"]
    assert world.lane.stats.calls == 1


async def test_what_was_emitted_counts_no_longer_than_minutes(world):
    await world.handle(request(1))
    world.clock.advance(3_600)

    await world.handle(request(2))

    assert world.lane.stats.calls == 2


async def test_a_refused_answer_is_repaired_once(world):
    world.gate.refusals = [Rejection.REFUSAL]

    results = await world.handle(request(1))

    assert outcomes(results) == [Outcome.EMITTED]
    first, second = world.writer.prompts
    assert second.user.startswith(first.user)
    assert second.user != first.user
    assert second.prompt_id == first.prompt_id
    assert (world.lane.stats.calls, world.lane.stats.repairs) == (2, 1)


async def test_a_twice_refused_answer_is_rejected_and_retried_from_the_backlog_later(world):
    world.gate.refusals = [Rejection.REFUSAL, Rejection.HEDGING]

    results = await world.handle(request(1))

    assert outcomes(results) == [Outcome.REJECTED]
    assert results[0].reason == "hedging"
    assert world.lane.stats.rejected == {"hedging": 1}
    (retry,) = world.emitter.requests(Topic.KNOWLEDGE_BACKLOG)
    assert (retry.kind, retry.attempt) == (RequestKind.REFRESH, 1)
    assert retry.not_before_ms == START_MS + 300_000
    assert (retry.version, retry.fields) == (1, {"title": "Heat"})


async def test_the_delay_grows_fourfold_and_the_attempts_end(world):
    delays = []
    for attempt in range(5):
        world.gate.refusals = [Rejection.URL, Rejection.URL]
        world.emitter.sent.clear()
        await world.handle(request(1, kind=RequestKind.REFRESH, attempt=attempt))
        delays += [
            retry.not_before_ms - START_MS
            for retry in world.emitter.requests(Topic.KNOWLEDGE_BACKLOG)
        ]

    assert delays == [300_000, 1_200_000, 4_800_000, 19_200_000]


async def test_no_recorded_answer_is_a_rejection_without_repair_or_retry(world):
    world.writer.failures.append(Rejected(Rejection.NO_ANSWER, "nothing recorded"))

    results = await world.handle(request(1))

    assert outcomes(results) == [Outcome.REJECTED]
    assert world.lane.stats.calls == 1
    assert world.emitter.sent == []


async def test_a_writer_that_answers_only_garbage_holds_requests_instead_of_using_them_up(world):
    world.gate.refusals = [Rejection.REPETITION] * 100
    results = [
        result for id_ in range(21) for result in await world.handle(request(1, id_=str(id_)))
    ]

    assert len(outcomes(results[:19])) == 19
    assert isinstance(results[20], Transient)
    assert results[20].dependency == "vllm"
    assert results[20].detail == (
        "21 of the last 21 requests got no usable answer, the last for repetition: scripted"
    )


async def test_a_request_that_is_held_for_the_writers_illness_is_not_to_blame_for_it(world):
    world.gate.refusals = [Rejection.REPETITION] * 100

    results = [
        result for id_ in range(20) for result in await world.handle(request(1, id_=str(id_)))
    ]

    # The engine buries what fails alone, but for failures that name a time to try again.
    assert results[19].retry_after_seconds is not None


async def test_a_repaired_answer_is_not_counted_as_a_refused_one(world):
    for id_ in range(40):
        world.gate.refusals = [Rejection.REPETITION]
        (result,) = await world.handle(request(1, id_=str(id_)))
        assert result.outcome is Outcome.EMITTED

    assert world.lane.stats.repairs == 40


@pytest.mark.parametrize(("refused_share", "held"), [(0.5, True), (0.9, False), (1.5, False)])
async def test_the_share_that_a_deployment_declares_decides_when_requests_are_held(
    refused_share, held
):
    world = World(refused_share=refused_share)
    results: list[Result] = []
    for id_ in range(40):
        world.gate.refusals = [Rejection.URL] * 2 if id_ % 4 else []
        results += await world.handle(request(1, id_=str(id_)))

    assert any(isinstance(result, Transient) for result in results) == held


async def test_a_model_declared_weak_never_holds_its_requests():
    world = World(refused_share=1.1)
    world.gate.refusals = [Rejection.REPETITION] * 200

    results = [
        result for id_ in range(100) for result in await world.handle(request(1, id_=str(id_)))
    ]

    assert set(outcomes(results)) == {Outcome.REJECTED}


async def test_a_request_whose_call_gives_way_goes_back_to_the_backlog_and_costs_no_answer(world):
    wish = request(1, kind=RequestKind.UPGRADE)
    world.writer.failures.append(GaveWay())

    (result,) = await world.handle(wish)

    assert (result.outcome, result.reason) == (Outcome.EMITTED, "gave_way")
    assert "vllm" not in result.called, "no evidence that the writer is there"
    assert world.emitter.requests(Topic.KNOWLEDGE_BACKLOG) == [wish]
    assert dict(world.lane.stats.costs) == {"gave_way": Cost(calls=1)}

    await world.handle(wish)
    assert len(world.factors) == 1
    assert world.lane.stats.costs["upgrade"].calls == 1


async def test_a_request_before_its_time_goes_back_to_the_backlog(world):
    wish = request(1, kind=RequestKind.REFRESH, attempt=1, not_before_ms=START_MS + 60_000)

    results = await world.handle(wish)

    assert [result.reason for result in results] == ["not_due"]
    assert world.emitter.requests(Topic.KNOWLEDGE_BACKLOG) == [wish]
    assert world.writer.requests == []


def test_a_request_before_its_time_is_held_for_half_a_minute_at_most(world):
    far = request(1, not_before_ms=START_MS + 3_600_000)
    near = request(1, not_before_ms=START_MS + 5_000)

    due = [
        world.lane.due_at_ms(
            world.lane.decode(
                record(Topic.KNOWLEDGE_BACKLOG, b"item:42", wish.encode()), now_ms=START_MS
            )
        )
        for wish in (far, near, request(1))
    ]

    assert due == [START_MS + HOLD_MS, START_MS + 5_000, 0]


async def test_one_request_in_trouble_does_not_touch_its_neighbours(world):
    world.writer.failures += [Transient("vllm", "HTTP 500"), Permanent(Reason.REFUSED, "too long")]

    results = await world.handle(*(request(1, id_=str(id_)) for id_ in range(3)))

    kinds = sorted(type(result).__name__ for result in results)
    assert kinds == ["Permanent", "Settled", "Transient"]


async def test_a_failed_emit_is_that_requests_own_trouble_and_nothing_is_remembered(world):
    world.emitter.fail()

    results = await world.handle(request(1))
    again = await world.handle(request(1))

    assert isinstance(results[0], Transient)
    assert outcomes(again) == [Outcome.EMITTED]
    assert world.lane.stats.calls == 2


async def test_a_store_out_of_reach_is_the_whole_batchs_trouble(world):
    world.documents.failures.append(Transient("redis", "gone"))

    with pytest.raises(Transient):
        await world.handle(request(1))


async def test_a_writer_that_hangs_is_given_up_at_the_deadline():
    world = World(call_seconds=0.05)
    world.writer.gate.clear()

    results = await world.handle(request(1))

    assert isinstance(results[0], Transient)


async def test_calls_in_flight_are_bounded_over_all_batches():
    world = World(in_flight=3)
    world.writer.gate.clear()

    async with asyncio.TaskGroup() as group:
        for batch in range(4):
            wishes = [request(1, id_=f"{batch}-{n}") for n in range(2)]
            group.create_task(world.handle(*wishes))
        await wait_until(lambda: world.writer.in_flight == 3)
        world.writer.gate.set()

    assert world.writer.most_in_flight == 3
    assert len(world.factors) == 8


async def test_more_pressing_requests_get_a_smaller_priority(world):
    await world.handle(request(1, id_="1", kind=RequestKind.NEW))
    await world.handle(request(1, id_="2", kind=RequestKind.CHANGED))
    await world.handle(request(1, id_="3", kind=RequestKind.REFRESH))

    assert world.writer.priorities == sorted(set(world.writer.priorities))


def test_a_title_less_request_is_a_dead_letter_not_a_crash(world):
    wish = replace(request(1), fields={})

    (result,) = asyncio.run(world.handle(wish))

    assert isinstance(result, Permanent)


ABSORBED = [
    # (waiting, incoming, which survives)
    (request(1), request(2), "incoming"),
    (request(2), request(1), "waiting"),
    (request(2, kind=RequestKind.REMOVE), request(2), "waiting"),
    (request(2), request(2, kind=RequestKind.REMOVE), "incoming"),
    (request(2, kind=RequestKind.REFRESH), request(2, kind=RequestKind.CHANGED), "incoming"),
    (request(2, kind=RequestKind.NEW), request(2, kind=RequestKind.REFRESH), "waiting"),
    (request(2, requested_at_ms=1), request(2, requested_at_ms=2), "incoming"),
    (request(2), request(2), "waiting"),
    (request(3, kind=RequestKind.REMOVE), request(4), "incoming"),
]


@pytest.mark.parametrize(("waiting", "incoming", "survivor"), ABSORBED)
def test_the_request_that_counts_survives(world, waiting, incoming, survivor):
    absorbed = world.lane.absorb(Wanted(waiting, 0), Wanted(incoming, 0))

    assert absorbed.incoming_survives is (survivor == "incoming")
    assert absorbed.value.request is (incoming if survivor == "incoming" else waiting)
    assert absorbed.loser is Outcome.SUPERSEDED


def test_an_absorbed_request_is_a_call_saved_but_a_removal_is_none(world):
    world.lane.absorb(Wanted(request(1), 0), Wanted(request(2), 0))
    world.lane.absorb(Wanted(request(2, kind=RequestKind.REMOVE), 0), Wanted(request(3), 0))

    assert world.lane.stats.saved_coalesced == 1


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (b"item:42", None, Reason.NULL_VALUE),
        (b"item:42", b"{}", Reason.UNREADABLE_KNOWLEDGE),
        (b"item:7", request(1).encode(), Reason.WRONG_KEY),
    ],
)
def test_a_record_that_is_no_request_does_not_decode(world, key, value, reason):
    with pytest.raises(Permanent) as caught:
        world.lane.decode(record(Topic.KNOWLEDGE_REQUESTS, key, value), now_ms=START_MS)

    assert caught.value.reason is reason


def test_recent_knowledge_forgets_the_oldest_beyond_its_bound():
    recent = RecentKnowledge()
    for id_ in range(5_000):
        recent.add(EntityKey.item(str(id_)), Document(individual=known_factors(1)), now_ms=0)

    assert recent.get(EntityKey.item("0"), now_ms=0) == Document()
    assert recent.get(EntityKey.item("4999"), now_ms=0).individual is not None


def test_a_flood_of_refusals_ends_with_good_answers():
    share = RefusalShare(0.9)
    for _ in range(40):
        share.note(refused=True)
    assert share.is_flood

    for _ in range(5):
        share.note(refused=False)
    assert not share.is_flood


# ---- users -------------------------------------------------------------------------------------

USER = EntityKey(EntityKind.USER, "7")
TASTE = {"liked": [{"item": "42", "title": "Heat", "signal": "loved"}], "disliked": []}


def user_request(version: int, fields=TASTE, **changes) -> KnowledgeRequest:
    asked = replace(request(version, kind=RequestKind.USER), entity=USER, fields=fields)
    return replace(asked, content_fingerprint=content_fingerprint(fields), **changes)


def user_content(version: int, fields=TASTE) -> Content:
    return Content(version, fields, content_fingerprint(fields), START_MS + version)


async def test_a_user_gets_the_prompt_about_users_and_is_judged_as_one(world):
    results = await world.handle(user_request(3))

    assert outcomes(results) == [Outcome.EMITTED]
    (update,), (prompt,) = world.emitter.updates, world.writer.prompts
    assert (update.entity, update.register) == (USER, RegisterName.INDIVIDUAL)
    assert "- Heat: loved" in prompt.user
    assert str(USER) not in prompt.system + prompt.user
    assert world.gate.kinds == [EntityKind.USER]
    (factors,) = world.factors
    assert factors.version == 3
    assert factors.provenance.prompt_id == user_prompt_id(DOMAIN)
    assert factors.provenance.fingerprint == knowledge_fingerprint(
        content_fingerprint(TASTE), user_prompt_id(DOMAIN), "version-writer"
    )


async def test_the_same_taste_asked_about_again_costs_no_call(world):
    await world.handle(user_request(3))

    (result,) = await world.handle(user_request(9))

    assert result.reason == "restamped"
    assert world.factors[-1].version == 9
    assert world.lane.stats.calls == 1


async def test_a_refresh_of_a_user_asks_with_the_prompt_about_users(world):
    world.documents.seed(USER, Document(content=user_content(3)))

    await world.handle(user_request(3, kind=RequestKind.REFRESH))

    assert world.factors[0].provenance.prompt_id == user_prompt_id(DOMAIN)


async def test_a_refused_answer_about_a_user_is_repaired_with_the_same_titles(world):
    world.gate.refusals = [Rejection.ECHO]

    await world.handle(user_request(1))

    first, second = world.writer.prompts
    assert second.user.startswith(first.user)
    assert len(world.factors) == 1


async def test_what_was_asked_before_an_erasure_is_not_answered(world):
    world.documents.seed(USER, Document(removed=Removed(5, START_MS)))

    results = await world.handle(user_request(4))

    assert [(result.outcome, result.reason) for result in results] == [(Outcome.STALE, "removed")]
    assert world.writer.requests == []


async def test_a_request_about_a_user_without_titles_can_never_work(world):
    (result,) = await world.handle(user_request(1, {"liked": [], "disliked": []}))

    assert isinstance(result, Permanent)
    assert result.reason is Reason.EMPTY_TITLE


async def test_a_request_about_a_group_without_members_can_never_work(world):
    (result,) = await world.handle(replace(request(1), entity=EntityKey(EntityKind.GROUP, "13")))

    assert isinstance(result, Permanent)
    assert result.reason is Reason.EMPTY_TITLE


# ---- what it costs -----------------------------------------------------------------------------


async def test_calls_and_tokens_are_counted_by_why_they_were_made(world):
    world.gate.refusals = [Rejection.REFUSAL]
    await world.handle(request(1))
    await world.handle(request(1, id_="7", kind=RequestKind.UPGRADE))

    costs = world.lane.stats.costs
    assert {reason: cost.calls for reason, cost in costs.items()} == {
        "new": 1,
        "repair": 1,
        "upgrade": 1,
    }
    assert all(cost.prompt_tokens > 0 and cost.completion_tokens > 0 for cost in costs.values())


async def test_an_answer_that_could_not_be_read_costs_its_tokens_all_the_same(world):
    unreadable = Rejected(Rejection.TRUNCATED, "cut off")
    unreadable.prompt_tokens, unreadable.completion_tokens = 300, 400
    world.writer.failures.append(unreadable)

    await world.handle(request(1))

    cost = world.lane.stats.costs["new"]
    assert (cost.calls, cost.prompt_tokens, cost.completion_tokens) == (1, 300, 400)
