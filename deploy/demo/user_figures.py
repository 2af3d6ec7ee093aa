"""What is told of users: how soon new ones are rankable, and how well so many events on. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from deploy.demo.user_questions import EVENTS_KNOWN, NextLike, UserQuestions
from deploy.demo.user_replay import UserReadings
from deploy.demo.watch import Vector
from workers.evaluation.cold_start import RegimeVectors
from workers.evaluation.ranking import mid_ranks

_FIRST = 100


@dataclass(frozen=True, slots=True)
class HitRate:
    """The share of `n` users whose next liked film was among the first 100; None for none."""

    n: int
    hr100: float | None


@dataclass(frozen=True, slots=True)
class UserFigures:
    """`rankable_ms` of each new user who became rankable, `hr100_after` by number of events.

    `read` counts the vectors read before a rating, `stale` those of them that lacked an event of
    their user, `waited` the ratings that waited for it, for `longest_wait_ms` at most.
    """

    new: int
    rankable_ms: Sequence[float]
    hr100_after: Mapping[int, HitRate]
    read: int
    stale: int
    waited: int
    longest_wait_ms: float


def user_figures(
    asked: UserQuestions,
    readings: UserReadings,
    rankable_ms: Sequence[float],
    live: RegimeVectors,
) -> UserFigures:
    """Return the figures; `live` holds the films as they became live."""
    return UserFigures(
        new=len(asked.new_users),
        rankable_ms=rankable_ms,
        hr100_after={
            known: _hit_rate(
                {user: like for (user, steps), like in asked.first_steps.items() if steps == known},
                {user: v for (user, steps), v in readings.of_first_steps.items() if steps == known},
                live,
            )
            for known in EVENTS_KNOWN
        },
        read=len(readings.lacking),
        stale=sum(lacking > 0 for lacking in readings.lacking),
        waited=sum(held > 0 for held in readings.held_ms),
        longest_wait_ms=max(readings.held_ms, default=0.0),
    )


def _hit_rate(
    likes: Mapping[str, NextLike], vectors: Mapping[str, Vector], live: RegimeVectors
) -> HitRate:
    """Return the share of likes that were ranked high; without either vector there is no hit."""
    place = {key: index for index, key in enumerate(live.keys)}
    ranked = live.ranked
    hits = 0
    for user, like in likes.items():
        open_ = live.available_at_ms <= like.at_ms
        target = place.get(like.item_id)
        if user not in vectors or target is None or not open_[target]:
            continue
        scores = np.where(open_, ranked @ vectors[user].astype(np.float32), -np.inf)[None, :]
        hits += int(mid_ranks(scores, np.array([target]))[0] <= _FIRST)
    return HitRate(len(likes), hits / len(likes) if likes else None)
