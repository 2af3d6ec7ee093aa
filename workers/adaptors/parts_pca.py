"""`parts-pca`: the adaptor that needs no interactions. Pure numpy.

Subtract the catalogue mean of each part, concatenate, project on the principal components with
the singular values to the power -0.5 (half whitening), normalise. A missing part counts as the
catalogue mean: it is zero once centred, so the adaptor is defined on any mask, when fitting too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class PartsPca:
    """`mean` is (P, d), `projection` (P * d, dim), `default` (dim,); all float32."""

    space: Space
    mean: Array
    projection: Array
    default: Array

    def apply(self, parts: Array, mask: Mask) -> Array:
        """Return (n, dim) float32 unit rows of `parts` (n, P, d); no part at all: the default."""
        projected = _centred(parts, mask, self.mean) @ self.projection
        vectors = unit_rows(projected)
        vectors[~mask.any(axis=1)] = self.default
        return vectors

    def tensors(self) -> dict[str, Array]:
        """Return what `from_tensors` needs."""
        return {"mean": self.mean, "projection": self.projection, "default": self.default}

    @classmethod
    def from_tensors(cls, space: Space, tensors: Mapping[str, Array]) -> Self:
        """Return the adaptor of `space`; raises ConfigurationError on missing or wrong tensors."""
        flat = len(space.parts) * space.part_dim
        shapes = {
            "mean": (len(space.parts), space.part_dim),
            "projection": (flat, space.dim),
            "default": (space.dim,),
        }
        for name, shape in shapes.items():
            if name not in tensors or tensors[name].shape != shape:
                found = tensors[name].shape if name in tensors else "missing"
                raise ConfigurationError(
                    f"space {space.name}", f"tensor {name} is {found}, needed {shape}"
                )
        return cls(space, tensors["mean"], tensors["projection"], tensors["default"])


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
    vectors = unit_rows(_centred(parts, mask, mean) @ projection)
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
        metrics={"variance_kept": _variance_kept(parts, mask, mean, singular)},
    )
    return PartsPca(space, mean, projection, vectors.mean(axis=0, dtype=np.float64).astype("f4"))


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


def _variance_kept(
    parts: Array, mask: Mask, mean: Array, singular: npt.NDArray[np.float64]
) -> float:
    total = float(np.square(_centred(parts, mask, mean), dtype=np.float64).sum())
    return round(float(np.square(singular).sum()) / total, 4)


def _digest(parts: Array, mask: Mask) -> str:
    hasher = blake2b(digest_size=16)
    hasher.update(np.ascontiguousarray(mask).tobytes())
    hasher.update(np.ascontiguousarray(parts, "<f4").data)
    return hasher.hexdigest()
