"""The representation record: an entity's raw parts, as kept in the compacted topic.

Layout: u32 big-endian length of a JSON header, the header, then the present parts in mask order as
little-endian float16, each `dim` long. Rebuilds and new adaptors read it, so they need no encoder.
"""

import struct
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import orjson

from schemas.entities import EntityKey
from schemas.errors import Permanent
from schemas.reasons import Reason

_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class RepresentationRecord:
    """`parts` is (n_present, dim) float16; `fingerprints[i]` is None where part i is missing."""

    entity: EntityKey
    rev: int
    encoder_id: str
    names: tuple[str, ...]
    fingerprints: tuple[str | None, ...]
    parts: npt.NDArray[np.float16]

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """(n_parts,) True where the part is present."""
        return np.array([fingerprint is not None for fingerprint in self.fingerprints])

    def dense(self) -> npt.NDArray[np.float32]:
        """Return (n_parts, dim) float32 with zeros where a part is missing."""
        out = np.zeros((len(self.names), self.parts.shape[1]), np.float32)
        out[self.mask] = self.parts
        return out

    def encode(self) -> bytes:
        """Return the record value."""
        header = orjson.dumps(
            {
                "entity": str(self.entity),
                "rev": self.rev,
                "encoder_id": self.encoder_id,
                "names": self.names,
                "fingerprints": self.fingerprints,
                "dim": int(self.parts.shape[1]),
            }
        )
        return _LENGTH.pack(len(header)) + header + self.parts.astype("<f2").tobytes()

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """Return the record in a value; raises Permanent(unreadable_knowledge)."""
        try:
            (length,) = _LENGTH.unpack_from(value)
            header = orjson.loads(value[_LENGTH.size : _LENGTH.size + length])
            parts = np.frombuffer(value, "<f2", offset=_LENGTH.size + length)
            return cls(
                EntityKey.parse(header["entity"]),
                int(header["rev"]),
                str(header["encoder_id"]),
                tuple(header["names"]),
                tuple(header["fingerprints"]),
                parts.reshape(-1, int(header["dim"])).astype(np.float16),
            )
        except (struct.error, ValueError, KeyError, TypeError) as error:
            raise Permanent(Reason.UNREADABLE_KNOWLEDGE, repr(error)) from error
