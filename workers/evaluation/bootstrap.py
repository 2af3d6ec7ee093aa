"""Confidence of means: what they might have been with other users of the same kind. Pure numpy."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

SAMPLES = 1_000
_SAMPLES_AT_ONCE = 64


class Interval(NamedTuple):
    """Where 95 of 100 resampled means lie."""

    low: float
    high: float


def mean_interval(
    values: npt.NDArray[np.floating], *, seed: int = 0, samples: int = SAMPLES
) -> Interval | None:
    """Return the 95 % interval of the mean of `values` (n,), None for less than two of them.

    Draws n of the n values with replacement, `samples` times; the same seed draws the same.
    """
    count = len(values)
    if count < 2:
        return None
    generator = np.random.default_rng(seed)
    means = np.empty(samples)
    for start in range(0, samples, _SAMPLES_AT_ONCE):
        rows = generator.integers(0, count, (min(_SAMPLES_AT_ONCE, samples - start), count))
        means[start : start + len(rows)] = values[rows].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(float(low), float(high))


def grouped_mean_interval(
    values: npt.NDArray[np.floating],
    groups: npt.NDArray[np.integer],
    *,
    seed: int = 0,
    samples: int = SAMPLES,
) -> Interval | None:
    """Return the 95 % interval of the mean of `values` (n,) when whole groups (n,) are drawn.

    For several values of one user, which are no independent ones. None for less than two groups.
    """
    _, group = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(group, values), np.bincount(group)
    if len(counts) < 2:
        return None
    generator = np.random.default_rng(seed)
    means = np.empty(samples)
    for start in range(0, samples, _SAMPLES_AT_ONCE):
        rows = generator.integers(
            0, len(counts), (min(_SAMPLES_AT_ONCE, samples - start), len(counts))
        )
        means[start : start + len(rows)] = sums[rows].sum(axis=1) / counts[rows].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(float(low), float(high))
