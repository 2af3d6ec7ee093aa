import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.entities import EntityKey
from schemas.errors import InvalidInput, Transient
from schemas.knowledge import Content, Document, RegisterName, Removed, RequestKind
from schemas.reasons import Reason
from streams.engine.outcomes import Outcome
from tests.fakes.clock import START_MS
from tests.fakes.emitter import FakeEmitter
from tests.fakes.stores import InMemorySeen
from tests.lane_builders import change, items_lane, outcomes, removed, upserted
from workers.live.seen_record import Seen

ITEM = EntityKey.item("42")


@pytest.fixture
def emitter() -> FakeEmitter:
    return FakeEmitter()


@pytest.fixture
def seen() -> InMemorySeen:
    return InMemorySeen()


@pytest.fixture
def lane(emitter, seen):
    return items_lane(emitter, seen)


async def test_a_new_item_becomes_a_content_register_and_a_request(lane, emitter, seen):
    value = lane.decode(upserted(3, "Heat", year=1995, price=9.5), START_MS)

    results = await lane.handle([value])

    assert outcomes(results) == [Outcome.EMITTED]
    (update,) = emitter.updates
    assert update.register is RegisterName.CONTENT
    assert isinstance(update.value, Content)
    assert (update.value.version, update.value.fields) == (3, {"title": "Heat", "year": 1995})
    (request,) = emitter.requests()
    assert (request.kind, request.version) == (RequestKind.NEW, 3)
    assert request.fields == update.value.fields
    assert request.content_fingerprint == update.value.fingerprint
    assert request.requested_at_ms == START_MS
    assert seen.rows[ITEM] == Seen(3, update.value.fingerprint, False, START_MS)
    assert {message.key for message in emitter.sent} == {b"item:42"}


async def test_the_same_version_again_is_unchanged_and_emits_nothing(lane, emitter):
    await lane.handle([change(3, "Heat")])
    emitter.sent.clear()

    results = await lane.handle([change(3, "Heat")])

    assert outcomes(results) == [Outcome.UNCHANGED]
    assert emitter.sent == []


async def test_an_older_version_is_stale(lane, emitter):
    await lane.handle([change(3, "Heat")])
    emitter.sent.clear()

    results = await lane.handle([change(2, "Head")])

    assert outcomes(results) == [Outcome.STALE]
    assert emitter.sent == []


async def test_a_newer_version_of_the_same_content_is_confirmed_without_a_record(
    lane, emitter, seen
):
    await lane.handle([change(3, "Heat")])
    emitter.sent.clear()

    results = await lane.handle([change(4, "Heat")])

    assert outcomes(results) == [Outcome.CONFIRMED]
    assert emitter.sent == []
    assert seen.rows[ITEM].version == 4


async def test_a_changed_item_asks_for_knowledge_again(lane, emitter):
    await lane.handle([change(3, "Heat")])

    await lane.handle([change(4, "Heat 2")])

    assert [request.kind for request in emitter.requests()] == [
        RequestKind.NEW,
        RequestKind.CHANGED,
    ]


async def test_a_removal_becomes_a_removed_register_and_a_remove_request(lane, emitter):
    await lane.handle([change(3, "Heat")])
    emitter.sent.clear()

    results = await lane.handle([lane.decode(removed(4), START_MS)])

    assert outcomes(results) == [Outcome.EMITTED]
    (update,) = emitter.updates
    assert (update.register, update.value) == (RegisterName.REMOVED, Removed(4, START_MS))
    assert [request.kind for request in emitter.requests()] == [RequestKind.REMOVE]


async def test_an_item_that_comes_back_with_its_old_content_is_emitted_again(lane, emitter):
    for value in (change(1, "Heat"), change(2, None)):
        await lane.handle([value])
    emitter.sent.clear()

    results = await lane.handle([change(3, "Heat")])

    assert outcomes(results) == [Outcome.EMITTED]
    assert emitter.requests()[0].kind is RequestKind.NEW


