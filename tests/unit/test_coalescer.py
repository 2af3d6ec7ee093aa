from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from schemas.entities import EntityKey
from streams.engine.coalescer import ALONE_AFTER, Coalescer, Unit, fold
from streams.engine.lane import Absorbed, Record
from streams.engine.offset_ledger import LedgerError, OffsetLedger
from streams.engine.outcomes import Outcome


@dataclass(frozen=True)
class Value:
    version: int
    parts: frozenset[int]


def newest(waiting: Value, incoming: Value) -> Absorbed[Value]:
    if incoming.version == waiting.version:
        return Absorbed(waiting, incoming_survives=False, loser=Outcome.UNCHANGED)
    survives = incoming.version > waiting.version
    return Absorbed(incoming if survives else waiting, survives, Outcome.SUPERSEDED)


def merge(waiting: Value, incoming: Value) -> Absorbed[Value]:
    value = Value(max(waiting.version, incoming.version), waiting.parts | incoming.parts)
    return Absorbed(value, incoming.version > waiting.version, None)


class Units:
    """Makes units with one position each."""

    def __init__(self) -> None:
        self.ledger: OffsetLedger[int] = OffsetLedger("t", 0, 1)
        self.made = 0

    def unit(
        self, key: str, version: int = 0, *, tokens: int = 1, due_at_ms: int = 0
    ) -> Unit[Value, int]:
        offset = self.made
        self.made += 1
        return Unit(
            EntityKey.parse(f"item:{key}"),
            Value(version, frozenset({offset})),
            Record("t", 0, offset, key.encode(), b"", (), 0),
            self.ledger.open(offset, offset, now=0.0),
            version,
            tokens,
            due_at_ms,
        )


def offsets(unit: Unit[Value, int]) -> list[int]:
    return [unit.position.offset, *(passenger.position.offset for passenger in unit.passengers)]


class CoalescerAgainstAModel(RuleBasedStateMachine):
    """Every offered position leaves exactly once; the time and the mix of rules are arbitrary."""

    def __init__(self) -> None:
        super().__init__()
        self.units = Units()
        self.now_ms = 1_000
        self.merging = False
        self.coalescer: Coalescer[Value, int] = self.make()
        self.greatest: dict[EntityKey, int] = {}
        self.in_flight: dict[EntityKey, Unit[Value, int]] = {}
        self.left: Counter[int] = Counter()

    def make(self) -> Coalescer[Value, int]:
        return Coalescer(self.absorb)

    def absorb(self, waiting: Value, incoming: Value) -> Absorbed[Value]:
        return (merge if self.merging else newest)(waiting, incoming)

    @rule(
        key=st.sampled_from("abcde"),
        version=st.integers(0, 9),
        tokens=st.integers(1, 5),
        delay_ms=st.sampled_from([0, 0, 0, 50, 500]),
        merging=st.booleans(),
    )
    def offer(self, key: str, version: int, tokens: int, delay_ms: int, merging: bool) -> None:
        self.merging = merging
        due_at_ms = self.now_ms + delay_ms if delay_ms else 0
        unit = self.units.unit(key, version, tokens=tokens, due_at_ms=due_at_ms)
        self.greatest[unit.key] = max(version, self.greatest.get(unit.key, 0))
        self.coalescer.offer(unit)

    @rule(max_units=st.integers(1, 4), max_tokens=st.integers(1, 12))
    def take(self, max_units: int, max_tokens: int) -> None:
        batch = self.coalescer.take(now_ms=self.now_ms, max_units=max_units, max_tokens=max_tokens)
        keys = [unit.key for unit in batch]
        assert len(set(keys)) == len(keys) <= max_units
        assert not set(keys) & set(self.in_flight), "two units of one entity in flight"
        assert len(batch) == 1 or sum(unit.tokens for unit in batch) <= max_tokens or not batch
        assert all(unit.retry_at_ms <= self.now_ms for unit in batch)
        assert len(batch) <= 1 or all(unit.suspicions < ALONE_AFTER for unit in batch)
        for unit in batch:
            assert unit.value.version == self.greatest.pop(unit.key)
        self.in_flight |= {unit.key: unit for unit in batch}

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.in_flight)))
        unit = self.in_flight.pop(key)
        self.coalescer.finish(unit)
        self.left.update(offsets(unit))

    @precondition(lambda self: self.in_flight)
    @rule(
        data=st.data(),
        delay_ms=st.integers(1, 300),
        suspected=st.booleans(),
        merging=st.booleans(),
    )
    def put_back(self, data: st.DataObject, delay_ms: int, suspected: bool, merging: bool) -> None:
        self.merging = merging
        key = data.draw(st.sampled_from(sorted(self.in_flight)))
        unit = self.in_flight.pop(key)
        unit.attempts += 1
        unit.suspicions += suspected
        self.greatest[key] = max(unit.value.version, self.greatest.get(key, 0))
        self.coalescer.put_back(unit, due_at_ms=self.now_ms + delay_ms)

    @rule(passed_ms=st.integers(1, 400))
    def time_passes(self, passed_ms: int) -> None:
        self.now_ms += passed_ms

    @invariant()
    def nothing_leaves_twice(self) -> None:
        assert all(count == 1 for count in self.left.values())

    @invariant()
    def it_knows_what_is_in_flight(self) -> None:
        assert self.coalescer.in_flight_count == len(self.in_flight)

    def teardown(self) -> None:
        """In the end everything is handled: nothing was lost and nothing starves."""
        while self.in_flight:
            _, unit = self.in_flight.popitem()
            self.coalescer.finish(unit)
            self.left.update(offsets(unit))
        while self.coalescer.waiting_count:
            batch = self.coalescer.take(now_ms=self.now_ms, max_units=3, max_tokens=8)
            if not batch:
                due_ms = self.coalescer.next_due_ms()
                assert due_ms is not None, "units wait, but for nothing"
                assert due_ms > self.now_ms
                self.now_ms = due_ms
            for unit in batch:
                self.coalescer.finish(unit)
                self.left.update(offsets(unit))
        assert self.left == Counter(range(self.units.made))


