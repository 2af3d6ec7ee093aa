"""Who is asked about what, the figures of it, and what is withheld: all small enough to see."""

import numpy as np
import pytest

from schemas.entities import EntityKey, EntityKind
from schemas.errors import ConfigurationError
from schemas.history import HistoryBounds
from streams.evaluation.cold_start_scores import NamedVectors, cold_start_scores
from streams.evaluation.cold_start_task import cold_start_task
from streams.evaluation.event_histories import behaviour_events, check_actions, histories_from
from streams.evaluation.withheld_knowledge import (
    with_knowledge_of_others,
    with_shared_knowledge,
    without_knowledge,
)
from streams.settings import BehaviourSettings
from workers.evaluation.interaction_files import NO_TIME, Interactions
from workers.evaluation.splits import Split

NAMES = ("title", "content", "mood", "theme")


def interactions(*rows) -> Interactions:
    """Rows of (user, item[, value[, at_ms]])."""
    full = [(*row, *(np.nan, NO_TIME)[len(row) - 2 :]) for row in rows]
    users, items, values, times = zip(*full, strict=True)
    return Interactions(
        np.array(users, np.str_),
        np.array(items, np.str_),
        np.array(values, np.float64),
        np.array(times, np.int64),
    )


SPLIT = Split(
    interactions(("u", "w1"), ("u", "w2"), ("v", "w1"), ("v", "unknown")),
    interactions(("u", "c1", 9.0), ("u", "c2", 3.0), ("v", "w2"), ("v", "c2"), ("v", "unknown")),
)
KNOWN = {"w1", "w2", "c1", "c2", "c3"}


def test_cold_items_are_the_ones_training_does_not_tell_of():
    task = cold_start_task(SPLIT, KNOWN)

    assert task.candidates == ("c1", "c2")
    assert task.cold == {"c1", "c2"}
    assert task.positives == {"u": ("c1",), "v": ("c2",)}
    assert task.items == ("c1", "c2", "w1", "w2")
    assert task.item_counts == {"w1": 2, "w2": 1}
    assert task.user_counts == {"u": 2, "v": 1}


def test_all_items_compete_but_those_the_user_had():
    task = cold_start_task(SPLIT, KNOWN, candidates="all")

    assert task.candidates == ("c1", "c2", "w1", "w2")
    assert task.positives == {"u": ("c1",), "v": ("w2", "c2")}
    assert task.known_before == {"u": ("w1", "w2"), "v": ("w1",)}


def test_an_item_somebody_had_in_training_is_not_cold_even_if_it_is_left_out():
    split = Split(interactions(("u", "w1"), ("v", "c1")), interactions(("u", "c1"), ("u", "c2")))

    task = cold_start_task(split, KNOWN)

    assert task.candidates == ("c2",)


def test_figures_are_of_users_with_a_vector_and_a_positive():
    task = cold_start_task(SPLIT, KNOWN)
    items = NamedVectors(["c1", "c2"], np.array([[1, 0], [0, 1]], np.float32))
    users = NamedVectors(["u", "v"], np.array([[1, 0.1], [1, 0]], np.float32))

    scores = cold_start_scores(task, items, users, k=1, metric="cosine")

    assert (scores.n_users, scores.n_items, scores.recall, scores.hr) == (2, 2, 0.5, 0.5)
    assert scores.by_item["new"].n == 2
    assert scores.by_user["new"].n == 2
    assert scores.audience_auc is None
    assert scores.head_item_share is None
    assert scores.top_fifth_share == 1.0
    assert scores.to_json()["recall@1"] == 0.5
    assert scores.intervals["recall"] == (0.0, 1.0)


def test_what_is_shown_of_the_head_is_told():
    often = [(f"u{n}", "often") for n in range(9)]
    seldom = [(f"u{n}", f"w{n}") for n in range(4)]
    split = Split(interactions(*often, *seldom), interactions(("u8", "w3"), ("u7", "w3")))
    known = {"often", *(f"w{n}" for n in range(4))}
    items = NamedVectors(sorted(known), np.eye(5, dtype=np.float32))
    fond_of_w3 = np.array([[0.1, 0, 0, 0, 1]] * 2, np.float32)

    task = cold_start_task(split, known, candidates="all")
    scores = cold_start_scores(
        task, items, NamedVectors(["u7", "u8"], fond_of_w3), k=2, metric="dot"
    )

    # They had what is in the head; of the five, one item is a fifth.
    assert scores.recall == 1.0
    assert scores.head_item_share == 0.0
    assert scores.top_fifth_share == 0.5
    assert scores.by_item["tail"].n == 2


