"""The user tower of a LEARN space: its network at the end of the user's sequence of items."""

from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np

from schemas.spaces import Space
from workers.adaptors.learn import LearnAdaptor
from workers.towers.chosen_history import newest_liked
from workers.towers.user_tower import PADDING, Array, Ints, Mask

KEPT_ITEMS = 20_000
"""Items whose way through the content adaptor is remembered: 46 MB at a width of 576."""

_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class LearnTower:
    """A UserTower over the raw parts of items.

    It looks at the newest items of positive weight, as many as the network was trained for; how
    strong a weight is does not count. Who has none gets no vector. Batch after batch brings the
    same items, so what the content adaptor makes of one is remembered by the bytes of its parts.
    """

    adaptor: LearnAdaptor
    _hidden: dict[bytes, Array] = field(default_factory=dict, compare=False, repr=False)

    @property
    def space(self) -> Space:
        """The space whose user vectors it makes."""
        return self.adaptor.space

    @property
    def input_space(self) -> Space:
        """The raw space: users and items go through the same network, from the same parts."""
        return self.adaptor.raw_space

    def apply(self, items: Array, rows: Ints, weights: Array, at_ms: Ints) -> tuple[Array, Mask]:
        """Return (n, dim) unit rows and an (n,) mask; see UserTower.apply.

        A part of `items` (m, P * d) that is all zeros counts as missing, as the raw space has it;
        an item without any part is left out.
        """
        network = self.adaptor.network
        described = np.append((items != 0).any(axis=1), False)  # where PADDING points at
        rows = np.where(described[rows], rows, PADDING)
        chosen = newest_liked(rows, weights, at_ms, network.shape.history)
        vectors = network.newest(self._adapted(items), chosen)
        return vectors, (chosen != PADDING).any(axis=1)

    def _adapted(self, items: Array) -> Array:
        """Return (m, width): the items through the content adaptor, or as it was before."""
        network, space = self.adaptor.network, self.space
        names = [blake2b(item.tobytes(), digest_size=_DIGEST_BYTES).digest() for item in items]
        known = [self._hidden.get(name) for name in names]
        adapted = np.zeros((len(items), network.shape.width), np.float32)
        new = [row for row, hidden in enumerate(known) if hidden is None]
        if new:
            parts = items[new].reshape(len(new), len(space.parts), space.part_dim)
            mask: Mask = (parts != 0).any(axis=2)
            adapted[new] = network.hidden(parts, mask)
        for row, hidden in enumerate(known):
            if hidden is not None:
                adapted[row] = hidden
        self._remember([names[row] for row in new], adapted[new])
        return adapted

    def _remember(self, names: list[bytes], hidden: Array) -> None:
        self._hidden.update(zip(names, hidden, strict=True))
        # The longest known go first; no more is made of it than of any cache.
        while len(self._hidden) > KEPT_ITEMS:
            del self._hidden[next(iter(self._hidden))]
