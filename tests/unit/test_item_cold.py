"""The item-cold protocol on cases small enough to count by hand."""

import numpy as np
import pytest

from workers.evaluation.item_cold import ItemVectors, item_cold

# Two warm items along the axes and three cold ones, from the first axis to the second.
VECTORS = ItemVectors(
    ["right", "up", "c0", "c45", "c90"],
    np.array([[1, 0], [0, 1], [1, 0], [1, 1], [0, 3]], np.float32),
)


def test_a_positive_at_the_top_of_the_list_counts_in_full():
    figures = item_cold({"u": ["right"]}, {"u": ["c0"], "v": ["c45", "c90"]}, VECTORS, k=1)

    assert (figures.users, figures.candidates) == (1, 3)
    assert (figures.recall, figures.ndcg) == (1.0, 1.0)


def test_recall_is_of_what_could_be_reached_and_ndcg_of_where_it_stood():
    train, test = {"u": ["right"], "v": ["up"]}, {"u": ["c45", "c90"], "v": ["c90", "c0"]}

    figures = item_cold(train, test, VECTORS, k=2)

    # u is shown c0, c45 and gets the second; v is shown c90, c45 and gets the first.
    ideal = 1 + 1 / np.log2(3)
    assert figures.recall == pytest.approx(0.5)
    assert figures.ndcg == pytest.approx((1 / np.log2(3) / ideal + 1 / ideal) / 2)


def test_a_user_is_the_mean_of_the_history():
    figures = item_cold(
        {"u": ["right", "up", "unknown"]}, {"u": ["c45"], "v": ["c0", "c90"]}, VECTORS, k=1
    )

    assert figures.recall == 1.0


def test_items_without_a_vector_and_users_without_a_history_do_not_count():
    test = {"u": ["c0", "unknown"], "stranger": ["c45"], "w": ["unknown", "c90"]}

    figures = item_cold({"u": ["right"], "w": ["unknown"]}, test, VECTORS, k=2)

    assert (figures.users, figures.candidates, figures.recall) == (1, 3, 1.0)


def test_nobody_to_judge_is_refused():
    with pytest.raises(ValueError, match="no user"):
        item_cold({"u": ["unknown"]}, {"u": ["c0", "c45"]}, VECTORS, k=2)


def test_fewer_candidates_than_k_are_refused():
    with pytest.raises(ValueError, match="1 candidates for the first 2"):
        item_cold({"u": ["right"]}, {"u": ["c0"]}, VECTORS, k=2)
