"""Random histories through all three lanes, with crashes, redelivery and rival owners."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.entities import EntityKey, Stage
from schemas.fingerprints import text_fingerprint
from schemas.topics import Topic
from schemas.vector_record import VectorRecord
from streams.lanes.collective import WayOut
from streams.lanes.items import ItemChange
from tests.document_equality import assert_converged, live_view
from tests.fakes.clock import START_MS
from tests.fakes.encoding import representer, text_vector
from tests.fakes.three_lanes import DOMAIN, INPUTS, Step, ThreeLanes
from tests.lane_builders import items_lane, removed, upserted
from tests.overload_builders import RAW, Groupings, groups_of
from workers.knowledge.prompts import prompt_id
from workers.knowledge.shared_gate import SharedGate

MODEL = "version-writer"
PROMPT = prompt_id(DOMAIN)

# A source's truth: what an item was at each version, from 1. Few titles, so A-B-A is common.
HISTORIES = st.lists(st.sampled_from(["A", "B", "C", None]), min_size=1, max_size=5)
STEPS = st.builds(
    Step,
    lane=st.sampled_from(list(INPUTS)),
    size=st.integers(1, 4),
    effects=st.none() | st.integers(0, 7),
)
RIVAL_STEPS = st.builds(
    Step,
    lane=st.sampled_from(list(INPUTS)),
    size=st.integers(1, 4),
    effects=st.none() | st.integers(0, 7),
    rival_size=st.integers(0, 4),
)


@st.composite
def event_records(draw: Any) -> list[Any]:
    """Records of two items: any of their versions, in any order, some more than once."""
    records = []
    for id_ in ("1", "2"):
        history = draw(HISTORIES)
        versions = draw(st.lists(st.integers(1, len(history)), max_size=7))
        for version in versions:
            title = history[version - 1]
            records.append(
                removed(version, id_=id_) if title is None else upserted(version, title, id_=id_)
            )
    return draw(st.permutations(records))


@given(records=event_records(), steps=st.lists(STEPS, max_size=25))
@settings(max_examples=300, deadline=None)
async def test_crashes_anywhere_end_in_the_live_view_of_an_in_order_run(records, steps):
    world = ThreeLanes()
    for record in records:
        world.produce(Topic.CATALOG_ITEMS, record)

    for step in steps:
        await world.take(step)
    await world.settle()

    in_order = await _in_order_run(records)
    for key, events in _by_item(records).items():
        stored = world.store.stored(key, "raw")
        assert_converged(
            events, stored.document, world.seen.rows[key], prompt_id=PROMPT, model=MODEL
        )
        assert live_view(stored.document) == live_view(in_order.store.stored(key).document)
        _assert_vectors_are_of(world, key)
        _assert_topics_hold_what_redis_holds(world, key)


@given(records=event_records(), steps=st.lists(RIVAL_STEPS, max_size=20))
@settings(max_examples=200, deadline=None)
async def test_rival_owners_end_in_the_same_live_view(records, steps):
    world = ThreeLanes()
    for record in records:
        world.produce(Topic.CATALOG_ITEMS, record)

    for step in steps:
        await world.take(step)
    await world.settle()

    for key, events in _by_item(records).items():
        stored = world.store.stored(key, "raw")
        assert_converged(
            events, stored.document, world.seen.rows[key], prompt_id=PROMPT, model=MODEL
        )
        _assert_vectors_are_of(world, key)


@given(
    records=event_records(),
    steps=st.lists(RIVAL_STEPS, max_size=25),
    longest_wait_seconds=st.sampled_from([1e6, 0.001, 0.01]),
)
@settings(max_examples=300, deadline=None)
async def test_an_overload_with_crashes_anywhere_ends_in_knowledge_of_every_items_own(
    records, steps, longest_wait_seconds
):
    groupings = Groupings(groups_of("a", "b"), RAW)
    world = ThreeLanes(
        WayOut(groupings, groupings, SharedGate(DOMAIN)), longest_wait_seconds=longest_wait_seconds
    )
    for record in records:
        world.produce(Topic.CATALOG_ITEMS, record)

    for step in steps:
        await world.take(step)
    await world.settle()

    for key, events in _by_item(records).items():
        stored = world.store.stored(key, "raw")
        assert_converged(
            events, stored.document, world.seen.rows[key], prompt_id=PROMPT, model=MODEL
        )
        _assert_vectors_are_of(world, key)
        collective = stored.document.collective
        assert collective is None or collective.provenance.group in {"a", "b"}


async def test_an_in_order_run_calls_once_for_each_new_content():
    titles = ["A", "A", "B", "B", "A"]
    records = [upserted(version, title) for version, title in enumerate(titles, start=1)]

    world = await _in_order_run(records)

    assert world.calls == 3
    entity = world.last_entity(EntityKey.item("42"))
    assert entity is not None
    assert entity.document.stage is Stage.INDIVIDUAL


async def _in_order_run(records: Sequence[Any]) -> ThreeLanes:
    """One process a lane, no crash, every event by itself and in the order of versions."""
    world = ThreeLanes()
    lane = items_lane(None, None)  # type: ignore[arg-type]  # it only decodes here
    for record in sorted(records, key=lambda record: lane.decode(record, START_MS).rank):
        world.produce(Topic.CATALOG_ITEMS, record)
        await world.settle()
    return world


def _by_item(records: Sequence[Any]) -> dict[EntityKey, list[ItemChange]]:
    lane = items_lane(None, None)  # type: ignore[arg-type]  # it only decodes here
    events: dict[EntityKey, list[ItemChange]] = {}
    for record in records:
        event = lane.decode(record, START_MS)
        events.setdefault(event.entity, []).append(event)
    return events


def _assert_vectors_are_of(world: ThreeLanes, key: EntityKey) -> None:
    """Every vector is made from exactly the stored document, or gone with the item."""
    stored = world.store.stored(key, "raw")
    document = stored.document
    if document.content is None:
        assert stored.raw is None
        assert ("sum", key) not in world.store.vectors
        return
    record = VectorRecord.decode(world.store.vectors["sum", key])
    assert record.header.rev == stored.rev
    assert record.header.stage == document.stage
    assert record.header.content_version == document.content.version
    texts = [text for text in representer(world.encoder).texts(document) if text]
    expected = np.sum([text_vector(text) for text in texts], axis=0)
    assert np.allclose(record.vector, expected, atol=0.01)


def _assert_topics_hold_what_redis_holds(world: ThreeLanes, key: EntityKey) -> None:
    """A rebuild from the compacted topics would give the same document and parts."""
    stored = world.store.stored(key, "raw")
    entity = world.last_entity(key)
    assert entity is not None
    assert (entity.rev, entity.document) == (stored.rev, stored.document)
    representation = world.last_representation(key)
    if stored.document.content is None:
        assert representation is None
        return
    assert representation is not None
    texts = representer(world.encoder).texts(stored.document)
    assert representation.fingerprints == tuple(
        None if text is None else text_fingerprint(text) for text in texts
    )
    assert stored.raw is not None
    raw = VectorRecord.decode(stored.raw).vector
    assert np.array_equal(representation.dense().reshape(-1), raw.astype(np.float32))
