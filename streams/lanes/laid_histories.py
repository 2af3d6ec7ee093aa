"""Users' histories as arrays, the form in which towers take them. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from schemas.entities import EntityKey, EntityKind
from schemas.history import History
from workers.towers.significance import Significance
from workers.towers.user_tower import PADDING, Array, Ints, Mask, UserTower

ITEMS_AT_ONCE = 4_096
"""Distinct items read together: at 3,000 dimensions 50 MB."""

USERS_AT_ONCE = 2_048


@dataclass(frozen=True, slots=True)
class LaidHistories:
    """Users' histories as arrays: `rows` (n, L) points into `items`, `PADDING` where there is none.

    Events without any significance are left out.
    """

    users: tuple[EntityKey, ...]
    histories: tuple[History, ...]
    items: tuple[EntityKey, ...]
    rows: Ints
    weights: Array
    at_ms: Ints

    def through(self, tower: UserTower, values: Array, found: Mask) -> tuple[Array, Mask]:
        """Return what a tower makes of them, without the items that are not there. Blocks."""
        rows = self.rows
        if not found.all():
            # One element more, for PADDING to point at.
            rows = np.where(np.append(found, False)[rows], rows, PADDING)
        return tower.apply(values, rows, self.weights, self.at_ms)

    def who_has(self, items: frozenset[EntityKey]) -> list[tuple[EntityKey, EntityKey]]:
        """Return each of `items` with each user whose history names it."""
        wanted = np.array([item in items for item in self.items] + [False])
        return [
            (self.items[row], user)
            for user, rows in zip(self.users, self.rows, strict=True)
            for row in np.unique(rows[wanted[rows]]).tolist()
        ]


def portions(
    histories: Mapping[EntityKey, History], significance: Significance
) -> Iterator[LaidHistories]:
    """Yield all users, as many at once as share a bounded number of items: all, mostly."""
    laying = _Laying(significance)
    for user, history in histories.items():
        laying.add(user, history)
        if laying.is_full:
            yield laying.laid()
            laying = _Laying(significance)
    if laying.users:
        yield laying.laid()


class _Laying:
    """Users so far; what their events say is in flat lists, one user after the other."""

    def __init__(self, significance: Significance) -> None:
        self.users: list[EntityKey] = []
        self._significance = significance
        self._histories: list[History] = []
        self._lengths: list[int] = []
        self._index: dict[str, int] = {}
        self._rows: list[int] = []
        self._weights: list[float] = []
        self._at_ms: list[int] = []

    @property
    def is_full(self) -> bool:
        """Whether it is time to begin anew."""
        return len(self._index) >= ITEMS_AT_ONCE or len(self.users) >= USERS_AT_ONCE

    def add(self, user: EntityKey, history: History) -> None:
        """Add a user and their significant events."""
        index, of = self._index, self._significance.of
        before = len(self._rows)
        for event in history.counted:
            weight = of(event)
            if weight:
                self._rows.append(index.setdefault(event.item, len(index)))
                self._weights.append(weight)
                self._at_ms.append(event.at_ms)
        self.users.append(user)
        self._histories.append(history)
        self._lengths.append(len(self._rows) - before)

    def laid(self) -> LaidHistories:
        """Return them all."""
        lengths = np.array(self._lengths)
        filled = np.arange(lengths.max()) < lengths[:, None]
        rows = np.full(filled.shape, PADDING, np.int64)
        weights = np.zeros(filled.shape, np.float32)
        at_ms = np.zeros(filled.shape, np.int64)
        rows[filled], weights[filled], at_ms[filled] = self._rows, self._weights, self._at_ms
        return LaidHistories(
            tuple(self.users),
            tuple(self._histories),
            tuple(EntityKey(EntityKind.ITEM, item) for item in self._index),
            rows,
            weights,
            at_ms,
        )
