"""The vector record: a fixed header and the vector, as stored in Redis for rankers.

Layout (format 1): a big-endian header of 52 bytes, then `dim` little-endian IEEE 754 values.

    offset  type  field
         0  u8    format, 1
         1  u8    stage: 0 none, 1 content, 2 collective, 3 individual
         2  u8    dtype: 1 float16, 2 float32
         3  u8    reserved, 0
         4  u16   dim
         6  u16   reserved, 0
         8  u32   mask: bit i is set when part i of the space was present
        12  i64   rev: the document's revision the vector was made from
        20  i64   content version, -1 when none
        28  i64   factors version, -1 when none
        36  i64   event_time_ms: event time of the newest register used
        44  i64   written_at_ms: wall clock of the writer
        52  ...   the vector

Examples byte for byte: deploy/contracts/examples/vector-record.json. Needs only numpy: rankers
import it.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

FORMAT = 1
HEADER = struct.Struct(">BBBBHHIqqqqq")
NO_VERSION = -1

_DTYPE_CODES = {"float16": 1, "float32": 2}
_DTYPES: dict[int, np.dtype[np.float16] | np.dtype[np.float32]] = {
    1: np.dtype("<f2"),
    2: np.dtype("<f4"),
}
_HEADER_DTYPE = np.dtype(
    [
        ("format", "u1"),
        ("stage", "u1"),
        ("dtype", "u1"),
        ("reserved0", "u1"),
        ("dim", ">u2"),
        ("reserved1", ">u2"),
        ("mask", ">u4"),
        ("rev", ">i8"),
        ("content_version", ">i8"),
        ("factors_version", ">i8"),
        ("event_time_ms", ">i8"),
        ("written_at_ms", ">i8"),
    ]
)


@dataclass(frozen=True, slots=True)
class VectorHeader:
    """What a ranker may want to know of a vector besides its values."""

    stage: int
    dtype: str
    dim: int
    mask: int
    rev: int
    content_version: int
    factors_version: int
    event_time_ms: int
    written_at_ms: int


@dataclass(frozen=True, slots=True)
class VectorRecord:
    """One entity's vector in one space: `vector` is (dim,) in the header's dtype."""

    header: VectorHeader
    vector: npt.NDArray[np.float16] | npt.NDArray[np.float32]

    def encode(self) -> bytes:
        """Return the stored bytes; raises ValueError when the vector is not the header's."""
        header = self.header
        if self.vector.shape != (header.dim,):
            raise ValueError(f"vector of shape {self.vector.shape} for dim {header.dim}")
        packed = HEADER.pack(
            FORMAT,
            header.stage,
            _DTYPE_CODES[header.dtype],
            0,
            header.dim,
            0,
            header.mask,
            header.rev,
            header.content_version,
            header.factors_version,
            header.event_time_ms,
            header.written_at_ms,
        )
        return packed + self.vector.astype(_DTYPES[_DTYPE_CODES[header.dtype]]).tobytes()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the record in `data`; raises ValueError when it is not one."""
        header = decode_header(data)
        dtype = _DTYPES[_DTYPE_CODES[header.dtype]]
        if len(data) != HEADER.size + header.dim * dtype.itemsize:
            raise ValueError(f"vector record of {len(data)} bytes for dim {header.dim}")
        vector: npt.NDArray[np.float16] | npt.NDArray[np.float32] = np.frombuffer(  # type: ignore[assignment]  # one of the two by _DTYPES
            data, dtype, offset=HEADER.size
        )
        return cls(header, vector)


def decode_header(data: bytes) -> VectorHeader:
    """Return the header alone; raises ValueError on an unknown format."""
    if len(data) < HEADER.size:
        raise ValueError(f"vector record of {len(data)} bytes is shorter than its header")
    format_, stage, dtype, _, dim, _, mask, rev, content, factors, event_ms, written_ms = (
        HEADER.unpack_from(data)
    )
    if format_ != FORMAT or dtype not in _DTYPES:
        raise ValueError(f"vector record format {format_}, dtype {dtype}")
    return VectorHeader(
        stage, _DTYPES[dtype].name, dim, mask, rev, content, factors, event_ms, written_ms
    )


def record_dtype(dim: int, dtype: str) -> np.dtype[np.void]:
    """Return the structured dtype of a record: view many joined records as one array."""
    return np.dtype([("header", _HEADER_DTYPE), ("vector", _DTYPES[_DTYPE_CODES[dtype]], (dim,))])


def decode_many(records: Sequence[bytes], dim: int, dtype: str) -> npt.NDArray[np.void]:
    """Return (n,) structured records of equal size, one copy in all; raises ValueError."""
    layout = record_dtype(dim, dtype)
    # Sets and whole columns, not a loop: rankers decode hundreds of records a request.
    if not set(map(len, records)) <= {layout.itemsize}:
        raise ValueError(f"a record is not {layout.itemsize} bytes: not of this space")
    decoded = np.frombuffer(b"".join(records), layout)
    header = decoded["header"]
    foreign = (
        (header["format"] != FORMAT)
        | (header["dtype"] != _DTYPE_CODES[dtype])
        | (header["dim"] != dim)
    )
    if foreign.any():
        raise ValueError(f"a record is not of format {FORMAT}, {dim} x {dtype}")
    return decoded
