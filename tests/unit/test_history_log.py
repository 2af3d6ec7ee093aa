"""What the `histories` topic says of its users."""

import pytest

from schemas.errors import Permanent
from schemas.history import History, HistoryRecord
from schemas.reasons import Reason
from schemas.topics import DAY_MS, Topic
from streams.history_log import Place, fold, history_message, is_over, no_history_message
from tests.history_builders import START_MS, event, history_of, user

ANN = user("ann")
IDLE_MS = 90 * DAY_MS


def value(rev: int) -> bytes:
    return HistoryRecord(ANN, History(rev), START_MS).encode()


def offsets(*values: bytes | None) -> dict[bytes, int]:
    places: dict[bytes, Place] = {}
    for offset, one in enumerate(values):
        fold(places, b"user:ann", one, offset)
    return {key: place.offset for key, place in places.items()}


@pytest.mark.parametrize(
    ("values", "counts"),
    [
        ((value(1), value(3)), 1),
        ((value(3), value(2)), 0),
        ((value(3), value(3)), 1),
        ((value(9), None, value(2)), 2),
        ((value(9), None), None),
    ],
    ids=["newest", "late", "repeated", "anew", "ended"],
)
def test_the_greatest_revision_since_the_last_null_counts(values, counts) -> None:
    assert offsets(*values) == ({} if counts is None else {b"user:ann": counts})


@pytest.mark.parametrize("broken", [b"not json", b"{}", b'{"rev": null}', b"[]"])
def test_a_record_that_is_not_ours_is_named_as_such(broken) -> None:
    with pytest.raises(Permanent) as caught:
        fold({}, b"user:ann", broken, 0)

    assert caught.value.reason is Reason.UNREADABLE_HISTORY


@pytest.mark.parametrize(
    ("history", "days"),
    [
        (history_of(event(1)), 90),
        (History(1, START_MS), 31),
        (History(1, START_MS, (event(1),)), 90),
    ],
    ids=["events", "mark", "both"],
)
def test_a_record_is_over_when_its_user_was_idle_or_its_mark_erases_nothing_more(
    history, days
) -> None:
    record = HistoryRecord(ANN, history, START_MS)

    assert not is_over(record, START_MS + days * DAY_MS, IDLE_MS)
    assert is_over(record, START_MS + days * DAY_MS + 1, IDLE_MS)


def test_a_mark_outlives_a_short_idle_time() -> None:
    record = HistoryRecord(ANN, History(1, START_MS, (event(1),)), START_MS)

    assert not is_over(record, START_MS + 31 * DAY_MS, idle_ms=DAY_MS)


def test_records_name_the_partition_of_the_users_events() -> None:
    history = history_of(event(1))

    message = history_message(ANN, history, partition=5, written_at_ms=START_MS)
    null = no_history_message(ANN, partition=5)

    assert (message.topic, message.key, message.partition) == (Topic.HISTORIES, b"user:ann", 5)
    assert HistoryRecord.decode(message.value or b"") == HistoryRecord(ANN, history, START_MS)
    assert (null.key, null.value, null.partition) == (b"user:ann", None, 5)
