"""The users that the bench makes up: as active as it says, and the same in every run."""

from collections import Counter

import numpy as np
import pytest

from schemas.history import History, HistoryBounds
from streams.settings import BehaviourSettings
from tests.bench.user_events import (
    HISTORY_EVENTS,
    HOT_SHARE,
    START_MS,
    STEP_MS,
    Crowd,
    events,
    histories,
    user_shares,
)

MINUTE_MS = 60_000


def test_uniform_users_are_equally_active() -> None:
    np.testing.assert_allclose(user_shares(Crowd.UNIFORM, 50), 0.02)


def test_in_a_hot_crowd_one_user_has_the_share_that_is_said_and_nobody_has_more() -> None:
    shares = user_shares(Crowd.HOT, 2_000)

    assert shares.sum() == pytest.approx(1)
    assert shares[0] == HOT_SHARE
    assert (np.diff(shares) <= 0).all()


def test_events_come_as_the_shares_say() -> None:
    done = Counter(event.user_id for event in events(Crowd.HOT, 4_000, 500))

    assert done["0"] / 4_000 == pytest.approx(HOT_SHARE, abs=0.01)


@pytest.mark.parametrize("crowd", Crowd)
def test_events_are_distinct_in_order_and_the_same_in_every_call(crowd: Crowd) -> None:
    first, second = (list(events(crowd, 300, 20)) for _ in range(2))

    assert first == second
    assert len({event.event_id for event in first}) == 300
    times = [str(event.occurred_at) for event in first]
    assert times == sorted(times)


def test_the_lane_takes_every_event() -> None:
    behaviour = BehaviourSettings()

    for event in events(Crowd.UNIFORM, 300, 20):
        assert event.action in behaviour.actions
        assert (event.value is None) == (event.action not in behaviour.rated_actions)


def test_not_even_one_user_with_all_events_meets_the_bound_of_a_minute() -> None:
    assert HistoryBounds().max_per_minute > MINUTE_MS / STEP_MS


def test_histories_are_what_was_before_the_events() -> None:
    (_, history), *others = histories(3)

    assert len(others) == 2
    assert len(history.events) == HISTORY_EVENTS
    assert history.newest_ms < START_MS
    assert History.decode(history.encode()) == history
