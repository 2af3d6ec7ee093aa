"""The cold-start replay: what counts when, against a plain count of the same protocol."""

from dataclasses import replace

import numpy as np
import pytest

from workers.evaluation.cold_start import (
    ColdStartFigures,
    RatingTable,
    RegimeVectors,
    Rules,
    UserVectors,
    cold_start,
    questions,
)

RULES = Rules(liked_from=7, min_likes=1, min_fans=1)


def table(*rows: tuple[str, str, float, int]) -> RatingTable:
    users, items, stars, times = zip(*rows, strict=True)
    return RatingTable(np.array(users), np.array(items), np.array(stars), np.array(times))


def regime(*rows: tuple[str, tuple[float, float], int]) -> RegimeVectors:
    keys, values, times = zip(*rows, strict=True)
    return RegimeVectors(keys, np.array(values, np.float16), np.array(times))


OLD = (("old", (1, 0), 0), ("near", (2, 0.5), 0), ("far", (0, 1), 0))


def figures(
    ratings: RatingTable,
    *vectors: tuple[str, tuple[float, float], int],
    new: tuple[str, ...] = ("new",),
    rules: Rules = RULES,
) -> ColdStartFigures:
    return cold_start(ratings, new, {"live": regime(*vectors)}, rules)["live"]


def test_a_new_item_is_ranked_among_the_live_items_not_rated_before():
    ratings = table(("u", "old", 8, 10), ("u", "new", 9, 20))

    got = figures(ratings, *OLD, ("new", (1, 0.5), 15))

    # Candidates: near (closer to old), new, far. So rank 2 of 3.
    assert got.n == 1
    assert got.missed == 0
    assert got.percentile == pytest.approx(0.5)
    assert got.hr20 == 1.0


@pytest.mark.parametrize(("metric", "percentile"), [("cosine", 0.5), ("dot", 1.0)])
def test_by_dot_product_a_longer_item_stands_before_one_that_is_closer(metric, percentile):
    ratings = table(("u", "old", 8, 10), ("u", "new", 9, 20))
    live = replace(regime(*OLD, ("new", (4, 2), 15)), metric=metric)

    got = cold_start(ratings, ("new",), {"live": live}, RULES)["live"]

    assert got.percentile == pytest.approx(percentile)


def test_items_rated_before_may_compete_when_the_rules_say_so():
    ratings = table(("u", "old", 8, 10), ("u", "new", 9, 20))
    rules = Rules(min_likes=1, min_fans=1, leave_out_rated=False)

    got = figures(ratings, *OLD, ("new", (1, 0.5), 15), rules=rules)

    assert got.percentile == pytest.approx(1 / 3)


def test_a_vector_that_comes_later_is_a_miss():
    ratings = table(("u", "old", 8, 10), ("u", "new", 9, 20))

    got = figures(ratings, *OLD, ("new", (1, 0.5), 21))

    assert (got.n, got.missed, got.hr20, got.hr100, got.percentile) == (1, 1.0, 0.0, 0.0, 0.0)


def test_a_vector_that_comes_at_the_very_moment_is_found():
    ratings = table(("u", "old", 8, 10), ("u", "new", 9, 20))

    assert figures(ratings, *OLD, ("new", (1, 0.5), 20)).missed == 0


def test_items_that_are_not_live_yet_do_not_compete():
    ratings = table(("u", "old", 8, 10), ("u", "new", 9, 20))
    near_comes_later = (OLD[0], ("near", (2, 0.5), 30), OLD[2])

    got = figures(ratings, *near_comes_later, ("new", (1, 0.5), 15))

    assert got.percentile == 1.0


def test_items_that_nobody_rated_compete():
    ratings = table(("u", "old", 8, 10), ("u", "new", 9, 20))

    with_extra = figures(ratings, *OLD, ("extra", (1, 0), 0), ("new", (1, 0.5), 15))

    assert with_extra.percentile == pytest.approx(1 / 3)


def test_only_earlier_likes_make_the_user():
    ratings = table(
        ("u", "old", 8, 10),
        ("u", "far", 3, 11),  # rated, not liked
        ("u", "new", 9, 20),
        ("u", "near", 9, 20),  # at the same moment, not earlier
        ("u", "far2", 9, 30),
    )

    got = figures(ratings, *OLD, ("far2", (0, 1), 0), ("new", (2, 0.4), 15))

    # The user points along old alone: new is before near and far2; far was rated.
    assert got.percentile == 1.0


def test_a_history_without_any_vector_is_a_miss():
    ratings = table(("u", "unknown", 8, 10), ("u", "new", 9, 20))

    assert figures(ratings, *OLD, ("new", (1, 0), 0)).missed == 1.0


