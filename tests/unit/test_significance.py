"""What an interaction says: the weight of its action, scaled by its value where it has one."""

import pytest
from pydantic import ValidationError

from streams.settings import DEFAULT_ACTIONS, BehaviourSettings
from streams.user_parts import significance_of
from tests.history_builders import event
from workers.towers.significance import RatingScale, Significance

SIGNIFICANCE = Significance({"like": 1.0, "rate": 0.8, "skip": -0.3}, frozenset({"rate"}))


@pytest.mark.parametrize(
    ("action", "value", "weight"),
    [
        ("like", None, 1.0),
        ("like", 3.0, 1.0),  # a value that nobody asked for
        ("skip", None, -0.3),
        ("gone", None, 0.0),  # of earlier settings
        ("rate", 10.0, 0.8),
        ("rate", 4.5, 0.0),
        ("rate", 0.0, -0.8),
        ("rate", 7.25, 0.4),
        ("rate", 2.25, -0.4),
        ("rate", 99.0, 0.8),
        ("rate", -99.0, -0.8),
        ("rate", None, 0.0),  # stored when the action was not rated
    ],
)
def test_an_event_weighs_what_its_action_and_value_say(action, value, weight):
    assert SIGNIFICANCE.of(event(1, action=action, value=value)) == pytest.approx(weight)


def test_a_lopsided_scale_reaches_one_on_both_sides():
    scale = RatingScale(neutral=3, best=5, worst=0.5)

    assert [scale.share(value) for value in (5, 4, 3, 1.75, 0.5)] == [1, 0.5, 0, -0.5, -1]


def test_the_settings_of_a_deployment_say_what_events_weigh():
    settings = BehaviourSettings(
        actions={"stars": 2.0}, rated_actions=["stars"], rating_best=5, rating_neutral=3
    )

    assert significance_of(settings).of(event(1, action="stars", value=4)) == 1.0
    assert significance_of(BehaviourSettings()).of(event(1)) == DEFAULT_ACTIONS["view"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rated_actions": ["rate", "stars"]}, "stars has no weight"),
        ({"rating_best": 4.5}, "does not hold"),
        ({"rating_worst": 6.0}, "does not hold"),
        ({"actions": {"view": 0.0}, "rated_actions": []}, "other than 0"),
        ({"actions": {"": 1.0}, "rated_actions": []}, "1-32 bytes"),
        ({"actions": {"v" * 33: 1.0}, "rated_actions": []}, "1-32 bytes"),
        ({"actions": {"view": float("nan")}, "rated_actions": []}, "finite"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        BehaviourSettings(**changes)
