"""What a ranker gets: vectors of many entities with all that a training log needs. No I/O.

Needs only numpy and the standard library: rankers import it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.entities import EntityKind
from schemas.vector_record import NO_VERSION, decode_many
from workers.live.pins import STAND_IN_REV, PinnedSpace

_NO_AGE = -1


@dataclass(frozen=True, slots=True)
class Vectors:
    """Vectors of n entities in one space, in the order asked for.

    `values` is (n, dim), contiguous, in the space's dtype; every other array is (n,). Where `found`
    is False the values are the space's default, the stage is 0 and versions, revs and ages are -1.
    `ages_ms` is the time since each vector was written, `event_times_ms` the source's time of the
    newest thing it knows.
    """

    space: str
    values: npt.NDArray[np.floating]
    found: npt.NDArray[np.bool_]
    stages: npt.NDArray[np.uint8]
    content_versions: npt.NDArray[np.int64]
    factors_versions: npt.NDArray[np.int64]
    revs: npt.NDArray[np.int64]
    event_times_ms: npt.NDArray[np.int64]
    written_at_ms: npt.NDArray[np.int64]
    ages_ms: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.found)


def decode_vectors(space: PinnedSpace, values: Sequence[bytes | None], now_ms: int) -> Vectors:
    """Return the vectors in stored values; raises ValueError when one is not of this space."""
    stand_in = space.stand_in
    records = decode_many([value or stand_in for value in values], space.dim, space.dtype)
    header = records["header"]
    revs = header["rev"].astype(np.int64)
    found = revs != STAND_IN_REV
    written_at_ms = header["written_at_ms"].astype(np.int64)
    return Vectors(
        space=space.name,
        values=np.ascontiguousarray(records["vector"]),
        found=found,
        stages=header["stage"].copy(),
        content_versions=header["content_version"].astype(np.int64),
        factors_versions=header["factors_version"].astype(np.int64),
        revs=revs,
        event_times_ms=header["event_time_ms"].astype(np.int64),
        written_at_ms=written_at_ms,
        ages_ms=np.where(found, now_ms - written_at_ms, _NO_AGE),
    )


def kind_of(keys: Sequence[str]) -> EntityKind:
    """Return the one kind that all keys have (items when there are none).

    Raises ValueError when kinds are mixed or unknown. One pass in C: rankers ask for hundreds.
    """
    if not keys:
        return EntityKind.ITEM
    spelled = keys[0].partition(":")[0]
    try:
        kind = EntityKind(spelled)
    except ValueError as error:
        raise ValueError(f"{keys[0][:80]!r} is not kind:id") from error
    # Keys hold no white space, so a line that begins with the kind is a key that does.
    if ("\n" + "\n".join(keys)).count(f"\n{spelled}:") != len(keys):
        raise ValueError(f"keys of mixed kinds: not all begin with {spelled}:")
    return kind


def leading_versions(values: Sequence[bytes | None]) -> npt.NDArray[np.int64]:
    """Return (n,) the versions (i64, big-endian) that values begin with, -1 where there is none."""
    absent = NO_VERSION.to_bytes(8, "big", signed=True)
    heads = [absent if value is None else value[:8] for value in values]
    return np.frombuffer(b"".join(heads), ">i8").astype(np.int64)
