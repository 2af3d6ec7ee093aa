"""What a read of item vectors answers that leaves out what the reader has already."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.vector_record import HEADER

TAG_BYTES = HEADER.size

NO_TAG = b""
"""Of a vector that is not stored: nobody can ask whether it is still the same."""


def tag_of(record: bytes) -> bytes:
    """Return what tells a stored record from all others of its item in its space: its header.

    That holds the revision and when it was written.
    """
    return record[:TAG_BYTES]


@dataclass(frozen=True, slots=True)
class ItemsRead:
    """Which of m items have a vector now, and those vectors that the reader did not have.

    Attributes:
        found: (m,) which have one.
        rows: (c,) of these the ones whose vector is not the one that the reader has.
        values: (c, dim) float32, their vectors.
        tags: (c,) of these vectors, to ask with the next time.
    """

    found: npt.NDArray[np.bool_]
    rows: npt.NDArray[np.intp]
    values: npt.NDArray[np.float32]
    tags: Sequence[bytes]
