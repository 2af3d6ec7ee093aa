"""Training samples in time: each interaction with what its user had done strictly before it. Pure.

The rule against leaks lives here: a sample's history ends before its own moment, so two
interactions of one user at the same time do not see each other. Splits are by time alone: what a
model is chosen or judged on lies after all that it was trained on.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Self, TypeAlias

import numpy as np
import numpy.typing as npt

Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float32]
Strings: TypeAlias = npt.NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class TimedSamples:
    """Interactions of users with known items, one user after the other, each in time order.

    Of several interactions of a user with an item only the first is here: the answer to a later
    one would stand in its own history. Row i's history is the rows `starts[i]` to `ends[i]`.

    Attributes:
        users: (n,) ids.
        items: (n,) rows of the catalogue.
        values: (n,) what the user gave; NaN where the action has no value.
        at_ms: (n,) event times.
        starts: (n,) the user's first row.
        ends: (n,) the first row of the user that is not before the sample's time.
    """

    users: Strings
    items: Ints
    values: Floats
    at_ms: Ints
    starts: Ints
    ends: Ints

    @classmethod
    def of(cls, users: Strings, items: Ints, values: Floats, at_ms: Ints) -> Self:
        """Return the samples of interactions in any order; raises ValueError without a time."""
        if (at_ms < 0).any():
            raise ValueError(f"{int((at_ms < 0).sum())} interactions have no time")
        known, user = np.unique(users, return_inverse=True)
        order = np.lexsort((items, at_ms, user))
        pairs = user[order] * (int(items.max(initial=0)) + 1) + items[order]
        order = order[np.sort(np.unique(pairs, return_index=True)[1])]
        user, times = user[order].astype(np.int64), at_ms[order].astype(np.int64)
        bounds = np.searchsorted(user, np.arange(len(known) + 1))
        ends = np.empty(len(order), np.int64)
        for begin, end in pairwise(bounds.tolist()):
            own = times[begin:end]
            ends[begin:end] = begin + np.searchsorted(own, own, side="left")
        return cls(
            users=users[order],
            items=items[order].astype(np.int64),
            values=values[order].astype(np.float32),
            at_ms=times,
            starts=bounds[user].astype(np.int64),
            ends=ends,
        )

    def __len__(self) -> int:
        return len(self.items)

    def history(self, rows: Ints, longest: int) -> Ints:
        """Return (n, <= longest) rows of what came before, newest first, -1 where there is none."""
        lengths = np.minimum(self.ends[rows] - self.starts[rows], longest)
        back = np.arange(max(int(lengths.max(initial=0)), 1))
        before: Ints = np.where(
            back < lengths[:, None], self.ends[rows][:, None] - 1 - back, np.int64(-1)
        )
        return before


@dataclass(frozen=True, slots=True)
class TimeSplit:
    """Rows to train on, to choose a model by and to judge it by, and the times between them."""

    train: Ints
    valid: Ints
    test: Ints
    valid_from_ms: int
    test_from_ms: int


def split_by_time(samples: TimedSamples, valid_share: float, test_share: float) -> TimeSplit:
    """Return the split: the last share of the samples is the test, what comes before it validates.

    Samples of one moment stay together. Raises ValueError when a part that was asked for is empty.
    """
    if valid_share <= 0 or test_share < 0 or valid_share + test_share >= 1:
        raise ValueError(f"shares {valid_share} and {test_share}")
    times = np.sort(samples.at_ms)
    never = int(times[-1]) + 1 if len(times) else 0
    count = len(times)
    valid_from = int(times[int(count * (1 - valid_share - test_share))]) if count else never
    test_from = int(times[int(count * (1 - test_share))]) if test_share and count else never
    train = np.flatnonzero(samples.at_ms < valid_from)
    valid = np.flatnonzero((samples.at_ms >= valid_from) & (samples.at_ms < test_from))
    test = np.flatnonzero(samples.at_ms >= test_from)
    if not len(train) or not len(valid) or bool(len(test)) != bool(test_share):
        raise ValueError(
            f"{count} samples leave {len(train)} to train on, {len(valid)} to validate, "
            f"{len(test)} to test"
        )
    return TimeSplit(train, valid, test, valid_from, test_from)
