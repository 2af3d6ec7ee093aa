"""Groups: who shares knowledge with whom until there is knowledge of their own. Pure numpy.

A set of groups is one cut of a catalogue: never changed after creation, so a re-cut is a new set
under another name. It holds a centroid a group, in a space of its own: the parts that a new entity
has from the start, each minus its catalogue mean, concatenated, at length 1. A missing part counts
as the mean, as everywhere, so membership is defined on any mask.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from schemas.entities import EntityKind
from schemas.fingerprints import Json
from workers.adaptors.adaptor import Array, Mask, unit_rows

Ints: TypeAlias = npt.NDArray[np.int64]

NO_GROUP = -1
"""The row of what has no usable part, and so is near nothing."""

_CHUNK_ROWS = 4_096


@dataclass(frozen=True, slots=True)
class Group:
    """A group: `size` members when it was cut, and what a prompt may show of the most central.

    An exemplar is an entry (workers.knowledge.titles): `title`, `year` and `genres` where they are
    known, and the `item` that it is; there are at most 15, the most central first. The id is unique
    over all cuts of a deployment and outlives re-cuts.
    """

    id: str
    size: int
    exemplars: tuple[Mapping[str, Json], ...]


@dataclass(frozen=True, slots=True)
class Groups:
    """One cut. `mean` is (P * d,), `centroids` (K, P * d) unit rows, both float32.

    P counts `parts`, the ones that membership is decided by; row i of `centroids` is of
    `groups[i]`.
    """

    name: str
    kind: EntityKind
    encoder_id: str
    parts: tuple[str, ...]
    part_dim: int
    mean: Array
    centroids: Array
    groups: tuple[Group, ...]

    def nearest(self, parts: Array, mask: Mask, part_names: Sequence[str]) -> tuple[Ints, Array]:
        """Return (n,) the row of the nearest group and (n,) its cosine.

        `parts` (n, P, d) and `mask` (n, P) are those of a raw space whose parts are `part_names`;
        parts that the groups do not use are passed over, and ones that it lacks count as missing.
        Without a usable part the row is -1 and the cosine 0. Of two as near, the first. Raises
        ValueError when the shapes do not agree.
        """
        if parts.shape[1:] != (len(part_names), self.part_dim) or mask.shape != parts.shape[:2]:
            raise ValueError(
                f"parts {parts.shape}, mask {mask.shape} of {len(part_names)} x {self.part_dim}"
            )
        rows = np.full(len(parts), NO_GROUP, np.int64)
        cosines = np.zeros(len(parts), np.float32)
        for start in range(0, len(parts), _CHUNK_ROWS):
            chunk = slice(start, start + _CHUNK_ROWS)
            used, used_mask = chosen_parts(parts[chunk], mask[chunk], part_names, self.parts)
            features = centred_rows(used, used_mask, self.mean)
            similarity = features @ self.centroids.T
            best = similarity.argmax(axis=1)
            usable = features.any(axis=1)
            rows[chunk] = np.where(usable, best, NO_GROUP)
            cosines[chunk] = np.where(usable, similarity[np.arange(len(best)), best], 0.0)
        return rows, cosines


def chosen_parts(
    parts: Array, mask: Mask, part_names: Sequence[str], wanted: Sequence[str]
) -> tuple[Array, Mask]:
    """Return (n, W, d) and (n, W): the wanted ones of the named parts, those without missing."""
    chosen = np.zeros((len(parts), len(wanted), parts.shape[2]), np.float32)
    chosen_mask = np.zeros(chosen.shape[:2], np.bool_)
    for column, name in enumerate(wanted):
        if name in part_names:
            index = list(part_names).index(name)
            chosen[:, column] = parts[:, index]
            chosen_mask[:, column] = mask[:, index]
    return chosen, chosen_mask


def part_means(parts: Array, mask: Mask) -> Array:
    """Return (P * d,) float32: the mean of each part over the rows that have it."""
    total = np.where(mask[:, :, None], parts, np.float32(0)).sum(axis=0, dtype=np.float64)
    mean: Array = (total / np.maximum(mask.sum(axis=0), 1)[:, None]).astype(np.float32).ravel()
    return mean


def centred_rows(parts: Array, mask: Mask, mean: Array) -> Array:
    """Return (n, P * d) float32 unit rows: each part minus its mean, zero where it is missing."""
    centred = parts - mean.reshape(parts.shape[1:])
    features: Array = np.where(mask[:, :, None], centred, np.float32(0)).reshape(len(parts), -1)
    return unit_rows(features.astype(np.float32, copy=False))


def centroid_rows(features: Array, labels: Ints, count: int) -> Array:
    """Return (count, D) float32 unit rows: the mean direction of the rows of each label."""
    totals = np.zeros((count, features.shape[1]), np.float64)
    np.add.at(totals, labels, features)
    return unit_rows(totals.astype(np.float32))
