"""What stale vectors cost: one replay of interactions, read with vectors of different age.

A *query* is a liked interaction after the start by a user with enough likes before it: the user's
vector ranks the item among all items that have a vector by then, but for those the user had before.
A regime says how old what is read is: with a delay of an hour a user's vector knows what happened
until an hour ago, and a new item has a vector an hour after it appeared; with *never* nothing has
moved since the start. The queries are the same in all regimes, and a query without a user vector or
an item vector is a miss: no hit, percentile 0. Pure numpy; users come from a tower.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from workers.adaptors.adaptor import unit_rows
from workers.evaluation.bootstrap import Interval, grouped_mean_interval
from workers.evaluation.ranking import mid_ranks
from workers.evaluation.retrieval import Bools, Floats, Ints, Metric
from workers.towers.user_tower import PADDING, Array, Mask

MakeUsers: TypeAlias = Callable[[Ints, Array, Ints], tuple[Array, Mask]]
"""A tower without its items: (rows, weights, at_ms), each (n, L), to (n, dim) and (n,)."""

NEVER = None
"""The delay of vectors that have not moved since the start."""

_ALWAYS = np.iinfo(np.int64).min
_NOT_YET = np.iinfo(np.int64).max
_QUERIES_AT_ONCE = 512


class Regime(NamedTuple):
    """Delays in ms of the vectors of items and of users; None for never."""

    items_ms: int | None
    users_ms: int | None


@dataclass(frozen=True, slots=True)
class Events:
    """What happened, in order of time: rows of a user and an item, a weight (0: nothing), a time.

    `liked` is what may be asked about.
    """

    user: Ints
    item: Ints
    weight: Array
    liked: Bools
    at_ms: Ints

    @classmethod
    def in_order(cls, user: Ints, item: Ints, weight: Array, liked: Bools, at_ms: Ints) -> Self:
        """Return them sorted by time; of equal times the earlier row comes first."""
        order = np.argsort(at_ms, kind="stable")
        return cls(user[order], item[order], weight[order], liked[order], at_ms[order])


@dataclass(frozen=True, slots=True)
class Hits:
    """Over `n` queries; intervals of 95 % over users. None where there was nothing to average."""

    n: int
    missed: float | None
    hr20: float | None
    hr100: float | None
    percentile: float | None
    hr20_interval: Interval | None
    hr100_interval: Interval | None
    percentile_interval: Interval | None

    def to_json(self) -> dict[str, object]:
        """Return JSON-ready values."""
        return {
            "n": self.n,
            "missed": self.missed,
            "hr@20": self.hr20,
            "hr@100": self.hr100,
            "percentile": self.percentile,
            "intervals_95": {
                name: interval and list(interval)
                for name, interval in (
                    ("hr@20", self.hr20_interval),
                    ("hr@100", self.hr100_interval),
                    ("percentile", self.percentile_interval),
                )
            },
        }


@dataclass(frozen=True, slots=True)
class RegimeFigures:
    """Queries for any item, and those for items that appeared after the start."""

    all: Hits
    new: Hits


@dataclass(frozen=True, slots=True)
class Replay:
    """The question: `queries` are rows of `events`; `appeared_ms` (m,) is when each item did.

    An item that was there before the start has a vector always.
    """

    events: Events
    start_ms: int
    queries: Ints
    appeared_ms: Ints
    of_user: tuple[Ints, ...]

    @classmethod
    def of(cls, events: Events, *, items: int, start_ms: int, min_likes: int) -> Self:
        """Return the replay of events about `items` items."""
        users = int(events.user.max(initial=-1)) + 1
        order = np.argsort(events.user, kind="stable")
        bounds = np.searchsorted(events.user[order], np.arange(users + 1))
        of_user = tuple(order[bounds[user] : bounds[user + 1]] for user in range(users))
        first = np.full(items, _NOT_YET)
        np.minimum.at(first, events.item, events.at_ms)
        likes = np.zeros(len(events.user), np.int64)
        repeated = np.zeros(len(events.user), np.bool_)
        for rows in of_user:
            times = events.at_ms[rows]
            likes[rows] = np.searchsorted(times[events.liked[rows]], times, side="left")
            repeated[rows] = True
            repeated[rows[np.unique(events.item[rows], return_index=True)[1]]] = False
        asked = events.liked & ~repeated & (events.at_ms >= start_ms) & (likes >= min_likes)
        appeared = np.where(first < start_ms, _ALWAYS, first)
        return cls(events, start_ms, np.flatnonzero(asked), appeared, of_user)

    @property
    def is_new(self) -> Bools:
        """(m,) which items appeared after the start."""
        moving: Bools = (self.appeared_ms != _ALWAYS) & (self.appeared_ms != _NOT_YET)
        return moving


def staleness(
    replay: Replay,
    items: npt.NDArray[np.floating],
    make_users: MakeUsers,
    regimes: Sequence[Regime],
    *,
    metric: Metric = "cosine",
    max_events: int = 200,
    on_progress: Callable[[int], None] = lambda _: None,
) -> dict[Regime, RegimeFigures]:
    """Return the figures of each regime; `items` (m, d) are the vectors that may be read.

    Users have at most their newest `max_events` events. `on_progress` gets the regimes done.
    """
    made = _MadeUsers(replay, make_users, max_events, items.shape[1])
    vectors = items.astype(np.float32)
    if metric == "cosine":
        vectors = unit_rows(vectors)
    figures: dict[Regime, RegimeFigures] = {}
    for done, regime in enumerate(regimes):
        available = _available(replay, regime.items_ms)
        users = made.at_queries(regime.users_ms, available)
        ranks, candidates = _ranks(replay, vectors, users, available)
        figures[regime] = _figures(replay, ranks, candidates)
        on_progress(done + 1)
    return figures


def _available(replay: Replay, delay_ms: int | None) -> Ints:
    """Return (m,) from when each item has a vector."""
    new = replay.is_new
    if delay_ms is None:
        return np.where(new, _NOT_YET, replay.appeared_ms)
    return np.where(new, np.where(new, replay.appeared_ms, 0) + delay_ms, replay.appeared_ms)


class _MadeUsers:
    """User vectors as of a moment; a history that was asked for before is not made again."""

    def __init__(self, replay: Replay, make: MakeUsers, max_events: int, dim: int) -> None:
        self._replay = replay
        self._make = make
        self._max_events = max_events
        self._none = np.zeros(dim, np.float32)
        self._known: dict[bytes, Array] = {b"": self._none}

    def at_queries(self, delay_ms: int | None, available: Ints) -> Array:
        """Return (queries, dim): zeros where there was nothing to make a vector from."""
        replay = self._replay
        histories = [self._history(query, delay_ms, available) for query in replay.queries.tolist()]
        lacking = {rows.tobytes(): rows for rows in histories if rows.tobytes() not in self._known}
        for chunk in _chunks(list(lacking.items())):
            self._known |= self._made(dict(chunk))
        found = [self._known[rows.tobytes()] for rows in histories]
        return np.array(found, np.float32).reshape(len(found), len(self._none))

    def _history(self, query: int, delay_ms: int | None, available: Ints) -> Ints:
        """Return the rows of the events that the user's vector knows when the query is asked."""
        events = self._replay.events
        rows = self._replay.of_user[events.user[query]]
        moment = events.at_ms[query]
        as_of = self._replay.start_ms - 1 if delay_ms is None else moment - delay_ms
        # Never what is asked about itself, nor what happened at the same moment.
        rows = rows[: np.searchsorted(events.at_ms[rows], min(as_of, moment - 1), side="right")]
        rows = rows[(available[events.item[rows]] <= as_of) & (events.weight[rows] != 0)]
        newest: Ints = rows[-self._max_events :]
        return newest

    def _made(self, histories: Mapping[bytes, Ints]) -> dict[bytes, Array]:
        events = self._replay.events
        length = max(len(rows) for rows in histories.values())
        laid = np.full((len(histories), length), PADDING, np.int64)
        weights = np.zeros(laid.shape, np.float32)
        times = np.zeros(laid.shape, np.int64)
        for line, rows in enumerate(histories.values()):
            laid[line, : len(rows)] = events.item[rows]
            weights[line, : len(rows)] = events.weight[rows]
            times[line, : len(rows)] = events.at_ms[rows]
        vectors, there = self._make(laid, weights, times)
        return {
            key: vector if is_there else self._none
            for key, vector, is_there in zip(histories, vectors, there.tolist(), strict=True)
        }


