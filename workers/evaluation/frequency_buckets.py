"""New, tail and head: how much a figure owes to what is popular anyway. Pure numpy."""

from enum import IntEnum

import numpy as np
import numpy.typing as npt

HEAD_SHARE = 0.2
"""The most active fifth is the head."""


class Bucket(IntEnum):
    """By the number of training interactions."""

    NEW = 0
    TAIL = 1
    HEAD = 2


def buckets(
    counts: npt.NDArray[np.int64], *, new_upto: int = 0, head_share: float = HEAD_SHARE
) -> npt.NDArray[np.int64]:
    """Return (n,) the Bucket of each count (n,).

    New are those of at most `new_upto` interactions; of the others the `head_share` with the most
    are the head. Equal counts share a bucket: the one of the last of them, so the head is never
    larger than its share.
    """
    found = np.full(len(counts), Bucket.TAIL, np.int64)
    old = counts > new_upto
    size = int(old.sum() * head_share)
    if size < old.sum():
        # The greatest count that does not fit any more.
        bar = np.sort(counts[old])[::-1][size]
        found[counts > bar] = Bucket.HEAD
    found[~old] = Bucket.NEW
    return found
