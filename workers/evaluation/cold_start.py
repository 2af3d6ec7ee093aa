"""Cold-start replay: how well are new items ranked the moment a user picks them? Pure numpy.

A *query* is a liked rating of a new item by a user with enough earlier likes. At that instant the
user is the mean of the vectors of the items liked before (those that have one by then), or the
vector that was read of the user then; and the item is ranked by the space's metric among the
candidates: all items live in that regime at that instant but for those that the user had rated
before. Nothing that happens later is looked at.

- `missed`: share of queries where the item (or the whole history) has no vector yet.
- `hr20`, `hr100`: share of all queries with the item among the first 20 or 100; a miss is no hit.
- `percentile`: mean over all queries of the share of other candidates ranked behind the item (1 is
  first, .5 is chance); a miss is 0.
- `audience_auc`: does the item's vector tell its later fans from other users? Taken at the item's
  first rating, over the users with enough likes by then; fans are those who come to like it. Macro
  average over the items with enough fans; an item that never gets a vector tells nothing: .5.

Ties count half everywhere, so equal vectors earn nothing.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self, TypeAlias

import numpy as np
import numpy.typing as npt

from workers.adaptors.adaptor import unit_rows
from workers.evaluation.ranking import auc, mid_ranks
from workers.evaluation.rating_replay import (
    DEFAULT_RULES,
    Ints,
    Questions,
    RatingReplay,
    RatingTable,
    Rules,
    questions,
)
from workers.evaluation.retrieval import Metric

__all__ = [
    "ColdStartFigures",
    "Questions",
    "RatingTable",
    "RegimeVectors",
    "Rules",
    "UserVectors",
    "cold_start",
    "questions",
]

Floats: TypeAlias = npt.NDArray[np.float64]

_QUERIES_AT_ONCE = 512
_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class RegimeVectors:
    """The vectors of one regime: `values` (n, d), each live from its event time in ms.

    By dot product an item's length counts; a user's never does.
    """

    keys: Sequence[str]
    values: npt.NDArray[np.floating]
    available_at_ms: Ints
    metric: Metric = "cosine"

    @property
    def ranked(self) -> npt.NDArray[np.float32]:
        """(n, d): what is multiplied with a user's direction."""
        values = np.asarray(self.values, np.float32)
        return values if self.metric == "dot" else unit_rows(values)


@dataclass(frozen=True, slots=True)
class UserVectors:
    """The answers: (d,) of the user of each query (user, item), and by item of each audience.

    A user of whom nothing was read has no vector: a query is a miss, a fan is told from nobody.
    """

    of_queries: Mapping[tuple[str, str], npt.NDArray[np.floating]]
    of_audiences: Mapping[str, Mapping[str, npt.NDArray[np.floating]]]


@dataclass(frozen=True, slots=True)
class ColdStartFigures:
    """What a regime earned; None where there was nothing to average. See the module's text."""

    n: int
    missed: float | None
    hr20: float | None
    hr100: float | None
    percentile: float | None
    audience_auc: float | None


def cold_start(
    ratings: RatingTable,
    new_items: Collection[str],
    vectors: Mapping[str, RegimeVectors],
    rules: Rules = DEFAULT_RULES,
    users: Mapping[str, UserVectors] = MappingProxyType({}),
) -> dict[str, ColdStartFigures]:
    """Return the figures of each regime; the same queries and audiences for all of them.

    A regime in `users` takes its users from there, the others from the means of their histories.
    Raises ValueError on arrays that do not fit one another or on a repeated key.
    """
    replay = RatingReplay.of(ratings, new_items, rules)
    return {
        regime: _figures(replay, _Live.of(live, replay.items), rules, users.get(regime))
        for regime, live in vectors.items()
    }


@dataclass(frozen=True, slots=True)
class _Live:
    """A regime's vectors by the replay's item numbers; items without one are never available.

    Vectors of items that nobody rated follow after the rated ones: they are candidates too.
    """

    values: npt.NDArray[np.float32]
    ranked: npt.NDArray[np.float32]
    available: Ints

    @classmethod
    def of(cls, live: RegimeVectors, items: Mapping[str, int]) -> Self:
        if not len(live.keys) == len(live.values) == len(live.available_at_ms):
            raise ValueError(
                f"{len(live.keys)} keys, {len(live.values)} vectors, "
                f"{len(live.available_at_ms)} times"
            )
        if len(set(live.keys)) != len(live.keys):
            raise ValueError("a key has two vectors")
        unrated = (key for key in live.keys if key not in items)
        rows = {**items, **{key: len(items) + extra for extra, key in enumerate(unrated)}}
        places = [rows[key] for key in live.keys]
        values = np.zeros((len(rows), live.values.shape[1]), np.float32)
        values[places] = live.values
        ranked = np.zeros_like(values)
        ranked[places] = live.ranked
        available = np.full(len(rows), _NEVER)
        available[places] = live.available_at_ms
        return cls(values, ranked, available)


