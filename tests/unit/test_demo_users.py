"""Users in the demo: what they send, what of it waits for what, and what is made of it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import pytest

from deploy.demo.broken import BrokenRecord
from deploy.demo.broken_behaviour import BEHAVIOUR_MISTAKES, broken_behaviour
from deploy.demo.films import SUMMER_STARTS_MS, Rating, read_season
from deploy.demo.new_users import NewUsers
from deploy.demo.plans import DAY_MS, HOUR_MS, FeedShape
from deploy.demo.schedule import Schedule, build_schedule
from deploy.demo.user_account import users_unaccounted
from deploy.demo.user_figures import user_figures
from deploy.demo.user_plans import NEW_ACTS, Act, UserEvent
from deploy.demo.user_questions import NextLike, UserQuestions
from deploy.demo.user_replay import (
    FILM_PATIENCE_SECONDS,
    PATIENCE_SECONDS,
    UserReadings,
    UserReplay,
)
from schemas.behaviour import decode_behaviour
from schemas.errors import InvalidInput, Transient
from schemas.topics import Topic
from streams.settings import BehaviourSettings
from tests.fakes.clock import START_MS
from tests.stack import wait_until_blocking
from workers.evaluation.cold_start import RegimeVectors
from workers.live.vectors import Vectors

T0 = SUMMER_STARTS_MS


@pytest.fixture(scope="module")
def schedule() -> Schedule:
    return build_schedule(read_season(), seed=7, shape=FeedShape())


def events_of(schedule: Schedule, *kinds: Act) -> list[UserEvent]:
    records = (*schedule.history, *schedule.summer)
    found = [record for record in records if isinstance(record, UserEvent)]
    return [event for event in found if not kinds or event.kind in kinds]


# ---- the feed --------------------------------------------------------------------------------


def test_every_rating_is_sent_and_adds_to_a_history_once(schedule):
    sent = events_of(schedule, *NEW_ACTS)

    assert Counter((e.user_id, e.item_id, e.occurred_ms, e.rating) for e in sent) == Counter(
        (r.user_id, r.item_id, r.at_ms, r.rating) for r in schedule.ratings
    )
    assert len({event.event_id for event in sent}) == len(sent)


def test_the_history_is_what_happened_before_the_summer_in_order(schedule):
    times = [event.at_ms for event in schedule.history]

    assert times == sorted(times)
    assert times[-1] < T0
    assert len(times) == 39_301


def test_duplicates_repeat_what_was_sent_and_late_ones_come_hours_later(schedule):
    first = {event.event_id: event for event in events_of(schedule, *NEW_ACTS)}
    duplicates = events_of(schedule, Act.DUPLICATE)
    late = events_of(schedule, Act.LATE)

    assert len(duplicates) == len(late) == 200
    assert all(e.at_ms >= first[e.event_id].at_ms for e in duplicates)
    assert all(e.occurred_ms == first[e.event_id].occurred_ms for e in duplicates)
    assert sum(e.at_ms - e.occurred_ms >= HOUR_MS for e in late) > 190


def test_erased_users_rate_nothing_afterwards_but_for_a_ghost_from_before(schedule):
    erasures = {event.user_id: event for event in events_of(schedule, Act.ERASURE)}
    ghosts = {event.user_id: event for event in events_of(schedule, Act.GHOST)}

    assert len(erasures) == 2
    assert schedule.erased == set(erasures) == set(ghosts)
    for event in events_of(schedule, Act.RATING, Act.LATE, Act.DUPLICATE):
        if event.user_id in erasures:
            assert event.at_ms < erasures[event.user_id].at_ms
    for user, ghost in ghosts.items():
        assert ghost.occurred_ms < erasures[user].at_ms < ghost.at_ms


@pytest.mark.parametrize(
    "record", broken_behaviour(["7", "8"], range(BEHAVIOUR_MISTAKES)), ids=lambda one: one.reason
)
def test_every_broken_behaviour_record_is_refused_for_its_own_reason(record: BrokenRecord):
    with pytest.raises(InvalidInput) as refusal:
        decode_behaviour(
            record.key,
            record.value,
            record.headers,
            timestamp_ms=START_MS,
            now_ms=START_MS,
            limits=BehaviourSettings().limits,
        )

    assert refusal.value.reason is record.reason
    assert record.topic is Topic.USER_BEHAVIOUR


# ---- what is asked of users ------------------------------------------------------------------


def a_rating(user: str, item: str, at_ms: int, rating: int = 9) -> UserEvent:
    return UserEvent(at_ms, at_ms, Act.RATING, user, item, rating)


def a_schedule(
    history: Sequence[UserEvent] = (),
    summer: Sequence[UserEvent] = (),
    released: Sequence[str] = (),
    removed: Sequence[str] = (),
    erased: Sequence[str] = (),
) -> Schedule:
    ratings = [
        Rating(event.at_ms, event.user_id, event.item_id, event.rating)
        for event in (*history, *summer)
        if event.kind in NEW_ACTS
    ]
    return Schedule(
        back_catalogue=(),
        history=tuple(history),
        summer=tuple(summer),
        released_ms=dict.fromkeys(released, T0),
        removed=frozenset(removed),
        erased=frozenset(erased),
        ratings=tuple(ratings),
    )


def test_a_query_is_a_liked_new_film_of_a_user_with_five_likes():
    likes = [a_rating("old", f"tt{n}", T0 - DAY_MS + n) for n in range(5)]
    liked, disliked = a_rating("old", "new", T0), a_rating("old", "new2", T0 + 1, rating=3)
    stranger = a_rating("stranger", "new", T0)

    asked = UserQuestions.of(a_schedule(likes, [liked, disliked, stranger], ["new", "new2"]))

    assert asked.queries == {("old", "new")}
    assert asked.new_users == {"stranger"}
    assert asked.asks_before(liked, 5)
    assert not asked.asks_before(disliked, 6)
    assert not asked.asks_before(stranger, 0)


def test_a_new_user_is_looked_at_after_one_two_five_and_ten_events_if_a_like_follows():
    stars = [9, 3, 3, 8, 8, 8, 2, 2, 2, 2, 2, 2]
    events = [a_rating("u", f"tt{n}", T0 + n, one) for n, one in enumerate(stars)]

    asked = UserQuestions.of(a_schedule([], events))

    assert asked.first_steps == {
        ("u", 1): NextLike("tt3", T0 + 3),
        ("u", 2): NextLike("tt3", T0 + 3),
        ("u", 5): NextLike("tt5", T0 + 5),
    }
    assert [n for n, event in enumerate(events) if asked.asks_before(event, n)] == [1, 2, 5]


# ---- what waits for what ---------------------------------------------------------------------


@dataclass
class FakeVectors:
    """A LiveVectors of users: the event time that each one's vector shows."""

    shown_ms: dict[str, int] = field(default_factory=dict)
    looks: int = 0
    broken: bool = False

    @contextmanager
    def pin(self) -> Iterator[Self]:
        yield self

    def get(self, keys: Sequence[str]) -> Vectors:
        self.looks += 1
        if self.broken:
            raise Transient("redis", "away")
        times = [self.shown_ms.get(key.removeprefix("user:"), -1) for key in keys]
        n = len(keys)
        return Vectors(
            space="s",
            values=np.array([[1.0, time] for time in times]),
            found=np.array([time >= 0 for time in times]),
            stages=np.ones(n, np.uint8),
            content_versions=np.zeros(n, np.int64),
            factors_versions=np.full(n, -1),
            revs=np.zeros(n, np.int64),
            event_times_ms=np.array(times),
            written_at_ms=np.zeros(n, np.int64),
            ages_ms=np.zeros(n, np.int64),
        )


