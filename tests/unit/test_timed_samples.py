"""Samples in time: what a user did at or after a sample's moment is not in its history."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.training.timed_samples import TimedSamples, split_by_time


def samples_of(*events: tuple[str, int, int]) -> TimedSamples:
    """Samples of (user, item, time)."""
    users, items, times = zip(*events, strict=True)
    values = np.arange(len(events), dtype=np.float32)
    return TimedSamples.of(
        np.array(users), np.array(items, np.int64), values, np.array(times, np.int64)
    )


interactions = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 6), st.integers(0, 9)),
    min_size=1,
    max_size=40,
)


@given(interactions, st.integers(1, 5))
def test_a_history_is_what_the_user_did_strictly_before_newest_first(events, longest):
    samples = samples_of(*events)

    for row in range(len(samples)):
        own = samples.users == samples.users[row]
        before = own & (samples.at_ms < samples.at_ms[row])
        (history,) = samples.history(np.array([row]), longest)
        history = history[history >= 0]
        assert samples.users[history].tolist() == [samples.users[row]] * len(history)
        assert (samples.at_ms[history] < samples.at_ms[row]).all()
        assert (
            sorted(samples.at_ms[history].tolist(), reverse=True) == samples.at_ms[history].tolist()
        )
        assert len(history) == min(before.sum(), longest)


@given(interactions)
def test_the_order_of_the_file_does_not_matter(events):
    first, again = samples_of(*events), samples_of(*reversed(events))

    for name in ("users", "items", "at_ms", "starts", "ends"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))


def test_two_things_at_one_moment_do_not_see_each_other():
    samples = samples_of(("a", 1, 5), ("a", 2, 5), ("a", 3, 6))

    assert samples.history(np.arange(3), 9).tolist() == [[-1, -1], [-1, -1], [1, 0]]


def test_of_several_interactions_with_an_item_the_first_is_a_sample():
    samples = samples_of(("a", 1, 5), ("a", 1, 4), ("b", 1, 6))

    assert samples.at_ms.tolist() == [4, 6]
    assert samples.values.tolist() == [1, 2]


def test_without_times_there_are_no_samples():
    with pytest.raises(ValueError, match="1 interactions have no time"):
        samples_of(("a", 1, 5), ("a", 2, -1))


@given(interactions, st.sampled_from([(0.1, 0.2), (0.3, 0.3), (0.2, 0.0)]))
def test_what_chooses_and_what_judges_lie_after_what_trains(events, shares):
    samples = samples_of(*events)
    try:
        split = split_by_time(samples, *shares)
    except ValueError:
        return

    times = samples.at_ms
    assert times[split.train].max() < split.valid_from_ms <= times[split.valid].min()
    assert times[split.valid].max() < split.test_from_ms
    assert (times[split.test] >= split.test_from_ms).all()
    assert len(split.train) + len(split.valid) + len(split.test) == len(samples)


def test_a_split_without_anything_to_choose_by_is_refused():
    with pytest.raises(ValueError, match="0 to train on"):
        split_by_time(samples_of(("a", 1, 5), ("a", 2, 5)), 0.2, 0.0)
    with pytest.raises(ValueError, match="shares"):
        split_by_time(samples_of(("a", 1, 5)), 0.5, 0.5)
