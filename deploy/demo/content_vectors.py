"""What a film's vector would be without knowledge: its raw parts with the factor parts masked.

Needed where the text and the knowledge of a film became readable at once, so that nobody could see
the vector in between.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deploy.demo.watch import Vector
from schemas.vector_record import VectorRecord
from workers.adaptors.space_files import load_space
from workers.encoding.representation import CONTENT, TITLE
from workers.live.live_vectors import LiveVectors


def content_vectors(
    reader: LiveVectors, spaces_dir: Path, *, raw_space: str, space: str, item_ids: Sequence[str]
) -> dict[str, Vector]:
    """Return (dim,) vectors in `space`, made from what `raw_space` holds of the films now."""
    before, after = reader.keys.vec_affixes(raw_space)
    stored = reader.read([f"{before}item:{item_id}{after}" for item_id in item_ids])
    loaded = load_space(spaces_dir, space)
    names, width = loaded.space.parts, loaded.space.part_dim
    is_text = np.array([name in (TITLE, CONTENT) for name in names])
    present = [(item, value) for item, value in zip(item_ids, stored, strict=True) if value]
    if not present:
        return {}
    raw = np.zeros((len(present), len(names), width), np.float32)
    mask = np.zeros((len(present), len(names)), np.bool_)
    for row, (_, value) in enumerate(present):
        record = VectorRecord.decode(value)
        parts = record.vector.reshape(len(names), width)
        mask[row] = is_text & parts.any(axis=1)
        raw[row] = np.where(mask[row][:, None], parts, 0)
    made = loaded.adaptor.apply(raw, mask).astype(loaded.space.dtype)
    return {item: vector for (item, _), vector in zip(present, made, strict=True)}
