"""Behaviour events: every way a record can be bad has one stable reason, and spares the others."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.behaviour import (
    MAX_ACTION_BYTES,
    MAX_BATCH_EVENTS,
    MAX_EVENT_ID_CHARS,
    BehaviourBatch,
    BehaviourLimits,
    DecodedBehaviour,
    Erasure,
    Interaction,
    UserBehaviour,
    UserErased,
    behaviour_headers,
    decode_behaviour,
    encode_behaviour,
    user_of,
)
from schemas.entities import MAX_ID_BYTES
from schemas.errors import InvalidInput
from schemas.history import HistoryEvent, event_digest
from schemas.reasons import Reason
from tests.history_builders import DAY_MS, history_of, user

NOW_MS = 1_700_000_000_000
ACTIONS = frozenset({"view", "like", "rate"})
SECRET = "customer-4711"
EVENT = {
    "type": "user.behaviour",
    "user_id": "7",
    "event_id": "e1",
    "item_id": "42",
    "action": "view",
    "occurred_at": "2023-11-14T22:13:19.5Z",
}
ERASURE = {"type": "user.erased", "user_id": "7", "occurred_at": "2023-11-14T22:13:19.5Z"}
AT_MS = NOW_MS - 500


def decode(
    value: bytes | None,
    key: bytes | None = b"user:7",
    headers: Sequence[tuple[str, bytes]] = (),
    timestamp_ms: int = NOW_MS,
    **limits: Any,
) -> DecodedBehaviour:
    return decode_behaviour(
        key,
        value,
        headers,
        timestamp_ms=timestamp_ms,
        now_ms=NOW_MS,
        limits=BehaviourLimits(ACTIONS, **limits),
    )


def event(**changes) -> bytes:
    return orjson.dumps({**EVENT, **changes})


def without(*names: str, of: dict[str, str] = EVENT) -> bytes:
    return orjson.dumps({name: value for name, value in of.items() if name not in names})


def batch(*events: object) -> bytes:
    return orjson.dumps({"type": "user.behaviour.batch", "events": events})


def test_an_interaction_is_decoded_with_its_user_time_item_and_the_digest_of_its_id():
    decoded = decode(event(action="rate", value=4.5, note="ignored"))

    expected = HistoryEvent(AT_MS, event_digest("e1"), "42", "rate", 4.5)
    assert decoded == DecodedBehaviour((Interaction(user(7), expected),))


def test_an_erasure_is_decoded_with_its_user_and_time():
    assert decode(orjson.dumps(ERASURE)).events == (Erasure(user(7), AT_MS),)


@pytest.mark.parametrize("body", [EVENT, ERASURE], ids=["behaviour", "erasure"])
def test_without_a_time_of_its_own_an_event_happened_when_the_record_was_written(body):
    decoded = decode(without("occurred_at", of=body), timestamp_ms=1_234)

    (one,) = decoded.events
    assert (one.at_ms if isinstance(one, Erasure) else one.event.at_ms) == 1_234


@pytest.mark.parametrize(
    ("occurred_at", "at_ms"),
    [
        ("2023-11-14T22:13:20Z", NOW_MS),
        ("2023-11-15T00:13:20+02:00", NOW_MS),
        ("2023-11-14T22:13:20.123456Z", NOW_MS + 123),
        ("2023-11-15T22:13:20Z", NOW_MS + DAY_MS),
        ("1970-01-01T00:00:00Z", 0),
    ],
)
def test_times_of_any_zone_become_milliseconds(occurred_at, at_ms):
    (one,) = decode(event(occurred_at=occurred_at)).events

    assert isinstance(one, Interaction)
    assert one.event.at_ms == at_ms


@given(st.floats(-1e6, 1e6))
def test_a_value_has_the_precision_it_is_stored_with(value):
    (one,) = decode(event(action="rate", value=value)).events

    assert isinstance(one, Interaction)
    assert one.event.value == float(np.float32(value))
    history = history_of(one.event)
    assert type(history).decode(history.encode()).events == (one.event,)


def test_a_value_may_come_with_actions_that_need_none_and_null_is_none():
    (with_value,) = decode(event(value=2)).events
    (with_null,) = decode(event(value=None)).events

    assert isinstance(with_value, Interaction)
    assert isinstance(with_null, Interaction)
    assert (with_value.event.value, with_null.event.value) == (2.0, None)


BAD_EVENTS = [
    (event(user_id=""), Reason.INVALID_ID),
    (event(user_id="a b"), Reason.INVALID_ID),
    (event(user_id="{7}"), Reason.INVALID_ID),
    (event(user_id="x" * (MAX_ID_BYTES + 1)), Reason.INVALID_ID),
    (event(user_id=7), Reason.WRONG_TYPE),
    (without("user_id"), Reason.MISSING_FIELD),
    (without("user_id", of=ERASURE), Reason.MISSING_FIELD),
    (event(item_id=""), Reason.INVALID_ID),
    (event(item_id="new\nline"), Reason.INVALID_ID),
    (event(item_id="x" * (MAX_ID_BYTES + 1)), Reason.INVALID_ID),
    (event(item_id=None), Reason.WRONG_TYPE),
    (without("item_id"), Reason.MISSING_FIELD),
    (without("event_id"), Reason.MISSING_FIELD),
    (event(event_id=""), Reason.WRONG_TYPE),
    (event(event_id="x" * (MAX_EVENT_ID_CHARS + 1)), Reason.WRONG_TYPE),
    (event(event_id=1), Reason.WRONG_TYPE),
    (without("action"), Reason.MISSING_FIELD),
    (event(action="teleport"), Reason.UNKNOWN_ACTION),
    (event(action=""), Reason.UNKNOWN_ACTION),
    (event(action=3), Reason.WRONG_TYPE),
    (event(action="rate"), Reason.MISSING_FIELD),
    (event(action="rate", value=None), Reason.MISSING_FIELD),
    (event(value="high"), Reason.WRONG_TYPE),
    (event(value=1e7), Reason.WRONG_TYPE),
    (event(value=-1e7), Reason.WRONG_TYPE),
    (event(value=[1]), Reason.WRONG_TYPE),
    (event(occurred_at="yesterday"), Reason.WRONG_TYPE),
    (event(occurred_at="2023-11-14T22:13:20"), Reason.WRONG_TYPE),
    (event(occurred_at="1969-12-31T23:59:59Z"), Reason.WRONG_TYPE),
    (event(occurred_at="2023-11-16T22:13:20Z"), Reason.FUTURE_TIME),
    (orjson.dumps({**ERASURE, "occurred_at": "2023-11-16T22:13:20Z"}), Reason.FUTURE_TIME),
    (event(occurred_at="9999-12-31T23:59:59Z"), Reason.FUTURE_TIME),
    (event(type="user.left"), Reason.UNKNOWN_TYPE),
    (event(type=7), Reason.UNKNOWN_TYPE),
    (without("type"), Reason.MISSING_FIELD),
]


@pytest.mark.parametrize(("value", "reason"), BAD_EVENTS)
def test_a_bad_event_is_refused_with_its_reason_alone_and_in_a_batch(value, reason):
    with pytest.raises(InvalidInput) as alone:
        decode(value)
    decoded = decode(batch(EVENT, orjson.loads(value), {**EVENT, "event_id": "e3"}))

    assert alone.value.reason is reason
    assert len(decoded.events) == 2
    (refused,) = decoded.refused
    assert (refused.index, refused.reason, refused.detail) == (1, reason, alone.value.detail)
    assert orjson.loads(refused.value) == orjson.loads(value)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, Reason.NULL_VALUE),
        (b"", Reason.NOT_JSON),
        (b"{", Reason.NOT_JSON),
        (b'{"value": NaN}', Reason.NOT_FINITE),
        (b'{"value": 1e999}', Reason.NOT_FINITE),
        (b'{"user_id": "\xff"}', Reason.INVALID_UNICODE),
        (b'{"event_id": "\\ud800"}', Reason.INVALID_UNICODE),
        (b"[]", Reason.NOT_AN_OBJECT),
        (b"null", Reason.NOT_AN_OBJECT),
        (orjson.dumps({"type": "user.behaviour.batch"}), Reason.MISSING_FIELD),
        (orjson.dumps({"type": "user.behaviour.batch", "events": None}), Reason.MISSING_FIELD),
        (orjson.dumps({"type": "user.behaviour.batch", "events": {}}), Reason.WRONG_TYPE),
        (batch(), Reason.WRONG_TYPE),
        (batch(*[EVENT] * (MAX_BATCH_EVENTS + 1)), Reason.WRONG_TYPE),
    ],
)
def test_a_record_that_holds_no_events_is_refused(value, reason):
    with pytest.raises(InvalidInput) as refused:
        decode(value)

    assert refused.value.reason is reason


def test_a_record_over_the_limit_is_refused_unread():
    with pytest.raises(InvalidInput, match="17 bytes, allowed 16") as refused:
        decode(b"x" * 17, max_bytes=16)

    assert refused.value.reason is Reason.TOO_LARGE


@pytest.mark.parametrize("value", [event(), orjson.dumps(ERASURE), batch(EVENT)])
@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (None, Reason.NULL_KEY),
        (b"", Reason.WRONG_KEY),
        (b"7", Reason.WRONG_KEY),
        (b"user:8", Reason.WRONG_KEY),
        (b"item:7", Reason.WRONG_KEY),
        (b"\xff", Reason.WRONG_KEY),
    ],
)
def test_the_key_must_name_the_user_of_the_first_event(value, key, reason):
    with pytest.raises(InvalidInput) as refused:
        decode(value, key)

    assert refused.value.reason is reason


def test_events_of_other_users_may_follow_in_a_batch():
    decoded = decode(
        batch(
            EVENT,
            {**EVENT, "user_id": "8", "event_id": "e2"},
            {**ERASURE, "user_id": "9"},
        )
    )

    assert [one.user for one in decoded.events] == [user(7), user(8), user(9)]
    assert decoded.refused == ()


def test_a_full_batch_is_taken():
    events = [{**EVENT, "event_id": f"e{n}"} for n in range(MAX_BATCH_EVENTS)]

    assert len(decode(batch(*events)).events) == MAX_BATCH_EVENTS


def test_a_refused_event_names_its_user_where_it_has_one():
    decoded = decode(
        batch(
            EVENT,
            {**EVENT, "user_id": "8", "action": "teleport"},
            {**EVENT, "user_id": "not an id"},
            {**EVENT, "user_id": 9},
            "no object",
        )
    )

    assert [one.user for one in decoded.refused] == [user(8), None, None, None]
    assert [one.index for one in decoded.refused] == [1, 2, 3, 4]
    assert decoded.refused[3].reason is Reason.NOT_AN_OBJECT
    assert decoded.refused[3].value == b'"no object"'


def test_a_first_event_under_another_users_key_does_not_take_the_others_with_it():
    decoded = decode(batch({**EVENT, "user_id": "8"}, EVENT))

    assert [one.user for one in decoded.events] == [user(7)]
    assert [one.reason for one in decoded.refused] == [Reason.WRONG_KEY]


def test_a_batch_of_bad_events_alone_is_refused_for_the_first_reason():
    with pytest.raises(InvalidInput) as refused:
        decode(batch({**EVENT, "action": "teleport"}, {**EVENT, "item_id": ""}))

    assert refused.value.reason is Reason.UNKNOWN_ACTION


def test_batches_do_not_nest():
    nested = orjson.loads(batch(EVENT))

    decoded = decode(batch(EVENT, nested))

    assert [one.reason for one in decoded.refused] == [Reason.UNKNOWN_TYPE]


@pytest.mark.parametrize("value", [without("type"), event()])
def test_the_type_may_stand_in_the_header(value):
    assert decode(value, headers=[("ce_type", b"freshet.user.behaviour")]) == decode(event())


def test_a_batch_may_say_so_in_the_header_alone():
    value = orjson.dumps({"events": [EVENT]})

    decoded = decode(value, headers=[("ce_type", b"freshet.user.behaviour.batch")])

    assert decoded == decode(event())


def test_a_header_that_contradicts_the_body_is_refused():
    with pytest.raises(InvalidInput) as refused:
        decode(event(), headers=[("ce_type", b"freshet.user.erased")])

    assert refused.value.reason is Reason.TYPE_MISMATCH


@pytest.mark.parametrize(
    ("value", "key"),
    [
        *(
            (event(user_id=SECRET, **change), f"user:{SECRET}".encode())
            for change in (
                {"item_id": ""},
                {"action": "teleport"},
                {"action": "rate"},
                {"value": "x"},
                {"event_id": ""},
                {"occurred_at": "2033-11-14T22:13:20Z"},
            )
        ),
        (event(user_id=SECRET), b"user:8"),
        (event(), f"user:{SECRET}".encode()),
        (event(user_id=SECRET + "\n"), b"user:7"),
    ],
)
def test_no_detail_repeats_who_it_was(value, key):
    with pytest.raises(InvalidInput) as refused:
        decode(value, key)

    assert SECRET not in str(refused.value)


def test_an_unknown_action_is_told_with_those_known_but_not_at_any_length():
    with pytest.raises(InvalidInput) as refused:
        decode(event(action="x" * 5_000))

    assert "like, rate, view" in refused.value.detail
    assert len(refused.value.detail) < 200


# The characters an id may hold.
ids = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Z"], exclude_characters="{}"),
    min_size=1,
    max_size=20,
).filter(lambda text: not any(c.isspace() for c in text))
moments = st.integers(DAY_MS, NOW_MS).map(
    lambda ms: datetime.fromtimestamp(ms / 1_000, timezone(timedelta(hours=2)))
)
interactions = st.builds(
    UserBehaviour,
    user_id=ids,
    occurred_at=st.none() | moments,
    event_id=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=50),
    item_id=ids,
    action=st.sampled_from(["view", "like"]),
    value=st.none() | st.floats(-1e6, 1e6),
)
erasures = st.builds(UserErased, user_id=ids, occurred_at=st.none() | moments)


@given(interactions | erasures)
def test_what_is_encoded_is_decoded_with_its_headers(told):
    headers = behaviour_headers(told, source="shop", id_="1")

    decoded = decode(encode_behaviour(told), user_of(told).encode(), headers)

    (one,) = decoded.events
    at_ms = NOW_MS if told.occurred_at is None else round(told.occurred_at.timestamp() * 1000)
    assert one.user == user_of(told)
    if isinstance(one, Erasure):
        assert one.at_ms == at_ms
    else:
        assert isinstance(told, UserBehaviour)
        assert one.event.at_ms == at_ms
        assert one.event.id == event_digest(told.event_id)
        assert (one.event.item, one.event.action) == (told.item_id, told.action)


@given(st.lists(interactions | erasures, min_size=1, max_size=5))
def test_a_batch_is_decoded_as_its_events_alone_are(told):
    whole = BehaviourBatch(events=tuple(told))
    headers = behaviour_headers(whole, source="shop", id_="1")

    decoded = decode(encode_behaviour(whole), user_of(told[0]).encode(), headers)

    alone = [decode(encode_behaviour(one), user_of(one).encode()).events[0] for one in told]
    assert decoded == DecodedBehaviour(tuple(alone))


def test_headers_say_what_a_record_is_about():
    told = UserBehaviour(
        user_id="7",
        event_id="e1",
        item_id="42",
        action="view",
        occurred_at=datetime(2023, 11, 15, 0, 13, 20, tzinfo=timezone(timedelta(hours=2))),
    )

    headers = dict(behaviour_headers(told, source="shop", id_="id-1"))

    assert headers == {
        "ce_specversion": b"1.0",
        "ce_id": b"id-1",
        "ce_source": b"shop",
        "ce_type": b"freshet.user.behaviour",
        "ce_subject": b"user:7",
        "ce_time": b"2023-11-14T22:13:20+00:00",
        "content-type": b"application/json",
    }


def test_headers_of_a_batch_name_no_user_and_no_time():
    one = UserErased(user_id="7", occurred_at=datetime(2023, 11, 14, tzinfo=UTC))

    headers = dict(behaviour_headers(BehaviourBatch(events=(one,)), source="shop", id_="1"))

    assert headers["ce_type"] == b"freshet.user.behaviour.batch"
    assert not {"ce_subject", "ce_time"} & set(headers)


@pytest.mark.parametrize(
    "changes",
    [
        {"event_id": ""},
        {"event_id": "x" * (MAX_EVENT_ID_CHARS + 1)},
        {"value": float("nan")},
        {"value": float("inf")},
        {"occurred_at": datetime(2023, 11, 14)},  # noqa: DTZ001  # the point
    ],
)
def test_an_event_that_could_not_be_read_back_cannot_be_built(changes):
    with pytest.raises(ValidationError):
        UserBehaviour(**{**EVENT, **changes})


def test_actions_are_short_enough_for_a_history():
    action = "x" * MAX_ACTION_BYTES
    stored = history_of(HistoryEvent(AT_MS, event_digest("e"), "42", action)).encode()

    assert type(history_of()).decode(stored).events[0].action == action