def test_a_liked_item_joins_the_history_when_its_vector_comes():
    ratings = table(
        ("u", "old", 8, 10), ("u", "late", 9, 11), ("u", "new", 9, 20), ("u", "new2", 9, 40)
    )
    vectors = (*OLD, ("new", (2, 0.1), 0), ("new2", (0.1, 2), 0))

    joined = figures(ratings, *vectors, ("late", (0, 9), 40), new=("new2",))
    not_yet = figures(ratings, *vectors, ("late", (0, 9), 41), new=("new2",))

    # Candidates near, far and new2: with the late item the user points up, to new2, then far.
    assert joined.percentile == 1.0
    assert not_yet.percentile == pytest.approx(1 / 2)


@pytest.mark.parametrize(("stars", "counted"), [(6.9, 0), (7, 1)])
def test_only_liked_ratings_of_new_items_are_queries(stars, counted):
    ratings = table(("u", "old", 8, 10), ("u", "new", stars, 20), ("u", "near", 9, 30))

    assert figures(ratings, *OLD, ("new", (1, 0), 0)).n == counted


def test_users_with_too_few_earlier_likes_ask_nothing():
    ratings = table(("u", "old", 8, 10), ("u", "near", 5, 11), ("u", "new", 9, 20))

    got = figures(ratings, *OLD, ("new", (1, 0), 0), rules=Rules(min_likes=2, min_fans=1))

    assert (got.n, got.missed, got.hr20, got.audience_auc) == (0, None, None, None)


def test_the_first_of_several_ratings_counts():
    ratings = table(("u", "old", 8, 10), ("u", "new", 9, 20), ("u", "new", 9, 25))

    assert figures(ratings, *OLD, ("new", (1, 0), 22)).missed == 1.0


def test_equal_vectors_earn_what_chance_would():
    ratings = table(("u", "old", 8, 10), ("u", "new", 9, 20))
    flat = (("old", (1, 0), 0), ("near", (1, 0), 0), ("far", (1, 0), 0), ("new", (1, 0), 0))

    assert figures(ratings, *flat).percentile == pytest.approx(0.5)


AUDIENCE = table(
    ("fan", "old", 8, 1),
    ("other", "far", 8, 1),
    ("between", "near", 8, 1),
    ("dislikes", "old", 9, 1),
    ("dislikes", "new", 2, 19),
    ("stranger", "new", 9, 20),  # no likes before: not judged
    ("fan", "new", 9, 21),
)


def test_an_audience_is_told_from_the_other_users():
    # Scores: fan and dislikes 1, between below, other 0. The fan ties with one of three.
    got = figures(AUDIENCE, *OLD, ("new", (1, 0), 25))

    assert got.audience_auc == pytest.approx((1 + 1 + 0.5) / 3)


def test_an_item_without_a_vector_tells_nothing_of_its_audience():
    assert figures(AUDIENCE, *OLD).audience_auc == pytest.approx(0.5)


def test_likes_after_the_items_birth_do_not_help_to_tell_the_audience():
    after = table(("u", "old", 8, 1), ("v", "old", 8, 1), ("u", "new", 9, 5), ("v", "far", 9, 6))

    assert figures(after, *OLD, ("new", (1, 0), 0)).audience_auc == pytest.approx(0.5)


def test_items_with_too_few_fans_have_no_audience():
    rules = Rules(min_likes=1, min_fans=2)

    assert figures(AUDIENCE, *OLD, ("new", (1, 0), 0), rules=rules).audience_auc is None


def test_every_regime_answers_the_same_queries():
    ratings = table(("u", "old", 8, 10), ("u", "new", 9, 20))

    got = cold_start(
        ratings,
        {"new"},
        {"none": regime(*OLD), "live": regime(*OLD, ("new", (1, 0), 0))},
        RULES,
    )

    assert [(one.n, one.missed) for one in got.values()] == [(1, 1.0), (1, 0.0)]


def test_a_regime_may_bring_the_users_that_were_read():
    ratings = table(
        ("u", "old", 8, 10), ("u", "new", 9, 20), ("v", "old", 8, 10), ("v", "new", 9, 30)
    )
    vectors = regime(*OLD, ("new", (0, 1), 0))
    read = UserVectors({("u", "new"): np.array([0.0, 3.0])}, {})

    got = cold_start(ratings, {"new"}, {"mean": vectors, "live": vectors}, RULES, {"live": read})

    # By the mean old, near and far... are nearer; u as read is right at new, v was not read.
    assert got["mean"].missed == 0.0
    assert got["mean"].percentile == pytest.approx(0.25)
    assert (got["live"].n, got["live"].missed, got["live"].hr20) == (2, 0.5, 0.5)


