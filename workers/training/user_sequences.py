"""What users took to, in order, and its division into histories and targets. Pure numpy.

Divided by a moment, no target is at or before it and no history after it; divided by items, those
taken for new are the targets, whenever they were. Without times a history is a set: its order is
drawn anew whenever it is divided.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_HISTORY_SHARES = (0.3, 0.7)
"""Of a set without times, between these shares are history."""

_CUT_QUANTILES = (0.2, 0.95)


class Division(NamedTuple):
    """A user's rows of the catalogue: `history` oldest first, `targets` oldest first."""

    history: Ints
    targets: Ints


@dataclass(frozen=True, slots=True)
class UserSequences:
    """Distinct items of users: user u's are `items[starts[u] : starts[u + 1]]`, oldest first.

    Attributes:
        users: (U,) ids.
        starts: (U + 1,) where a user's items start.
        items: (E,) rows of the catalogue.
        at_ms: (E,) event times, None where interactions have no times.
    """

    users: npt.NDArray[np.str_]
    starts: Ints
    items: Ints
    at_ms: Ints | None

    @classmethod
    def of(cls, users: npt.NDArray[np.str_], items: Ints, at_ms: Ints | None) -> Self:
        """Return the sequences of interactions in any order.

        Of several interactions of a user with an item the last one is here, as the user tower
        takes it (workers.towers.chosen_history).
        """
        known, user = np.unique(users, return_inverse=True)
        times = np.zeros(len(items), np.int64) if at_ms is None else at_ms
        order = np.lexsort((times, user))
        pair = user[order] * (int(items.max(initial=0)) + 1) + items[order]
        _, last = np.unique(pair[::-1], return_index=True)
        order = order[np.sort(len(pair) - 1 - last)]
        starts = np.searchsorted(user[order], np.arange(len(known) + 1)).astype(np.int64)
        return cls(known, starts, items[order], None if at_ms is None else at_ms[order])

    def __len__(self) -> int:
        return len(self.users)

    def of_user(self, user: int) -> Ints:
        """Return the user's items, oldest first."""
        return self.items[self.starts[user] : self.starts[user + 1]]

    def without_items(self, out: Mask) -> Self:
        """Return them without the items that `out` (catalogue,) names; users stay."""
        return self._kept(~out[self.items])

    def before(self, cut_ms: int) -> Self:
        """Return what happened at or before a moment; raises ValueError without times."""
        return self._kept(self._times() <= cut_ms)

    def after(self, cut_ms: int) -> Self:
        """Return what happened after a moment; raises ValueError without times."""
        return self._kept(self._times() > cut_ms)

    def quantile(self, share: float) -> int:
        """Return the moment by which a share of the events had happened."""
        return int(np.quantile(self._times(), share, method="lower"))

    def divided(self, user: int, cut_ms: int) -> Division:
        """Return the user's items at or before the moment, and those after it."""
        own = slice(int(self.starts[user]), int(self.starts[user + 1]))
        place = int(np.searchsorted(self._times()[own], cut_ms, side="right"))
        return Division(self.items[own][:place], self.items[own][place:])

    def apart(self, user: int, asked: Mask, random: np.random.Generator) -> Division:
        """Return the user's items without those `asked` (catalogue,), and those asked."""
        own = self.of_user(user)
        if self.at_ms is None:
            own = random.permutation(own)
        out = asked[own]
        return Division(own[~out], own[out])

    def divisions(self, random: np.random.Generator) -> Iterator[tuple[int, Division]]:
        """Yield each user once, in random order, with a division drawn for them.

        Users for whom nothing is left on a side are passed over.
        """
        low, high = _CUT_QUANTILES
        moments = None if self.at_ms is None else np.sort(self.at_ms)
        for user in random.permutation(len(self)).tolist():
            if moments is None:
                division = self._divided_set(user, random)
            else:
                place = int(random.uniform(low, high) * len(moments))
                division = self.divided(user, int(moments[place]))
            if len(division.history) and len(division.targets):
                yield user, division

    def _divided_set(self, user: int, random: np.random.Generator) -> Division:
        items = random.permutation(self.of_user(user))
        place = max(1, round(len(items) * random.uniform(*_HISTORY_SHARES)))
        return Division(items[:place], items[place:])

    def _times(self) -> Ints:
        if self.at_ms is None:
            raise ValueError("the interactions have no times")
        return self.at_ms

    def _kept(self, keep: Mask) -> Self:
        before = np.concatenate([[0], np.cumsum(keep)]).astype(np.int64)
        starts: Ints = before[self.starts]
        at_ms = None if self.at_ms is None else self.at_ms[keep]
        return type(self)(self.users, starts, self.items[keep], at_ms)
