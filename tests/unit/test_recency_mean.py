"""The mean of items that recent and strong interactions dominate."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ConfigurationError
from tests.behaviour_builders import mean_space
from tests.history_builders import DAY_MS, START_MS
from workers.towers.load_towers import TowerOptions, tower_of
from workers.towers.recency_mean import RecencyMean
from workers.towers.user_tower import PADDING

ITEMS = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 2, 0]], np.float32)
TOWER = RecencyMean(mean_space(), 10 * DAY_MS, 0.5)


def apply(
    rows: Any, weights: Any, days: Any, items: Any = ITEMS, tower: Any = TOWER
) -> tuple[Any, Any]:
    """Users' vectors from rows, weights and ages of events, in days after a start."""
    at_ms = START_MS + np.round(np.array(days, np.float64) * DAY_MS).astype(np.int64)
    return tower.apply(
        tower.prepare(items), np.array(rows, np.int64), np.array(weights, np.float32), at_ms
    )


def test_one_event_gives_the_direction_of_its_item():
    vectors, made = apply([[2]], [[0.2]], [[0]])

    assert made.tolist() == [True]
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [[0, 0, 1, 0]])


def test_an_event_counts_half_after_a_half_life():
    (vector,), _ = apply([[0, 1]], [[1, 1]], [[0, 10]])

    assert vector[0] / vector[1] == pytest.approx(0.5, rel=1e-6)


def test_weights_scale_and_negative_ones_are_damped():
    (vector,), _ = apply([[0, 1]], [[-1, 0.25]], [[0, 0]])

    assert vector[0] / vector[1] == pytest.approx(-0.5 / 0.25, rel=1e-6)


def test_only_dislikes_point_away():
    (vector,), made = apply([[1]], [[-1]], [[0]])

    assert made.all()
    np.testing.assert_allclose(vector, [0, -1, 0, 0])


def test_there_is_nothing_to_make_a_vector_from():
    vectors, made = apply(
        [[PADDING, PADDING], [0, 0], [0, PADDING]],
        [[1, 1], [1, -2], [1, 1]],
        [[0, 0], [0, 0], [0, 0]],
    )

    assert made.tolist() == [False, False, True]
    assert not vectors[:2].any()
    np.testing.assert_allclose(vectors[2], [1, 0, 0, 0])


def test_no_events_and_no_items_at_all_are_no_vectors():
    vectors, made = TOWER.apply(
        np.zeros((0, 4), np.float32),
        np.zeros((3, 0), np.int64),
        np.zeros((3, 0), np.float32),
        np.zeros((3, 0), np.int64),
    )

    assert vectors.shape == (3, 4)
    assert made.tolist() == [False] * 3


def test_items_met_twice_count_twice():
    (vector,), _ = apply([[0, 0, 1]], [[1, 1, 1]], [[0, 0, 0]])

    assert vector[0] / vector[1] == pytest.approx(2, rel=1e-6)


def test_time_is_relative_so_a_users_vector_does_not_age():
    now, _ = apply([[0, 1]], [[1, 1]], [[0, 3]])
    later, _ = apply([[0, 1]], [[1, 1]], [[1000, 1003]])

    np.testing.assert_allclose(now, later, atol=1e-6)


events = st.lists(
    st.tuples(st.integers(0, 2), st.floats(-1, 1, width=32), st.floats(0, 400, allow_nan=False)),
    min_size=1,
    max_size=12,
)


@given(st.lists(events, min_size=1, max_size=5))
def test_users_of_a_batch_do_not_see_each_other(histories):
    longest = max(map(len, histories))
    padded = [
        [*history, *[(PADDING, 9.0, 9_000.0)] * (longest - len(history))] for history in histories
    ]
    rows, weights, days = (
        [[event[field] for event in history] for history in padded] for field in range(3)
    )

    together, made = apply(rows, weights, days)

    for history, vector, is_made in zip(histories, together, made, strict=True):
        own_rows, own_weights, own_days = ([[e[field] for e in history]] for field in range(3))
        (alone,), (alone_made,) = apply(own_rows, own_weights, own_days)
        assert is_made == alone_made
        np.testing.assert_allclose(vector, alone, atol=1e-6)


def test_the_tower_goes_with_the_adaptor():
    options = TowerOptions(DAY_MS, 0.25, spaces_dir=Path("spaces"))
    space = mean_space()

    tower = tower_of(space, options)

    assert tower == RecencyMean(space, DAY_MS, 0.25)
    assert tower.input_space is space
    with pytest.raises(ConfigurationError, match="no user tower"):
        tower_of(mean_space(adaptor_id="unheard-of"), options)
