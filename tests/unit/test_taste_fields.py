"""What is told about a user: which items, on which side, in which order and words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.fingerprints import Json
from schemas.history import HistoryEvent, event_digest
from streams.lanes.taste_fields import TasteBounds, Told, taste_fields, told_items
from tests.history_builders import DAY_MS, START_MS, history_of
from tests.live_builders import item
from workers.towers.significance import RatingScale, Significance

SIGNIFICANCE = Significance(
    {"view": 0.2, "like": 1.0, "dislike": -1.0, "skip": -0.3, "rate": 1.0},
    frozenset({"rate"}),
    RatingScale(neutral=5.5, best=10, worst=0),
)
BOUNDS = TasteBounds(liked=3, disliked=2, half_life_ms=10 * DAY_MS)
FILMS: dict[str, dict[str, Json]] = {
    "heat": {"title": "Heat", "year": 1995, "genres": ["Crime", "Drama", "Thriller", "Action"]},
    "gigli": {"title": "Gigli", "genre": "Comedy", "plot": "long"},
    "m": {"title": " M "},
}


def told(*events: HistoryEvent, bounds: TasteBounds = BOUNDS) -> tuple[list[str], list[str]]:
    chosen = told_items(history_of(*events), SIGNIFICANCE, bounds)
    return (
        [one.item.id for one in chosen if one.weight > 0],
        [one.item.id for one in chosen if one.weight < 0],
    )


def on(day: float, name: str, action: str = "like", value: float | None = None) -> HistoryEvent:
    at_ms = START_MS + round(day * DAY_MS)
    id_ = event_digest(f"{day} {name} {action}")
    return HistoryEvent(at_ms, id_, name, action, value)


def test_what_weighs_more_and_is_newer_comes_first():
    liked, disliked = told(
        on(0, "old-like"), on(20, "new-view", "view"), on(20, "new-like"), on(21, "bad", "dislike")
    )

    assert (liked, disliked) == (["new-like", "old-like", "new-view"], ["bad"])


def test_a_repetition_dated_to_another_minute_tells_nothing_more():
    twice = [on(0, "seen", "view"), on(0, "seen", "view")._replace(at_ms=START_MS + DAY_MS)]
    bounded = history_of(*twice)
    assert len(bounded.events) == 2

    (once,) = told_items(bounded, SIGNIFICANCE, BOUNDS)

    assert once.weight == pytest.approx(0.2)


def test_each_side_has_its_bound_and_keeps_the_most_telling():
    liked, disliked = told(
        *(on(n, f"liked-{n}") for n in range(9)),
        *(on(n, f"disliked-{n}", "dislike") for n in range(9)),
    )

    assert liked == ["liked-8", "liked-7", "liked-6"]
    assert disliked == ["disliked-8", "disliked-7"]


def test_all_events_on_an_item_count_together():
    liked, disliked = told(
        on(0, "torn"), on(1, "torn", "dislike"), on(0, "seen-twice", "view"), on(1, "seen-twice")
    )

    assert (liked, disliked) == (["seen-twice"], [])


@pytest.mark.parametrize(
    ("stars", "signal"),
    [
        (10, "loved"),
        (8, "liked"),
        (6, "some interest"),
        (5, "cool on it"),
        (3, "disliked"),
        (0, "strongly disliked"),
    ],
)
def test_stars_are_told_in_words_that_fit_every_scale(stars, signal):
    (one,) = told_items(
        history_of(on(0, "heat", "rate", float(stars))), SIGNIFICANCE, TasteBounds()
    )

    assert one.signal == signal


def test_fields_hold_titles_and_what_helps_to_know_them_but_no_user():
    fields = taste_fields(
        [Told(item("heat"), 1.0), Told(item("m"), 0.4), Told(item("gigli"), -0.9)],
        {item(name): film for name, film in FILMS.items()},
    )

    assert fields == {
        "liked": [
            {
                "item": "heat",
                "title": "Heat",
                "year": 1995,
                "genres": ["Crime", "Drama", "Thriller"],
                "signal": "loved",
            },
            {"item": "m", "title": "M", "signal": "liked"},
        ],
        "disliked": [
            {
                "item": "gigli",
                "title": "Gigli",
                "genres": ["Comedy"],
                "signal": "strongly disliked",
            }
        ],
    }


@pytest.mark.parametrize("fields", [{}, {"title": ""}, {"title": "  "}, {"title": 7}])
def test_items_without_a_title_are_left_out_and_nothing_else_is_nothing(fields):
    assert taste_fields([Told(item("heat"), 1.0)], {item("heat"): fields}) is None
    assert taste_fields([Told(item("heat"), 1.0)], {}) is None


def test_catalogue_values_of_any_shape_stay_short():
    wild: dict[str, Json] = {
        "title": "T" * 9_999,
        "year": "1" * 9_999,
        "genres": [{"a": 1}, None, "G" * 9_999, 7],
    }

    fields = taste_fields([Told(item("x"), 1.0)], {item("x"): wild})

    assert fields is not None
    assert len(str(fields)) < 700


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 6), st.sampled_from(["like", "skip"])))
)
def test_the_choice_is_bounded_and_does_not_hang_on_the_order_of_arrival(some):
    events = [on(day, f"i{n}", action) for day, n, action in some]

    liked, disliked = told(*events)

    assert told(*reversed(events)) == (liked, disliked)
    assert (len(liked) <= BOUNDS.liked, len(disliked) <= BOUNDS.disliked) == (True, True)
    assert not set(liked) & set(disliked)
