"""Events that share a record leave in order, none twice, none late."""

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from schemas.behaviour import UserBehaviour
from streams.producers.event_batches import EventBatches, HeldEvent, Leaving


def held(ticket: int, size: int = 100) -> HeldEvent:
    event = UserBehaviour(user_id="7", event_id=str(ticket), item_id="42", action="view")
    return HeldEvent(event, ticket, size)


def batches(*, max_events: int = 3, max_bytes: int = 1_000, age: float = 0.05) -> EventBatches:
    return EventBatches(max_events=max_events, max_bytes=max_bytes, max_age_seconds=age)


def tickets(leaving: Iterable[Leaving]) -> list[tuple[int, list[int]]]:
    return [(partition, [one.ticket for one in events]) for partition, events in leaving]


def test_a_batch_leaves_with_the_event_that_fills_it() -> None:
    open_ = batches(max_events=2)

    assert tickets(open_.add(0, held(1), now=0)) == []
    assert tickets(open_.add(1, held(2), now=0)) == []
    assert tickets(open_.add(0, held(3), now=0)) == [(0, [1, 3])]
    assert tickets(open_.take_all()) == [(1, [2])]


def test_an_event_that_does_not_fit_lets_the_others_go_first() -> None:
    open_ = batches(max_bytes=250)

    assert tickets(open_.add(0, held(1, 200), now=0)) == []
    assert tickets(open_.add(0, held(2, 100), now=0)) == [(0, [1])]
    assert tickets(open_.add(0, held(3, 900), now=0)) == [(0, [2]), (0, [3])]


def test_a_batch_is_due_when_its_first_event_has_waited_long_enough() -> None:
    open_ = batches(age=0.05)
    list(open_.add(0, held(1), now=10.0))
    list(open_.add(1, held(2), now=10.03))
    list(open_.add(0, held(3), now=10.04))

    assert open_.due == 10.05
    assert tickets(open_.take_due(10.049)) == []
    assert tickets(open_.take_due(10.05)) == [(0, [1, 3])]
    assert tickets(open_.take_due(10.09)) == [(1, [2])]
    assert open_.due is None


def test_a_partition_gives_up_its_batch_when_asked() -> None:
    open_ = batches()
    list(open_.add(0, held(1), now=0))
    list(open_.add(1, held(2), now=0))

    assert tickets(open_.take(0)) == [(0, [1])]
    assert tickets(open_.take(0)) == []
    assert tickets(open_.take_all()) == [(1, [2])]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 400), st.floats(0, 0.02))),
    st.integers(1, 5),
)
def test_every_event_leaves_once_in_order_and_within_the_bounds(steps, max_events) -> None:
    open_ = batches(max_events=max_events, max_bytes=500)
    now = 0.0
    left: list[Leaving] = []
    for ticket, (partition, size, pause) in enumerate(steps):
        now += pause
        left += open_.take_due(now)
        left += open_.add(partition, held(ticket, size), now)
        assert open_.due is None or open_.due <= now + 0.05
    left += open_.take_all()

    for partition in range(4):
        sent = [one.ticket for at, events in left if at == partition for one in events]
        assert sent == [n for n, (at, _, _) in enumerate(steps) if at == partition]
    for _, events in left:
        assert len(events) <= max_events
        assert len(events) == 1 or sum(one.size for one in events) <= 500
