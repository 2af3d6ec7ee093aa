"""The representation: named parts of an entity, each one text encoded alone.

Part texts are derived from the document, never stored: `title`, `content`, then one part per
knowledge factor. What has no title does not describe itself: the content of a user's document is
what was asked about, so only what was written becomes parts. A part whose text did not change keeps
its vector. Pure but for the encoder that is passed in; imports neither torch nor the model.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from schemas.fingerprints import Json
from schemas.knowledge import Document
from workers.encoding.text_encoder import TextEncoder

PartTexts: TypeAlias = tuple[str | None, ...]

TITLE = "title"
CONTENT = "content"
DEFAULT_PARTS = (TITLE, CONTENT, "genre", "people", "theme", "mood", "acclaim", "audience")

_SEPARATOR = " | "
# Fields in the order they are told; others follow alphabetically, with their names.
_ORDER = tuple(
    "subtitle year genres genre categories category brand authors author artist directors director "
    "actors cast writers".split()
)
# The title is a part of its own, and telling it again costs .01 Recall@20 on cold items (ML-1M). A
# plot costs another .01 and most of the encoder's time: it reaches vectors through the knowledge.
_UNTOLD = frozenset({TITLE, "plot"})


def part_texts(document: Document, parts: Sequence[str]) -> PartTexts:
    """Return the text of each part, None where it is missing. Deterministic in the document."""
    fields: Mapping[str, Json] = {} if document.content is None else document.content.fields
    if not _spoken(fields.get(TITLE)):
        fields = {}
    factors: Mapping[str, str] = (
        {} if document.live_factors is None else document.live_factors.factors
    )
    return tuple(_part_text(part, fields, factors) or None for part in parts)


def _part_text(part: str, fields: Mapping[str, Json], factors: Mapping[str, str]) -> str:
    match part:
        case "title":
            return _spoken(fields.get(TITLE))
        case "content":
            return content_text(fields)
        case _:
            return factors.get(part, "").strip()


def content_text(fields: Mapping[str, Json]) -> str:
    """Return the fields as `year | genres | directors | actors | other: value`, lists by commas."""
    known = [_spoken(fields.get(name)) for name in _ORDER]
    others = [
        f"{name}: {spoken}"
        for name in sorted(fields.keys() - _UNTOLD - {*_ORDER})
        if (spoken := _spoken(fields[name]))
    ]
    return _SEPARATOR.join([*filter(None, known), *others])


def _spoken(value: Json) -> str:
    match value:
        case None:
            return ""
        case str():
            return value.strip()
        case bool():
            return "yes" if value else "no"
        case int() | float():
            return str(value)
        case Mapping():
            return ", ".join(f"{name} {_spoken(value[name])}" for name in sorted(value))
        case _:
            return ", ".join(filter(None, map(_spoken, value)))


Row: TypeAlias = tuple[PartTexts | None, npt.NDArray[np.floating] | None, PartTexts]
"""Old texts, the raw parts (P, d) or (P * d,) made from exactly these, and the texts wanted now.

The first two are None for an entity that was never encoded.
"""


class Represented(NamedTuple):
    """`values` (n, P, d) float32 of float16 precision, zeros where `mask` (n, P) is False.

    `encoded_count` says how many texts the encoder was given.
    """

    values: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]
    encoded_count: int


class Representer:
    """Turns part texts into part vectors, encoding only what changed."""

    def __init__(self, encoder: TextEncoder, parts: Sequence[str] = DEFAULT_PARTS) -> None:
        self._encoder = encoder
        self.parts = tuple(parts)

    @property
    def encoder_id(self) -> str:
        """The encoder's id."""
        return self._encoder.encoder_id

    @property
    def part_dim(self) -> int:
        """Width of a part."""
        return self._encoder.dim

    def texts(self, document: Document) -> PartTexts:
        """Return the document's part texts in this representer's parts."""
        return part_texts(document, self.parts)

    def represent(self, rows: Sequence[Row]) -> Represented:
        """Return the parts of all rows; each distinct new text is encoded once. Blocks on torch.

        Values are rounded to float16, the precision they are stored in: a vector made now and one
        made later from the stored parts are the same.
        """
        shape = (len(rows), len(self.parts), self.part_dim)
        values = np.zeros(shape, np.float32)
        mask = np.zeros(shape[:2], np.bool_)
        wanted: dict[str, list[tuple[int, int]]] = {}
        for index, (old_texts, old_raw, new_texts) in enumerate(rows):
            kept = self._kept(old_texts, old_raw, new_texts)
            for part, text in enumerate(new_texts):
                if text is None:
                    continue
                mask[index, part] = True
                vector = kept.get(part)
                if vector is None:
                    wanted.setdefault(text, []).append((index, part))
                else:
                    values[index, part] = vector
        if wanted:
            encoded = self._encoder.encode(list(wanted)).astype(np.float16)
            for vector, places in zip(encoded, wanted.values(), strict=True):
                for index, part in places:
                    values[index, part] = vector
        return Represented(values, mask, len(wanted))

    def _kept(
        self,
        old_texts: PartTexts | None,
        old_raw: npt.NDArray[np.floating] | None,
        new_texts: PartTexts,
    ) -> dict[int, npt.NDArray[np.floating]]:
        """Return the old vectors by part where the text is the same as before."""
        if old_texts is None or old_raw is None:
            return {}
        old_parts = old_raw.reshape(len(self.parts), self.part_dim)
        return {
            part: old_parts[part]
            for part, (old, new) in enumerate(zip(old_texts, new_texts, strict=True))
            # An all-zero part was never encoded, whatever the old text says.
            if old is not None and old == new and old_parts[part].any()
        }
