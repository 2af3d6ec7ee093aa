"""The feed of the demo: which event is sent when, from films, ratings and a seed. Pure.

First the back catalogue and the ratings until then, then the summer in event time: new releases one
hour before their first rating, whatever else happens to films (plans.py), and what users do
(user_plans.py). Versions grow per film by one with every event, in the order of the feed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TypeAlias

from deploy.demo.broken import BrokenRecord, broken_records
from deploy.demo.broken_behaviour import broken_behaviour
from deploy.demo.films import SUMMER_STARTS_MS, Film, Rating, Season
from deploy.demo.plans import HOUR_MS, FeedShape, Kind, Plan, draw_plans
from deploy.demo.user_plans import UserEvent, draw_user_feed
from schemas.fingerprints import Json


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """One catalogue event; `fields` None removes the film.

    `at_ms` is its event time. `is_news` tells whether rankers must come to see this very version
    or a newer one: not so for what says nothing new, is old, or is about to be edited again.
    """

    at_ms: int
    kind: Kind
    item_id: str
    version: int
    fields: Mapping[str, Json] | None
    is_news: bool


SummerRecord: TypeAlias = FeedEvent | UserEvent | BrokenRecord


@dataclass(frozen=True, slots=True)
class Schedule:
    """The whole feed in order, and what it is about; `history` holds the ratings before it.

    `released_ms` tells when each new film was announced, `removed` names films, `erased` users.
    """

    back_catalogue: tuple[FeedEvent, ...]
    history: tuple[UserEvent, ...]
    summer: tuple[SummerRecord, ...]
    released_ms: Mapping[str, int]
    removed: frozenset[str]
    erased: frozenset[str]
    ratings: tuple[Rating, ...]

    @property
    def events(self) -> int:
        """How many events are sent."""
        return len(self.back_catalogue) + len(self.history) + len(self.summer)

    @property
    def newest_release(self) -> str:
        """The film that was announced last."""
        return max(self.released_ms, key=lambda item_id: self.released_ms[item_id])


def build_schedule(season: Season, *, seed: int, shape: FeedShape) -> Schedule:
    """Return the feed of a season: the same for the same seed."""
    rng = Random(seed)
    ends_ms = season.ratings[-1].at_ms
    released = {
        item_id: at_ms - HOUR_MS
        for item_id, at_ms in season.first_rated_ms().items()
        if at_ms >= SUMMER_STARTS_MS
    }
    drawn = draw_plans(season, rng, shape)
    releases = [
        Plan(at_ms, Kind.RELEASE, item_id, is_news=True) for item_id, at_ms in released.items()
    ]
    feed = _Feed(season, drawn.first_fields)
    back_catalogue = [
        feed.event(Plan(SUMMER_STARTS_MS, Kind.CATALOG, film.item_id, is_news=True))
        for film in season.films
        if film.item_id not in released
    ]
    in_order = sorted((*releases, *drawn.plans), key=lambda plan: (plan.at_ms, plan.item_id))
    broken = broken_records(
        [film.item_id for film in rng.sample(season.films, min(len(season.films), shape.broken))],
        [rng.randrange(SUMMER_STARTS_MS, ends_ms) for _ in range(shape.broken)],
    )
    # Drawn apart: how many films are corrected says nothing about what users do.
    rng = Random(seed + 1)
    users = draw_user_feed(season.ratings, rng, shape)
    broken += broken_behaviour(
        [rating.user_id for rating in rng.choices(season.ratings, k=shape.broken_behaviour)],
        [rng.randrange(SUMMER_STARTS_MS, ends_ms) for _ in range(shape.broken_behaviour)],
    )
    summer: list[SummerRecord] = [*feed.events(in_order), *users.summer, *broken]
    return Schedule(
        back_catalogue=tuple(back_catalogue),
        history=users.history,
        summer=tuple(sorted(summer, key=lambda record: record.at_ms)),
        released_ms=released,
        erased=users.erased,
        removed=frozenset(plan.item_id for plan in drawn.plans if plan.kind is Kind.REMOVAL),
        ratings=season.ratings,
    )


class _Feed:
    """Turns plans in time order into events, giving each film its versions."""

    def __init__(self, season: Season, first_fields: Mapping[str, Mapping[str, Json]]) -> None:
        self._films: dict[str, Film] = {film.item_id: film for film in season.films}
        self._first_fields = first_fields
        self._votes = _votes_before(season.ratings)
        self._sent: dict[str, list[FeedEvent]] = {}

    def events(self, plans: Iterable[Plan]) -> list[FeedEvent]:
        """Return the events of plans that are in time order."""
        return [self.event(plan) for plan in plans if self._makes_sense(plan)]

    def event(self, plan: Plan) -> FeedEvent:
        """Return the event of one plan."""
        sent = self._sent.setdefault(plan.item_id, [])
        if plan.kind is Kind.DUPLICATE:
            return replace(sent[-1], at_ms=plan.at_ms, kind=Kind.DUPLICATE, is_news=False)
        if plan.kind is Kind.LATE:
            return replace(sent[-2], at_ms=plan.at_ms, kind=Kind.LATE, is_news=False)
        event = FeedEvent(
            at_ms=plan.at_ms,
            kind=plan.kind,
            item_id=plan.item_id,
            version=len(sent) + 1,
            fields=None if plan.kind is Kind.REMOVAL else self._fields(plan, sent),
            is_news=plan.is_news,
        )
        sent.append(event)
        return event

    def _makes_sense(self, plan: Plan) -> bool:
        sent = len(self._sent.get(plan.item_id, ()))
        match plan.kind:
            case Kind.RELEASE | Kind.CATALOG:
                return sent == 0
            case Kind.LATE:
                return sent >= 2
            case _:
                return sent >= 1

    def _fields(self, plan: Plan, sent: Sequence[FeedEvent]) -> dict[str, Json]:
        if sent and sent[-1].fields is not None:
            return {**sent[-1].fields, **plan.changes}
        return {
            **self._films[plan.item_id].fields,
            "votes": self._votes.get(plan.item_id, 0),
            **self._first_fields.get(plan.item_id, {}),
            **plan.changes,
        }


def _votes_before(ratings: Iterable[Rating]) -> dict[str, int]:
    votes: dict[str, int] = {}
    for rating in ratings:
        if rating.at_ms < SUMMER_STARTS_MS:
            votes[rating.item_id] = votes.get(rating.item_id, 0) + 1
    return votes
