from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from schemas.entities import EntityKey, EntityKind, Stage
from schemas.errors import Permanent, Transient
from schemas.fingerprints import Json, content_fingerprint, text_fingerprint
from schemas.knowledge import (
    Content,
    Document,
    EntityRecord,
    Factors,
    KnowledgeUpdate,
    Provenance,
    RegisterName,
    Removed,
)
from schemas.live_update import LiveUpdate
from schemas.reasons import Reason
from schemas.representation_record import RepresentationRecord
from schemas.topics import Topic
from schemas.vector_record import VectorRecord
from streams.engine.outcomes import Outcome
from streams.lanes.encode import MAX_ROUNDS, EncodeLane, EntityUpdate
from streams.lanes.encode_space import EncodeSpaceLane, Touched
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.emitter import FakeEmitter
from tests.fakes.encoding import FakeSpaces, HashEncoder, SumAdaptor, representer, text_vector
from tests.fakes.inline_executor import InlineExecutor
from tests.fakes.stores import InMemoryEntityStore
from tests.lane_builders import outcomes, record
from tests.space_lane_builders import space_lane as build_space_lane
from workers.adaptors.raw import RawAdaptor

ITEM = EntityKey.item("42")


class World:
    """A lane and all it talks to."""

    def __init__(self, executor=None) -> None:
        self.store = InMemoryEntityStore()
        self.encoder = HashEncoder()
        self.spaces = FakeSpaces(SumAdaptor())
        self.emitter = FakeEmitter()
        self.clock = FakeClock()
        self.executor = executor or InlineExecutor()
        self.lane = EncodeLane(
            store=self.store,
            representer=representer(self.encoder),
            spaces=self.spaces,
            emitter=self.emitter,
            clock=self.clock,
            executor=self.executor,
        )

    async def handle(self, *documents: Document):
        return await self.lane.handle([EntityUpdate(ITEM, one, 1) for one in documents])

    def vector(self, space: str = "sum") -> VectorRecord:
        return VectorRecord.decode(self.store.vectors[space, ITEM])

    @property
    def entities(self) -> list[EntityRecord]:
        return [EntityRecord.decode(sent.value or b"") for sent in self.emitter.on(Topic.ENTITIES)]

    @property
    def representations(self) -> list[RepresentationRecord | None]:
        return [
            None if sent.value is None else RepresentationRecord.decode(sent.value)
            for sent in self.emitter.on(Topic.REPRESENTATIONS)
        ]

    @property
    def live_updates(self) -> list[LiveUpdate]:
        return [
            LiveUpdate.decode(sent.value or b"") for sent in self.emitter.on(Topic.LIVE_UPDATES)
        ]


@pytest.fixture
def world() -> World:
    return World()


def content(version: int, title: str = "Heat") -> Document:
    fields: dict[str, Json] = {"title": title, "year": 1995}
    return Document(
        content=Content(version, fields, content_fingerprint(fields), START_MS + version)
    )


def individual(version: int, mood: str = "tense", *, generated_at_ms: int = 7) -> Document:
    return Document(
        individual=Factors(
            version,
            generated_at_ms,
            {"mood": mood},
            Provenance("model", "prompt", f"{mood}-fingerprint"),
            START_MS + version,
        )
    )


def removed(version: int) -> Document:
    return Document(removed=Removed(version, START_MS + version))


TITLE_AND_CONTENT = [text for text in representer(HashEncoder()).texts(content(3)) if text]


async def test_content_becomes_a_document_and_a_vector_of_one_revision(world):
    results = await world.handle(content(3))

    assert outcomes(results) == [Outcome.WRITTEN]
    stored = world.store.stored(ITEM, "raw")
    assert (stored.rev, stored.document) == (1, content(3))
    header = world.vector().header
    assert (header.rev, header.stage, header.mask) == (1, Stage.CONTENT, 0b011)
    assert (header.content_version, header.factors_version) == (3, -1)
    assert (header.event_time_ms, header.written_at_ms) == (START_MS + 3, START_MS)
    expected = sum(text_vector(text) for text in TITLE_AND_CONTENT)
    assert np.allclose(world.vector().vector, expected, atol=0.01)
    assert world.vector("raw").header.rev == 1


