"""What happens to the films of a season besides being released, drawn from a seed. Pure.

Vote counts every night, corrected titles, bursts of edits to one film, removals, and records that
come again: what a real catalogue feed has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from random import Random
from typing import Self

from deploy.demo.broken import MISTAKES
from deploy.demo.broken_behaviour import BEHAVIOUR_MISTAKES
from deploy.demo.films import SUMMER_STARTS_MS, Film, Rating, Season
from schemas.fingerprints import Json

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
NIGHT_MS = 3 * HOUR_MS
"""Vote counts are sent at three in the night."""

SHORTEST_CAST = 40
"""Characters: the cast of a film that is edited in a burst must be worth that many keystrokes."""


class Kind(StrEnum):
    """Why an event is in the feed."""

    CATALOG = "catalog"  # a film of the back catalogue
    RELEASE = "release"  # a new film
    VOTES = "votes"  # a vote count: says nothing about the film, so it must cost no call
    CORRECTION = "correction"  # of a misspelt title
    EDIT = "edit"  # one of a burst; the last one settles
    DUPLICATE = "duplicate"  # what was sent last, again
    LATE = "late"  # what was sent before that, again
    REMOVAL = "removal"


@dataclass(frozen=True, slots=True)
class FeedShape:
    """How much of what a real feed has besides releases and ratings; counts are for the season."""

    votes_share: float = 0.08
    corrections: int = 24
    bursts: int = 4
    edits_a_burst: int = 30
    duplicates: int = 60
    late: int = 20
    removals: int = 8
    broken: int = 2 * MISTAKES
    repeated_ratings: int = 200
    late_ratings: int = 200
    erasures: int = 2
    broken_behaviour: int = BEHAVIOUR_MISTAKES

    def scaled(self, share: float) -> Self:
        """Return the shape for a share of the films; of everything at least one is left."""

        def part(count: int) -> int:
            return max(1, round(count * share))

        return replace(
            self,
            corrections=max(2, part(self.corrections)),
            bursts=part(self.bursts),
            duplicates=part(self.duplicates),
            late=part(self.late),
            removals=part(self.removals),
            broken=max(4, part(self.broken)),
            repeated_ratings=part(self.repeated_ratings),
            late_ratings=part(self.late_ratings),
            erasures=part(self.erasures),
            broken_behaviour=max(3, part(self.broken_behaviour)),
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done to a film at a time; `fields` are changes to its present ones."""

    at_ms: int
    kind: Kind
    item_id: str
    changes: Mapping[str, Json] = field(default_factory=dict)
    is_news: bool = False


@dataclass(frozen=True, slots=True)
class Plans:
    """All plans, in no order, and how films are first announced where that differs later."""

    plans: tuple[Plan, ...]
    first_fields: Mapping[str, Mapping[str, Json]]


def draw_plans(season: Season, rng: Random, shape: FeedShape) -> Plans:
    """Return what happens to the films of a season: the same for the same seed."""
    ends_ms = season.ratings[-1].at_ms
    draw = _Draw(rng, season, ends_ms)
    removals = draw.removals(shape.removals)
    corrections = draw.corrections(shape.corrections)
    bursts = draw.bursts(shape.bursts, shape.edits_a_burst)
    once = [
        *removals,
        *corrections,
        *bursts,
        *_vote_counts(rng, season.ratings, {p.item_id: p.at_ms for p in removals}, shape),
    ]
    titles = {film.item_id: film.title for film in season.films}
    first_fields: dict[str, Mapping[str, Json]] = {
        **{plan.item_id: {"title": _misspelt(titles[plan.item_id])} for plan in corrections},
        **{plan.item_id: {"actors": []} for plan in bursts},
    }
    return Plans((*once, *_repetitions(rng, once, shape, ends_ms)), first_fields)


