"""Which items of a history a learned tower looks at: one rule for training and serving. Pure.

The newest items that the user took to (a positive weight), each once, at its newest event. So what
a user disliked is not in their sequence, and an item viewed and then liked is there as liked last.

Of who took to nothing so far, the newest items of whatever weight: to rate a film low is to have
gone to see it. The next likes of 163 such users of the demo's summer stand before 76 % of all films
so, before 24 % by the opposite vector, before 72 % by the space's default. In training everybody
has likes, so the rule is one.
"""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from workers.towers.user_tower import PADDING, Array, Ints

Places: TypeAlias = npt.NDArray[np.intp]


def newest_chosen(rows: Ints, weights: Array, at_ms: Ints, count: int) -> Ints:
    """Return (n, at most `count`) rows of the chosen events, oldest first, `PADDING` at the end.

    `rows`, `weights` and `at_ms` are (n, L) as UserTower.apply takes them; events of one time keep
    their order.
    """
    present = rows != PADDING
    liked = present & (weights > 0)
    user, place = np.nonzero(np.where(liked.any(axis=1, keepdims=True), liked, present))
    order = np.lexsort((at_ms[user, place], user))
    user, item = user[order], rows[user, place][order]
    user, item = _once(user, item)
    lengths = np.bincount(user, minlength=len(rows))
    skipped = np.maximum(lengths - count, 0)
    place = np.arange(len(user)) - (np.cumsum(lengths) - lengths + skipped)[user]
    newest = place >= 0
    laid = np.full((len(rows), int((lengths - skipped).max(initial=0))), PADDING, np.int64)
    laid[user[newest], place[newest]] = item[newest]
    return laid


def _once(user: Places, item: Ints) -> tuple[Places, Ints]:
    """Return the events (user by user, oldest first) without those that the user repeated later."""
    pairs = user * (int(item.max(initial=0)) + 1) + item
    _, back = np.unique(pairs[::-1], return_index=True)
    last = np.sort(len(pairs) - 1 - back)
    return user[last], item[last]
