from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from streams.engine.flood import FloodGuard


def guard() -> FloodGuard:
    return FloodGuard(share=0.5, window=10)


def test_a_flood_begins_once_when_half_the_window_is_invalid() -> None:
    flood = guard()

    begins = [flood.saw(invalid=number % 2 == 1) for number in range(30)]

    assert begins.index(True) == 9
    assert begins.count(True) == 1


def test_nothing_is_a_flood_before_the_window_is_full() -> None:
    flood = guard()

    assert not any(flood.saw(invalid=True) for _ in range(9))
    assert flood.saw(invalid=True)


def test_a_valid_record_never_begins_a_flood() -> None:
    flood = guard()
    for _ in range(9):
        flood.saw(invalid=True)

    assert not flood.saw(invalid=False)
    assert flood.saw(invalid=True), "the next invalid one does"


def test_a_flood_that_ebbed_may_begin_again() -> None:
    flood = guard()
    for _ in range(10):
        flood.saw(invalid=True)
    for _ in range(10):
        assert not flood.saw(invalid=False)

    assert [flood.saw(invalid=True) for _ in range(6)] == [False] * 4 + [True, False]


def test_after_a_reset_a_whole_window_is_needed_again() -> None:
    flood = guard()
    for _ in range(10):
        flood.saw(invalid=True)

    flood.reset()

    assert [flood.saw(invalid=True) for _ in range(10)] == [False] * 9 + [True]


@given(st.lists(st.booleans(), max_size=200), st.floats(0.1, 1.0), st.integers(1, 20))
def test_it_begins_exactly_where_a_recount_of_the_window_says(
    seen: list[bool], share: float, window: int
) -> None:
    flood = FloodGuard(share=share, window=window)
    recent: deque[bool] = deque(maxlen=window)
    was_on = False

    for invalid in seen:
        recent.append(invalid)
        is_on = len(recent) == window and sum(recent) >= share * window
        assert flood.saw(invalid=invalid) == (is_on and not was_on and invalid)
        was_on = is_on and (was_on or invalid)