async def test_what_was_written_is_produced_to_the_compacted_topics_and_announced(world):
    await world.handle(content(3))

    (entity,) = world.entities
    assert (entity.entity, entity.rev, entity.document) == (ITEM, 1, content(3))
    (representation,) = world.representations
    assert representation is not None
    known = [text_fingerprint(text) for text in TITLE_AND_CONTENT]
    assert representation.fingerprints == (*known, None)
    assert np.array_equal(
        representation.dense().reshape(-1), world.vector("raw").vector.astype(np.float32)
    )
    assert [(update.space, update.rev, update.stage) for update in world.live_updates] == [
        ("raw", 1, Stage.CONTENT),
        ("sum", 1, Stage.CONTENT),
    ]
    assert {sent.key for sent in world.emitter.sent} == {b"item:42"}


async def test_factors_enrich_the_vector_and_only_their_part_is_encoded(world):
    await world.handle(content(3))
    world.encoder.texts.clear()

    await world.handle(individual(3))

    assert world.encoder.texts == ["tense"]
    header = world.vector().header
    assert (header.rev, header.stage, header.mask) == (2, Stage.INDIVIDUAL, 0b111)
    assert header.factors_version == 3
    assert world.store.stored(ITEM).document == content(3).merge(individual(3))


async def test_a_restamp_changes_the_document_but_encodes_and_represents_nothing(world):
    await world.handle(content(3).merge(individual(3)))
    world.encoder.texts.clear()
    world.emitter.sent.clear()

    results = await world.handle(individual(4))

    assert outcomes(results) == [Outcome.WRITTEN]
    assert world.encoder.texts == []
    assert world.representations == []
    assert world.vector().header.factors_version == 4


async def test_factors_that_came_first_wait_in_the_document_for_the_content(world):
    await world.handle(individual(3))
    assert world.store.vectors == {}
    assert world.representations == []
    assert world.live_updates == []

    await world.handle(content(3))

    assert world.vector().header.stage is not Stage.NONE
    assert world.vector().header.stage == Stage.INDIVIDUAL


async def test_a_duplicate_is_produced_again_but_not_written(world):
    await world.handle(content(3))
    first = list(world.emitter.sent)
    world.emitter.sent.clear()
    puts = len(world.store.puts)

    results = await world.handle(content(3))

    assert outcomes(results) == [Outcome.UNCHANGED]
    assert len(world.store.puts) == puts
    assert [(sent.topic, sent.value) for sent in world.emitter.sent] == [
        (sent.topic, sent.value) for sent in first
    ]


async def test_what_a_crash_left_unproduced_is_produced_even_if_something_new_came_along(world):
    # The content was written, the process ended; the content comes again together with factors
    # of the same texts, so no part changes any more.
    await world.handle(individual(3))
    world.emitter.fail()
    with pytest.raises(Transient):
        await world.handle(content(4))
    assert world.representations == []

    await world.handle(content(4).merge(individual(4)))

    assert [record.rev for record in world.representations if record] == [3]


async def test_strictly_older_input_is_stale_and_produces_nothing(world):
    await world.handle(content(3))
    world.emitter.sent.clear()

    results = await world.handle(content(2, "Head"))

    assert outcomes(results) == [Outcome.STALE]
    assert world.emitter.sent == []


