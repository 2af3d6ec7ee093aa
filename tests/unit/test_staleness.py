"""The replay with vectors of different age: what is known when, counted by hand."""

import numpy as np
import pytest

from workers.evaluation.staleness import (
    NEVER,
    Events,
    Regime,
    RegimeFigures,
    Replay,
    staleness,
)
from workers.towers.user_tower import Array, Ints, Mask

# Two directions of taste, and a new item that lies along the second.
VECTORS = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9], [0.05, 1.0]], np.float32)
FIRST, FIRST_TOO, SECOND, SECOND_TOO, NEW = range(5)
START = 1_000


def sums(rows: Ints, weights: Array, at_ms: Ints) -> tuple[Array, Mask]:
    """A tower: the weighted sum of the items."""
    table = np.concatenate([VECTORS, np.zeros((1, 2), np.float32)])
    vectors = (table[rows] * weights[:, :, None]).sum(axis=1)
    return vectors.astype(np.float32), vectors.any(axis=1)


# Somebody who is never asked: but for the new one, all items are there from the start.
SOMEBODY = [(99, item, 1 + item) for item in (FIRST, FIRST_TOO, SECOND, SECOND_TOO)]


def replay(*rows, start_ms=START, min_likes=1) -> Replay:
    """Rows of (user, item, at_ms), all likes."""
    columns = zip(*SOMEBODY, *rows, strict=True)
    user, item, at_ms = (np.array(column, np.int64) for column in columns)
    ones = np.ones(len(user))
    events = Events.in_order(user, item, ones.astype(np.float32), ones.astype(bool), at_ms)
    return Replay.of(events, items=len(VECTORS), start_ms=start_ms, min_likes=min_likes)


def figures(asked, regime, **options) -> RegimeFigures:
    return staleness(asked, VECTORS, sums, [regime], **options)[regime]


def test_queries_are_first_likes_after_the_start_by_users_with_likes():
    asked = replay((0, FIRST, 10), (0, SECOND, 1_500), (0, SECOND, 1_600), (1, FIRST, 1_700))

    assert asked.events.at_ms[asked.queries].tolist() == [1_500]


def test_a_stale_user_is_ranked_by_an_older_taste():
    # The taste turns at 2,000: who does not know of it by 2,500 expects more of the first kind.
    asked = replay(
        (0, FIRST, 10),
        (0, SECOND, 2_000),
        (0, SECOND_TOO, 2_500),
        (1, FIRST, 2_000),
        (1, FIRST_TOO, 2_500),
    )
    regimes = [Regime(1, 1), Regime(1, 1_000), Regime(1, NEVER)]

    found = staleness(asked, VECTORS, sums, regimes)

    live, late, never = (found[regime].all for regime in regimes)
    # User 1 was unknown until 2,000: only somebody who reads live vectors can rank for them.
    assert (live.n, live.missed, late.missed, never.missed) == (3, 0.0, 1 / 3, 1 / 3)
    # SECOND is the last of three for all; then live is torn between both kinds, the others are not.
    assert live.percentile == pytest.approx((0 + 0.5 + 1) / 3)
    assert late.percentile == never.percentile == 0.0


def test_a_new_item_without_a_vector_is_a_miss():
    asked = replay((0, SECOND, 10), (1, NEW, 2_000), (0, NEW, 2_500))

    fresh = figures(asked, Regime(1, 1))
    late = figures(asked, Regime(600, 1))
    never = figures(asked, Regime(NEVER, 1))

    assert fresh.new.n == late.new.n == never.new.n == 1
    assert (fresh.new.missed, late.new.missed, never.new.missed) == (0.0, 1.0, 1.0)
    assert (fresh.new.hr20, late.new.hr20) == (1.0, 0.0)
    assert fresh.new.percentile == 1.0


def test_what_happens_at_one_moment_does_not_help_itself():
    asked = replay((0, FIRST, 10), (0, SECOND, 2_000), (0, SECOND_TOO, 2_000))

    found = figures(asked, Regime(0, 0)).all

    # By the first like alone: the other of its kind is ahead of both, then comes SECOND_TOO.
    assert found.n == 2
    assert found.percentile == pytest.approx((0 + 0.5) / 2)


def test_only_the_newest_events_count():
    asked = replay(*((0, FIRST, n) for n in range(10)), (0, SECOND, 900), (0, SECOND_TOO, 1_100))

    bounded = figures(asked, Regime(1, 1), max_events=1).all
    whole = figures(asked, Regime(1, 1)).all

    # Against the other one of the first kind.
    assert (bounded.percentile, whole.percentile) == (1.0, 0.0)


def test_no_queries_have_no_figures():
    asked = replay((0, FIRST, 10))

    assert figures(asked, Regime(1, 1)).all.hr20 is None
    assert figures(asked, Regime(1, 1)).new.to_json()["hr@20"] is None


@pytest.mark.parametrize("regime", [Regime(1, 1), Regime(NEVER, 60_000)])
def test_regimes_do_not_depend_on_their_order(regime):
    rows = [(n % 3, n % 5, 300 * n) for n in range(40)]
    asked = replay(*rows)

    alone = staleness(asked, VECTORS, sums, [regime])[regime]
    among = staleness(asked, VECTORS, sums, [Regime(5, 5), Regime(NEVER, NEVER), regime])[regime]

    assert alone == among