CoalescerAgainstAModel.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestCoalescerAgainstAModel = CoalescerAgainstAModel.TestCase


class RankedCoalescerAgainstAModel(CoalescerAgainstAModel):
    """The same holds whatever the order in which units are taken."""

    def make(self) -> Coalescer[Value, int]:
        return Coalescer(self.absorb, version_of)


RankedCoalescerAgainstAModel.TestCase.settings = CoalescerAgainstAModel.TestCase.settings
TestRankedCoalescerAgainstAModel = RankedCoalescerAgainstAModel.TestCase


def version_of(value: Value) -> int:
    return value.version


@pytest.fixture
def units() -> Units:
    return Units()


@pytest.fixture
def coalescer() -> Coalescer[Value, int]:
    return Coalescer(newest)


def take(coalescer: Coalescer[Value, int], now_ms: int = 0) -> list[Unit[Value, int]]:
    return coalescer.take(now_ms=now_ms, max_units=100, max_tokens=100)


def test_the_newest_version_survives_whatever_came_first(coalescer, units) -> None:
    for version in (2, 5, 3):
        coalescer.offer(units.unit("a", version))

    (unit,) = take(coalescer)

    assert unit.value.version == unit.version == 5
    assert unit.record.offset == 1
    assert {(p.position.offset, p.outcome, p.version) for p in unit.passengers} == {
        (0, Outcome.SUPERSEDED, 2),
        (2, Outcome.SUPERSEDED, 3),
    }


def test_with_a_rank_the_greatest_is_taken_first_also_if_it_came_by_folding(units) -> None:
    coalescer: Coalescer[Value, int] = Coalescer(newest, version_of)
    for key, version in (("a", 1), ("b", 5), ("c", 3), ("a", 9)):
        coalescer.offer(units.unit(key, version))

    assert [unit.key.id for unit in take(coalescer)] == ["a", "b", "c"]


def test_with_a_rank_what_was_delayed_is_ranked_when_it_is_due(units) -> None:
    coalescer: Coalescer[Value, int] = Coalescer(newest, version_of)
    coalescer.offer(units.unit("late", 9, due_at_ms=50))
    coalescer.offer(units.unit("a", 1))
    coalescer.offer(units.unit("b", 2))

    assert [unit.key.id for unit in take(coalescer, now_ms=60)] == ["late", "b", "a"]


def test_entities_are_taken_in_the_order_of_their_first_arrival(coalescer, units) -> None:
    for key in ("a", "b", "a", "c"):
        coalescer.offer(units.unit(key))

    assert [unit.key.id for unit in take(coalescer)] == ["a", "b", "c"]


def test_what_arrives_in_flight_waits_for_its_entity(coalescer, units) -> None:
    coalescer.offer(units.unit("a", 1))
    (first,) = take(coalescer)

    coalescer.offer(units.unit("a", 2))
    coalescer.offer(units.unit("a", 3))
    assert take(coalescer) == []
    coalescer.finish(first)

    (second,) = take(coalescer)
    assert offsets(second) == [2, 1]
    assert first.passengers == []


def test_an_urgent_record_wakes_a_delayed_entity(coalescer, units) -> None:
    coalescer.offer(units.unit("a", 1, due_at_ms=5_000))
    assert take(coalescer, now_ms=4_999) == []

    coalescer.offer(units.unit("a", 2))

    (unit,) = take(coalescer, now_ms=4_999)
    assert unit.version == 2
    coalescer.finish(unit)
    assert take(coalescer, now_ms=5_000) == []
    assert coalescer.waiting_count == 0


