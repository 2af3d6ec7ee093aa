"""Which parts of a recorded representation are still good for a document's texts. Pure."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from schemas.fingerprints import text_fingerprint
from schemas.representation_record import RepresentationRecord
from schemas.spaces import Space

PartTexts: TypeAlias = tuple[str | None, ...]
Row: TypeAlias = tuple[PartTexts | None, npt.NDArray[np.floating] | None, PartTexts]
"""A row as the Representer takes it: texts of known parts, these parts (P, d), texts wanted."""


def is_of(record: RepresentationRecord, raw: Space) -> bool:
    """Return whether a record holds the parts of this raw space, by this very encoder."""
    return (record.encoder_id, record.names, record.parts.shape[1]) == (
        raw.encoder_id,
        raw.parts,
        raw.part_dim,
    )


def known_row(texts: PartTexts, record: RepresentationRecord | None) -> Row:
    """Return the row in which parts made from exactly these texts count as known.

    The fingerprint decides, not the record's revision: it does not change with every one.
    """
    if record is None:
        return None, None, texts
    kept = tuple(
        text if text is not None and fingerprint == text_fingerprint(text) else None
        for text, fingerprint in zip(texts, record.fingerprints, strict=True)
    )
    return kept, record.dense(), texts
