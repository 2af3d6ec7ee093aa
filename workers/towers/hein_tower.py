"""The user tower of a `reki` space: what users liked and what left them cold, through HEIN."""

from dataclasses import dataclass

import numpy as np

from schemas.spaces import Space
from workers.adaptors.hein import HeinAdaptor
from workers.adaptors.hein_shape import DISLIKED, LIKED
from workers.towers.two_tastes import TasteRule, two_tastes
from workers.towers.user_tower import PADDING, Array, Ints, Mask


@dataclass(frozen=True, slots=True)
class HeinTower:
    """A UserTower over the raw parts of items; a user who liked nothing has the learned default."""

    adaptor: HeinAdaptor
    rule: TasteRule

    @property
    def space(self) -> Space:
        """The space whose user vectors it makes."""
        return self.adaptor.space

    @property
    def input_space(self) -> Space:
        """The raw space: users are means of what items' texts say."""
        return self.adaptor.raw_space

    @property
    def prepared_dim(self) -> int:
        """See UserTower."""
        return self.adaptor.network.shape.width

    def prepare(self, items: Array) -> Array:
        """Return (m, width), the inputs of the experts; see UserTower.prepare.

        A part of `items` (m, P * d) that is all zeros counts as missing, as the raw space has it;
        an item without any part is zeros.
        """
        parts = items.reshape(len(items), len(self.space.parts), self.space.part_dim)
        return self.adaptor.network.inputs(parts, (parts != 0).any(axis=2))

    def apply(self, items: Array, rows: Ints, weights: Array, at_ms: Ints) -> tuple[Array, Mask]:
        """Return (n, dim) rows, the item's block zero, and an (n,) mask; see UserTower.apply.

        Not of length 1: they are features. An item that is zeros is left out.
        """
        network, space = self.adaptor.network, self.space
        described = np.append(items.any(axis=1), False)  # where PADDING points at
        rows = np.where(described[rows], rows, PADDING)
        tastes = two_tastes(items, rows, weights, at_ms, self.rule)
        made = tastes.has_liked | tastes.has_cold
        vectors = np.zeros((len(rows), space.dim), np.float32)
        for tower, means, has in (
            (LIKED, tastes.liked, tastes.has_liked),
            (DISLIKED, tastes.cold, tastes.has_cold),
        ):
            inputs = np.where(has[:, None], means, network.unknown[tower])
            vectors[:, network.shape.block(tower)] = network.say(tower, inputs)
        vectors[~made] = 0
        return vectors, made
