"""Ranks candidates for users and counts what was found, user by user. Pure numpy.

Recall@k is hits / min(k, positives), NDCG@k has binary gain, a user is hit when any positive is
among the first k. Of candidates with equal scores the earlier one counts as better, so nothing is
left to chance; percentiles give ties half.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from workers.adaptors.adaptor import unit_rows

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]
Metric: TypeAlias = Literal["cosine", "dot"]

_USERS_AT_ONCE = 1_024


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of a user's row and a candidate's, without repetitions: `users` and `candidates`."""

    users: Ints
    candidates: Ints

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> "Pairs":
        """Return the pairs of users' lists of candidates, list i being of user i."""
        users = np.repeat(np.arange(len(lists)), [len(one) for one in lists])
        return cls(users, np.array([row for one in lists for row in one], np.int64))

    def within(self, users: range, candidates: int) -> Bools:
        """Return (len(users), candidates) bool: which pairs there are of a range of users."""
        chosen = (self.users >= users.start) & (self.users < users.stop)
        table = np.zeros((len(users), candidates), np.bool_)
        table[self.users[chosen] - users.start, self.candidates[chosen]] = True
        return table


NO_PAIRS = Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64))


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What each user (n) was shown.

    `recall`, `ndcg`, `hit` and `percentile` are (n,): the last is the mean, over the user's
    positives, of the share of other candidates ranked behind. `found` and `behind` (p,) say of each
    of the positive `pairs` whether it was among the first k and its percentile; `shown` (m,) counts
    how often each candidate was among the first k.
    """

    recall: Floats
    ndcg: Floats
    hit: Floats
    percentile: Floats
    pairs: Pairs
    found: Bools
    behind: Floats
    shown: Ints


def retrieve(
    users: npt.NDArray[np.floating],
    candidates: npt.NDArray[np.floating],
    positives: Pairs,
    *,
    k: int,
    metric: Metric = "cosine",
    left_out: Pairs = NO_PAIRS,
) -> Retrieval:
    """Rank `candidates` (m, d) for `users` (n, d), of which each needs a positive.

    `left_out` does not compete: what a user has already. Raises ValueError without users, on a user
    without positives, when there are fewer than `k` candidates, or when all scores are equal.
    """
    count = len(candidates)
    if count < k:
        raise ValueError(f"{count} candidates for the first {k}")
    if not len(users):
        raise ValueError("no user has both a history and a positive")
    items = candidates.astype(np.float32)
    directions = users.astype(np.float32)
    if metric == "cosine":
        items, directions = unit_rows(items), unit_rows(directions)
    recalls, gains, hits, percentiles = [], [], [], []
    found, behind, owners, columns = [], [], [], []
    shown = np.zeros(count, np.int64)
    all_equal = True
    for start in range(0, len(users), _USERS_AT_ONCE):
        rows = range(start, min(start + _USERS_AT_ONCE, len(users)))
        scores = directions[rows.start : rows.stop] @ items.T
        all_equal = all_equal and bool((scores == scores[0, 0]).all())
        relevant = positives.within(rows, count)
        if not relevant.any(axis=1).all():
            raise ValueError("a user has no positive")
        closed = left_out.within(rows, count) & ~relevant
        scores[closed] = -np.inf
        # The stable sort is what makes ties deterministic.
        order = np.argsort(-scores, axis=1, kind="stable")
        top = order[:, :k]
        recall, gain = _recall_and_ndcg(np.take_along_axis(relevant, top, axis=1), relevant)
        recalls.append(recall)
        gains.append(gain)
        hits.append((recall > 0).astype(np.float64))
        np.add.at(shown, top, np.isfinite(np.take_along_axis(scores, top, axis=1)))
        line, column = np.nonzero(relevant)
        places = np.empty_like(order)
        np.put_along_axis(places, order, np.arange(count)[None, :], axis=1)
        found.append(places[line, column] < k)
        share = _shares_behind(scores, order, closed, line, column)
        behind.append(share)
        percentiles.append(np.bincount(line, share, minlength=len(rows)) / relevant.sum(axis=1))
        owners.append(line + start)
        columns.append(column)
    if all_equal and len(users) * count > 1:
        raise ValueError("every user scores every candidate the same")
    return Retrieval(
        recall=np.concatenate(recalls),
        ndcg=np.concatenate(gains),
        hit=np.concatenate(hits),
        percentile=np.concatenate(percentiles),
        pairs=Pairs(np.concatenate(owners), np.concatenate(columns)),
        found=np.concatenate(found),
        behind=np.concatenate(behind),
        shown=shown,
    )


def _recall_and_ndcg(hits: Bools, relevant: Bools) -> tuple[Floats, Floats]:
    """Return (n,) recall and (n,) NDCG of `hits` (n, k) out of `relevant` (n, candidates)."""
    k = hits.shape[1]
    discounts = 1 / np.log2(np.arange(2, k + 2))
    reachable = np.minimum(relevant.sum(axis=1), k)
    ideal = np.cumsum(discounts)[reachable - 1]
    return hits.sum(axis=1) / reachable, (hits @ discounts) / ideal


def _shares_behind(
    scores: npt.NDArray[np.float32], order: Ints, closed: Bools, line: Ints, column: Ints
) -> Floats:
    """Return (p,) the share of the other open candidates behind each positive, ties half."""
    falling = -np.take_along_axis(scores, order, axis=1)
    own = -scores[line, column]
    better = np.empty(len(line))
    not_worse = np.empty(len(line))
    starts = np.searchsorted(line, np.arange(len(scores) + 1))
    for user in range(len(scores)):
        mine = slice(starts[user], starts[user + 1])
        better[mine] = np.searchsorted(falling[user], own[mine], side="left")
        not_worse[mine] = np.searchsorted(falling[user], own[mine], side="right")
    candidates = (~closed).sum(axis=1)[line]
    ranks = (better + not_worse + 1) / 2
    shares: Floats = np.where(
        candidates > 1, (candidates - ranks) / np.maximum(candidates - 1, 1), 1.0
    )
    return shares