def test_a_candidate_without_a_vector_is_told():
    task = cold_start_task(SPLIT, KNOWN)
    items = NamedVectors(["c1"], np.array([[1, 0]], np.float32))
    users = NamedVectors(["u", "v"], np.array([[1, 0.1], [0.2, 0.1]], np.float32))

    scores = cold_start_scores(task, items, users, k=1, metric="cosine")

    assert (scores.without_vector, scores.n_items, scores.n_users) == (1, 1, 1)


def test_interactions_without_times_are_a_second_apart_and_never_lost():
    rows = interactions(*(("u", f"i{n}") for n in range(130)), ("v", "i0"))

    kept = histories_from(rows, HistoryBounds(max_events=100, max_per_minute=60))
    whole = histories_from(rows)

    user = EntityKey(EntityKind.USER, "u")
    assert [event.item for event in kept[user].events] == [f"i{n}" for n in range(30, 130)]
    assert len(whole[user].events) == 130
    assert {event.action for event in whole[user].events} == {"like"}


def test_events_sent_are_the_events_of_the_histories():
    rows = interactions(("u", "i1", 7.1, 5_000), ("u", "i2", 3.0, 4_000))

    (user,) = histories_from(rows)
    (history,) = histories_from(rows).values()
    sent = list(behaviour_events(rows))

    assert [event.item for event in history.events] == ["i2", "i1"]
    assert history.events[1].value == float(np.float32(7.1))
    assert [(one.item_id, one.action, one.value) for one in sent] == [
        ("i1", "rate", 7.1),
        ("i2", "rate", 3.0),
    ]
    assert [str(one.occurred_at)[-14:] for one in sent] == ["00:00:05+00:00", "00:00:04+00:00"]
    assert len({one.event_id for one in sent}) == 2
    assert user.id == "u"


def test_actions_without_a_weight_and_half_dated_files_are_refused():
    behaviour = BehaviourSettings(actions={"rate": 1.0})

    check_actions(interactions(("u", "i", 5.0, 1)), behaviour)
    with pytest.raises(ConfigurationError, match="'like' has no weight"):
        check_actions(interactions(("u", "i")), behaviour)
    with pytest.raises(ConfigurationError, match="some have none"):
        check_actions(interactions(("u", "i", 5.0, 1), ("u", "j", 5.0)), behaviour)


@pytest.fixture
def catalogue():
    parts = np.arange(1, 4 * 4 * 2 + 1, dtype=np.float32).reshape(4, 4, 2)
    return parts, np.ones((4, 4), np.bool_)


def test_withheld_knowledge_leaves_the_content(catalogue):
    parts, mask = catalogue
    cold = np.array([False, True, True, False])

    changed, there = without_knowledge(parts, mask, NAMES, cold)

    assert there.tolist() == [[True] * 4, [True, True, False, False]] * 1 + [
        [True, True, False, False],
        [True] * 4,
    ]
    np.testing.assert_array_equal(changed[cold][:, :2], parts[cold][:, :2])
    np.testing.assert_array_equal(changed[~cold], parts[~cold])
    assert mask.all()


@pytest.mark.parametrize("seed", range(5))
def test_no_item_keeps_its_own_knowledge_when_it_is_passed_around(catalogue, seed):
    parts, mask = catalogue
    cold = np.array([True, True, False, True])

    changed, there = with_knowledge_of_others(parts, mask, NAMES, cold, seed)

    moods = changed[cold][:, 2, 0].tolist()
    assert sorted(moods) == sorted(parts[cold][:, 2, 0].tolist())
    assert all(new != old for new, old in zip(moods, parts[cold][:, 2, 0], strict=True))
    np.testing.assert_array_equal(changed[:, :2], parts[:, :2])
    np.testing.assert_array_equal(changed[2], parts[2])
    assert there.all()


def test_one_item_has_nobody_to_exchange_with(catalogue):
    parts, mask = catalogue
    with pytest.raises(ValueError, match="1 items"):
        with_knowledge_of_others(parts, mask, NAMES, np.array([True, False, False, False]), 0)


def test_shared_knowledge_takes_the_place_of_its_own(catalogue):
    parts, mask = catalogue
    cold = np.array([False, False, False, True])
    shared = np.full((1, 4, 2), 7, np.float32), np.array([[False, False, True, False]])

    changed, there = with_shared_knowledge(parts, mask, NAMES, cold, shared)

    assert there[3].tolist() == [True, True, True, False]
    assert changed[3, 2].tolist() == [7, 7]
    np.testing.assert_array_equal(changed[3, :2], parts[3, :2])
