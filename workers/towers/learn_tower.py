"""The user tower of a LEARN space: its network at the end of the user's sequence of items."""

from dataclasses import dataclass

import numpy as np

from schemas.spaces import Space
from workers.adaptors.learn import LearnAdaptor
from workers.towers.chosen_history import newest_chosen
from workers.towers.user_tower import PADDING, Array, Ints, Mask


@dataclass(frozen=True, slots=True)
class LearnTower:
    """A UserTower over the raw parts of items.

    It looks at the newest items of positive weight (of any weight where none is positive), as many
    as the network was trained for; how strong a weight is does not count.
    """

    adaptor: LearnAdaptor

    @property
    def space(self) -> Space:
        """The space whose user vectors it makes."""
        return self.adaptor.space

    @property
    def input_space(self) -> Space:
        """The raw space: users and items go through the same network, from the same parts."""
        return self.adaptor.raw_space

    @property
    def prepared_dim(self) -> int:
        """See UserTower."""
        return 3 * self.adaptor.network.shape.width

    def prepare(self, items: Array) -> Array:
        """Return (m, 3 * width): through the content adaptor and into the first layer.

        A part of `items` (m, P * d) that is all zeros counts as missing, as the raw space has it;
        an item without any part is zeros. See UserTower.prepare.
        """
        network, space = self.adaptor.network, self.space
        parts = items.reshape(len(items), len(space.parts), space.part_dim)
        mask: Mask = (parts != 0).any(axis=2)
        prepared = network.entering(network.hidden(parts, mask))
        prepared[~mask.any(axis=1)] = 0
        return prepared

    def apply(self, items: Array, rows: Ints, weights: Array, at_ms: Ints) -> tuple[Array, Mask]:
        """Return (n, dim) unit rows and an (n,) mask; see UserTower.apply.

        An item that is zeros is left out.
        """
        network = self.adaptor.network
        hidden = items[:, : network.shape.width]
        described = np.append(hidden.any(axis=1), False)  # where PADDING points at
        rows = np.where(described[rows], rows, PADDING)
        chosen = newest_chosen(rows, weights, at_ms, network.shape.history)
        return network.newest(items, chosen), (chosen != PADDING).any(axis=1)
