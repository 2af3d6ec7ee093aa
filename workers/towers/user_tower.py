"""The port of user towers: maps from the items of users' histories to user vectors.

Numpy only: a tower is cheap enough for every event of every user. What an interaction is worth
comes in as a weight (`workers.towers.significance`); how weights and time make a vector is the
tower's.
"""

from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from schemas.spaces import Space

Array: TypeAlias = npt.NDArray[np.float32]
Ints: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]

PADDING = -1
"""Where a history is shorter than the longest of its batch, or an item has no vector."""


class UserTower(Protocol):
    """Makes the user vectors of one space, many users at once."""

    @property
    def space(self) -> Space:
        """The space whose user vectors it makes."""

    @property
    def input_space(self) -> Space:
        """The space whose item vectors it reads: for a mean, its own."""

    @property
    def prepared_dim(self) -> int:
        """How wide its prepared items are."""

    def prepare(self, items: Array) -> Array:
        """Return (m, prepared_dim) of (m, d) vectors of the input space: the same for all users.

        A row depends on its item alone, so it may be remembered. Blocks.
        """

    def apply(self, items: Array, rows: Ints, weights: Array, at_ms: Ints) -> tuple[Array, Mask]:
        """Return the users' vectors, and which of them there is anything to make from. Blocks.

        Pure: the same history gives the same vector, whenever it is asked for.

        Args:
            items: (m, prepared_dim) distinct items, as `prepare` returns them.
            rows: (n, L) indices into `items`, `PADDING` where there is none.
            weights: (n, L) signed significance of each event.
            at_ms: (n, L) event times.

        Returns:
            (n, dim) unit rows, zeros where the (n,) mask is False.
        """
