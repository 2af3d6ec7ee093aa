"""What LEARN samples of users, and how histories and targets are divided."""

import numpy as np
import pytest

from workers.training.learn_batches import BatchSizes, batches, episodes
from workers.training.learn_loss import NO_ITEM
from workers.training.two_stage_sampling import (
    recency_weights,
    recent_sample,
    uniform_sample,
)
from workers.training.user_sequences import UserSequences

DRAWS = 20_000


def test_weights_favour_the_newest_as_the_paper_has_it():
    weights = recency_weights(80)

    assert weights[-1] == 1
    assert weights[0] == pytest.approx(np.log(10) / np.log(10_000))
    assert weights[0] == pytest.approx(0.25, abs=0.001)
    assert weights[1] == pytest.approx(0.53, abs=0.005)
    assert (np.diff(weights) > 0).all()


def test_one_position_is_drawn_in_proportion_to_its_weight():
    random = np.random.default_rng(1)
    drawn = np.concatenate([recent_sample(8, 1, random) for _ in range(DRAWS)])

    share = np.bincount(drawn, minlength=8) / DRAWS

    weights = recency_weights(8)
    np.testing.assert_allclose(share, weights / weights.sum(), atol=0.012)
    assert share[0] / share[-1] == pytest.approx(0.25, abs=0.04)


def test_the_first_stage_is_uniform_and_keeps_the_order():
    random = np.random.default_rng(1)
    drawn = [uniform_sample(10, 4, random) for _ in range(5_000)]

    share = np.bincount(np.concatenate(drawn), minlength=10) / 5_000

    np.testing.assert_allclose(share, 0.4, atol=0.03)
    assert all((np.diff(one) > 0).all() for one in drawn)


@pytest.mark.parametrize("sample", [uniform_sample, recent_sample])
def test_what_is_short_enough_is_taken_whole(sample):
    assert sample(3, 5, np.random.default_rng(0)).tolist() == [0, 1, 2]
    assert sample(1, 1, np.random.default_rng(0)).tolist() == [0]


def timed():
    users = np.array(["a"] * 5 + ["b"] * 3 + ["c"])
    items = np.array([0, 1, 2, 3, 1, 4, 5, 6, 7])
    at_ms = np.array([10, 20, 30, 40, 50, 25, 20, 60, 5])
    return UserSequences.of(users, items, at_ms)


def test_sequences_are_in_order_of_time_and_an_item_stands_where_it_was_last():
    sequences = timed()

    assert [sequences.of_user(user).tolist() for user in range(3)] == [
        [0, 2, 3, 1],
        [5, 4, 6],
        [7],
    ]


def test_no_target_is_at_or_before_the_moment_of_the_division():
    sequences = timed()

    history, targets = sequences.divided(0, 30)

    assert (history.tolist(), targets.tolist()) == ([0, 2], [3, 1])
    assert sequences.divided(1, 19).history.tolist() == []
    assert sequences.divided(1, 60).targets.tolist() == []


def test_every_drawn_division_lies_between_two_moments():
    sequences = timed()
    times = {0: {0: 10, 2: 30, 3: 40, 1: 50}, 1: {5: 20, 4: 25, 6: 60}}

    drawn = [one for seed in range(50) for one in sequences.divisions(np.random.default_rng(seed))]

    assert {user for user, _ in drawn} == {0, 1}
    for user, (history, targets) in drawn:
        newest = max(times[user][item] for item in history.tolist())
        assert all(times[user][item] > newest for item in targets.tolist())


def test_sets_without_times_are_divided_anew_and_wholly():
    sequences = UserSequences.of(np.array(["a"] * 20), np.arange(20), None)

    divisions = [next(sequences.divisions(np.random.default_rng(seed)))[1] for seed in range(30)]

    for history, targets in divisions:
        assert sorted([*history.tolist(), *targets.tolist()]) == list(range(20))
        assert 5 <= len(history) <= 15
    assert len({tuple(one.history.tolist()) for one in divisions}) == 30


