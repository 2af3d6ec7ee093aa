"""The raw space: the parts as they are, concatenated. Every other adaptor starts from it.

It keeps the parts of users, too, made from what was written about them: a vector made from a
history would be something else than parts, and so has no place here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from schemas.entities import EntityKind
from schemas.errors import ConfigurationError
from schemas.spaces import Space
from workers.adaptors.adaptor import Array, Mask

ADAPTOR_ID = "raw"
RAW_SPACE = "minilm-parts"
CAUSAL_RAW_SPACE = "cex-parts"


@dataclass(frozen=True, slots=True)
class RawAdaptor:
    """Concatenates; a missing part is zeros."""

    space: Space

    @property
    def default(self) -> Array:
        """Zeros: the raw space knows no catalogue."""
        return np.zeros(self.space.dim, np.float32)

    def apply(self, parts: Array, mask: Mask) -> Array:
        """Return (n, P * d) float32 of `parts` (n, P, d), zero where `mask` (n, P) is False."""
        return np.where(mask[:, :, None], parts, np.float32(0)).reshape(len(parts), -1)

    def tensors(self) -> dict[str, Array]:
        """Return nothing: the space says it all."""
        return {}

    @classmethod
    def from_tensors(cls, space: Space, tensors: Mapping[str, Array]) -> Self:
        """Return the adaptor of `space`; raises ConfigurationError: its file holds no tensors."""
        if tensors:
            raise ConfigurationError(
                f"space {space.name}", f"a raw space has no tensors, found {sorted(tensors)}"
            )
        return cls(space)


def raw_adaptor(
    encoder_id: str,
    part_names: tuple[str, ...],
    part_dim: int,
    *,
    name: str | None = None,
    kinds: tuple[EntityKind, ...] = (EntityKind.ITEM, EntityKind.USER),
) -> RawAdaptor:
    """Return the raw space of an encoder, with its adaptor; named after the kind of encoder."""
    of_kind = CAUSAL_RAW_SPACE if encoder_id.startswith("cex-") else RAW_SPACE
    return RawAdaptor(
        Space(
            name=name or of_kind,
            kinds=kinds,
            encoder_id=encoder_id,
            adaptor_id=ADAPTOR_ID,
            parts=part_names,
            part_dim=part_dim,
            dim=part_dim * len(part_names),
            user_vectors="knowledge",
        )
    )