async def test_a_removal_leaves_a_marker_and_no_vectors(world):
    await world.handle(content(3).merge(individual(3)))
    world.emitter.sent.clear()

    results = await world.handle(removed(4))

    assert outcomes(results) == [Outcome.WRITTEN]
    assert world.store.vectors == {}
    assert world.store.stored(ITEM).document == removed(4)
    assert [entity.document for entity in world.entities] == [removed(4)]
    assert world.representations == [None]
    assert [(update.space, update.stage) for update in world.live_updates] == [
        ("raw", Stage.NONE),
        ("sum", Stage.NONE),
    ]


async def test_a_late_answer_does_not_bring_a_removed_item_back(world):
    await world.handle(content(3))
    await world.handle(removed(4))

    results = await world.handle(individual(3))

    assert outcomes(results) == [Outcome.STALE]
    assert world.store.vectors == {}


async def test_a_removed_item_that_comes_back_is_ranked_again(world):
    await world.handle(removed(4))

    await world.handle(content(5))

    assert world.vector().header.content_version == 5
    assert world.store.stored(ITEM).rev == 2


async def test_a_lost_compare_and_set_is_read_and_made_again(world):
    def another_owner_writes() -> None:
        world.store.before_put = None
        world.store.seed(ITEM, individual(2, "calm"), rev=6)

    world.store.before_put = another_owner_writes

    results = await world.handle(content(3))

    assert outcomes(results) == [Outcome.WRITTEN]
    stored = world.store.stored(ITEM)
    assert (stored.rev, stored.document) == (7, content(3).merge(individual(2, "calm")))
    assert world.vector().header.rev == 7
    assert [entity.rev for entity in world.entities] == [7]


async def test_only_the_entity_that_lost_is_made_again(world):
    other = EntityKey.item("7")

    def another_owner_writes() -> None:
        world.store.before_put = None
        world.store.seed(ITEM, individual(2), rev=6)

    world.store.before_put = another_owner_writes

    await world.lane.handle([EntityUpdate(ITEM, content(3), 1), EntityUpdate(other, content(1), 1)])

    assert [[write.key for write in put] for put in world.store.puts] == [[ITEM, other], [ITEM]]


async def test_losing_every_time_is_transient_and_bounded(world):
    revs = iter(range(10, 10 + 2 * MAX_ROUNDS))
    world.store.before_put = lambda: world.store.seed(ITEM, individual(2), rev=next(revs))

    results = await world.handle(content(3))

    assert isinstance(results[0], Transient)
    assert len(world.store.puts) == MAX_ROUNDS


async def test_a_failed_emit_is_the_whole_batchs_trouble_and_made_up_for_later(world):
    world.emitter.fail()
    with pytest.raises(Transient):
        await world.handle(content(3))

    results = await world.handle(content(3))

    assert outcomes(results) == [Outcome.UNCHANGED]
    assert [entity.rev for entity in world.entities] == [1]
    assert len(world.representations) == 1
    assert len(world.live_updates) == 2


async def test_a_space_that_is_added_is_written_from_the_next_batch_on(world):
    await world.handle(content(3))
    world.spaces.written.append(SumAdaptor("later"))

    await world.handle(content(4, "Heat 2"))

    assert world.vector("later").header.content_version == 4


async def test_a_space_of_other_kinds_is_not_written(world):
    world.spaces.written.append(SumAdaptor("users", kinds=(EntityKind.USER,)))

    await world.handle(content(3))

    assert ("users", ITEM) not in world.store.vectors
    assert "users" not in {update.space for update in world.live_updates}


async def test_parts_that_were_not_made_from_the_stored_document_are_not_trusted(world):
    await world.handle(content(3))
    # As after a rebuild that found another revision's parts.
    world.store.seed(ITEM, content(4, "Heat 2"), rev=9)

    results = await world.handle(content(4, "Heat 2"))

    assert outcomes(results) == [Outcome.WRITTEN]
    assert world.vector("raw").header.rev == 10
    assert "Heat 2" in world.encoder.texts