class _Draw:
    """Draws the films that something happens to, no film twice."""

    def __init__(self, rng: Random, season: Season, ends_ms: int) -> None:
        new = season.new_films()
        self._rng = rng
        self._ends_ms = ends_ms
        self._first_ms = season.first_rated_ms()
        self._last_ms = season.last_rated_ms()
        self._new = [film for film in season.films if film.item_id in new]
        self._old = [film for film in season.films if film.item_id not in new]
        self._taken: set[str] = set()

    def removals(self, count: int) -> list[Plan]:
        """Films of the back catalogue that nobody rates any more, the earliest such."""
        quiet = sorted(self._old, key=lambda film: (self._last_ms[film.item_id], film.item_id))
        plans = []
        for film in quiet[:count]:
            after_ms = max(self._last_ms[film.item_id], SUMMER_STARTS_MS)
            at_ms = after_ms + self._rng.randrange(HOUR_MS, 3 * DAY_MS)
            if at_ms < self._ends_ms:
                plans.append(Plan(at_ms, Kind.REMOVAL, film.item_id, is_news=True))
        self._taken |= {plan.item_id for plan in plans}
        return plans

    def corrections(self, count: int) -> list[Plan]:
        """Half of them of new films, a few hours to days after their release."""
        fresh = self._sample(self._new, (count + 1) // 2)
        older = self._sample(self._old, count // 2)
        return [
            Plan(self._later(film), Kind.CORRECTION, film.item_id, {"title": film.title}, True)
            for film in (*fresh, *older)
        ]

    def bursts(self, count: int, edits: int) -> list[Plan]:
        """Somebody types the cast of a film, and every keystroke or two is saved."""
        plans = []
        for index in range(count):
            pool = (self._new, self._old)[index % 2]
            for film in self._sample([f for f in pool if _cast_length(f) >= SHORTEST_CAST], 1):
                starts_ms = self._later(film)
                plans += [
                    Plan(
                        starts_ms + step * 700,
                        Kind.EDIT,
                        film.item_id,
                        {"actors": _typed(film.actors, (step + 1) / edits)},
                        is_news=step == edits - 1,
                    )
                    for step in range(edits)
                ]
        return plans

    def _sample(self, pool: Sequence[Film], count: int) -> list[Film]:
        free = [film for film in pool if film.item_id not in self._taken]
        drawn = self._rng.sample(free, min(count, len(free)))
        self._taken |= {film.item_id for film in drawn}
        return drawn

    def _later(self, film: Film) -> int:
        since_ms = max(self._first_ms[film.item_id], SUMMER_STARTS_MS)
        soonest_ms = since_ms + 3 * HOUR_MS
        return min(soonest_ms + self._rng.randrange(4 * DAY_MS), self._ends_ms)


def _cast_length(film: Film) -> int:
    return len(", ".join(film.actors))


def _typed(actors: Sequence[str], share: float) -> list[Json]:
    """Return the cast as far as it is typed: names separated by commas, the last one unfinished."""
    text = ", ".join(actors)
    names = text[: round(len(text) * share)].split(", ")
    return [name for name in names if name]


def _misspelt(title: str) -> str:
    """Return the title with the first two different neighbouring letters swapped."""
    for index in range(1, len(title) - 1):
        left, right = title[index], title[index + 1]
        if left != right and left.isalpha() and right.isalpha():
            return title[:index] + right + left + title[index + 2 :]
    return title + " (untitled)"


def _vote_counts(
    rng: Random, ratings: Sequence[Rating], removed_ms: Mapping[str, int], shape: FeedShape
) -> list[Plan]:
    """Return the nightly counts: of a share of the films that were rated since the night before."""
    totals: dict[str, int] = {}
    rated_by_night: dict[int, set[str]] = {}
    totals_by_night: dict[tuple[int, str], int] = {}
    for rating in ratings:
        totals[rating.item_id] = totals.get(rating.item_id, 0) + 1
        if rating.at_ms >= SUMMER_STARTS_MS:
            night = (rating.at_ms - NIGHT_MS) // DAY_MS + 1
            rated_by_night.setdefault(night, set()).add(rating.item_id)
            totals_by_night[night, rating.item_id] = totals[rating.item_id]
    plans = []
    for night, rated in sorted(rated_by_night.items()):
        at_ms = night * DAY_MS + NIGHT_MS
        count = max(1, round(shape.votes_share * len(rated)))
        plans += [
            Plan(at_ms, Kind.VOTES, item_id, {"votes": totals_by_night[night, item_id]})
            for item_id in rng.sample(sorted(rated), count)
            if at_ms < removed_ms.get(item_id, at_ms + 1)
        ]
    return plans


def _repetitions(rng: Random, plans: Sequence[Plan], shape: FeedShape, ends_ms: int) -> list[Plan]:
    """Return records that come again: soon after themselves, or late, after newer ones.

    Every removed film is among the late ones: its old record must not bring it back.
    """

    def repeated(plan: Plan, kind: Kind, soonest_ms: int, latest_ms: int) -> Plan:
        at_ms = plan.at_ms + rng.randrange(soonest_ms, latest_ms)
        return Plan(min(at_ms, ends_ms), kind, plan.item_id)

    drawn = rng.sample(plans, min(len(plans), shape.duplicates))
    removed = [plan for plan in plans if plan.kind is Kind.REMOVAL]
    others = [plan for plan in plans if plan.kind in (Kind.CORRECTION, Kind.VOTES)]
    outrun = [*removed, *rng.sample(others, min(len(others), shape.late))]
    return [
        *(repeated(plan, Kind.DUPLICATE, 1_000, HOUR_MS) for plan in drawn),
        *(repeated(plan, Kind.LATE, HOUR_MS, DAY_MS) for plan in outrun),
    ]
