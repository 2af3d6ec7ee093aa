"""Histories join: order, repetition and batching of events and erasures do not matter."""

import math
from functools import reduce

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.entities import EntityKey
from schemas.errors import Permanent
from schemas.history import (
    HEADER,
    NEVER,
    History,
    HistoryBounds,
    HistoryEvent,
    HistoryRecord,
    bounded,
    bounded_and_limited,
    distinct,
    event_digest,
)
from schemas.reasons import Reason
from tests.history_builders import (
    MINUTE_MS,
    START_MS,
    batches,
    bounds,
    changes,
    erasures,
    event,
    events,
    history_of,
    user,
    wire,
)

ROOMY = HistoryBounds(1_000, 1_000)

revs = st.one_of(st.integers(0, 5), st.just(2**63 - 1))


def joined(given_changes, limits: HistoryBounds) -> History:
    def add(history: History, change: tuple[list[HistoryEvent], int]) -> History:
        listed, erased_at_ms = change
        return history.join(listed, erased_at_ms, limits)

    return reduce(add, given_changes, History())


@given(changes, bounds, st.randoms(use_true_random=False))
def test_the_order_of_changes_does_not_matter(given_changes, limits, random):
    shuffled = random.sample(given_changes, len(given_changes))

    assert wire(joined(shuffled, limits)) == wire(joined(given_changes, limits))


@given(changes, bounds, st.data())
def test_repetitions_at_any_later_time_do_not_matter(given_changes, limits, data):
    repeated = data.draw(st.lists(st.sampled_from(given_changes)) if given_changes else st.just([]))

    assert wire(joined(given_changes + repeated, limits)) == wire(joined(given_changes, limits))


@given(changes, bounds)
def test_it_does_not_matter_in_what_batches_events_come(given_changes, limits):
    whole = [event for batch, _ in given_changes for event in batch]
    erased_at_ms = max((erased for _, erased in given_changes), default=NEVER)
    single = [([event], NEVER) for event in whole]

    assert wire(joined(given_changes, limits)) == wire(History().join(whole, erased_at_ms, limits))
    assert wire(joined([*single, ([], erased_at_ms)], limits)) == wire(
        joined([([], erased_at_ms), *single], limits)
    )


@given(changes, changes, bounds)
def test_histories_join_as_their_changes_do(some, others, limits):
    a, b = joined(some, limits), joined(others, limits)

    assert wire(a.join(b.events, b.erased_at_ms, limits)) == wire(joined(some + others, limits))
    assert wire(a.join(a.events, a.erased_at_ms, limits)) == wire(a)


@given(st.lists(events, max_size=20), erasures, bounds)
def test_a_history_is_bounded_ascending_and_after_the_erasure(listed, erased_at_ms, limits):
    kept, limited = bounded_and_limited(listed, erased_at_ms, limits)

    assert len(kept) <= limits.max_events
    assert list(kept) == sorted(kept, key=lambda event: event.order)
    assert all(event.at_ms > erased_at_ms for event in kept)
    minutes = [event.minute for event in kept]
    assert all(minutes.count(minute) <= limits.max_per_minute for minute in minutes)
    assert len({(event.minute, event.id) for event in kept}) == len(kept)
    assert len(kept) + limited <= len(distinct(listed, erased_at_ms))
    assert bounded(listed, erased_at_ms, limits) == kept


@given(st.lists(events, max_size=20))
def test_a_repetition_dated_to_another_minute_counts_once_where_it_is_newest(listed):
    history = History().join(listed, NEVER, ROOMY)

    counted = history.counted

    assert {event.id for event in counted} == {event.id for event in listed}
    assert len({event.id for event in counted}) == len(counted)
    for one in counted:
        assert one.order == max(event.order for event in listed if event.id == one.id)
    assert list(counted) == sorted(counted, key=lambda event: event.order)


def test_an_id_moved_to_another_minute_leaves_no_gap_that_depends_on_the_order():
    limits = HistoryBounds(10, 1)
    dropped, first = event(1), event(2)
    moved = event(2, START_MS + 5 * MINUTE_MS)

    in_order = joined([([dropped], NEVER), ([first], NEVER), ([moved], NEVER)], limits)
    backwards = joined([([moved], NEVER), ([dropped], NEVER), ([first], NEVER)], limits)

    assert in_order.events == backwards.events == (first, moved)
    assert in_order.counted == (moved,)


def test_of_one_id_within_a_minute_the_later_then_the_greater_payload_stays():
    earlier, later = event(1, START_MS), event(1, START_MS + 5)
    richer = event(1, START_MS + 5, item="other", value=2.0)

    assert history_of(later, earlier).events == (later,)
    assert history_of(later, richer).events == (max(later, richer, key=lambda e: e.packed),)