def _figures(
    replay: RatingReplay, live: _Live, rules: Rules, read: UserVectors | None
) -> ColdStartFigures:
    users, scores = _histories(replay, live) if read is None else _as_read(replay, live, read)
    ranks, candidates = _ranks(replay, live, users, rules)
    n = len(ranks)
    found = np.isfinite(ranks)
    behind = np.where(found, (candidates - ranks) / np.maximum(candidates - 1, 1), 0.0)
    areas = [
        auc(scores[index, audience.users], audience.fans)
        for index, audience in enumerate(replay.audiences)
    ]
    return ColdStartFigures(
        n=n,
        missed=float(1 - found.mean()) if n else None,
        hr20=float((ranks <= 20).mean()) if n else None,
        hr100=float((ranks <= 100).mean()) if n else None,
        percentile=float(behind.mean()) if n else None,
        audience_auc=float(np.mean(areas)) if areas else None,
    )


def _histories(replay: RatingReplay, live: _Live) -> tuple[npt.NDArray[np.float32], Floats]:
    """Return the user's direction at each query (q, d), and each audience's scores (items, users).

    Sums instead of means: cosine does not tell them apart. A like counts from the later of the
    moment after it and its item's vector, so running sums in that order hold every moment.
    """
    directions = np.zeros((len(replay.queries), live.values.shape[1]), np.float32)
    scores = np.zeros((len(replay.audiences), replay.users))
    query_at = np.full(len(replay.user), -1)
    query_at[replay.queries] = np.arange(len(replay.queries))
    births = np.array([audience.at_ms for audience in replay.audiences], np.int64)
    borns = live.ranked[[audience.item for audience in replay.audiences]]
    for user in range(replay.users):
        rows = replay.rows_of(user)
        likes = rows[replay.liked[rows]]
        since = np.maximum(replay.at_ms[likes] + 1, live.available[replay.item[likes]])
        order = np.argsort(since, kind="stable")
        order = order[since[order] != _NEVER]
        since = since[order]
        sums = np.zeros((len(order) + 1, live.values.shape[1]), np.float32)
        np.cumsum(live.values[replay.item[likes[order]]], axis=0, out=sums[1:])
        asked = rows[query_at[rows] >= 0]
        upto = np.searchsorted(since, replay.at_ms[asked], side="right")
        directions[query_at[asked]] = sums[upto]
        then = unit_rows(sums)[np.searchsorted(since, births, side="right")]
        scores[:, user] = np.einsum("ad,ad->a", then, borns)
    return unit_rows(directions), scores


def _as_read(
    replay: RatingReplay, live: _Live, read: UserVectors
) -> tuple[npt.NDArray[np.float32], Floats]:
    """Return the same as `_histories`, of the vectors that were read."""
    items = list(replay.items)
    directions = np.zeros((len(replay.queries), live.values.shape[1]), np.float32)
    for place, row in enumerate(replay.queries):
        query = (replay.names[replay.user[row]], items[replay.item[row]])
        if query in read.of_queries:
            directions[place] = read.of_queries[query]
    scores = np.zeros((len(replay.audiences), replay.users))
    for place, audience in enumerate(replay.audiences):
        vectors = read.of_audiences.get(items[audience.item], {})
        known = [user for user in audience.users if replay.names[user] in vectors]
        if known:
            found = np.array([vectors[replay.names[user]] for user in known], np.float32)
            scores[place, known] = unit_rows(found) @ live.ranked[audience.item]
    return unit_rows(directions), scores


def _ranks(
    replay: RatingReplay, live: _Live, directions: npt.NDArray[np.float32], rules: Rules
) -> tuple[Floats, Floats]:
    """Return (q,) ranks from 1, infinite for a miss, and (q,) how many candidates there were."""
    ranks = np.full(len(directions), np.inf)
    candidates = np.zeros(len(directions))
    for start in range(0, len(directions), _QUERIES_AT_ONCE):
        chunk = slice(start, start + _QUERIES_AT_ONCE)
        rows, users = replay.queries[chunk], directions[chunk]
        targets, times = replay.item[rows], replay.at_ms[rows]
        open_ = live.available[None, :] <= times[:, None]
        if rules.leave_out_rated:
            for line, row in enumerate(rows):
                rated = replay.rows_of(int(replay.user[row]))
                open_[line, replay.item[rated[replay.at_ms[rated] < replay.at_ms[row]]]] = False
        found = open_[np.arange(len(rows)), targets] & users.any(axis=1)
        scores = np.where(open_, users @ live.ranked.T, -np.inf)
        ranks[chunk] = np.where(found, mid_ranks(scores, targets), np.inf)
        candidates[chunk] = open_.sum(axis=1)
    return ranks, candidates
