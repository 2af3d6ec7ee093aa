"""Spherical k-means without chance: the same rows make the same groups. Pure numpy.

Seeds by farthest first, so that nothing is random: the row nearest to the mean of all, then over
and over the row least like any seed so far. Ties go to the first row, so whoever calls sorts rows
by key.
"""

import numpy as np

from workers.adaptors.adaptor import Array, unit_rows
from workers.grouping.groups import Ints, centroid_rows

MAX_ROUNDS = 100
_CHUNK_ROWS = 8_192


def kmeans(features: Array, count: int, *, max_rounds: int = MAX_ROUNDS) -> Ints:
    """Return (n,) labels 0..k-1 of unit rows (n, D), numbered in the order of their first row.

    k is `count`, or less where the rows are not that many or not that different. Raises ValueError
    for a count below 1 or no rows.
    """
    if count < 1 or not len(features):
        raise ValueError(f"{count} groups of {len(features)} rows")
    centroids = features[_farthest_first(features, count)].copy()
    labels = _assign(features, centroids)
    for _ in range(max_rounds):
        centroids = _moved(features, labels, centroids)
        moved = _assign(features, centroids)
        if np.array_equal(moved, labels):
            break
        labels = moved
    return in_order_of_first(labels)


def in_order_of_first(labels: Ints) -> Ints:
    """Return the labels renumbered 0.. in the order in which they first occur."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    ordered: Ints = rank[inverse]
    return ordered


def _farthest_first(features: Array, count: int) -> Ints:
    """Return the rows of the seeds; fewer than `count` once every row equals a seed."""
    middle = unit_rows(features.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32))[0]
    seeds = [int((features @ middle).argmax())]
    closest = features @ features[seeds[0]]
    while len(seeds) < min(count, len(features)):
        farthest = int(closest.argmin())
        if closest[farthest] > 1.0 - 1e-6:
            break
        seeds.append(farthest)
        closest = np.maximum(closest, features @ features[farthest])
    return np.array(seeds, np.int64)


def _assign(features: Array, centroids: Array) -> Ints:
    labels = np.empty(len(features), np.int64)
    for start in range(0, len(features), _CHUNK_ROWS):
        chunk = slice(start, start + _CHUNK_ROWS)
        labels[chunk] = (features[chunk] @ centroids.T).argmax(axis=1)
    return labels


def _moved(features: Array, labels: Ints, centroids: Array) -> Array:
    moved = centroid_rows(features, labels, len(centroids))
    # A group that lost every member stays where it was, and may win some back.
    lost = ~moved.any(axis=1)
    moved[lost] = centroids[lost]
    return moved
