"""The gate: what is worth a call, what stands against it, and that decisions repeat themselves."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.history import NEVER, History, HistoryEvent
from tests.history_builders import DAY_MS, START_MS, event, history_of
from workers.knowledge.preference_gate import (
    Decision,
    GatePolicy,
    GateReason,
    GateState,
    decide,
    declined,
    event_day,
)
from workers.towers.significance import Significance

HOUR_MS = 3_600_000
SIGNIFICANCE = Significance({"view": 0.2, "like": 1.0, "dislike": -1.0, "scroll": 0.0})
POLICY = GatePolicy(
    min_events=3,
    new_events=5.0,
    drift=0.2,
    max_age_ms=30 * DAY_MS,
    min_interval_ms=6 * HOUR_MS,
    user_calls_per_day=2,
    calls_per_day=100,
)
EAST, NORTH = np.array([1.0, 0.0], np.float32), np.array([0.0, 1.0], np.float32)
MORNING = START_MS // DAY_MS * DAY_MS
"""The beginning of an event-day."""


def history(*hours: float, rev: int | None = None, action: str = "like") -> History:
    """A history of events at these hours of the first day; one revision an event."""
    events = [
        event(n, round(MORNING + hour * HOUR_MS), action=action) for n, hour in enumerate(hours)
    ]
    return History(len(events) if rev is None else rev, NEVER, tuple(events))


def ruled(
    of: History,
    state: GateState | None = None,
    *,
    vector: np.ndarray | None = EAST,
    policy: GatePolicy = POLICY,
    calls: int = 0,
) -> Decision:
    return decide(state, of, vector, policy, SIGNIFICANCE, calls)


@pytest.fixture
def asked() -> GateState:
    """The state after a first call at three o'clock."""
    decision = ruled(history(1, 2, 3))
    assert decision.ask
    return decision.state


def test_the_first_call_waits_for_enough_events():
    few, enough = ruled(history(1, 2)), ruled(history(1, 2, 3))

    assert (few.ask, few.reason) == (False, GateReason.TOO_FEW_EVENTS)
    assert (enough.ask, enough.reason) == (True, GateReason.ASKED_FIRST)


def test_a_repetition_dated_to_another_minute_is_no_second_event():
    event = history(0).events[0]
    repeated = [event._replace(at_ms=event.at_ms + n * 3_600_000) for n in range(4)]

    decision = ruled(replace(history_of(*repeated), rev=1))

    assert decision.reason is GateReason.TOO_FEW_EVENTS
    assert decision.new_events == 1


def test_events_without_a_weight_are_none():
    assert ruled(history(1, 2, 3, 4, action="scroll")).reason is GateReason.TOO_FEW_EVENTS


@pytest.mark.parametrize("action", ["like", "dislike"])
def test_enough_weight_of_new_events_asks_again_whichever_its_sign(asked, action):
    later = [round(MORNING + hour * HOUR_MS) for hour in (10, 11, 12, 13, 14)]
    of = replace(
        history(1, 2, 3),
        rev=9,
        events=history(1, 2, 3).events
        + tuple(event(10 + n, at, action=action) for n, at in enumerate(later)),
    )

    decision = ruled(of, asked)

    assert (decision.ask, decision.reason) == (True, GateReason.ASKED_NEW_EVENTS)
    assert decision.new_events == 5
    assert (decision.state.asked_rev, decision.state.asked_ms) == (9, of.newest_ms)


def test_views_weigh_less_than_likes(asked):
    viewed = tuple(event(10 + n, MORNING + (10 + n) * HOUR_MS, action="view") for n in range(5))

    decision = ruled(History(9, NEVER, history(1, 2, 3).events + viewed), asked)

    assert (decision.ask, decision.reason) == (False, GateReason.BELOW_THRESHOLD)
    assert decision.new_events == 5
    assert decision.state.new_weight == pytest.approx(1.0)


def test_a_taste_that_moved_asks_again(asked):
    near = np.array([1.0, 0.5], np.float32)

    stayed = ruled(history(1, 2, 3, 10), asked, vector=near)
    moved = ruled(history(1, 2, 3, 10), asked, vector=NORTH)

    assert (stayed.ask, stayed.reason) == (False, GateReason.BELOW_THRESHOLD)
    assert stayed.drift == pytest.approx(1 - 1 / np.sqrt(1.25), abs=1e-3)
    assert (moved.ask, moved.reason) == (True, GateReason.ASKED_DRIFT)
    assert moved.drift == pytest.approx(1.0)


@pytest.mark.parametrize("vector", [None, np.ones(3, np.float32), np.zeros(2, np.float32)])
def test_without_two_comparable_vectors_there_is_no_drift(asked, vector):
    decision = ruled(history(1, 2, 3, 10), asked, vector=vector)

    assert (decision.ask, decision.drift) == (False, None)


def test_old_knowledge_is_asked_for_again_once_something_is_new(asked):
    of = history(1, 2, 3, 3 + 30 * 24)

    decision = ruled(of, asked)

    assert (decision.ask, decision.reason) == (True, GateReason.ASKED_AGE)
    assert ruled(history(1, 2, 3, 2.5), asked).reason is GateReason.NOTHING_NEW


def test_calls_keep_their_distance(asked):
    decision = ruled(history(1, 2, 3, 8.9), asked, vector=NORTH)

    assert (decision.ask, decision.reason) == (False, GateReason.TOO_SOON)
    assert ruled(history(1, 2, 3, 9), asked, vector=NORTH).ask


