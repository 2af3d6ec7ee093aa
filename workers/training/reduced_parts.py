"""Items as the training sees them: raw parts on a few hundred components. Numpy.

Components are linear maps of an item's centred parts and of its radial units: what interactions
teach first (workers.training.taught_components), then the half-whitened principal components of the
catalogue. The content adaptor is learned on components and folded back into maps of parts and units
when it is done: so training starts at what is known already, and a step does not cost P * d values
an item. Every component is a sum of shares of parts, so dropping parts at random is nearly free.
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from workers.adaptors.adaptor import Array, Mask, unit_rows
from workers.adaptors.parts_pca import fit_parts_pca
from workers.adaptors.radial_units import RadialUnits
from workers.training.taught_components import Taught, targets_of, teach, untaught
from workers.training.user_sequences import UserSequences

Ints = npt.NDArray[np.int64]

_CHUNK_ROWS = 1_024


class ComponentSizes(NamedTuple):
    """How many components in all, how many of them taught directions of taste, and how taught."""

    components: int
    directions: int
    centres: int
    sharpness: float
    seed: int


class FoldedContent(NamedTuple):
    """A content adaptor as it is served: maps of centred parts and of radial units, and a bias."""

    weight: Array
    radial: Array
    bias: Array


@dataclass(frozen=True, slots=True)
class ReducedParts:
    """Shares of all items, (n, P, r), missing parts zeros, and offsets beside their sum.

    `shares` and `offset` (r,) are what is served; `new_shares` and `new_offsets` (n, r) are what an
    item would look like had it no interactions yet. `mean` (P, d), `projection` (P * d, r), `units`
    and `radial` (J, r) lead from parts to components.
    """

    shares: Array
    offset: Array
    new_shares: Array
    new_offsets: Array
    mask: Mask
    mean: Array
    projection: Array
    units: RadialUnits
    radial: Array

    @property
    def inputs(self) -> Array:
        """(n, r): the items as they are served."""
        return self.inputs_of(np.ones(self.shares.shape[1], np.bool_))

    def inputs_of(self, known: Mask) -> Array:
        """Return (n, r): the items as they are served while only `known` (P,) parts are there."""
        inputs: Array = self.shares[:, known].sum(axis=1) + self.offset
        return inputs

    @classmethod
    def of(cls, parts: Array, mask: Mask, sequences: UserSequences, sizes: ComponentSizes) -> Self:
        """Return the items `parts` (n, P, d) on components fitted on those with interactions."""
        known = np.unique(sequences.items)
        names = tuple(f"part-{number}" for number in range(parts.shape[1]))
        pca = fit_parts_pca(
            parts[known],
            mask[known],
            name="components",
            encoder_id="",
            part_names=names,
            dim=sizes.components,
        )
        centred = np.where(mask[:, :, None], parts - pca.mean, np.float32(0)).astype(np.float32)
        places = np.random.default_rng(sizes.seed).permutation(known)[: sizes.centres]
        units = RadialUnits(
            np.stack([unit_rows(centred[places, part]) for part in range(len(names))]),
            np.array([sizes.sharpness], np.float32),
        )
        taught = _taught(units, centred, places, sequences, sizes)
        count = taught.offsets.shape[1]
        projection = _scaled(
            pca.projection[:, : sizes.components - count], centred[known].reshape(len(known), -1)
        )
        shares, new_shares = _shares(centred, units, taught, projection)
        rest = projection.shape[1]
        return cls(
            shares=shares,
            offset=np.pad(taught.offsets[0], (0, rest)),
            new_shares=new_shares,
            new_offsets=np.pad(taught.offsets[taught.fold_of], ((0, 0), (0, rest))),
            mask=mask,
            mean=pca.mean,
            projection=np.pad(projection, ((0, 0), (count, 0))),
            units=units,
            radial=np.pad(taught.weights[0], ((0, 0), (0, rest))),
        )

    def folded(self, weight: Array, bias: Array) -> FoldedContent:
        """Return the served form of a map of components: `weight` (width, r), `bias` (width,)."""
        return FoldedContent(
            np.ascontiguousarray(weight @ self.projection.T, np.float32),
            np.ascontiguousarray(weight @ self.radial.T, np.float32),
            (bias + weight @ self.offset).astype(np.float32),
        )


def _taught(
    units: RadialUnits,
    centred: Array,
    places: Ints,
    sequences: UserSequences,
    sizes: ComponentSizes,
) -> Taught:
    if not len(places):
        return untaught(len(centred))
    said = np.concatenate([units.of_items(centred[rows]) for rows in _chunks(len(centred))])
    targets = targets_of(sequences, len(centred), sizes.directions, sizes.seed)
    return teach(said, places, targets, float(np.exp(-sizes.sharpness)), sizes.seed)


def _shares(
    centred: Array, units: RadialUnits, taught: Taught, projection: Array
) -> tuple[Array, Array]:
    """Return (n, P, r) shares as they are served, and as those of new items."""
    items, part_count, part_dim = centred.shape
    count = taught.offsets.shape[1]
    by_part = projection.reshape(part_count, part_dim, -1)
    shares = np.empty((items, part_count, count + projection.shape[1]), np.float32)
    new_shares = np.empty_like(shares)
    for rows in _chunks(items):
        for part in range(part_count):
            own = units.of_part(part, centred[rows, part])
            shares[rows, part, :count] = own @ taught.weights[0]
            new_shares[rows, part, :count] = _by_fold(own, taught, rows)
            shares[rows, part, count:] = centred[rows, part] @ by_part[part]
    new_shares[:, :, count:] = shares[:, :, count:]
    return shares, new_shares


def _chunks(count: int) -> list[slice]:
    return [slice(start, start + _CHUNK_ROWS) for start in range(0, count, _CHUNK_ROWS)]


def _scaled(projection: Array, rows: Array) -> Array:
    """Return the projection with which the rows have length 1 in the mean, as taught tastes do."""
    scaled: Array = projection / np.float32(np.linalg.norm(rows @ projection, axis=1).mean())
    return scaled


def _by_fold(units: Array, taught: Taught, rows: slice) -> Array:
    folds = taught.fold_of[rows]
    made = np.empty((len(units), taught.weights.shape[2]), np.float32)
    for fold in np.unique(folds):
        of_fold = folds == fold
        made[of_fold] = units[of_fold] @ taught.weights[fold]
    return made
