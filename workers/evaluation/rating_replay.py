"""The ratings behind the cold-start figures: who likes what when, and what is asked. Pure.

Of several ratings of an item by one user the first counts.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self, TypeAlias

import numpy as np
import numpy.typing as npt

Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class RatingTable:
    """Ratings as four arrays of one length: ids (any dtype), stars and event time in ms."""

    user: npt.NDArray[np.generic]
    item: npt.NDArray[np.generic]
    rating: npt.NDArray[np.number]
    at_ms: Ints


@dataclass(frozen=True, slots=True)
class Rules:
    """The numbers of the protocol; `leave_out_rated` keeps items rated before from competing."""

    liked_from: float = 7.0
    min_likes: int = 5
    min_fans: int = 10
    leave_out_rated: bool = True


DEFAULT_RULES = Rules()


@dataclass(frozen=True, slots=True)
class Questions:
    """What the protocol asks of users: who is a query for which item, who is an item's audience.

    A query is asked just before that rating, an audience just before the item's first rating.
    """

    queries: frozenset[tuple[str, str]]
    audiences: Mapping[str, tuple[str, ...]]


def questions(
    ratings: RatingTable, new_items: Collection[str], rules: Rules = DEFAULT_RULES
) -> Questions:
    """Return what `cold_start` asks of users, for whoever reads their vectors meanwhile."""
    replay = RatingReplay.of(ratings, new_items, rules)
    items = list(replay.items)
    return Questions(
        frozenset((replay.names[replay.user[q]], items[replay.item[q]]) for q in replay.queries),
        {
            items[audience.item]: tuple(replay.names[user] for user in audience.users)
            for audience in replay.audiences
        },
    )


@dataclass(frozen=True, slots=True)
class Audience:
    """A new item at its first rating: the users known by then, and which come to like it."""

    item: int
    at_ms: int
    users: Ints
    fans: Bools


@dataclass(frozen=True, slots=True)
class RatingReplay:
    """What does not depend on a regime: first ratings by time, users and items as numbers.

    `names` holds the users' ids, `starts` bounds the rows of each in `by_user`, an order of the
    rows; `queries` holds rows.
    """

    names: Sequence[str]
    items: Mapping[str, int]
    user: Ints
    item: Ints
    liked: Bools
    at_ms: Ints
    by_user: Ints
    starts: Ints
    queries: Ints
    audiences: tuple[Audience, ...]

    @classmethod
    def of(cls, ratings: RatingTable, new_items: Collection[str], rules: Rules) -> Self:
        """Return the replay; raises ValueError on columns of different lengths."""
        lengths = {len(ratings.user), len(ratings.item), len(ratings.rating), len(ratings.at_ms)}
        if len(lengths) != 1:
            raise ValueError(f"columns of {sorted(lengths)} rows")
        known, user = np.unique(ratings.user, return_inverse=True)
        names, item = np.unique(ratings.item.astype(str), return_inverse=True)
        order = np.argsort(ratings.at_ms, kind="stable")
        pairs = user.astype(np.int64)[order] * max(len(names), 1) + item[order]
        order = order[np.sort(np.unique(pairs, return_index=True)[1])]
        user, item = user[order].astype(np.int64), item[order].astype(np.int64)
        at_ms = ratings.at_ms[order].astype(np.int64)
        liked = ratings.rating[order] >= rules.liked_from
        by_user = np.argsort(user, kind="stable")
        starts = np.searchsorted(user[by_user], np.arange(user.max(initial=-1) + 2))
        is_new = np.isin(names, list(new_items))
        likes_before = _likes_before(user, liked, at_ms, by_user, starts)
        queries = np.flatnonzero(is_new[item] & liked & (likes_before >= rules.min_likes))
        return cls(
            names=[str(name) for name in known],
            items={str(name): index for index, name in enumerate(names)},
            user=user,
            item=item,
            liked=liked,
            at_ms=at_ms,
            by_user=by_user,
            starts=starts,
            queries=queries,
            audiences=_audiences(user, item, liked, at_ms, np.flatnonzero(is_new), rules),
        )

    @property
    def users(self) -> int:
        """How many users there are."""
        return len(self.starts) - 1

    def rows_of(self, user: int) -> Ints:
        """Return the rows of a user, in time order."""
        return self.by_user[self.starts[user] : self.starts[user + 1]]


def _likes_before(user: Ints, liked: Bools, at_ms: Ints, by_user: Ints, starts: Ints) -> Ints:
    """Return (rows,) how many likes the row's user had strictly before its time."""
    counts = np.zeros(len(user), np.int64)
    for start, end in pairwise(starts):
        rows = by_user[start:end]
        times = at_ms[rows]
        counts[rows] = np.searchsorted(times[liked[rows]], times, side="left")
    return counts


def _audiences(
    user: Ints, item: Ints, liked: Bools, at_ms: Ints, new: Ints, rules: Rules
) -> tuple[Audience, ...]:
    found = []
    for one in new:
        rows = np.flatnonzero(item == one)
        if not len(rows):
            continue
        born = int(at_ms[rows[0]])
        before = liked & (at_ms < born)
        known = np.flatnonzero(np.bincount(user[before]) >= rules.min_likes)
        fans = np.isin(known, user[rows[liked[rows]]])
        if fans.sum() >= rules.min_fans and not fans.all():
            found.append(Audience(int(one), born, known, fans))
    return tuple(found)