def test_a_user_has_so_many_calls_an_event_day(asked):
    second = ruled(history(1, 2, 3, 10), asked, vector=NORTH).state
    third = ruled(history(1, 2, 3, 10, 20), second, vector=EAST)
    next_day = ruled(history(1, 2, 3, 10, 24), second, vector=EAST)

    assert (third.ask, third.reason) == (False, GateReason.USER_BUDGET)
    assert next_day.ask
    assert (next_day.state.calls, next_day.state.calls_that_day) == (3, 1)


def test_everybody_together_has_so_many_calls_a_day():
    assert ruled(history(1, 2, 3), calls=99).ask
    assert ruled(history(1, 2, 3), calls=100).reason is GateReason.GLOBAL_BUDGET


def test_a_gate_that_is_off_neither_asks_nor_remembers():
    decision = ruled(history(1, 2, 3), policy=replace(POLICY, enabled=False))

    assert (decision.ask, decision.reason) == (False, GateReason.OFF)
    assert decision.state == GateState()


def test_what_was_not_asked_for_can_be_asked_for_later(asked):
    soon = ruled(history(1, 2, 3, 4), asked, vector=NORTH)
    later = ruled(history(1, 2, 3, 4, 12), soon.state, vector=NORTH)

    assert soon.reason is GateReason.TOO_SOON
    assert later.reason is GateReason.ASKED_DRIFT
    assert later.new_events == 2


def test_a_wish_declined_afterwards_leaves_the_last_call_as_it_was(asked):
    wish = ruled(history(1, 2, 3, 10), asked, vector=NORTH)

    decision = declined(wish, asked, GateReason.NO_TITLES)

    assert (decision.ask, decision.reason) == (False, GateReason.NO_TITLES)
    assert (decision.state.asked_ms, decision.state.calls) == (asked.asked_ms, 1)
    assert (decision.state.decided_rev, decision.drift) == (4, wish.drift)
    assert ruled(history(1, 2, 3, 10, 11), decision.state, vector=NORTH).ask


def test_an_event_of_before_the_last_call_is_nothing_new(asked):
    late = event(99, MORNING + round(2.5 * HOUR_MS))
    of = History(9, NEVER, (*history(1, 2, 3).events[:2], late, history(1, 2, 3).events[2]))

    assert ruled(of, asked, vector=NORTH).reason is GateReason.NOTHING_NEW


def test_the_day_is_that_of_the_event_in_utc():
    assert event_day(0) == "19700101"
    assert event_day(MORNING - 1) != event_day(MORNING)


weights = st.sampled_from(["view", "like", "dislike", "scroll"])
steps = st.lists(st.tuples(st.integers(0, 40 * 24 * 60), weights), max_size=12)
vectors = st.sampled_from([EAST, NORTH, np.array([1.0, 0.2], np.float32), None])


def grown(some: list[tuple[int, str]], *, rev: int = 1) -> History:
    events: list[HistoryEvent] = []
    at_ms = MORNING
    for n, (minutes, action) in enumerate(some):
        at_ms += minutes * 60_000
        events.append(event(n, at_ms, action=action))
    return History(rev, NEVER, tuple(events))


@given(steps, steps, vectors, vectors)
def test_deciding_a_revision_twice_changes_nothing(before, more, first, second):
    state = ruled(grown(before), vector=first).state
    of = grown([*before, *more], rev=2)

    once = ruled(of, state, vector=second)
    again = ruled(of, once.state, vector=first)

    # Until the state is stored the very same is decided; from then on, nothing.
    assert ruled(of, state, vector=second) == once
    assert (again.ask, again.reason) == (False, GateReason.NOTHING_NEW)
    assert again.state == once.state


@given(steps, steps, vectors, st.integers(0, 120))
def test_more_events_never_make_a_call_less_wanted(before, more, vector, calls):
    free = replace(POLICY, min_interval_ms=0, user_calls_per_day=1_000, calls_per_day=1_000)
    state = ruled(grown(before[:1]), vector=EAST, policy=free).state
    fewer, all_ = grown(before, rev=2), grown([*before, *more], rev=3)

    wanted = ruled(fewer, state, vector=vector, policy=free, calls=calls)
    still = ruled(all_, state, vector=vector, policy=free, calls=calls)

    assert still.ask or not wanted.ask
    assert still.state.new_weight >= wanted.state.new_weight


@given(st.lists(steps, max_size=8))
def test_no_replay_exceeds_a_users_calls_a_day(batches):
    state, sent, days = None, [], []
    for rev, batch in enumerate(batches, start=1):
        sent += batch
        decision = ruled(grown(sent, rev=rev), state, vector=EAST if rev % 2 else NORTH)
        state = decision.state
        if decision.ask:
            days.append(event_day(decision.state.asked_ms))

    assert all(days.count(day) <= POLICY.user_calls_per_day for day in days)


@given(steps, vectors)
def test_states_survive_their_bytes(some, vector):
    state = ruled(grown(some), vector=vector).state

    back = GateState.decode(state.encode())

    assert replace(back, drift=None, new_weight=0) == replace(state, drift=None, new_weight=0)
    assert back.new_weight == pytest.approx(state.new_weight, rel=1e-5)
    assert (back.vector is None) == (state.vector is None)
    if back.vector is not None:
        np.testing.assert_allclose(back.vector, vector, atol=1e-3)


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: b"\x09" + data[1:]])
def test_bytes_that_are_no_state_are_refused(asked, change):
    with pytest.raises(ValueError, match="gate state"):
        GateState.decode(change(asked.encode()))


def test_bytes_cut_short_are_refused():
    with pytest.raises(ValueError, match="cut short"):
        GateState.decode(b"\x01")