async def test_one_batch_costs_one_read_one_encoding_one_write_and_one_emit(world):
    updates = [EntityUpdate(EntityKey.item(str(id_)), content(1), 1) for id_ in range(10)]
    sums = world.spaces.written[1]

    await world.lane.handle(updates)

    assert (world.store.loads, len(world.store.puts), len(world.emitter.calls)) == (1, 1, 1)
    assert sums.calls == 1
    assert world.encoder.texts == TITLE_AND_CONTENT


async def test_the_encoder_runs_in_the_executors_thread():
    with ThreadPoolExecutor(1, thread_name_prefix="encoder") as executor:
        world = World(executor)

        results = await world.handle(content(3))

    assert outcomes(results) == [Outcome.WRITTEN]


def test_registers_that_wait_merge_and_share_the_outcome(world):
    absorbed = world.lane.absorb(
        EntityUpdate(ITEM, content(3), 1), EntityUpdate(ITEM, individual(2), 1)
    )

    assert absorbed.value.document == content(3).merge(individual(2))
    assert absorbed.loser is None
    assert world.lane.version(absorbed.value) == 3


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (b"item:42", None, Reason.NULL_VALUE),
        (b"item:42", b"[]", Reason.UNREADABLE_KNOWLEDGE),
        (
            b"item:7",
            KnowledgeUpdate(ITEM, RegisterName.REMOVED, Removed(1, 0)).encode(),
            Reason.WRONG_KEY,
        ),
    ],
)
def test_a_record_that_is_no_register_does_not_decode(world, key, value, reason):
    with pytest.raises(Permanent) as caught:
        world.lane.decode(record(Topic.KNOWLEDGE, key, value), now_ms=START_MS)

    assert caught.value.reason is reason


# ---- users: vectors from what was written about them, or none at all --------------------------

USER = EntityKey(EntityKind.USER, "7")
BOTH = (EntityKind.ITEM, EntityKind.USER)
KNOWN, LIVED = SumAdaptor("known", BOTH, "knowledge"), SumAdaptor("lived", BOTH, "histories")


class UserWorld(World):
    """With a space whose user vectors come from knowledge, and one where histories make them."""

    def __init__(self) -> None:
        super().__init__()
        self.spaces.written += [KNOWN, LIVED]
        self.store.vectors["lived", USER] = b"made from the history"

    async def handle(self, *documents: Document):
        return await self.lane.handle([EntityUpdate(USER, one, 1) for one in documents])

    def spaces_of(self, key: EntityKey = USER) -> list[str]:
        return sorted(space for space, of in self.store.vectors if of == key)


@pytest.fixture
def users() -> UserWorld:
    return UserWorld()


def taste(version: int) -> Document:
    fields: dict[str, Json] = {"liked": [{"title": "Heat", "signal": "loved"}], "disliked": []}
    return Document(
        content=Content(version, fields, content_fingerprint(fields), START_MS + version)
    )


async def test_a_user_about_whom_nothing_is_written_has_a_document_but_no_vector(users):
    results = await users.handle(taste(3))

    assert outcomes(results) == [Outcome.WRITTEN]
    assert users.store.stored(USER).document == taste(3)
    assert users.spaces_of() == ["lived"]
    assert users.encoder.texts == []
    assert [entity.entity for entity in users.entities] == [USER]
    assert users.representations == users.live_updates == []


async def test_the_same_again_is_unchanged_although_there_are_no_parts(users):
    await users.handle(taste(3))

    results = await users.handle(taste(3))

    assert outcomes(results) == [Outcome.UNCHANGED]
    assert users.store.stored(USER).rev == 1


