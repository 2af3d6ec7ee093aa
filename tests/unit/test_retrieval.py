"""Ranking candidates for users, on cases small enough to count by hand."""

import numpy as np
import pytest

from workers.evaluation.retrieval import Pairs, retrieve

# Along the first axis, so a user's scores are the candidates' first values.
LINE = np.array([[4.0, 0], [3, 0], [2, 0], [1, 0]], np.float32)
RIGHT = np.array([[1.0, 0]], np.float32)


def test_a_user_is_judged_by_where_the_positives_stand():
    found = retrieve(RIGHT, LINE, Pairs.of([[0, 3]]), k=2, metric="dot")

    assert (found.recall[0], found.hit[0]) == (0.5, 1.0)
    assert found.ndcg[0] == pytest.approx(1 / (1 + 1 / np.log2(3)))
    assert found.behind.tolist() == [1.0, 0.0]
    assert found.percentile[0] == 0.5
    assert found.found.tolist() == [True, False]
    assert found.shown.tolist() == [1, 1, 0, 0]


def test_what_a_user_had_does_not_compete():
    found = retrieve(RIGHT, LINE, Pairs.of([[2]]), k=1, metric="dot", left_out=Pairs.of([[0, 1]]))

    assert (found.recall[0], found.percentile[0]) == (1.0, 1.0)
    assert found.shown.tolist() == [0, 0, 1, 0]


def test_length_counts_for_dot_and_not_for_cosine():
    items = np.array([[1.0, 0], [5, 5]], np.float32)

    cosine = retrieve(RIGHT, items, Pairs.of([[0]]), k=1)
    dot = retrieve(RIGHT, items, Pairs.of([[0]]), k=1, metric="dot")

    assert (cosine.recall[0], dot.recall[0]) == (1.0, 0.0)


def test_equal_candidates_share_a_percentile():
    items = np.array([[2.0, 0], [1, 0], [1, 0], [0, 0]], np.float32)

    found = retrieve(RIGHT, items, Pairs.of([[1, 2]]), k=1, metric="dot")

    np.testing.assert_allclose(found.behind, [0.5, 0.5])


def test_many_users_are_judged_as_each_would_be_alone():
    generator = np.random.default_rng(3)
    users = generator.standard_normal((1_500, 4)).astype(np.float32)
    items = generator.standard_normal((30, 4)).astype(np.float32)
    positives = [sorted({n % 30, (7 * n) % 30}) for n in range(1_500)]

    together = retrieve(users, items, Pairs.of(positives), k=5)
    alone = [
        retrieve(users[n : n + 1], items, Pairs.of([positives[n]]), k=5) for n in (0, 1_023, 1_499)
    ]

    for row, one in zip((0, 1_023, 1_499), alone, strict=True):
        assert together.recall[row] == one.recall[0]
        assert together.ndcg[row] == one.ndcg[0]
        assert together.percentile[row] == one.percentile[0]


@pytest.mark.parametrize(
    ("users", "items", "positives", "message"),
    [
        (RIGHT, LINE[:1], [[0]], "1 candidates for the first 2"),
        (RIGHT[:0], LINE, [], "no user"),
        (RIGHT, LINE, [[]], "no positive"),
        (RIGHT * 0, LINE, [[0]], "the same"),
    ],
)
def test_what_cannot_be_judged_is_refused(users, items, positives, message):
    with pytest.raises(ValueError, match=message):
        retrieve(users, items, Pairs.of(positives), k=2)
