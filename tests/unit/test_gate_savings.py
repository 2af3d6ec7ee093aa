"""The regimes that the gate is compared with, and that a text counts only from its time on."""

from dataclasses import replace

import numpy as np
import pytest

from deploy.demo.films import read_season
from deploy.demo.gate_regimes import Life, Pen, after_every_event, every_night, gated
from deploy.demo.gate_savings import Scribe, sampled_users
from schemas.entities import EntityKey
from streams.lanes.preference_requests import gate_policy
from tests.history_builders import DAY_MS, START_MS, event

MORNING = START_MS // DAY_MS * DAY_MS
HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def films():
    return {EntityKey.item(film.item_id): film.fields for film in read_season().films}


@pytest.fixture
def pen(films):
    return Pen(films)


def life(films, *hours: float) -> Life:
    """Someone who loves the first films, at these hours of the first day."""
    events = tuple(
        event(n, MORNING + round(hour * HOUR_MS), item=key.id, action="rate", value=10.0)
        for n, (hour, key) in enumerate(zip(hours, films, strict=False))
    )
    return Life(events, np.tile(np.array([1.0, 0.0], np.float32), (len(events), 1)))


def test_regimes_without_a_gate_call_after_every_event_or_once_a_night(films):
    lives = {"ann": life(films, 1, 2, 30)}

    each, nightly = after_every_event(lives)["ann"], every_night(lives)["ann"]

    assert [index for _, index in each] == [0, 1, 2]
    assert nightly == [(MORNING + DAY_MS, 1), (MORNING + 2 * DAY_MS, 2)]


def test_the_gate_regime_is_the_gate_of_the_lane(films, pen):
    lives = {"ann": life(films, 1, 2, 3, 4, 5), "bob": life(films, 1, 2)}

    calls = gated(lives, gate_policy(pen.settings), pen)

    assert calls == {"ann": [(MORNING + 3 * HOUR_MS, 2)]}


def test_everybody_shares_the_budget_of_a_day(films, pen):
    lives = {"ann": life(films, 1, 2, 4), "bob": life(films, 1, 2, 3)}

    calls = gated(lives, replace(gate_policy(pen.settings), calls_per_day=1), pen)

    assert list(calls) == ["bob"]


def test_a_text_counts_after_its_time_and_not_before(films, pen):
    ann = life(films, 1, 2, 3)
    scribe = Scribe({"ann": ann}, pen)
    calls = after_every_event({"ann": ann})["ann"]

    def version(at_ms: int) -> int | None:
        document = scribe.last_before("ann", at_ms, calls)
        return None if document is None or document.content is None else document.content.version

    assert version(MORNING + HOUR_MS) is None
    assert version(MORNING + HOUR_MS + 1) == 1
    assert version(MORNING + 9 * HOUR_MS) == 3


def test_a_sample_is_the_same_every_time_and_large_enough():
    asked = [(str(user), str(item)) for user in range(50) for item in range(3)]

    users = sampled_users(asked, 20)

    assert users == sampled_users(reversed(asked), 20)
    assert 20 <= 3 * len(users) < 23
