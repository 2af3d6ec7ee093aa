"""Ranking metrics on plain arrays. Ties count half: equal scores earn what chance would."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Scores: TypeAlias = npt.NDArray[np.floating]


def mid_ranks(scores: Scores, targets: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return (n,) the rank from 1 of column `targets[i]` in row i of `scores` (n, m)."""
    own = scores[np.arange(len(scores)), targets][:, None]
    higher = (scores > own).sum(axis=1)
    equal = (scores == own).sum(axis=1)
    ranks: npt.NDArray[np.float64] = higher + (equal + 1) / 2
    return ranks


def auc(scores: Scores, positive: npt.NDArray[np.bool_]) -> float:
    """Return the chance that a positive scores above a negative; needs one of each."""
    positives = int(positive.sum())
    negatives = len(scores) - positives
    if not positives or not negatives:
        raise ValueError(f"{positives} positives and {negatives} negatives")
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    total = float(ranks[places][positive].sum())
    return (total - positives * (positives + 1) / 2) / (positives * negatives)