def test_the_newest_events_stay_and_of_a_full_minute_the_newest_few():
    limits = HistoryBounds(4, 2)
    flood = [event(n, START_MS + MINUTE_MS + n) for n in range(10)]
    before = [event(100 + n, START_MS + n) for n in range(2)]
    longer_ago = [event(200, START_MS - MINUTE_MS)]

    kept, limited = bounded_and_limited([*longer_ago, *flood, *before], NEVER, limits)

    assert kept == (*before, *flood[-2:])
    assert limited == 8


def test_events_at_the_erasure_are_gone_and_those_after_it_are_not():
    history = history_of(event(1), event(2), event(3)).join([], event(2).at_ms, HistoryBounds())

    assert history.events == (event(3),)
    assert history.erased_at_ms == event(2).at_ms
    assert history.join([event(1), event(2)], NEVER, HistoryBounds()).events == (event(3),)


@given(batches, erasures, revs, bounds)
def test_the_stored_bytes_hold_the_history(listed, erased_at_ms, rev, limits):
    kept = bounded([event for batch in listed for event in batch], erased_at_ms, limits)
    history = History(rev, erased_at_ms, kept)

    decoded = History.decode(history.encode())

    assert decoded == history
    assert decoded.encode() == history.encode()


@given(batches, erasures, revs)
def test_the_header_tells_what_appending_needs_without_reading_the_entries(
    listed, erased_at_ms, rev
):
    kept = bounded([event for batch in listed for event in batch], erased_at_ms, ROOMY)

    head = HEADER.unpack_from(History(rev, erased_at_ms, kept).encode())

    newest = max((event.at_ms for event in kept), default=NEVER)
    in_last = sum(event.at_ms // MINUTE_MS == newest // MINUTE_MS for event in kept)
    assert head == (1, rev, erased_at_ms, newest, len(kept), in_last)


@given(batches, erasures, revs)
def test_the_published_record_holds_the_history(listed, erased_at_ms, rev):
    kept = bounded([event for batch in listed for event in batch], erased_at_ms, ROOMY)
    record = HistoryRecord(user(7), History(rev, erased_at_ms, kept), 42)

    decoded = HistoryRecord.decode(record.encode())

    assert decoded == record
    assert decoded.history.encode() == record.history.encode()


def test_a_stored_history_is_documented_byte_for_byte():
    history = history_of(event(1, 5, item="42", action="rate", value=3.5))

    stored = History(7, 3, history.events).encode()

    assert stored == (
        b"\x01"
        + (7).to_bytes(8, "big")
        + (3).to_bytes(8, "big")
        + (5).to_bytes(8, "big")
        + b"\x00\x01\x00\x01"
        + (5).to_bytes(8, "big")
        + event_digest("e1")
        + b"\x40\x60\x00\x00"
        + b"\x04\x02rate42"
    )


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"\x01",
        history_of(event(1)).encode()[:-1],
        history_of(event(1)).encode()[:-12],
        history_of(event(1)).encode() + b"x",
        b"\x02" + history_of(event(1)).encode()[1:],
        history_of(event(1, item="aa")).encode()[:-1] + b"\xff",
    ],
    ids=["empty", "head", "item", "entry", "longer", "format", "utf-8"],
)
def test_bytes_that_are_no_history_are_refused(stored):
    with pytest.raises(ValueError, match=r"history|utf-8"):
        History.decode(stored)


RECORD = orjson.loads(HistoryRecord(user(7), history_of(event(1)), 42).encode())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        orjson.dumps({**RECORD, "user": "item:7"}),
        orjson.dumps({**RECORD, "user": "7"}),
        orjson.dumps({**RECORD, "rev": "seven"}),
        orjson.dumps({**RECORD, "rev": None}),
        orjson.dumps({**RECORD, "events": 3}),
        orjson.dumps({**RECORD, "events": [3]}),
        orjson.dumps({**RECORD, "events": [{**RECORD["events"][0], "id": "xyz"}]}),
        orjson.dumps({**RECORD, "events": [{**RECORD["events"][0], "id": "abcd"}]}),
        orjson.dumps({**RECORD, "events": [{**RECORD["events"][0], "at_ms": None}]}),
        orjson.dumps({name: value for name, value in RECORD.items() if name != "written_at_ms"}),
    ],
)
def test_a_record_that_is_no_history_is_permanent(body):
    with pytest.raises(Permanent) as refused:
        HistoryRecord.decode(body)

    assert refused.value.reason is Reason.UNREADABLE_HISTORY


def test_an_erasure_mark_is_a_record_without_events():
    mark = HistoryRecord(user(7), History(9, 1_234, ()), 2_000)

    assert HistoryRecord.decode(mark.encode()) == mark
    assert History.decode(mark.history.encode()).newest_ms == NEVER


def test_no_value_is_told_from_every_value():
    stored = history_of(event(1), event(2, value=0.0)).encode()

    assert [one.value for one in History.decode(stored).events] == [None, 0.0]
    assert math.isnan(HistoryEvent(0, b"\0" * 8, "1", "view", math.nan).value or 0.0)


def test_users_are_parsed_back_from_records():
    assert HistoryRecord.decode(orjson.dumps(RECORD)).user == EntityKey.parse("user:7")
