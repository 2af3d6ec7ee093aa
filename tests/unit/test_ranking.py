"""Ranking metrics on cases small enough to count by hand."""

import numpy as np
import pytest

from workers.evaluation.ranking import auc, mid_ranks


def test_the_best_scored_target_has_rank_one():
    ranks = mid_ranks(np.array([[0.9, 0.1, 0.5], [0.9, 0.1, 0.5]]), np.array([0, 1]))

    assert ranks.tolist() == [1.0, 3.0]


def test_ties_share_the_middle_of_their_ranks():
    ranks = mid_ranks(np.array([[0.5, 0.5, 0.5, 0.1]]), np.array([0]))

    assert ranks.tolist() == [2.0]


def test_auc_counts_the_pairs_in_the_right_order():
    scores = np.array([0.9, 0.4, 0.6, 0.1])

    assert auc(scores, np.array([True, True, False, False])) == pytest.approx(3 / 4)


def test_auc_of_equal_scores_is_a_half():
    assert auc(np.zeros(5), np.array([True, False, True, False, False])) == pytest.approx(0.5)


@pytest.mark.parametrize("positive", [[True, True], [False, False]])
def test_auc_needs_one_of_each(positive):
    with pytest.raises(ValueError, match="positives"):
        auc(np.zeros(2), np.array(positive))