def test_items_and_moments_can_be_taken_out():
    sequences = timed()
    out = np.zeros(8, np.bool_)
    out[[0, 7]] = True

    left = sequences.without_items(out)
    early = sequences.before(25)

    assert [left.of_user(user).tolist() for user in range(3)] == [[2, 3, 1], [5, 4, 6], []]
    assert [early.of_user(user).tolist() for user in range(3)] == [[0], [5, 4], [7]]


def many():
    users = np.repeat([f"u{n}" for n in range(6)], 30)
    items = np.concatenate([np.random.default_rng(n).permutation(40)[:30] for n in range(6)])
    return UserSequences.of(users, items, None)


def test_a_batch_holds_what_was_sampled():
    sequences = many()
    sizes = BatchSizes(users=4, history=8, targets=6, positions=3, pairs=2)

    first, second = batches(sequences, sizes, np.random.default_rng(3))

    assert (len(first.rows), len(second.rows)) == (4, 2)
    assert first.rows.shape == (4, 8)
    assert first.at.shape == (4, 3)
    assert first.targets.shape == (4, 2)
    sets = [set(sequences.of_user(user).tolist()) for user in range(6)]
    for rows, targets in zip(first.rows.tolist(), first.targets.tolist(), strict=True):
        assert not {*rows} & {*targets}
        assert any({*rows, *targets} <= own for own in sets)
    assert (np.diff(first.at, axis=1) > 0).all()


def test_short_histories_are_padded_behind_and_repeat_their_last_position():
    users, items = np.array(["a", "a", "b", "b", "b", "b"]), np.arange(6)
    sizes = BatchSizes(users=2, history=8, targets=6, positions=3, pairs=4)
    sequences = UserSequences.of(users, items, None)

    (batch,) = batches(sequences, sizes, np.random.default_rng(0))

    short = int((batch.rows != NO_ITEM).sum(axis=1).argmin())
    assert batch.rows[short].tolist()[1:] == [NO_ITEM] * (batch.rows.shape[1] - 1)
    assert batch.at[short].tolist() == [0, 0, 0]
    assert (batch.targets[short] != NO_ITEM).sum() == 1


def test_what_is_new_in_an_episode_is_in_no_history_and_all_of_it_is_to_be_found():
    sequences = many()
    sizes = BatchSizes(users=4, history=100)

    first, second = episodes(sequences, 40, sizes, np.random.default_rng(3))

    assert (len(first.rows), len(second.rows)) == (4, 2)
    assert set(first.asked.tolist()) != set(second.asked.tolist())
    sets = [set(sequences.of_user(user).tolist()) for user in range(6)]
    for episode in (first, second):
        asked = set(episode.asked.tolist())
        assert 0 < len(asked) < 20
        for rows, at, found in zip(episode.rows, episode.at, episode.found, strict=True):
            history = set(rows[rows != NO_ITEM].tolist())
            assert at.tolist() == [len(history) - 1]
            assert not history & asked
            assert history | set(episode.asked[found].tolist()) in sets


def test_an_episode_leaves_a_history_in_its_order_and_takes_a_sample_of_a_long_one():
    sequences = timed()
    asked = np.zeros(8, np.bool_)
    asked[[2, 6]] = True

    history, targets = sequences.apart(0, asked, np.random.default_rng(0))
    short = BatchSizes(users=6, history=5)
    (episode,) = episodes(many(), 40, short, np.random.default_rng(1))

    assert (history.tolist(), targets.tolist()) == ([0, 3, 1], [2])
    assert episode.rows.shape == (6, 5)


def test_users_with_nothing_on_a_side_are_in_no_episode():
    alone = UserSequences.of(np.array(["a", "b"]), np.array([0, 1]), None)

    made = [
        one
        for seed in range(20)
        for one in episodes(alone, 2, BatchSizes(users=2), np.random.default_rng(seed))
    ]

    assert made == []