def test_a_later_due_time_never_delays_what_is_ready(coalescer, units) -> None:
    coalescer.offer(units.unit("a", 1))
    coalescer.offer(units.unit("a", 2, due_at_ms=9_000))

    assert [unit.version for unit in take(coalescer)] == [2]


def test_a_newer_record_does_not_shorten_the_backoff_of_its_entity(coalescer, units) -> None:
    coalescer.offer(units.unit("a", 1))
    (unit,) = take(coalescer)
    unit.attempts = 2
    unit.suspicions = 1
    unit.failures_alone = 1
    coalescer.put_back(unit, due_at_ms=700)

    coalescer.offer(units.unit("a", 2))

    assert take(coalescer, now_ms=699) == []
    (again,) = take(coalescer, now_ms=700)
    assert (again.version, again.attempts, again.suspicions) == (2, 2, 1)
    assert again.failures_alone == 0, "a new value is not to blame for the old one's failures"


def test_a_unit_folds_with_what_came_while_it_failed(coalescer, units) -> None:
    coalescer.offer(units.unit("a", 4))
    (unit,) = take(coalescer)
    coalescer.offer(units.unit("a", 3))

    coalescer.put_back(unit, due_at_ms=10)

    (again,) = take(coalescer, now_ms=10)
    assert again is unit
    assert offsets(again) == [0, 1]


def test_a_suspected_unit_is_handled_alone(coalescer, units) -> None:
    coalescer.offer(units.unit("bad"))
    (bad,) = take(coalescer)
    bad.suspicions = ALONE_AFTER
    coalescer.offer(units.unit("before"))
    coalescer.put_back(bad, due_at_ms=5)
    coalescer.offer(units.unit("after"))

    batches = [[unit.key.id for unit in take(coalescer, now_ms=5)] for _ in range(2)]

    assert batches == [["before", "after"], ["bad"]]


def test_an_oversized_unit_goes_by_itself_instead_of_never(coalescer, units) -> None:
    coalescer.offer(units.unit("small", tokens=1))
    coalescer.offer(units.unit("huge", tokens=1_000))

    batches = [[unit.key.id for unit in take(coalescer)] for _ in range(2)]

    assert batches == [["small"], ["huge"]]


def test_merged_records_share_the_survivors_outcome_and_keep_their_record(units) -> None:
    coalescer: Coalescer[Value, int] = Coalescer(merge)
    for version in (1, 3, 2):
        coalescer.offer(units.unit("a", version))

    (unit,) = take(coalescer)

    assert unit.value == Value(3, frozenset({0, 1, 2}))
    assert all(p.outcome is None for p in unit.passengers)
    assert {p.record.offset for p in unit.passengers if p.record} == {0, 2}


def test_passengers_of_a_superseded_survivor_are_superseded_with_it(units) -> None:
    first, second, third = units.unit("a", 1), units.unit("a", 2), units.unit("a", 3)

    merged = fold(first, second, merge)
    winner = fold(merged, third, newest)

    assert winner is third
    assert {p.position.offset: p.outcome for p in winner.passengers} == {
        0: Outcome.SUPERSEDED,
        1: Outcome.SUPERSEDED,
    }
    assert all(p.record is None for p in winner.passengers)


def test_a_hot_entity_absorbs_without_quadratic_copying(coalescer, units) -> None:
    for version in range(2_000):
        coalescer.offer(units.unit("hot", version))

    (unit,) = take(coalescer)

    assert sorted(offsets(unit)) == list(range(2_000))
    assert unit.version == 1_999


def test_finishing_twice_is_a_bug(coalescer, units) -> None:
    coalescer.offer(units.unit("a"))
    (unit,) = take(coalescer)
    coalescer.finish(unit)

    with pytest.raises(KeyError):
        coalescer.finish(unit)


def test_finishing_what_only_waits_is_a_bug(coalescer, units) -> None:
    unit = units.unit("a")
    coalescer.offer(unit)

    with pytest.raises(LedgerError, match="twice"):
        coalescer.put_back(unit, due_at_ms=1)


def test_after_clear_nothing_is_left(coalescer, units) -> None:
    for key in "abc":
        coalescer.offer(units.unit(key))
    coalescer.offer(units.unit("d", due_at_ms=99))
    coalescer.take(now_ms=0, max_units=1, max_tokens=9)

    coalescer.clear()

    assert take(coalescer, now_ms=1_000) == []
    assert (coalescer.waiting_count, coalescer.in_flight_count) == (0, 0)
    assert coalescer.next_due_ms() is None