@dataclass
class World:
    """A replay whose clock, vectors and films a test moves."""

    asked: UserQuestions
    vectors: FakeVectors = field(default_factory=FakeVectors)
    live: set[str] = field(default_factory=set)
    sent: list[UserEvent] = field(default_factory=list)
    now: float = 100.0

    def __post_init__(self) -> None:
        self.replay = UserReplay(
            self.sent.append,
            self.vectors,
            self.live.__contains__,
            self.asked,
            clock=lambda: self.now,
        )

    def pump_after(self, seconds: float) -> None:
        self.now += seconds
        self.replay.pump()


LIKES = [a_rating("u", f"tt{n}", T0 - DAY_MS + n) for n in range(5)]
QUERY = a_rating("u", "new", T0 + 1)
AFTER = a_rating("u", "tt9", T0 + 2)
OTHER = a_rating("v", "tt1", T0 + 3)


def a_world(*summer: UserEvent) -> World:
    schedule = a_schedule(LIKES, summer or (QUERY, AFTER, OTHER), ["new"])
    world = World(UserQuestions.of(schedule), live={"new"})
    world.replay.known(schedule.history)
    return world


def test_a_rating_waits_for_the_vector_of_those_before_it_and_others_do_not():
    world = a_world()
    for event in (QUERY, AFTER, OTHER):
        world.replay.take(event)
    world.vectors.shown_ms["u"] = LIKES[-2].at_ms
    world.pump_after(0.1)
    assert world.sent == [OTHER]

    world.vectors.shown_ms["u"] = LIKES[-1].at_ms
    world.pump_after(0.1)

    assert world.sent == [OTHER, QUERY, AFTER]
    assert world.replay.held == 0
    readings = world.replay.readings
    assert readings.of_queries["u", "new"].tolist() == [1.0, LIKES[-1].at_ms]
    assert readings.lacking == [0]
    assert readings.held_ms == [pytest.approx(100)]


