import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from streams.engine.offset_ledger import LedgerError, OffsetLedger, Position


class LedgerAgainstAList(RuleBasedStateMachine):
    """The model: what is open, in order, and what of it is settled."""

    def __init__(self) -> None:
        super().__init__()
        self.start_generation(1)

    def start_generation(self, generation: int) -> None:
        self.ledger: OffsetLedger[str] = OffsetLedger("t", 3, generation)
        self.open: list[int] = []
        self.settled: set[int] = set()
        self.last = -1
        self.positions: dict[int, Position[str]] = {}
        self.acknowledged: list[int] = []

    @rule(gap=st.integers(1, 4))
    def arrive(self, gap: int) -> None:
        self.last += gap
        self.open.append(self.last)
        self.positions[self.last] = self.ledger.open(self.last, f"token {self.last}", now=1.0)

    @precondition(lambda self: set(self.open) - self.settled)
    @rule(data=st.data())
    def settle_any(self, data: st.DataObject) -> None:
        offset = data.draw(st.sampled_from(sorted(set(self.open) - self.settled)))
        self.ledger.settle(self.positions[offset])
        self.settled.add(offset)

    @precondition(lambda self: self.settled)
    @rule(data=st.data())
    def settling_twice_is_a_bug(self, data: st.DataObject) -> None:
        offset = data.draw(st.sampled_from(sorted(self.settled)))
        with pytest.raises(LedgerError, match="twice"):
            self.ledger.settle(self.positions[offset])

    @rule(share=st.floats(0, 1))
    def release_some_of_the_prefix(self, share: float) -> None:
        prefix = self.ledger.settled_prefix()
        count = round(share * prefix.records) if prefix else 0

        released = self.ledger.release(count)

        assert [position.offset for position in released] == self.open[:count]
        assert all(position.offset in self.settled for position in released)
        self.acknowledged += [position.offset for position in released]
        del self.open[:count]

    @precondition(lambda self: self.open)
    @rule()
    def an_old_offset_is_a_bug(self) -> None:
        with pytest.raises(LedgerError, match="opened after"):
            self.ledger.open(self.last, "again", now=2.0)

    @rule()
    def rebalance(self) -> None:
        abandoned = self.ledger.abandon()

        assert [position.offset for position in abandoned] == self.open
        assert self.ledger.abandoned
        assert len(self.ledger) == 0
        assert self.ledger.release(len(abandoned)) == []
        with pytest.raises(LedgerError, match="abandoned"):
            self.ledger.open(self.last + 1, "late", now=2.0)
        self.start_generation(self.ledger.generation + 1)

    @invariant()
    def the_prefix_is_exactly_what_is_settled_from_the_oldest_on(self) -> None:
        expected = 0
        for offset in self.open:
            if offset not in self.settled:
                break
            expected += 1
        prefix = self.ledger.settled_prefix()
        if expected:
            assert prefix == (expected, self.open[expected - 1] + 1)
        else:
            assert prefix is None

    @invariant()
    def acknowledgements_leave_in_order(self) -> None:
        assert self.acknowledged == sorted(set(self.acknowledged))
        assert self.acknowledged + self.open == sorted(self.positions)

    @invariant()
    def the_oldest_is_the_first_open_record(self) -> None:
        oldest = self.ledger.oldest
        assert (oldest.offset if oldest else None) == (self.open[0] if self.open else None)
        assert len(self.ledger) == len(self.open)

    @invariant()
    def the_settled_end_covers_everything_settled(self) -> None:
        assert self.ledger.settled_end == max(self.settled, default=-1) + 1


LedgerAgainstAList.TestCase.settings = settings(max_examples=80, stateful_step_count=40)
TestLedgerAgainstAList = LedgerAgainstAList.TestCase


def test_settling_out_of_order_releases_only_the_prefix() -> None:
    ledger: OffsetLedger[str] = OffsetLedger("t", 0, 1)
    first, second, third = (ledger.open(offset, "token", now=0.0) for offset in (10, 11, 14))

    ledger.settle(third)
    ledger.settle(first)

    assert ledger.settled_prefix() == (1, 11)
    assert ledger.release(1) == [first]
    assert ledger.oldest is second
    assert ledger.settled_prefix() is None


def test_the_prefix_ends_after_a_gap_in_the_log_and_not_before() -> None:
    ledger: OffsetLedger[str] = OffsetLedger("t", 0, 1)
    for offset in (10, 14):
        ledger.settle(ledger.open(offset, "token", now=0.0))

    assert ledger.settled_prefix() == (2, 15)


def test_releasing_an_open_record_is_a_bug() -> None:
    ledger: OffsetLedger[str] = OffsetLedger("t", 0, 1)
    ledger.open(0, "token", now=0.0)

    with pytest.raises(LedgerError, match="released an open record"):
        ledger.release(1)
