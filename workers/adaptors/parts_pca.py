"""`parts-pca`: the adaptor that needs no interactions. Pure numpy.

Subtract the catalogue mean of each part, concatenate, find the principal components with the
singular values to the power -0.5 (half whitening), normalise. What is missing is inferred from
what is there: the components are the expectation, given the parts at hand, of a probabilistic PCA
(Tipping & Bishop 1999, section 3), so a new item of which only the content is known lies where
items with such content lie once they are written about. When fitting, a missing part counts as the
catalogue mean.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from schemas.entities import EntityKind
from schemas.errors import ConfigurationError
from schemas.spaces import Space
from workers.adaptors.adaptor import Array, Mask, unit_rows

ADAPTOR_ID = "parts-pca"
DEFAULT_DIM = 256

_POWER = -0.5
# Directions below this share of the greatest singular value are rounding, not catalogue.
_SMALLEST_SHARE = 1e-5
_CHUNK_ROWS = 4_096
_MASKS_KEPT = 32


@dataclass(frozen=True, slots=True)
class PartsPca:
    """All float32.

    `mean` is (P, d), `projection` (P * d, dim) the half-whitened axes, `variances` (dim,) those of
    the components, `noise` (1,) that of a value beside the components, `default` (dim,).
    """

    space: Space
    mean: Array
    projection: Array
    variances: Array
    noise: Array
    default: Array
    _grams: npt.NDArray[np.float64] = field(init=False, repr=False, compare=False)
    _inferring: dict[bytes, Array] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        loadings = self.projection * self._loading_of_projected()
        by_part = loadings.reshape(*self.mean.shape, -1)
        object.__setattr__(self, "_grams", by_part.transpose(0, 2, 1) @ by_part)

    def apply(self, parts: Array, mask: Mask) -> Array:
        """Return (n, dim) float32 unit rows of `parts` (n, P, d); no part at all: the default."""
        projected = _centred(parts, mask, self.mean) @ self.projection
        kinds, kind_of = np.unique(mask, axis=0, return_inverse=True)
        for kind, present in enumerate(kinds):
            rows = kind_of == kind
            projected[rows] = projected[rows] @ self._inference(present)
        vectors = unit_rows(projected)
        vectors[~mask.any(axis=1)] = self.default
        return vectors

    def tensors(self) -> dict[str, Array]:
        """Return what `from_tensors` needs."""
        return {
            "mean": self.mean,
            "projection": self.projection,
            "variances": self.variances,
            "noise": self.noise,
            "default": self.default,
        }

    def _inference(self, present: Mask) -> Array:
        """Return (dim, dim): from projected present parts to the components they let expect."""
        key = present.tobytes()
        inference = self._inferring.get(key)
        if inference is None:
            if len(self._inferring) >= _MASKS_KEPT:
                self._inferring.clear()
            inference = self._inferring[key] = self._infer(present)
        return inference

    def _infer(self, present: Mask) -> Array:
        # With loadings W = axes * deviations of latent z: E[z | x] = (W'W + noise)^-1 W'x.
        precision = self._grams[present].sum(axis=0)
        precision += float(self.noise[0]) * np.eye(len(precision))
        expected = self._loading_of_projected()[:, None] * np.linalg.inv(precision)
        # A component is z * deviation; half whitening takes the root of the deviation off again.
        inference: Array = (expected * np.sqrt(np.sqrt(self.variances))).astype(np.float32)
        return inference

    def _loading_of_projected(self) -> npt.NDArray[np.float64]:
        """Return (dim,): by what the half-whitened axes are multiplied to be the loadings."""
        weights = np.linalg.norm(self.projection, axis=0).astype(np.float64)
        deviations = np.sqrt(self.variances, dtype=np.float64)
        loading: npt.NDArray[np.float64] = np.divide(
            deviations, weights, out=np.zeros_like(weights), where=weights > 0
        )
        return loading

    @classmethod
    def from_tensors(cls, space: Space, tensors: Mapping[str, Array]) -> Self:
        """Return the adaptor of `space`; raises ConfigurationError on missing or wrong tensors."""
        flat = len(space.parts) * space.part_dim
        shapes = {
            "mean": (len(space.parts), space.part_dim),
            "projection": (flat, space.dim),
            "variances": (space.dim,),
            "noise": (1,),
            "default": (space.dim,),
        }
        for name, shape in shapes.items():
            if name not in tensors or tensors[name].shape != shape:
                found = tensors[name].shape if name in tensors else "missing"
                raise ConfigurationError(
                    f"space {space.name}", f"tensor {name} is {found}, needed {shape}"
                )
        return cls(
            space,
            mean=tensors["mean"],
            projection=tensors["projection"],
            variances=tensors["variances"],
            noise=tensors["noise"],
            default=tensors["default"],
        )


def fit_parts_pca(
    parts: Array,
    mask: Mask,
    *,
    name: str,
    encoder_id: str,
    part_names: tuple[str, ...],
    dim: int = DEFAULT_DIM,
    kinds: tuple[EntityKind, ...] = (EntityKind.ITEM,),
    user_vectors: Literal["histories", "knowledge"] = "histories",
) -> PartsPca:
    """Return the adaptor fitted on a catalogue: `parts` (n, P, d), `mask` (n, P).

    The mean of a part is over the items that have it; a part that no item has gets no say in the
    space, whatever text it may hold later. A catalogue of lower rank than `dim` leaves the last
    components zero. Signs are fixed (the greatest loading of a component is positive), so the same
    data gives the same space. `kinds` and `user_vectors` are what the space declares of itself.
    Raises ConfigurationError when there is nothing to fit on.
    """
    count, part_count, part_dim = parts.shape
    if part_count != len(part_names) or mask.shape != (count, part_count):
        raise ValueError(f"parts {parts.shape}, mask {mask.shape}, {len(part_names)} names")
    if dim > part_count * part_dim:
        raise ConfigurationError(
            f"space {name}", f"dim {dim} is above the {part_count * part_dim} values of all parts"
        )
    described = int(mask.any(axis=1).sum())
    if described < 2:
        raise ConfigurationError(
            f"space {name}", f"cannot be fitted on {described} items with any part"
        )
    # Whatever stands in a missing part, it is not data.
    parts = np.where(mask[:, :, None], parts, np.float32(0))
    mean = _part_means(parts, mask)
    singular, axes = _principal(parts, mask, mean, dim)
    kept = singular > _SMALLEST_SHARE * singular[0] if singular[0] > 0 else singular > 0
    if not kept.any():
        raise ConfigurationError(f"space {name}", "all items are the same: nothing to tell apart")
    weights = np.zeros(dim)
    weights[kept] = singular[kept] ** _POWER
    axes[np.repeat(~mask.any(axis=0), part_dim)] = 0.0
    projection = np.ascontiguousarray(axes * _signs(axes) * weights, np.float32)
    variances = np.where(kept, np.square(singular) / described, 0.0).astype(np.float32)
    total = float(np.square(_centred(parts, mask, mean), dtype=np.float64).sum())
    # That of a mean value, not of what the components leave: they are fitted, new items are not.
    noise = np.array([total / described / (part_count * part_dim)], np.float32)
    space = Space(
        name=name,
        kinds=kinds,
        encoder_id=encoder_id,
        adaptor_id=ADAPTOR_ID,
        parts=part_names,
        part_dim=part_dim,
        dim=dim,
        user_vectors=user_vectors,
        fitted_on={
            "items": described,
            **{f"items_with_{part}": int(mask[:, i].sum()) for i, part in enumerate(part_names)},
            "digest": _digest(parts, mask),
        },
        metrics={"variance_kept": round(float(np.square(singular).sum()) / total, 4)},
    )
    unknown = np.zeros(dim, np.float32)
    fitted = PartsPca(space, mean, projection, variances, noise, unknown)
    vectors = fitted.apply(parts[mask.any(axis=1)], mask[mask.any(axis=1)])
    return replace(fitted, default=vectors.mean(axis=0, dtype=np.float64).astype(np.float32))


def _part_means(parts: Array, mask: Mask) -> Array:
    total = parts.sum(axis=0, dtype=np.float64)
    means: Array = (total / np.maximum(mask.sum(axis=0), 1)[:, None]).astype(np.float32)
    return means


def _centred(parts: Array, mask: Mask, mean: Array) -> Array:
    """Return (n, P * d) float32: each part minus its mean, zero where it is missing."""
    centred = np.where(mask[:, :, None], (parts - mean).astype(np.float32), np.float32(0))
    flat: Array = centred.reshape(len(parts), -1)
    return flat


def _principal(
    parts: Array, mask: Mask, mean: Array, dim: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the `dim` greatest singular values, falling, and their axes (P * d, dim).

    Decomposes the smaller of the two Gram matrices, in float64.
    """
    count, width = len(parts), parts.shape[1] * parts.shape[2]
    if count <= width:
        rows = _centred(parts, mask, mean).astype(np.float64)
        values, vectors = np.linalg.eigh(rows @ rows.T)
        singular, left = _greatest(values, vectors, min(dim, count))
        axes = rows.T @ left / np.where(singular > 0, singular, 1.0)
    else:
        covariance = np.zeros((width, width))
        for start in range(0, count, _CHUNK_ROWS):
            chunk = slice(start, start + _CHUNK_ROWS)
            rows = _centred(parts[chunk], mask[chunk], mean).astype(np.float64)
            covariance += rows.T @ rows
        values, vectors = np.linalg.eigh(covariance)
        singular, axes = _greatest(values, vectors, dim)
    missing = dim - len(singular)
    return np.pad(singular, (0, missing)), np.pad(axes, ((0, 0), (0, missing)))


def _greatest(
    values: npt.NDArray[np.float64], vectors: npt.NDArray[np.float64], dim: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    # eigh returns them rising.
    return np.sqrt(np.maximum(values[::-1][:dim], 0.0)), vectors[:, ::-1][:, :dim]


def _signs(axes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    greatest = axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])]
    return np.where(greatest < 0, -1.0, 1.0)


def _digest(parts: Array, mask: Mask) -> str:
    hasher = blake2b(digest_size=16)
    hasher.update(np.ascontiguousarray(mask).tobytes())
    hasher.update(np.ascontiguousarray(parts, "<f4").data)
    return hasher.hexdigest()