def test_a_rating_waits_for_so_long_at_most_and_what_the_vector_lacked_is_counted():
    world = a_world()
    world.replay.take(QUERY)
    world.vectors.shown_ms["u"] = LIKES[-3].at_ms
    world.pump_after(0.1)

    world.pump_after(PATIENCE_SECONDS)

    assert world.sent == [QUERY]
    assert world.replay.readings.lacking == [2]
    assert ("u", "new") in world.replay.readings.of_queries


def test_without_a_vector_nothing_is_read_and_the_rating_is_sent_nevertheless():
    world = a_world()
    world.vectors.broken = True
    world.replay.take(QUERY)
    world.pump_after(0.1)

    world.pump_after(PATIENCE_SECONDS)

    assert world.sent == [QUERY]
    assert world.replay.readings.of_queries == {}
    assert world.replay.readings.lacking == [5]


def test_a_rating_waits_until_its_film_is_live_but_not_for_ever():
    world = a_world()
    world.live.clear()
    early, later = a_rating("w", "new", T0 + 4, 5), a_rating("x", "new", T0 + 4, 5)
    world.replay.take(early)
    world.pump_after(1.0)
    assert world.sent == []

    world.live.add("new")
    world.pump_after(0.1)
    assert world.sent == [early]
    world.live.clear()
    world.replay.take(later)
    world.pump_after(FILM_PATIENCE_SECONDS)

    assert world.sent == [early, later]


def test_nothing_waits_any_more_once_patience_is_lost():
    world = a_world()
    world.live.clear()
    world.replay.take(QUERY)

    world.replay.lose_patience()
    world.pump_after(0.1)

    assert world.sent == [QUERY]


def test_after_many_waits_in_vain_nobody_is_waited_for():
    likes = [a_rating(f"u{n}", f"tt{k}", T0 - DAY_MS + k) for n in range(30) for k in range(5)]
    queries = [a_rating(f"u{n}", "new", T0 + n) for n in range(30)]
    schedule = a_schedule(likes, queries, ["new"])
    world = World(UserQuestions.of(schedule), live={"new"})
    world.replay.known(schedule.history)
    for event in queries[:20]:
        world.replay.take(event)
    world.pump_after(0.1)
    world.pump_after(PATIENCE_SECONDS)

    for event in queries[20:]:
        world.replay.take(event)
    world.pump_after(0.1)

    assert world.sent == queries


def test_a_duplicate_is_not_a_question_and_waits_only_behind_its_user():
    world = a_world()
    again = UserEvent(T0 + 9, QUERY.occurred_ms, Act.DUPLICATE, "u", "new", 9)

    world.replay.take(again)

    assert world.sent == [again]
    assert world.vectors.looks == 0


