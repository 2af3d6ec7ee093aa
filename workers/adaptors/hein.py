"""`reki`: what REKI's network says of an item, as features for rankers. Numpy only.

A vector of the space is three blocks: what the user liked, what left them cold, what the item is.
An item's fills the last, a user's (`workers.towers.hein_tower`) the first two; the rest is zero. So
the sum of a user's and an item's vector is all that the network says, and rankers are trained on
that; the space is not made for finding items near a user. Trained by `workers.training`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from schemas.spaces import Space
from workers.adaptors.adaptor import Array, Mask
from workers.adaptors.hein_forward import HeinForward
from workers.adaptors.hein_shape import ITEM, HeinShape
from workers.adaptors.trained_space import check_tensors, declared_raw_space

ADAPTOR_ID = "reki"

_ITEMS_AT_ONCE = 1_024


@dataclass(frozen=True, slots=True)
class HeinAdaptor:
    """An Adaptor; `network` is shared with the space's user tower."""

    space: Space
    network: HeinForward
    arrays: Mapping[str, Array]

    @property
    def default(self) -> Array:
        """(dim,) what is said of a user and of an item of which nothing is known: all blocks.

        A ranker takes a user's blocks from a user and an item's from an item, so one default
        serves both kinds.
        """
        return self.network.say_of_nothing()

    @property
    def raw_space(self) -> Space:
        """The raw space that the user tower reads items in."""
        return declared_raw_space(self.space)

    def apply(self, parts: Array, mask: Mask) -> Array:
        """Return (n, dim) float32 of `parts` (n, P, d), zero but for the item's block."""
        vectors = np.zeros((len(parts), self.space.dim), np.float32)
        block = self.network.shape.block(ITEM)
        for start in range(0, len(parts), _ITEMS_AT_ONCE):
            rows = slice(start, start + _ITEMS_AT_ONCE)
            inputs = self.network.inputs(parts[rows], mask[rows])
            inputs[~mask[rows].any(axis=1)] = self.network.unknown[ITEM]
            vectors[rows, block] = self.network.say(ITEM, inputs)
        return vectors

    def tensors(self) -> dict[str, Array]:
        """Return what `from_tensors` needs."""
        return dict(self.arrays)

    @classmethod
    def from_tensors(cls, space: Space, tensors: Mapping[str, Array]) -> Self:
        """Return the adaptor of `space`; raises ConfigurationError on missing or wrong tensors."""
        shape = HeinShape.of(space)
        check_tensors(space, shape.tensor_shapes(len(space.parts), space.part_dim), tensors)
        return cls(space, HeinForward.of(shape, tensors), dict(tensors))
