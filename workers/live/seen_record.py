"""What the items lane last saw of an item, as stored: 17 bytes and the fingerprint's.

Layout: i64 big-endian version, i64 big-endian at_ms, u8 removed, the fingerprint's raw bytes. The
version comes first: scripts and readers need no more of it.
"""

import struct
from dataclasses import dataclass
from typing import Self

_HEAD = struct.Struct(">qqB")


@dataclass(frozen=True, slots=True)
class Seen:
    """`fingerprint` is the content's in hexadecimal, empty for a removal."""

    version: int
    fingerprint: str
    removed: bool
    at_ms: int

    def encode(self) -> bytes:
        """Return the stored bytes; raises ValueError when the fingerprint is not hexadecimal."""
        head = _HEAD.pack(self.version, self.at_ms, self.removed)
        return head + bytes.fromhex(self.fingerprint)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the record in `data`; raises ValueError when it is too short to be one."""
        if len(data) < _HEAD.size:
            raise ValueError(f"seen record of {len(data)} bytes")
        version, at_ms, removed = _HEAD.unpack_from(data)
        return cls(version, data[_HEAD.size :].hex(), bool(removed), at_ms)
