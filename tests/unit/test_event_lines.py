import pytest

from schemas.errors import InvalidInput
from schemas.events import DecodeLimits, ItemRemoved
from schemas.reasons import Reason
from streams.event_lines import ItemMapping, event_of_line

NOW_MS = 1_700_000_000_000


def _event(line: bytes, mapping: ItemMapping | None = None):
    return event_of_line(line, mapping or ItemMapping(), now_ms=NOW_MS, limits=DecodeLimits())


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