def _chunks(pairs: list[tuple[bytes, Ints]]) -> Iterator[list[tuple[bytes, Ints]]]:
    # By length, so that short histories are not padded to the longest.
    pairs.sort(key=lambda pair: len(pair[1]))
    for start in range(0, len(pairs), _QUERIES_AT_ONCE):
        yield pairs[start : start + _QUERIES_AT_ONCE]


def _ranks(replay: Replay, items: Array, users: Array, available: Ints) -> tuple[Floats, Floats]:
    """Return (q,) ranks from 1, infinite for a miss, and (q,) how many candidates there were."""
    events = replay.events
    ranks = np.full(len(users), np.inf)
    candidates = np.zeros(len(users))
    for start in range(0, len(users), _QUERIES_AT_ONCE):
        chunk = slice(start, start + _QUERIES_AT_ONCE)
        rows = replay.queries[chunk]
        targets, times = events.item[rows], events.at_ms[rows]
        open_ = available[None, :] <= times[:, None]
        for line, row in enumerate(rows.tolist()):
            own = replay.of_user[events.user[row]]
            open_[line, events.item[own[events.at_ms[own] < events.at_ms[row]]]] = False
        found = open_[np.arange(len(rows)), targets] & users[chunk].any(axis=1)
        scores = np.where(open_, users[chunk] @ items.T, -np.inf)
        ranks[chunk] = np.where(found, mid_ranks(scores, targets), np.inf)
        candidates[chunk] = open_.sum(axis=1)
    return ranks, candidates


def _figures(replay: Replay, ranks: Floats, candidates: Floats) -> RegimeFigures:
    found = np.isfinite(ranks)
    behind = np.where(found, (candidates - ranks) / np.maximum(candidates - 1, 1), 0.0)
    users = replay.events.user[replay.queries]
    new = replay.is_new[replay.events.item[replay.queries]]
    return RegimeFigures(_hits(ranks, behind, users), _hits(ranks[new], behind[new], users[new]))


def _hits(ranks: Floats, behind: Floats, users: Ints) -> Hits:
    n = len(ranks)
    if not n:
        return Hits(0, None, None, None, None, None, None, None)
    in_20, in_100 = (ranks <= 20).astype(np.float64), (ranks <= 100).astype(np.float64)
    return Hits(
        n,
        missed=float(np.isinf(ranks).mean()),
        hr20=float(in_20.mean()),
        hr100=float(in_100.mean()),
        percentile=float(behind.mean()),
        hr20_interval=grouped_mean_interval(in_20, users),
        hr100_interval=grouped_mean_interval(in_100, users),
        percentile_interval=grouped_mean_interval(behind, users),
    )
