"""Intervals, frequency buckets, audiences and splits: the small parts of an evaluation."""

import numpy as np
import pytest

from schemas.errors import ConfigurationError
from workers.evaluation.audiences import audience_areas
from workers.evaluation.bootstrap import grouped_mean_interval, mean_interval
from workers.evaluation.frequency_buckets import Bucket, buckets
from workers.evaluation.interaction_files import NO_TIME, Interactions
from workers.evaluation.retrieval import Pairs
from workers.evaluation.splits import hold_out_items, split_at


def interactions(*rows) -> Interactions:
    """Rows of (user, item, at_ms)."""
    users, items, times = zip(*rows, strict=True)
    return Interactions(
        np.array(users), np.array(items), np.full(len(rows), np.nan), np.array(times, np.int64)
    )


def test_an_interval_holds_the_mean_and_narrows_with_more_values():
    generator = np.random.default_rng(1)
    few, many = generator.random(50), generator.random(5_000)

    wide, narrow = mean_interval(few), mean_interval(many)

    assert wide is not None
    assert narrow is not None
    assert wide.low < few.mean() < wide.high
    assert narrow.high - narrow.low == pytest.approx(2 * 1.96 * 0.2887 / np.sqrt(5_000), rel=0.1)
    assert wide == mean_interval(few)
    assert mean_interval(few[:1]) is None


def test_values_of_one_user_are_not_independent():
    values = np.repeat([0.0, 1.0, 0.0, 1.0, 1.0, 0.0], 100)
    users = np.repeat(np.arange(6), 100)

    apart = mean_interval(values)
    together = grouped_mean_interval(values, users)

    assert apart is not None
    assert together is not None
    assert together.high - together.low > 5 * (apart.high - apart.low)
    assert grouped_mean_interval(values, np.zeros(600, np.int64)) is None


def test_groups_of_one_are_as_if_there_were_none():
    values = np.random.default_rng(2).random(400)

    alone = grouped_mean_interval(values, np.arange(400))

    assert alone == pytest.approx(mean_interval(values), abs=1e-12)


def test_the_head_is_the_most_active_fifth_of_what_is_not_new():
    counts = np.array([0, 1, 2, 3, 4, 100])

    assert buckets(counts).tolist() == [
        Bucket.NEW,
        Bucket.TAIL,
        Bucket.TAIL,
        Bucket.TAIL,
        Bucket.TAIL,
        Bucket.HEAD,
    ]
    assert buckets(counts, new_upto=3).tolist()[:4] == [Bucket.NEW] * 4


def test_equal_counts_share_a_bucket():
    assert buckets(np.array([5, 5, 5, 5, 5])).tolist() == [Bucket.TAIL] * 5
    assert buckets(np.zeros(3, np.int64)).tolist() == [Bucket.NEW] * 3
    assert buckets(np.zeros(0, np.int64)).tolist() == []


def test_an_audience_is_told_from_everybody_else():
    users = np.array([[1.0, 0], [1, 0.1], [0, 1], [0.1, 1]], np.float32)
    items = np.array([[1.0, 0], [1, 0], [0, 1]], np.float32)
    fans = Pairs.of([[0], [0], [1], [1, 2]])

    found = audience_areas(users, items, fans, min_fans=2)

    assert found.items.tolist() == [0, 1]
    assert found.areas.tolist() == [1.0, 0.0]
    assert found.mean == 0.5


def test_without_audiences_there_is_no_mean():
    nobody = audience_areas(np.ones((3, 2)), np.ones((1, 2)), Pairs.of([[0], [], []]))

    assert nobody.mean is None


def test_a_moment_parts_what_came_before_from_what_came_then():
    split = split_at(interactions(("a", "1", 10), ("a", "2", 20), ("b", "1", 21)), 20)

    assert split.train.at_ms.tolist() == [10]
    assert split.test.at_ms.tolist() == [20, 21]


def test_a_moment_needs_times_and_two_sides():
    with pytest.raises(ConfigurationError, match="without times"):
        split_at(interactions(("a", "1", NO_TIME)), 20)
    with pytest.raises(ConfigurationError, match="left in test"):
        split_at(interactions(("a", "1", 10)), 20)


def test_items_held_out_are_wholly_held_out():
    rows = [(f"u{n % 7}", f"i{n % 20}", n) for n in range(200)]
    known = frozenset(f"i{n}" for n in range(18)) | {"never seen"}

    split = hold_out_items(interactions(*rows), 0.5, 4, known)

    held_out = set(split.test.item.tolist())
    assert len(held_out) == 9
    assert held_out < known
    assert not held_out & set(split.train.item.tolist())
    assert len(split.train) + len(split.test) == 200
    again = hold_out_items(interactions(*rows), 0.5, 4, known)
    other = hold_out_items(interactions(*rows), 0.5, 5, known)
    assert set(again.test.item.tolist()) == held_out != set(other.test.item.tolist())
