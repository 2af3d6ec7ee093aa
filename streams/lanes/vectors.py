"""From documents and their parts to vector records: what every writer of vectors shares. Pure.

The encode lane, the lane of a new space and the rebuild all come here, so a vector is the same
whoever made it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from schemas.entities import EntityKey
from schemas.knowledge import Document
from schemas.spaces import Space
from streams.lanes.entity_plan import mask_bits, vector_record
from streams.lanes.vector_rules import is_from_documents


class AdaptorPort(Protocol):
    """A map from an entity's parts to its vector in one space."""

    @property
    def space(self) -> Space:
        """The space whose vectors it makes."""

    def apply(
        self, parts: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.float32]:
        """Return (n, dim) float32 for (n, P, d) and (n, P). Blocks."""


@dataclass(frozen=True, slots=True)
class VectorSource:
    """What a vector is made from: revision `rev` of a document that describes its entity."""

    key: EntityKey
    document: Document
    rev: int
    written_at_ms: int


def space_records(
    sources: Sequence[VectorSource],
    parts: npt.NDArray[np.float32],
    mask: npt.NDArray[np.bool_],
    adaptors: Sequence[AdaptorPort],
) -> list[dict[str, bytes]]:
    """Return each source's vector records by space, in order; `parts` (n, P, d), `mask` (n, P).

    A space gets only the kinds that it makes from documents. Blocks on the adaptors.
    """
    records: list[dict[str, bytes]] = [{} for _ in sources]
    for adaptor in adaptors:
        rows = [
            row for row, one in enumerate(sources) if is_from_documents(adaptor.space, one.key.kind)
        ]
        if not rows:
            continue
        for row, vector in zip(rows, adaptor.apply(parts[rows], mask[rows]), strict=True):
            records[row][adaptor.space.name] = vector_record(
                sources[row].document,
                adaptor.space,
                vector,
                rev=sources[row].rev,
                mask=mask_bits(mask[row]),
                written_at_ms=sources[row].written_at_ms,
            )
    return records