def test_an_audience_may_be_told_from_the_users_that_were_read():
    towards, away = np.array([1.0, 0.0]), np.array([-1.0, 0.0])
    vectors = regime(*OLD, ("new", (1, 0), 0))
    read = UserVectors(
        {}, {"new": {"fan": towards, "other": away, "between": away, "dislikes": away}}
    )
    reversed_ = UserVectors({}, {"new": {"fan": away, "other": towards}})

    def area(users: UserVectors) -> float | None:
        return cold_start(AUDIENCE, {"new"}, {"live": vectors}, RULES, {"live": users})[
            "live"
        ].audience_auc

    assert area(read) == 1.0
    # Nothing was read of the other two: they count as neither near nor far.
    assert area(reversed_) == 0.0


def test_the_questions_are_those_that_are_answered():
    asked = questions(AUDIENCE, {"new"}, RULES)

    assert asked.queries == {("fan", "new")}
    assert {item: sorted(users) for item, users in asked.audiences.items()} == {
        "new": ["between", "dislikes", "fan", "other"]
    }


def test_ids_may_be_numbers():
    ratings = RatingTable(
        np.array([1, 1]), np.array([10, 11]), np.array([8.0, 9.0]), np.array([10, 20])
    )

    got = figures(ratings, ("10", (1, 0), 0), ("11", (1, 0), 0), new=("11",))

    assert (got.n, got.missed) == (1, 0.0)


def test_arrays_that_do_not_fit_are_refused():
    ratings = RatingTable(np.array(["u"]), np.array(["i", "j"]), np.array([8.0]), np.array([1]))

    with pytest.raises(ValueError, match=r"columns of \[1, 2\] rows"):
        cold_start(ratings, {"i"}, {}, RULES)


def test_two_vectors_of_one_item_are_refused():
    ratings = table(("u", "old", 8, 10))

    with pytest.raises(ValueError, match="two vectors"):
        figures(ratings, ("old", (1, 0), 0), ("old", (0, 1), 0))


def slow_figures(
    ratings: RatingTable, new: set[str], live: RegimeVectors, rules: Rules
) -> tuple[int, float, float]:
    """The protocol as its text says it, one query at a time."""
    vectors = {
        k: (np.float32(v), t)
        for k, v, t in zip(live.keys, live.values, live.available_at_ms, strict=True)
    }
    rows = sorted(
        zip(ratings.user, ratings.item, ratings.rating, ratings.at_ms, strict=True),
        key=lambda row: row[3],
    )
    ranks, total, hits = [], 0, 0
    for user, item, stars, at in rows:
        earlier = [row for row in rows if row[0] == user and row[3] < at]
        likes = [row[1] for row in earlier if row[2] >= rules.liked_from]
        if item not in new or stars < rules.liked_from or len(likes) < rules.min_likes:
            continue
        total += 1
        open_ = {k: v for k, (v, t) in vectors.items() if t <= at}
        history = [open_[one] for one in likes if one in open_]
        rated = {row[1] for row in earlier}
        if item not in open_ or not history:
            ranks.append(0.0)
            continue
        mean = np.mean(history, axis=0)
        score = {k: mean @ v / np.linalg.norm(v) for k, v in open_.items() if k not in rated}
        ahead = sum(s > score[item] for k, s in score.items() if k != item)
        hits += ahead < 20
        ranks.append((len(score) - 1 - ahead) / (len(score) - 1))
    return total, hits / total, float(np.mean(ranks))


def test_it_agrees_with_a_plain_count_on_random_data():
    random = np.random.default_rng(5)
    pairs = random.permutation(40 * 60)[:900]
    ratings = RatingTable(
        np.array([f"u{pair // 60}" for pair in pairs]),
        np.array([f"i{pair % 60}" for pair in pairs]),
        random.integers(1, 11, 900).astype(float),
        random.integers(0, 1000, 900),
    )
    live = RegimeVectors(
        [f"i{number}" for number in range(55)],
        random.standard_normal((55, 8)),
        random.integers(0, 800, 55),
    )
    new = {f"i{number}" for number in range(30, 60)}
    rules = Rules(min_likes=2, min_fans=1)

    got = cold_start(ratings, new, {"live": live}, rules)["live"]
    total, hits, percentile = slow_figures(ratings, new, live, rules)

    assert got.n == total > 100
    assert got.hr20 == pytest.approx(hits)
    assert got.percentile == pytest.approx(percentile, abs=1e-5)
