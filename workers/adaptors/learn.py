"""`learn`: the item tower of a LEARN space, its network on one item at a time. Numpy only.

Trained by `workers.training`; the user tower of the same network is `workers.towers.learn_tower`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from schemas.spaces import Space
from workers.adaptors.adaptor import Array, Mask
from workers.adaptors.learn_forward import LearnForward
from workers.adaptors.learn_shape import LearnShape
from workers.adaptors.trained_space import check_tensors, declared_raw_space

ADAPTOR_ID = "learn"

_ITEMS_AT_ONCE = 1_024


@dataclass(frozen=True, slots=True)
class LearnAdaptor:
    """An Adaptor; `network` is shared with the space's user tower.

    The network says where an item points. How far it reaches is `confidence` (P,): a factor for
    each part that is missing, 1 with all of them. Else an item of which little is known, and so
    expected to be as popular as the mean, would push aside those that are known not to be.
    """

    space: Space
    network: LearnForward
    default: Array
    confidence: Array
    arrays: Mapping[str, Array]

    @property
    def raw_space(self) -> Space:
        """The raw space that the user tower reads items in."""
        return declared_raw_space(self.space)

    def apply(self, parts: Array, mask: Mask) -> Array:
        """Return (n, dim) float32 of `parts` (n, P, d); no part at all: the default.

        Rows have length 1 where no part is missing, and are shorter where some are.
        """
        vectors = self.default[None].repeat(len(parts), axis=0)
        known = np.flatnonzero(mask.any(axis=1))
        for start in range(0, len(known), _ITEMS_AT_ONCE):
            rows = known[start : start + _ITEMS_AT_ONCE]
            reach = np.where(mask[rows], np.float32(1), self.confidence).prod(axis=1)
            alone = self.network.alone(self.network.hidden(parts[rows], mask[rows]))
            vectors[rows] = alone * reach[:, None]
        return vectors

    def tensors(self) -> dict[str, Array]:
        """Return what `from_tensors` needs."""
        return dict(self.arrays)

    @classmethod
    def from_tensors(cls, space: Space, tensors: Mapping[str, Array]) -> Self:
        """Return the adaptor of `space`; raises ConfigurationError on missing or wrong tensors."""
        shape = LearnShape.of(space)
        check_tensors(space, shape.tensor_shapes(len(space.parts), space.part_dim), tensors)
        return cls(
            space,
            LearnForward.of(shape, tensors),
            tensors["default"],
            tensors["confidence"],
            dict(tensors),
        )