async def test_a_failed_emit_leaves_nothing_seen_so_the_event_is_emitted_again(lane, emitter, seen):
    emitter.fail()

    with pytest.raises(Transient):
        await lane.handle([change(1, "Heat")])

    assert seen.rows == {}
    assert outcomes(await lane.handle([change(1, "Heat")])) == [Outcome.EMITTED]


async def test_a_batch_costs_one_read_one_emit_and_one_store(lane, emitter):
    await lane.handle([change(1, "Heat", id_=str(id_)) for id_ in range(5)])

    assert [len(call) for call in emitter.calls] == [10]


async def test_a_confirmation_that_hid_another_content_is_emitted(lane, emitter):
    # v2 may have been emitted by an attempt that ended before it was seen.
    await lane.handle([change(1, "A")])
    emitter.sent.clear()
    hidden = lane.absorb(change(2, "B"), change(3, "A")).value

    results = await lane.handle([hidden])

    assert outcomes(results) == [Outcome.EMITTED]
    assert [update.value.version for update in emitter.updates] == [3]


async def test_a_confirmation_that_hid_a_removal_is_emitted(lane, emitter):
    await lane.handle([change(1, "A")])
    emitter.sent.clear()

    results = await lane.handle([lane.absorb(change(2, None), change(3, "A")).value])

    assert outcomes(results) == [Outcome.EMITTED]


async def test_a_confirmation_that_absorbed_only_confirmations_is_confirmed(lane, emitter):
    await lane.handle([change(1, "A")])
    emitter.sent.clear()

    results = await lane.handle([lane.absorb(change(2, "A"), change(3, "A")).value])

    assert outcomes(results) == [Outcome.CONFIRMED]
    assert emitter.sent == []


def test_the_newer_of_two_waiting_changes_survives(lane):
    absorbed = lane.absorb(change(1, "A"), change(2, "B"))

    assert (absorbed.value.version, absorbed.incoming_survives) == (2, True)
    assert absorbed.loser is Outcome.SUPERSEDED


def test_an_older_arrival_is_superseded_by_what_waits(lane):
    absorbed = lane.absorb(change(2, "B"), change(1, "A"))

    assert (absorbed.value.version, absorbed.incoming_survives) == (2, False)
    assert absorbed.loser is Outcome.SUPERSEDED


def test_a_waiting_duplicate_is_unchanged(lane):
    absorbed = lane.absorb(change(2, "B"), change(2, "B"))

    assert absorbed.loser is Outcome.UNCHANGED
    assert not absorbed.incoming_survives


CHANGES = st.lists(
    st.builds(change, st.integers(1, 3), st.sampled_from(["A", "B", "C", None])),
    min_size=1,
    max_size=6,
)


@given(changes=CHANGES, data=st.data())
async def test_the_last_register_emitted_does_not_depend_on_order_or_batching(changes, data):
    shuffled = data.draw(st.permutations(changes))
    cuts = data.draw(st.lists(st.booleans(), min_size=len(changes), max_size=len(changes)))

    # Confirmations emit nothing, so documents are equal up to versions of the same content.
    assert await _document(changes, [True] * len(changes)) == await _document(shuffled, cuts)


async def _document(changes, cuts) -> tuple[bool, str | None]:
    """Feed the changes, each cut ending a coalesced unit, and merge what is emitted."""
    emitter, seen = FakeEmitter(), InMemorySeen()
    lane = items_lane(emitter, seen)
    waiting = None
    for value, cut in zip(changes, [*cuts[:-1], True], strict=True):
        waiting = value if waiting is None else lane.absorb(waiting, value).value
        if cut:
            await lane.handle([waiting])
            waiting = None
    document = Document()
    for update in emitter.updates:
        document = document.merge(Document.of(update.register, update.value))
    content = document.content
    return document.is_removed, None if content is None else content.fingerprint


@pytest.mark.parametrize(
    ("title", "reason"), [("  \u200b ", Reason.EMPTY_TITLE), ("", Reason.EMPTY_TITLE)]
)
def test_an_invalid_event_does_not_decode(lane, title, reason):
    with pytest.raises(InvalidInput) as caught:
        lane.decode(upserted(1, title), START_MS)

    assert caught.value.reason is reason