def test_a_new_user_is_read_after_exactly_so_many_events():
    events = [a_rating("n", f"tt{n}", T0 + n) for n in range(3)]
    world = a_world(*events)
    for event in events:
        world.replay.take(event)
    for event in events[:2]:
        world.vectors.shown_ms["n"] = event.at_ms
        world.pump_after(0.1)

    assert world.sent == events
    read = world.replay.readings.of_first_steps
    assert {step: vector[1] for step, vector in read.items()} == {
        ("n", 1): events[0].at_ms,
        ("n", 2): events[1].at_ms,
    }


def test_an_audience_is_read_once_before_the_first_rating_of_its_film():
    fans = [a_rating(f"u{n}", "new", T0 + n) for n in range(11)]
    likes = [a_rating(f"u{n}", f"tt{k}", T0 - DAY_MS + k) for n in range(12) for k in range(5)]
    schedule = a_schedule(likes, fans, ["new"])
    world = World(UserQuestions.of(schedule), live={"new"})
    world.replay.known(schedule.history)
    world.vectors.shown_ms |= {"u0": 1, "u11": 2}

    for event in fans:
        world.replay.take(event)

    assert world.vectors.looks == 1
    assert set(world.replay.readings.of_audiences["new"]) == {"u0", "u11"}


def test_a_new_user_counts_as_rankable_when_the_vector_is_first_seen():
    vectors = FakeVectors()
    with NewUsers(vectors) as users:
        users.expect("u", 0.0)
        users.expect("u", 9e15)
        wait_until_blocking(lambda: vectors.looks > 1)
        assert users.rankable_ms == ()

        vectors.shown_ms["u"] = T0
        wait_until_blocking(lambda: not users.pending)

    assert len(users.rankable_ms) == 1
    assert users.rankable_ms[0] > 1e9


# ---- what is made of it ----------------------------------------------------------------------


def test_the_next_like_is_ranked_among_the_films_that_are_live_by_then():
    films = RegimeVectors(
        [f"tt{n}" for n in range(150)] + ["late"],
        np.array([[1.0, n / 150] for n in range(150)] + [[1.0, 0.0]], np.float32),
        np.array([0] * 150 + [T0 + 5], np.int64),
    )
    asked = UserQuestions(
        queries=frozenset(),
        audiences={},
        new_users=frozenset("abcd"),
        first_steps={
            ("a", 1): NextLike("tt10", T0),
            ("b", 1): NextLike("tt149", T0),
            ("c", 1): NextLike("late", T0),
            ("d", 1): NextLike("tt0", T0),
            ("a", 2): NextLike("late", T0 + 5),
        },
        new_films=frozenset(),
    )
    towards_tt0 = np.array([1.0, 0.0], np.float32)
    readings = UserReadings(
        of_first_steps={("a", 1): towards_tt0, ("b", 1): towards_tt0, ("c", 1): towards_tt0}
        | {("a", 2): towards_tt0},
        lacking=[0, 2],
        held_ms=[0.0, 30.0],
    )

    found = user_figures(asked, readings, [10.0], films)

    # b's film is too far away, c's not live yet, and nothing was read of d.
    assert (found.hr100_after[1].n, found.hr100_after[1].hr100) == (4, 0.25)
    assert (found.hr100_after[2].n, found.hr100_after[2].hr100) == (1, 1.0)
    assert found.hr100_after[5].hr100 is None
    assert (found.new, found.read, found.stale, found.waited) == (4, 2, 1, 1)
    assert found.longest_wait_ms == 30.0


def test_a_user_without_a_vector_or_with_an_old_one_is_not_accounted_for():
    history = [a_rating("old", "tt1", T0 - 2), a_rating("none", "tt1", T0 - 2)]
    summer = [
        a_rating("old", "tt2", T0 + 2),
        a_rating("new", "tt2", T0 + 3),
        a_rating("gone", "tt3", T0 + 3),
        a_rating("erased", "tt1", T0 + 3),
    ]
    vectors = FakeVectors({"old": T0 - 2, "new": T0 + 3, "erased": T0 + 3})

    found = users_unaccounted(
        a_schedule(history, summer, removed=["tt3"], erased=["erased"]), vectors
    )

    assert found == [
        "user none has no vector",
        f"user old: the vector is of {T0 - 2}, the newest event of {T0 + 2}",
        "user erased was erased and has a vector",
    ]
