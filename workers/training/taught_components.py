"""What interactions teach about items and text can tell of: popularity and co-liking. Numpy, torch.

Targets of each item with interactions: the logarithm of how many users took to it, and its place
among the principal directions of who took to what (a truncated SVD). A ridge regression on radial
units predicts them from the item's parts, so that a new item has them as well. An item that helped
to fit a prediction looks better known than a new one ever is; therefore every item also has
predictions by folds that left it out. Histories are of known items and targets stand for new ones:
training shows the network the former in histories and the latter as targets.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from workers.adaptors.adaptor import Array
from workers.training.user_sequences import UserSequences

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FOLDS = 8

_POPULARITY_RIDGE = 0.1
_TASTE_RIDGE = 0.3
"""Shares of the units' mean square, found on items held out from the training."""

_POPULARITY_SIZE = 0.12
"""How much popularity says at first, beside tastes of length 1."""

_FEWEST_FANS = 5
_ROUNDING = 1e-6
_POWER_ITERATIONS = 8


class Targets(NamedTuple):
    """`items` (w,) rows of the catalogue with interactions; `values` (w, k), `ridges` (k,)."""

    items: Ints
    values: Floats
    ridges: Floats


@dataclass(frozen=True, slots=True)
class Taught:
    """Linear maps of radial units (J) to components (k), by all items and by folds.

    `weights` (1 + FOLDS, J, k) and `offsets` (1 + FOLDS, k); number 0 is fitted on all items, the
    others leave out a fold each. `fold_of` (n,) says which map of an item has not seen it: 0 for
    items without interactions, which no map has.
    """

    weights: Array
    offsets: Array
    fold_of: Ints


def targets_of(sequences: UserSequences, items: int, directions: int, seed: int) -> Targets:
    """Return what interactions say of the items that have any; `items` is the catalogue's size."""
    fans = np.bincount(sequences.items, minlength=items)
    known = np.flatnonzero(fans)
    column = np.full(items, -1, np.int64)
    column[known] = np.arange(len(known))
    popularity = np.log1p(fans[known].astype(np.float64))
    spread = popularity.std() or 1.0
    popularity = _POPULARITY_SIZE * (popularity - popularity.mean()) / spread
    directions = min(directions, len(known) - 1, len(sequences) - 1)
    tastes = _tastes(sequences, column, fans[known], directions, seed)
    ridges = np.full(1 + tastes.shape[1], _TASTE_RIDGE)
    ridges[0] = _POPULARITY_RIDGE
    return Targets(known, np.column_stack([popularity, tastes]), ridges)


def _tastes(
    sequences: UserSequences, column: Ints, fans: Ints, directions: int, seed: int
) -> Floats:
    """Return (w, directions): items' principal directions, rows of length 1 in the mean."""
    counts = np.diff(sequences.starts)
    users = np.repeat(np.arange(len(sequences)), counts)
    own = column[sequences.items]
    weights = 1 / np.sqrt(counts[users] * np.maximum(fans[own], _FEWEST_FANS))
    table = torch.sparse_coo_tensor(
        torch.from_numpy(np.stack([own, users])),
        torch.from_numpy(weights),
        (len(fans), len(sequences)),
        check_invariants=True,
    ).coalesce()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vectors, sizes, _ = torch.svd_lowrank(table, q=directions, niter=_POWER_ITERATIONS)
    placed: Floats = (vectors * sizes.sqrt()).numpy()
    placed /= np.linalg.norm(placed, axis=1).mean()
    return placed


def untaught(items: int) -> Taught:
    """Return what there is without radial units: no component at all."""
    return Taught(
        np.zeros((1 + FOLDS, 0, 0), np.float32),
        np.zeros((1 + FOLDS, 0), np.float32),
        np.zeros(items, np.int64),
    )


def teach(units: Array, centres: Ints, targets: Targets, missing: float, seed: int) -> Taught:
    """Return the maps fitted on radial units (n, J) of all items, `centres` (J,) being rows.

    `missing` is what a unit says of an item that has nothing: a bump is units + missing.
    """
    basis = _basis(units[centres].astype(np.float64) + missing)
    rows = units[targets.items].astype(np.float64) + missing
    rows = rows @ basis
    folds = np.random.default_rng(seed).permutation(len(rows)) % FOLDS
    weights, offsets = [], []
    for left_out in range(-1, FOLDS):
        fitted, mean = _ridge(rows, targets, folds != left_out)
        weights.append(basis @ fitted)
        offsets.append(mean + missing * weights[-1].sum(axis=0))
    fold_of = np.zeros(len(units), np.int64)
    fold_of[targets.items] = 1 + folds
    return Taught(
        np.stack(weights).astype(np.float32), np.stack(offsets).astype(np.float32), fold_of
    )


def _basis(among_centres: Floats) -> Floats:
    """Return (J, J'): what makes bumps at the centres orthonormal, rounding left out."""
    values, vectors = np.linalg.eigh((among_centres + among_centres.T) / 2)
    kept = values > _ROUNDING * values[-1]
    basis: Floats = vectors[:, kept] / np.sqrt(values[kept])
    return basis


def _ridge(rows: Floats, targets: Targets, kept: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return (J', k) and the (k,) means of ridge regressions on the rows kept."""
    own, values = rows[kept], targets.values[kept]
    mean = values.mean(axis=0)
    gram = own.T @ own
    size = np.trace(gram) / len(own)
    right = own.T @ (values - mean)
    fitted = np.empty_like(right)
    for ridge in np.unique(targets.ridges):
        same = targets.ridges == ridge
        fitted[:, same] = np.linalg.solve(gram + ridge * size * np.eye(len(gram)), right[:, same])
    return fitted, mean
