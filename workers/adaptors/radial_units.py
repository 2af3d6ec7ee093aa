"""The hidden layer of LEARN's content adaptor: how like an item is to known ones. Numpy.

A unit belongs to an item of the catalogue, its centre, and says of another item
mean over parts of exp(sharpness * (cosine - 1)) - exp(-sharpness), cosines being of parts with the
catalogue's mean taken off. A sum of bumps over parts: two items that share a mood but nothing else
are somewhat alike, which no linear map of all parts together can say. A missing part counts as the
mean, here too: its cosine is 0, and so is what it adds.
"""

from typing import NamedTuple

import numpy as np

from workers.adaptors.adaptor import Array, unit_rows


class RadialUnits(NamedTuple):
    """`centres` (P, J, d): unit rows, zeros where a centre lacks the part; `sharpness` (1,)."""

    centres: Array
    sharpness: Array

    def of_part(self, part: int, centred: Array) -> Array:
        """Return (n, J) float32: what one part (n, d), mean taken off, adds to each unit."""
        sharpness = self.sharpness[0]
        cosines = unit_rows(centred) @ self.centres[part].T
        bumps: Array = np.exp(sharpness * (cosines - 1)) - np.exp(-sharpness)
        return bumps / np.float32(len(self.centres))

    def of_items(self, centred: Array) -> Array:
        """Return (n, J) float32 of items `centred` (n, P, d), zeros where a part is missing."""
        total = np.zeros((len(centred), self.centres.shape[1]), np.float32)
        for part in range(len(self.centres)):
            total += self.of_part(part, centred[:, part])
        return total
