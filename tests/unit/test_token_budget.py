"""The token budget: counted here at once, everywhere within a second, by the hour."""

from collections import Counter

import pytest

from schemas.errors import Transient
from streams.token_budget import SPENT, BudgetAdmission, TokenBudget
from tests.fakes.clock import FakeClock
from tests.fakes.engine import FakeAdmission


class Store:
    """A BudgetStorePort that two workers may share."""

    def __init__(self) -> None:
        self.hours: Counter[str] = Counter()
        self.is_down = False

    async def add(self, hour: str, tokens: int) -> int:
        if self.is_down:
            raise Transient("redis", "gone")
        self.hours[hour] += tokens
        return self.hours[hour]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(now_ms=1_700_000_000_000 // 3_600_000 * 3_600_000)


@pytest.fixture
def store() -> Store:
    return Store()


def budget(store: Store, clock: FakeClock) -> TokenBudget:
    return TokenBudget(store, tokens_per_hour=1_000, clock=clock)


def test_what_is_spent_here_counts_at_once(store, clock):
    ours = budget(store, clock)
    ours.spend(899)
    assert not ours.is_spent()

    ours.spend(1)

    assert ours.is_spent()
    assert ours.left == 100


def test_a_tenth_is_kept_for_shared_calls(store, clock):
    ours = budget(store, clock)
    ours.spend(999)
    assert not ours.is_spent_for_shared()

    ours.spend(1)

    assert ours.is_spent_for_shared()
    assert ours.left == 0


async def test_what_others_spent_counts_once_it_was_told(store, clock):
    ours, theirs = budget(store, clock), budget(store, clock)
    theirs.spend(950)
    await theirs.tell()
    assert not ours.is_spent()

    await ours.tell()

    assert ours.is_spent()
    assert ours.left == theirs.left == 50


async def test_nothing_is_told_twice_and_nothing_is_lost_to_a_redis_that_was_away(store, clock):
    ours = budget(store, clock)
    ours.spend(10)
    store.is_down = True
    await ours.tell_last()
    ours.spend(5)
    store.is_down = False

    await ours.tell()
    await ours.tell()

    assert list(store.hours.values()) == [15]
    assert ours.left == 985


async def test_every_hour_has_a_budget_of_its_own(store, clock):
    ours = budget(store, clock)
    ours.spend(1_000)
    await ours.tell()

    clock.advance(3_599)
    assert ours.is_spent()
    clock.advance(1)
    assert not ours.is_spent()
    ours.spend(3)
    await ours.tell()

    assert sorted(store.hours.values()) == [3, 1_000]


def test_a_backlog_stands_while_the_budget_is_spent(store, clock):
    ours, other = budget(store, clock), FakeAdmission()
    admission = BudgetAdmission(ours, other)
    other.why_not = "busy"
    assert admission.refusal() == "busy"

    ours.spend(1_000)
    assert admission.refusal() == SPENT

    clock.advance(3_600)
    other.why_not = ""
    assert admission.refusal() == ""
    admission.entered()
    assert other.inside == 1
    admission.left()
    assert other.inside == 0


def test_without_another_admission_the_budget_alone_decides(store, clock):
    admission = BudgetAdmission(budget(store, clock))

    admission.entered()
    admission.left()

    assert admission.refusal() == ""
