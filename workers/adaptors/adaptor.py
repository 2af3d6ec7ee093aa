"""What an adaptor is: a pure map from an entity's raw parts to its vector in one space."""

from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from schemas.spaces import Space

Array: TypeAlias = npt.NDArray[np.float32]
Mask: TypeAlias = npt.NDArray[np.bool_]


class Adaptor(Protocol):
    """Defined on any mask; never trained after its space was created."""

    @property
    def space(self) -> Space:
        """The space whose vectors it makes."""

    @property
    def default(self) -> Array:
        """(dim,) float32: the space's mean vector, for entities of which nothing is known."""

    def apply(self, parts: Array, mask: Mask) -> Array:
        """Return (n, dim) float32 for `parts` (n, P, d) and `mask` (n, P), rows independent."""

    def tensors(self) -> dict[str, Array]:
        """Return the arrays that its file holds."""


def unit_rows(rows: Array) -> Array:
    """Return the rows at length 1; zero rows stay zero."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Array = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return unit
