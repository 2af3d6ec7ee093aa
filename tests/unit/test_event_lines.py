import pytest

from schemas.behaviour import BehaviourLimits, UserBehaviour, UserErased
from schemas.errors import InvalidInput
from schemas.events import DecodeLimits, ItemRemoved
from schemas.reasons import Reason
from streams.event_lines import ItemMapping, LineLimits, event_of_line

NOW_MS = 1_700_000_000_000
LIMITS = LineLimits(DecodeLimits(), BehaviourLimits(frozenset({"view", "rate"})))


def _event(line: bytes, mapping: ItemMapping | None = None):
    return event_of_line(line, mapping or ItemMapping(), now_ms=NOW_MS, limits=LIMITS)


def test_a_whole_event_is_taken_as_it_is() -> None:
    event = _event(b'{"type":"item.removed","item_id":"a","version":3}')

    assert event == ItemRemoved(item_id="a", version=3)


def test_a_plain_item_gives_up_its_id_version_and_time_and_keeps_its_fields() -> None:
    mapping = ItemMapping("film", "v", "at")

    event = _event(
        b'{"film":42,"v":7,"at":"2013-06-01T00:00:00Z","title":"Heat","year":1995}', mapping
    )

    assert (event.item_id, event.version) == ("42", 7)
    assert event.occurred_at is not None
    assert event.item.model_dump() == {"title": "Heat", "year": 1995}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"v":1,"title":"x"}', Reason.MISSING_FIELD),
        (b'{"film":true,"v":1,"title":"x"}', Reason.WRONG_TYPE),
        (b'{"film":"a b","v":1,"title":"x"}', Reason.INVALID_ID),
        (b'{"film":"a","title":"x"}', Reason.BAD_VERSION),
        (b'{"film":"a","v":1.5,"title":"x"}', Reason.BAD_VERSION),
        (b'{"film":"a","v":1}', Reason.MISSING_FIELD),
        (b"[1]", Reason.NOT_AN_OBJECT),
        (b'{"film":"a","v":1,"title":NaN}', Reason.NOT_FINITE),
    ],
)
def test_a_wrong_item_is_refused_with_a_stable_reason(line, reason) -> None:
    with pytest.raises(InvalidInput) as refused:
        _event(line, ItemMapping("film", "v"))

    assert refused.value.reason is reason


def test_behaviour_lines_are_told_by_their_type() -> None:
    rated = _event(
        b'{"type":"user.behaviour","user_id":"7","event_id":"e1","item_id":"42","action":"rate",'
        b'"value":9,"occurred_at":"2013-06-01T00:00:00Z"}'
    )
    erased = _event(b'{"type":"user.erased","user_id":"7"}')

    assert isinstance(rated, UserBehaviour)
    assert (rated.user_id, rated.action, rated.value) == ("7", "rate", 9.0)
    assert rated.occurred_at is not None
    assert erased == UserErased(user_id="7")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'"user_id":"7","item_id":"42","action":"view"', Reason.MISSING_FIELD),
        (b'"user_id":"a b","event_id":"e","item_id":"42","action":"view"', Reason.INVALID_ID),
        (b'"user_id":7,"event_id":"e","item_id":"42","action":"view"', Reason.WRONG_TYPE),
        (b'"user_id":"7","event_id":"e","item_id":"42","action":"hum"', Reason.UNKNOWN_ACTION),
        (b'"user_id":"7","event_id":"e","item_id":"42","action":"rate"', Reason.MISSING_FIELD),
    ],
)
def test_wrong_behaviour_is_refused_with_a_stable_reason(body, reason) -> None:
    with pytest.raises(InvalidInput) as refused:
        _event(b'{"type":"user.behaviour",' + body + b"}")

    assert refused.value.reason is reason


def test_a_plain_item_may_have_a_type_of_its_own() -> None:
    event = _event(
        b'{"item_id":"42","v":7,"title":"Heat","type":"user.behaviour"}',
        ItemMapping("item_id", "v"),
    )

    assert event.item.model_dump() == {"title": "Heat", "type": "user.behaviour"}
