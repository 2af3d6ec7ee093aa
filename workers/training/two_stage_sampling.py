"""LEARN's two-stage sampling of a user's history and targets. Pure numpy; the generator is given.

Stage 1 bounds what is held: a uniform choice of events, order kept. Stage 2 picks the positions
that enter the loss, without replacement, in proportion to weights that favour recent ones:
log(alpha + i * (beta - alpha) / (N - 1)) of the i-th of N, oldest first.
"""

import numpy as np
import numpy.typing as npt

ALPHA = 10.0
BETA = 10_000.0

Ints = npt.NDArray[np.int64]


def uniform_sample(length: int, count: int, random: np.random.Generator) -> Ints:
    """Return at most `count` positions of `length`, ascending, each as likely as any other."""
    if length <= count:
        return np.arange(length)
    return np.sort(random.choice(length, count, replace=False))


def recency_weights(
    length: int, alpha: float = ALPHA, beta: float = BETA
) -> npt.NDArray[np.float64]:
    """Return (length,) weights, oldest first; the newest one's is 1."""
    weights = np.log(alpha + np.arange(length) * (beta - alpha) / max(length - 1, 1))
    return np.asarray(weights / weights.max()) if length > 1 else np.ones(length)


def recent_sample(length: int, count: int, random: np.random.Generator) -> Ints:
    """Return at most `count` positions of `length`, ascending, drawn by their recency weights."""
    if length <= count:
        return np.arange(length)
    weights = recency_weights(length)
    return np.sort(random.choice(length, count, replace=False, p=weights / weights.sum()))
