"""A user as two means of items: what they liked, and what left them cold. Pure numpy.

One rule for training and serving. Recent and strong interactions dominate; time is taken relative
to the user's newest event, so a mean is a function of the history alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from schemas.errors import ConfigurationError
from workers.towers.user_tower import PADDING, Array, Ints, Mask

_EVENTS_AT_ONCE = 32_768
"""Of a chunk of users: bounds memory to a few times that many rows of items."""


@dataclass(frozen=True, slots=True)
class TasteRule:
    """An event of weight `liked_from` (above 0, at most 1) or more is a like.

    Likes count with their weight, the others with what they lack to 1; either counts half after
    `half_life_ms`. Kept in thousandths, because a space declares whole numbers and texts.
    """

    half_life_ms: int
    liked_from_thousandths: int

    def __post_init__(self) -> None:
        if not (0 < self.liked_from_thousandths <= 1_000 and self.half_life_ms > 0):
            raise ConfigurationError(
                "reki", f"half_life_ms {self.half_life_ms}, liked_from {self.liked_from}"
            )

    @property
    def liked_from(self) -> float:
        """The least weight of a like."""
        return self.liked_from_thousandths / 1_000

    def declared(self) -> dict[str, str | int]:
        """Return what `of` finds in the `fitted_on` of a space."""
        return {
            "half_life_ms": self.half_life_ms,
            "liked_from_thousandths": self.liked_from_thousandths,
        }

    @classmethod
    def of(cls, name: str, declared: Mapping[str, str | int]) -> Self:
        """Return the rule that space `name` declares; raises ConfigurationError."""
        half_life = declared.get("half_life_ms")
        liked_from = declared.get("liked_from_thousandths")
        if not (isinstance(half_life, int) and isinstance(liked_from, int)):
            raise ConfigurationError(f"space {name}", "fitted_on lacks the rule of likes")
        return cls(half_life, liked_from)


class TwoTastes(NamedTuple):
    """`liked` and `cold` are (n, width) means, zeros where `has_liked`, `has_cold` (n,) say no."""

    liked: Array
    cold: Array
    has_liked: Mask
    has_cold: Mask


def two_tastes(items: Array, rows: Ints, weights: Array, at_ms: Ints, rule: TasteRule) -> TwoTastes:
    """Return the two means of each user; `items` (m, width), the others as UserTower.apply."""
    present = rows != PADDING
    oldest = np.iinfo(np.int64).min
    newest = np.where(present, at_ms, oldest).max(axis=1, keepdims=True, initial=oldest)
    # In float64 before it is divided: milliseconds since the epoch do not fit a float32.
    age = np.where(present, newest - at_ms, 0) / rule.half_life_ms
    # Weights are float32: without the margin a like of exactly that weight might not be one.
    likes = present & (weights >= rule.liked_from - 1e-6)
    colds = present & ~likes
    decay = np.exp2(-age)
    liked, has_liked = _means(items, rows, np.where(likes, weights * decay, 0))
    cold, has_cold = _means(items, rows, np.where(colds, (1 - weights) * decay, 0))
    return TwoTastes(liked, cold, has_liked, has_cold)


def _means(items: Array, rows: Ints, shares: npt.NDArray[np.float64]) -> tuple[Array, Mask]:
    """Return (n, width) means of items by `shares` (n, L), zeros where the (n,) mask is False."""
    totals = shares.sum(axis=1, keepdims=True)
    even = np.divide(shares, totals, out=np.zeros_like(shares), where=totals > 0)
    means = np.zeros((len(rows), items.shape[1]), np.float32)
    counts = (even > 0).sum(axis=1)
    users = np.flatnonzero(counts)
    step = max(1, _EVENTS_AT_ONCE // int(counts.max(initial=1)))
    for start in range(0, len(users), step):
        chunk = users[start : start + step]
        of, place = np.nonzero(even[chunk])
        said = items[rows[chunk][of, place]] * even[chunk][of, place].astype(np.float32)[:, None]
        first = np.searchsorted(of, np.arange(len(chunk)))
        means[chunk] = np.add.reduceat(said, first, axis=0)
    return means, counts > 0
