"""Entity keys and catalogue events: every way a record can be bad has one stable reason."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.entities import MAX_ID_BYTES, MAX_VERSION, EntityKey, EntityKind, checked_id
from schemas.errors import InvalidInput
from schemas.events import (
    ContentPolicy,
    DecodeLimits,
    ItemFields,
    ItemRemoved,
    ItemUpserted,
    clean_text,
    cloud_event_headers,
    decode_catalog_event,
    encode_catalog_event,
    entity_of,
    event_time_ms,
    parse_object,
)
from schemas.fingerprints import content_fingerprint, knowledge_fingerprint, text_fingerprint
from schemas.reasons import Reason

NOW_MS = 1_700_000_000_000
DAY_MS = 86_400_000
UPSERT = {
    "type": "item.upserted",
    "item_id": "42",
    "version": 7,
    "item": {"title": "Heat", "genres": ["Crime"]},
}
POLICY = ContentPolicy(frozenset({"title", "genres", "year", "tags"}))


def decode(
    value: bytes | None,
    key: bytes | None = b"item:42",
    headers: Sequence[tuple[str, bytes]] = (),
    **limits: Any,
) -> ItemUpserted | ItemRemoved:
    return decode_catalog_event(
        key, value, headers, timestamp_ms=NOW_MS, now_ms=NOW_MS, limits=DecodeLimits(**limits)
    )


def upsert(**changes) -> bytes:
    return orjson.dumps({**UPSERT, **changes})


def without(*names: str) -> bytes:
    return orjson.dumps({name: value for name, value in UPSERT.items() if name not in names})


def raw(version: str = "7", title: str = '"Heat"', more: str = "") -> bytes:
    """An upsert spelled by hand, for what no encoder would write."""
    body = f'{{"type":"item.upserted","item_id":"42","version":{version}'
    return (body + f',"item":{{"title":{title}}}{more}}}').encode("utf-8", "surrogatepass")


def test_a_good_upsert_is_decoded_with_all_its_fields():
    event = decode(upsert())

    assert isinstance(event, ItemUpserted)
    assert (event.item_id, event.version, event.item.title) == ("42", 7, "Heat")
    assert event.item.model_extra == {"genres": ["Crime"]}
    assert entity_of(event) == EntityKey.item("42")
    assert event_time_ms(event, NOW_MS) == NOW_MS


def test_a_good_removal_is_decoded():
    event = decode(orjson.dumps({"type": "item.removed", "item_id": "42", "version": 8}))

    assert event == ItemRemoved(item_id="42", version=8)


BAD_VALUES = {
    "a tombstone": (None, Reason.NULL_VALUE),
    "nothing": (b"", Reason.NOT_JSON),
    "text": (b"hello", Reason.NOT_JSON),
    "cut off": (upsert()[:-3], Reason.NOT_JSON),
    "a byte order mark": (b"\xef\xbb\xbf" + upsert(), Reason.NOT_JSON),
    "a trailing comma": (b'{"type":"item.removed",}', Reason.NOT_JSON),
    "a raw control character": (raw(title='"a\x00b"'), Reason.NOT_JSON),
    "too many brackets": (b"[" * 100_000, Reason.NOT_JSON),
    "too deep": (raw(more=',"x":' + "[" * 2_000 + "]" * 2_000), Reason.NOT_JSON),
    "NaN": (raw(more=',"price":NaN'), Reason.NOT_FINITE),
    "Infinity": (raw(more=',"price":-Infinity'), Reason.NOT_FINITE),
    "beyond a double": (raw(more=',"price":1e999'), Reason.NOT_FINITE),
    "an integer beyond a double": (raw(version="9" * 400), Reason.NOT_FINITE),
    "latin-1": ('{"title":"é"}'.encode("latin-1"), Reason.INVALID_UNICODE),
    "UTF-16": (upsert().decode().encode("utf-16"), Reason.INVALID_UNICODE),
    "a lone surrogate escaped": (raw(title='"\\ud83d"'), Reason.INVALID_UNICODE),
    "a lone surrogate in a key": (raw(more=',"\\udfff":1'), Reason.INVALID_UNICODE),
    "a lone surrogate in bytes": (raw(title='"\ud83d"'), Reason.INVALID_UNICODE),
    "a list": (b"[]", Reason.NOT_AN_OBJECT),
    "null": (b"null", Reason.NOT_AN_OBJECT),
    "a number": (b"42", Reason.NOT_AN_OBJECT),
    "a string": (b'"item"', Reason.NOT_AN_OBJECT),
    "an empty object": (b"{}", Reason.MISSING_FIELD),
    "no type": (without("type"), Reason.MISSING_FIELD),
    "null type": (upsert(type=None), Reason.UNKNOWN_TYPE),
    "an unknown type": (upsert(type="item.exploded"), Reason.UNKNOWN_TYPE),
    "a type that is a list": (upsert(type=["item.upserted"]), Reason.UNKNOWN_TYPE),
    "a type that is a number": (upsert(type=1), Reason.UNKNOWN_TYPE),
    "no item id": (without("item_id"), Reason.MISSING_FIELD),
    "a numeric item id": (upsert(item_id=42), Reason.WRONG_TYPE),
    "null item id": (upsert(item_id=None), Reason.WRONG_TYPE),
    "an empty item id": (upsert(item_id=""), Reason.INVALID_ID),
    "an item id with a space": (upsert(item_id="4 2"), Reason.INVALID_ID),
    "an item id with a line end": (upsert(item_id="42\n"), Reason.INVALID_ID),
    "an item id with a brace": (upsert(item_id="{42}"), Reason.INVALID_ID),
    "an item id with a control": (upsert(item_id="4\u00802"), Reason.INVALID_ID),
    "an item id that is too long": (upsert(item_id="é" * 101), Reason.INVALID_ID),
    "no version": (without("version"), Reason.BAD_VERSION),
    "null version": (upsert(version=None), Reason.BAD_VERSION),
    "a negative version": (upsert(version=-1), Reason.BAD_VERSION),
    "a version of 2^63": (upsert(version=2**63), Reason.BAD_VERSION),
    "a version beyond 64 bits": (raw(version=str(2**70)), Reason.BAD_VERSION),
    "a decimal version": (upsert(version=7.0), Reason.BAD_VERSION),
    "a version that is text": (upsert(version="7"), Reason.BAD_VERSION),
    "a version that is true": (upsert(version=True), Reason.BAD_VERSION),
    "no item": (without("item"), Reason.MISSING_FIELD),
    "null item": (upsert(item=None), Reason.WRONG_TYPE),
    "an item that is a list": (upsert(item=[]), Reason.WRONG_TYPE),
    "no title": (upsert(item={"genres": []}), Reason.MISSING_FIELD),
    "null title": (upsert(item={"title": None}), Reason.WRONG_TYPE),
    "a title that is a number": (upsert(item={"title": 1984}), Reason.WRONG_TYPE),
    "a title that is a list": (upsert(item={"title": ["Heat"]}), Reason.WRONG_TYPE),
    "an empty title": (upsert(item={"title": ""}), Reason.EMPTY_TITLE),
    "a blank title": (upsert(item={"title": " \t\n\u3000"}), Reason.EMPTY_TITLE),
    "a title of controls": (upsert(item={"title": "\x00\x1f\x7f\u0085"}), Reason.EMPTY_TITLE),
    "an invisible title": (
        upsert(item={"title": "\u200b\u202e\u2066\ufeff\U000e0041"}),
        Reason.EMPTY_TITLE,
    ),
    "a time without a zone": (upsert(occurred_at="2023-01-01T00:00:00"), Reason.WRONG_TYPE),
    "a time that is none": (upsert(occurred_at="yesterday"), Reason.WRONG_TYPE),
    "a time that is a list": (upsert(occurred_at=[]), Reason.WRONG_TYPE),
    "a far future": (upsert(occurred_at="9999-12-31T23:59:59Z"), Reason.FUTURE_TIME),
    "a far future elsewhere": (upsert(occurred_at="9999-12-31T23:59:59-23:59"), Reason.FUTURE_TIME),
}


@pytest.mark.parametrize(("value", "reason"), BAD_VALUES.values(), ids=BAD_VALUES.keys())
def test_a_bad_value_has_its_reason(value, reason):
    with pytest.raises(InvalidInput) as error:
        decode(value)

    assert error.value.reason is reason
    assert len(error.value.detail) < 500
    error.value.detail.encode()  # what goes into a header and a log


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (None, Reason.NULL_KEY),
        (b"", Reason.WRONG_KEY),
        (b"42", Reason.WRONG_KEY),
        (b"item:43", Reason.WRONG_KEY),
        (b"item:42 ", Reason.WRONG_KEY),
        (b"user:42", Reason.WRONG_KEY),
        (b"item:\xff", Reason.WRONG_KEY),
        (b"\x00" * 10_000, Reason.WRONG_KEY),
    ],
)
def test_a_key_that_is_not_the_items_is_refused(key, reason):
    with pytest.raises(InvalidInput) as error:
        decode(upsert(), key=key)

    assert error.value.reason is reason


def test_a_record_over_the_size_limit_is_refused_before_it_is_parsed():
    with pytest.raises(InvalidInput) as error:
        decode(b"[" * 101, max_bytes=100)

    assert error.value.reason is Reason.TOO_LARGE
    assert decode(upsert(), max_bytes=len(upsert())).version == 7


def test_the_type_header_decides_where_the_body_is_silent():
    for header in (b"freshet.item.upserted", b"item.upserted"):
        assert isinstance(decode(without("type"), headers=[("ce_type", header)]), ItemUpserted)


@pytest.mark.parametrize(
    "header", [b"freshet.item.removed", b"", b"\xff\xfe", b"other.item.upserted", b"x" * 10_000]
)
def test_a_type_header_that_contradicts_the_body_is_a_mismatch(header):
    with pytest.raises(InvalidInput) as error:
        decode(upsert(), headers=[("ce_type", header)])

    assert error.value.reason is Reason.TYPE_MISMATCH
    assert len(error.value.detail) < 500


def test_a_type_header_of_an_unknown_type_is_unknown_where_the_body_is_silent():
    with pytest.raises(InvalidInput) as error:
        decode(without("type"), headers=[("ce_type", b"freshet.item.exploded")])

    assert error.value.reason is Reason.UNKNOWN_TYPE


def test_other_headers_and_unknown_fields_are_accepted():
    event = decode(
        upsert(shard=3, item={"title": "Heat", "studio": {"name": "x"}, "price": 9.99}),
        headers=[("trace", b"\xff"), ("ce_id", b"1")],
    )

    assert isinstance(event, ItemUpserted)
    assert event.item.model_extra == {"studio": {"name": "x"}, "price": 9.99}


@pytest.mark.parametrize("version", [0, 1, MAX_VERSION])
def test_the_whole_range_of_versions_is_accepted(version):
    assert decode(upsert(version=version)).version == version


def test_a_source_without_versions_may_take_the_records_time():
    assert decode(without("version"), version_from_record_timestamp=True).version == NOW_MS
    assert decode(upsert(), version_from_record_timestamp=True).version == 7


def test_occurred_at_is_the_event_time_and_may_run_ahead_by_a_clocks_error():
    ahead = datetime.fromtimestamp((NOW_MS + DAY_MS) / 1000, UTC).isoformat()

    event = decode(upsert(occurred_at=ahead))

    assert event_time_ms(event, 0) == NOW_MS + DAY_MS
    with pytest.raises(InvalidInput) as error:
        decode(upsert(occurred_at=ahead), max_clock_skew_ms=DAY_MS - 1)
    assert error.value.reason is Reason.FUTURE_TIME


@pytest.mark.parametrize("spelled", ["0001-01-01T00:00:00+23:59", "1969-12-31T23:59:59.999Z"])
def test_a_time_long_ago_is_a_time(spelled):
    assert event_time_ms(decode(upsert(occurred_at=spelled)), 0) < 0


def test_what_is_encoded_is_decoded_with_its_headers():
    event = ItemUpserted(
        item_id="42", version=7, item=ItemFields.model_validate({"title": "Heat", "year": 1995})
    )
    headers = cloud_event_headers(event, source="shop", id_="e1")

    assert decode(encode_catalog_event(event), headers=headers) == event
    named = dict(headers)
    assert named["ce_type"] == b"freshet.item.upserted"
    assert named["ce_subject"] == b"item:42"
    assert named["ce_specversion"] == b"1.0"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from([*UPSERT, "occurred_at", "x"]), json_values), st.booleans())
def test_whatever_comes_is_an_event_or_an_invalid_input(changes, upserting):
    body = {**(UPSERT if upserting else {}), **changes}
    value = json.dumps(body).encode("utf-8", "surrogatepass")

    try:
        event = decode(value)
    except InvalidInput:
        return
    if isinstance(event, ItemUpserted):
        content_fingerprint(POLICY.content_of(event))


@given(st.binary(max_size=200))
def test_whatever_bytes_come_are_an_object_or_an_invalid_input(value):
    try:
        body = parse_object(value)
    except InvalidInput:
        return
    assert isinstance(body, dict)


def content_of(**item: object) -> dict:
    event = ItemUpserted(item_id="1", version=1, item=ItemFields.model_validate(item))
    return POLICY.content_of(event)


def test_content_holds_the_semantic_fields_alone_cleaned_and_in_order():
    content = content_of(
        title="  He\u200bat\n", price=9.99, year=1995, genres=["Crime", "", " Drama ", None, {}]
    )

    assert content == {"genres": ["Crime", "Drama"], "title": "He at", "year": 1995}
    assert list(content) == sorted(content)


def test_fields_that_say_nothing_are_left_out():
    assert content_of(title="Heat", genres=[], year=None, tags={"a": 1}) == {"title": "Heat"}
    assert content_of(title="Heat", tags=["", []]) == {"title": "Heat"}
    assert content_of(title="Heat", year=0) == {"title": "Heat", "year": 0}


def test_texts_and_lists_are_bounded():
    policy = ContentPolicy(frozenset({"tags"}), max_text_chars=3, max_list_entries=2)
    event = ItemUpserted(
        item_id="1",
        version=1,
        item=ItemFields.model_validate({"title": "Heat", "tags": ["abcdef", "b", "c"]}),
    )

    assert policy.content_of(event) == {"title": "Hea", "tags": ["abc", "b"]}


@pytest.mark.parametrize("depth", [1, 300, 900])
def test_lists_within_lists_are_left_out_however_deep(depth):
    nested = b"[" * depth + b'"x"' + b"]" * depth
    event = decode(
        b'{"type":"item.upserted","item_id":"42","version":1,'
        b'"item":{"title":"Heat","genres":["Crime",' + nested + b"]}}"
    )

    assert isinstance(event, ItemUpserted)
    content = POLICY.content_of(event)
    assert content == {"title": "Heat", "genres": ["Crime"]}
    content_fingerprint(content)


def test_a_change_without_meaning_has_the_same_fingerprint():
    one = content_fingerprint(content_of(title="Heat", price=1, genres=["Crime"]))
    two = content_fingerprint(content_of(genres=["Crime "], title="Heat ", price=2))
    three = content_fingerprint(content_of(title="Heat", genres=["Drama"]))

    assert one == two != three
    assert len(one) == 32
    assert knowledge_fingerprint(one, "p", "m") != knowledge_fingerprint(one, "p", "n")
    assert text_fingerprint("a") != text_fingerprint("b")


@given(st.text())
def test_cleaning_a_text_twice_changes_nothing_more(text):
    assert clean_text(clean_text(text)) == clean_text(text)


@pytest.mark.parametrize("spelled", ["item:42", "user:7", "group:13", "item:a:b", "item:é"])
def test_a_key_survives_its_spelling(spelled):
    assert str(EntityKey.parse(spelled)) == spelled
    assert EntityKey.parse(spelled.encode()) == EntityKey.parse(spelled)
    assert EntityKey.parse(spelled).encode() == spelled.encode()


@pytest.mark.parametrize(
    "spelled",
    ["", ":", "item", "item:", ":42", "thing:42", "ITEM:42", "item:4 2", "item:{}", b"item:\xff"],
)
def test_what_is_no_key_is_invalid(spelled):
    with pytest.raises(InvalidInput) as error:
        EntityKey.parse(spelled)

    assert error.value.reason is Reason.INVALID_ID


def test_ids_are_bounded_in_bytes_and_hold_no_lone_surrogates():
    assert checked_id("a" * MAX_ID_BYTES)
    for bad in (
        "a" * (MAX_ID_BYTES + 1),
        "é" * (MAX_ID_BYTES // 2 + 1),
        "\ud83d",
        "\x85",
        "\u2028",
    ):
        with pytest.raises(InvalidInput):
            checked_id(bad)


def test_keys_sort_by_kind_and_id():
    keys = [EntityKey(EntityKind.USER, "1"), EntityKey.item("2"), EntityKey.item("1")]

    assert [str(key) for key in sorted(keys)] == ["item:1", "item:2", "user:1"]
