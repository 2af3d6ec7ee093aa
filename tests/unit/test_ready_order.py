"""The order in which ready units are taken."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.engine.ready_order import LONGEST_EVERY, ArrivalOrder, RankedOrder


def take_all(order) -> list:
    return [order.popleft() for _ in range(len(order))]


def ranked(ranks: dict[str, int]) -> RankedOrder[str]:
    order: RankedOrder[str] = RankedOrder(ranks.__getitem__)
    for name in ranks:
        order.append(name)
    return order


def test_by_arrival_the_first_comes_first():
    order: ArrivalOrder[str] = ArrivalOrder()
    for name in "abc":
        order.append(name)
    order.changed("c")

    assert order.first() == "a"
    assert take_all(order) == ["a", "b", "c"]


def test_by_rank_the_newest_comes_first_but_every_fourth_is_what_waits_longest():
    order = ranked({name: number for number, name in enumerate("abcdefgh")})

    assert take_all(order) == ["h", "g", "f", "a", "e", "d", "c", "b"]


def test_of_one_rank_the_latest_arrival_comes_first():
    assert take_all(ranked({"a": 1, "b": 1, "c": 1})) == ["c", "b", "a"]


def test_what_is_first_is_what_is_taken():
    order = ranked({name: number for number, name in enumerate("abcdef")})

    assert all(order.first() == order.popleft() for _ in range(6))


def test_a_thing_whose_rank_has_grown_is_taken_by_its_new_rank():
    ranks = {"a": 1, "b": 2, "c": 3}
    order = ranked(ranks)
    ranks["a"] = 9
    order.changed("a")

    assert take_all(order) == ["a", "c", "b"]


def test_a_thing_that_does_not_wait_cannot_change_its_place():
    order = ranked({"a": 1})
    order.popleft()

    order.changed("a")

    assert len(order) == 0


@pytest.mark.parametrize("order", [ArrivalOrder(), RankedOrder(lambda _: 0)])
def test_nothing_can_be_taken_where_nothing_waits(order):
    order.append("a")
    order.clear()

    with pytest.raises(IndexError):
        order.first()


def test_one_thing_in_a_hurry_does_not_make_the_queue_grow():
    ranks = {"a": 0, "b": 0}
    order = ranked(ranks)
    for number in range(10_000):
        ranks["a"] = number
        order.changed("a")

    assert len(order._heap) < 200
    assert take_all(order) == ["a", "b"]


@given(st.lists(st.integers(0, 5), max_size=40), st.data())
def test_everything_is_taken_once_and_nothing_starves(arrivals, data):
    ranks: dict[int, int] = {}
    order: RankedOrder[int] = RankedOrder(ranks.__getitem__)
    taken: Counter[int] = Counter()
    overtaken: Counter[int] = Counter()
    for number, rank in enumerate(arrivals):
        ranks[number] = rank
        order.append(number)
        if data.draw(st.booleans()):
            one = order.popleft()
            taken[one] += 1
            overtaken.update(other for other in range(one) if not taken[other])
    for one in take_all(order):
        taken[one] += 1

    assert taken == Counter(range(len(arrivals)))
    # The longest waiting of n is overtaken by fewer than 4 for each that came before it.
    assert all(count < LONGEST_EVERY * (number + 1) for number, count in overtaken.items())