async def test_what_is_written_about_a_user_becomes_a_vector_where_knowledge_makes_them(users):
    await users.handle(taste(3))

    await users.handle(individual(3, "tense"))

    assert users.encoder.texts == ["tense"]
    assert users.spaces_of() == ["known", "lived", "raw"]
    record = VectorRecord.decode(users.store.vectors["known", USER])
    assert (record.header.stage, record.header.mask) == (Stage.INDIVIDUAL, 0b100)
    assert (record.header.content_version, record.header.factors_version) == (3, 3)
    assert np.allclose(record.vector, text_vector("tense"), atol=0.01)
    assert users.store.vectors["lived", USER] == b"made from the history"
    (representation,) = users.representations
    assert representation is not None
    assert representation.fingerprints == (None, None, text_fingerprint("tense"))
    assert [(one.space, one.stage) for one in users.live_updates] == [
        ("raw", Stage.INDIVIDUAL),
        ("known", Stage.INDIVIDUAL),
    ]


async def test_a_text_about_a_user_that_did_not_change_is_not_encoded_again(users):
    await users.handle(taste(3).merge(individual(3, "tense")))

    await users.handle(taste(9).merge(individual(9, "tense")))

    assert users.encoder.texts == ["tense"]
    record = VectorRecord.decode(users.store.vectors["known", USER])
    assert (record.header.rev, record.header.factors_version) == (2, 9)


async def test_an_erased_user_keeps_neither_text_nor_vector_but_those_that_are_not_ours(users):
    await users.handle(taste(3).merge(individual(3)))
    users.emitter.sent.clear()

    await users.handle(removed(4))

    assert users.store.stored(USER).document == removed(4)
    assert users.spaces_of() == ["lived"]
    assert users.representations == [None]
    assert [(one.space, one.stage) for one in users.live_updates] == [
        ("raw", Stage.NONE),
        ("known", Stage.NONE),
    ]


async def test_a_user_who_came_back_in_the_same_batch_as_the_erasure_left_nothing_behind(users):
    await users.handle(taste(3).merge(individual(3)))
    users.emitter.sent.clear()

    await users.handle(removed(4).merge(taste(5)))

    assert users.spaces_of() == ["lived"]
    assert users.representations == [None]
    assert [one.stage for one in users.live_updates] == [Stage.NONE, Stage.NONE]


async def test_a_late_answer_about_an_erased_user_comes_to_nothing(users):
    await users.handle(removed(4))

    results = await users.handle(individual(3))

    assert outcomes(results) == [Outcome.STALE]
    assert users.spaces_of() == ["lived"]


async def test_factors_that_the_raw_space_has_no_part_for_make_no_vector(users):
    other = Document(
        individual=Factors(3, 7, {"genre": "noir"}, Provenance("m", "p", "f"), START_MS)
    )

    await users.handle(taste(3).merge(other))
    results = await users.handle(other)

    assert users.spaces_of() == ["lived"]
    assert outcomes(results) == [Outcome.UNCHANGED]


async def test_without_any_space_that_wants_them_users_are_not_encoded():
    world = UserWorld()
    written: Any = world.spaces.written[0]
    raw = written.space.model_copy(update={"kinds": (EntityKind.ITEM,)})
    world.spaces.raw, world.spaces.written = raw, [RawAdaptor(raw), SumAdaptor(), LIVED]

    await world.handle(taste(3).merge(individual(3)))

    assert world.encoder.texts == []
    assert world.spaces_of() == ["lived"]
    assert world.store.stored(USER).document == taste(3).merge(individual(3))


async def test_the_lane_of_a_new_space_brings_users_that_were_written_about(users):
    await users.handle(taste(3).merge(individual(3, "tense")))
    new = SumAdaptor("new", BOTH, "knowledge")
    lane = space_lane(users, new)

    results = await lane.handle([Touched(USER)])

    assert outcomes(results) == [Outcome.WRITTEN]
    made = VectorRecord.decode(users.store.vectors["new", USER])
    assert np.allclose(made.vector, text_vector("tense"), atol=0.01)


async def test_the_lane_of_a_new_space_leaves_users_of_histories_alone(users):
    await users.handle(taste(3).merge(individual(3, "tense")))
    await users.handle(removed(4))
    lane = space_lane(users, LIVED)

    await lane.handle([Touched(USER)])

    assert users.store.vectors["lived", USER] == b"made from the history"


