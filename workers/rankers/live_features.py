"""Vectors as features of a ranker: rows to compute with, and what a training log must keep.

Needs only numpy. A ranker trains on what was served, not on what is there now: the log says which
version of which vector an impression was scored with, and holds the vectors themselves, because a
live view keeps no older ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, TypeAlias

import numpy as np
import numpy.typing as npt

from workers.live.vectors import Vectors

Array: TypeAlias = npt.NDArray[np.float32]
Mask: TypeAlias = npt.NDArray[np.bool_]

_USER_BLOCKS = 2
_BLOCKS = 3


@dataclass(frozen=True, slots=True)
class LiveFeatures:
    """n pairs of a user and an item: `users` and `items` (n, dim), and whether there are any.

    Rows that were not found are zeros in `masked`, and the space's default otherwise.
    """

    users: Array
    items: Array
    users_found: Mask
    items_found: Mask

    @classmethod
    def of(cls, users: Vectors, items: Vectors) -> Self:
        """Return the features of one user with n items, or of n users with as many items.

        Raises ValueError on vectors of two spaces: these are not comparable.
        """
        if users.space != items.space:
            raise ValueError(f"users of space {users.space}, items of {items.space}")
        shape = (len(items), users.values.shape[1])
        return cls(
            np.broadcast_to(users.values.astype(np.float32), shape),
            items.values.astype(np.float32),
            np.broadcast_to(users.found, len(items)),
            items.found,
        )

    def masked(self) -> Self:
        """Return them with zeros where nothing was found: for rankers that are told the masks."""
        return type(self)(
            self.users * self.users_found[:, None],
            self.items * self.items_found[:, None],
            self.users_found,
            self.items_found,
        )

    def reki(self) -> Array:
        """Return (n, dim): of a `reki` space, a user's two blocks and an item's, side by side.

        Where nothing was found stands what the network learned to say of it. Raises ValueError on a
        width that is not three blocks.
        """
        width = self.items.shape[1]
        if width % _BLOCKS:
            raise ValueError(f"{width} values are no {_BLOCKS} blocks")
        of_users = _USER_BLOCKS * (width // _BLOCKS)
        return np.concatenate([self.users[:, :of_users], self.items[:, of_users:]], axis=1)


def training_log(keys: Sequence[str], vectors: Vectors) -> list[dict[str, object]]:
    """Return a line for each vector that a request was scored with, as JSON can hold it.

    `rev`, with the space, names the vector; stage and age say how much and how fresh it knew.
    Raises ValueError unless there is a key for each vector.
    """
    if len(keys) != len(vectors):
        raise ValueError(f"{len(keys)} keys for {len(vectors)} vectors")
    return [
        {
            "key": key,
            "space": vectors.space,
            "found": bool(vectors.found[row]),
            "stage": int(vectors.stages[row]),
            "rev": int(vectors.revs[row]),
            "content_version": int(vectors.content_versions[row]),
            "factors_version": int(vectors.factors_versions[row]),
            "age_ms": int(vectors.ages_ms[row]),
            "values": vectors.values[row].astype(np.float32).tolist(),
        }
        for row, key in enumerate(keys)
    ]
