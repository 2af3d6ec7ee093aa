"""Entities of real size for Redis: documents with knowledge, and random vectors in two spaces."""

from collections.abc import Iterator

import numpy as np

from schemas.entities import EntityKey
from schemas.knowledge import Document
from schemas.vector_record import VectorHeader, VectorRecord
from tests.bench.films import EVENT_TIME_MS, document
from tests.bench.live_deployment import RAW_SPACE, SPACE

RAW_DIM = 8 * 384
SPACE_DIM = 256

_VECTORS = 64


def entities(count: int, *, rev: int = 1) -> Iterator[tuple[EntityKey, Document, dict[str, bytes]]]:
    """Yield (key, document, vector records by space); ids begin with `e`."""
    vectors = {name: _records(dim, rev) for name, dim in ((RAW_SPACE, RAW_DIM), (SPACE, SPACE_DIM))}
    for number in range(count):
        records = {name: some[number % _VECTORS] for name, some in vectors.items()}
        yield EntityKey.item(f"e{number}"), document(number), records


def _records(dim: int, rev: int) -> list[bytes]:
    values = np.random.default_rng(dim).standard_normal((_VECTORS, dim)).astype(np.float16)
    header = VectorHeader(3, "float16", dim, 255, rev, 1, 1, EVENT_TIME_MS, EVENT_TIME_MS)
    return [VectorRecord(header, vector).encode() for vector in values]
