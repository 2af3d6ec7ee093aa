"""The item-cold protocol: rank items that no training interaction has seen. Pure numpy.

Candidates are all test items that have a vector. A user is the mean of the vectors of all training
items that have one, and candidates are ranked by cosine. Recall@k is hits / min(k, positives),
NDCG@k has binary gain; both are macro averages over the users with at least one positive candidate
and one history item.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workers.adaptors.adaptor import unit_rows

_USERS_AT_ONCE = 1_024


@dataclass(frozen=True, slots=True)
class ItemVectors:
    """`values` (n, d), row i of item `keys[i]`."""

    keys: Sequence[str]
    values: npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class ItemColdFigures:
    """Recall and NDCG at k, and over how many users and candidates."""

    users: int
    candidates: int
    recall: float
    ndcg: float


def item_cold(
    train: Mapping[str, Sequence[str]],
    test: Mapping[str, Sequence[str]],
    vectors: ItemVectors,
    k: int = 20,
) -> ItemColdFigures:
    """Return the figures at `k`; `train` and `test` map a user to items.

    Raises ValueError when no user can be judged, or when there are fewer than `k` candidates.
    """
    row = {key: index for index, key in enumerate(vectors.keys)}
    cold = sorted({row[item] for items in test.values() for item in items if item in row})
    if len(cold) < k:
        raise ValueError(f"{len(cold)} candidates for the first {k}")
    column = {index: place for place, index in enumerate(cold)}
    histories = {user: known for user, items in train.items() if (known := _known(items, row))}
    positives = {
        user: [column[index] for index in known]
        for user, items in test.items()
        if user in histories and (known := _known(items, row))
    }
    if not positives:
        raise ValueError("no user has both a history and a positive")
    values = vectors.values.astype(np.float32)
    candidates = unit_rows(values[cold])
    users = list(positives)
    recalls, gains = [], []
    for start in range(0, len(users), _USERS_AT_ONCE):
        chunk = users[start : start + _USERS_AT_ONCE]
        means = np.stack([values[histories[user]].mean(axis=0) for user in chunk])
        relevant = np.zeros((len(chunk), len(cold)), np.bool_)
        for line, user in enumerate(chunk):
            relevant[line, positives[user]] = True
        # Candidates stand in order of their key's row, so the stable sort is deterministic on ties.
        top = np.argsort(-(unit_rows(means) @ candidates.T), axis=1, kind="stable")[:, :k]
        recall, gain = _recall_and_ndcg(np.take_along_axis(relevant, top, axis=1), relevant)
        recalls.append(recall)
        gains.append(gain)
    return ItemColdFigures(
        users=len(users),
        candidates=len(cold),
        recall=float(np.concatenate(recalls).mean()),
        ndcg=float(np.concatenate(gains).mean()),
    )


def _known(items: Sequence[str], row: Mapping[str, int]) -> list[int]:
    return [row[item] for item in dict.fromkeys(items) if item in row]


def _recall_and_ndcg(
    hits: npt.NDArray[np.bool_], relevant: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return (n,) recall and (n,) NDCG of `hits` (n, k) out of `relevant` (n, candidates)."""
    k = hits.shape[1]
    discounts = 1 / np.log2(np.arange(2, k + 2))
    reachable = np.minimum(relevant.sum(axis=1), k)
    ideal = np.cumsum(discounts)[reachable - 1]
    return hits.sum(axis=1) / reachable, (hits @ discounts) / ideal
