"""Which items of a history a learned tower looks at: one rule for training and serving. Pure.

The newest items that the user took to (a positive weight), each once, at its newest event. So what
a user disliked is not in their sequence, and an item viewed and then liked is there as liked last.
"""

import numpy as np
import numpy.typing as npt

from workers.towers.user_tower import PADDING, Array, Ints


def newest_liked(rows: Ints, weights: Array, at_ms: Ints, count: int) -> Ints:
    """Return (n, at most `count`) rows of the chosen events, oldest first, `PADDING` at the end.

    `rows`, `weights` and `at_ms` are (n, L) as UserTower.apply takes them; events of one time keep
    their order.
    """
    chosen = [
        _newest_of_one(rows[user], weights[user], at_ms[user], count) for user in range(len(rows))
    ]
    longest = max((len(one) for one in chosen), default=0)
    laid = np.full((len(rows), longest), PADDING, np.int64)
    for user, one in enumerate(chosen):
        laid[user, : len(one)] = one
    return laid


def _newest_of_one(rows: Ints, weights: Array, at_ms: Ints, count: int) -> npt.NDArray[np.int64]:
    liked = np.flatnonzero((rows != PADDING) & (weights > 0))
    if not _is_rising(at_ms[liked]):
        liked = liked[np.argsort(at_ms[liked], kind="stable")]
    newest_first = rows[liked][::-1]
    _, at = np.unique(newest_first, return_index=True)
    kept: npt.NDArray[np.int64] = newest_first[np.sort(at)[:count]][::-1]
    return kept


def _is_rising(times: Ints) -> bool:
    return bool((times[1:] >= times[:-1]).all())
