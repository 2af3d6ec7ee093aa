"""The tower of histories: a mean of item vectors that recent and strong interactions dominate."""

from dataclasses import dataclass

import numpy as np

from schemas.spaces import Space
from workers.towers.user_tower import PADDING, Array, Ints, Mask

SHORTEST = 1e-6
"""A sum this short is rounding: likes and dislikes that cancel out say nothing."""


@dataclass(frozen=True, slots=True)
class RecencyMean:
    """A UserTower: normalise(sum of w * 2^(-(newest - at) / half life) * v).

    Time is taken relative to the user's newest event, so the vector is a function of the history
    alone. `negative_share` is what is left of negative weights: a dislike says less about where a
    taste is than a like does.
    """

    space: Space
    half_life_ms: float
    negative_share: float = 0.25

    @property
    def input_space(self) -> Space:
        """Its own space: users lie among the items they like."""
        return self.space

    @property
    def prepared_dim(self) -> int:
        """See UserTower."""
        return self.space.dim

    def prepare(self, items: Array) -> Array:
        """Return the items as they are; see UserTower.prepare."""
        return items

    def apply(self, items: Array, rows: Ints, weights: Array, at_ms: Ints) -> tuple[Array, Mask]:
        """Return (n, dim) unit rows and an (n,) mask; see UserTower.apply."""
        present = rows != PADDING
        oldest = np.iinfo(np.int64).min
        newest = np.where(present, at_ms, oldest).max(axis=1, keepdims=True, initial=oldest)
        # In float64 before it is divided: milliseconds since the epoch do not fit a float32.
        age = np.where(present, newest - at_ms, 0) / self.half_life_ms
        signed = np.where(weights < 0, weights * self.negative_share, weights)
        decayed = (signed * np.exp2(-age)).astype(np.float32)
        sums = np.zeros((len(rows), self.space.dim), np.float32)
        # User by user: all at once, (n, m) @ (m, dim), would multiply zeros almost everywhere.
        for user in np.flatnonzero(present.any(axis=1)).tolist():
            events = present[user]
            sums[user] = decayed[user, events] @ items[rows[user, events]]
        lengths = np.linalg.norm(sums, axis=1)
        made = lengths > SHORTEST
        vectors = np.zeros_like(sums)
        vectors[made] = sums[made] / lengths[made, None]
        return vectors, made