@pytest.mark.parametrize("document", [removed(4), removed(4).merge(taste(5))])
async def test_a_user_without_a_text_leaves_a_new_space_of_knowledge(users, document):
    await users.handle(taste(3).merge(individual(3)))
    lane = space_lane(users, SumAdaptor("new", BOTH, "knowledge"))
    await lane.handle([Touched(USER)])
    await users.handle(document)

    await lane.handle([Touched(USER)])

    assert ("new", USER) not in users.store.vectors


# ---- the lane of one new space ---------------------------------------------------------------


def space_lane(world: World, adaptor: SumAdaptor) -> EncodeSpaceLane:
    return build_space_lane(adaptor, store=world.store, emitter=world.emitter, clock=world.clock)


async def test_a_new_space_gets_the_vector_that_the_encode_lane_would_have_written(world):
    await world.handle(content(3).merge(individual(3)))
    world.emitter.sent.clear()
    lane = space_lane(world, SumAdaptor("new"))

    results = await lane.handle([lane.decode(record(Topic.ENTITIES, b"item:42", b"{}"), START_MS)])

    assert lane.name == "encode.new"
    assert outcomes(results) == [Outcome.WRITTEN]
    assert world.vector("new").header == world.vector("sum").header
    assert np.allclose(world.vector("new").vector, world.vector("sum").vector, atol=0.01)
    assert [update.space for update in world.live_updates] == ["new"]


async def test_a_vector_of_a_later_revision_is_kept(world):
    await world.handle(content(3))
    world.store.seed(ITEM, content(3), rev=1, vectors={"new": _with_rev(world.vector(), 5)})
    lane = space_lane(world, SumAdaptor("new"))
    world.emitter.sent.clear()

    results = await lane.handle([Touched(ITEM)])

    assert outcomes(results) == [Outcome.STALE]
    assert world.vector("new").header.rev == 5
    assert world.emitter.sent == []


@pytest.mark.parametrize("document", [removed(9), Document()])
async def test_an_item_that_is_removed_or_swept_leaves_the_new_space(world, document):
    await world.handle(content(3))
    lane = space_lane(world, SumAdaptor("new"))
    await lane.handle([Touched(ITEM)])
    if document == Document():
        del world.store.documents[ITEM]
    else:
        await world.handle(document)

    await lane.handle([lane.decode(record(Topic.REPRESENTATIONS, b"item:42", None), START_MS)])

    assert ("new", ITEM) not in world.store.vectors


async def test_content_without_parts_keeps_the_vector_it_has(world):
    await world.handle(content(3))
    lane = space_lane(world, SumAdaptor("new"))
    await lane.handle([Touched(ITEM)])
    del world.store.vectors["raw", ITEM]

    results = await lane.handle([Touched(ITEM)])

    assert outcomes(results) == [Outcome.STALE]
    assert ("new", ITEM) in world.store.vectors


async def test_an_entity_of_another_kind_is_none_of_the_spaces_business(world):
    await world.handle(content(3))
    lane = space_lane(world, SumAdaptor("new", kinds=(EntityKind.USER,)))

    results = await lane.handle([Touched(ITEM)])

    assert outcomes(results) == [Outcome.UNCHANGED]
    assert ("new", ITEM) not in world.store.vectors


def test_a_record_without_a_key_does_not_decode(world):
    lane = space_lane(world, SumAdaptor("new"))

    with pytest.raises(Permanent) as caught:
        lane.decode(record(Topic.ENTITIES, None, b"{}"), START_MS)

    assert caught.value.reason is Reason.NULL_KEY


def _with_rev(made: VectorRecord, rev: int) -> bytes:
    data = bytearray(made.encode())
    data[12:20] = rev.to_bytes(8, "big")
    return bytes(data)
