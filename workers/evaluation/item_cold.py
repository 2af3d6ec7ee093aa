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

from workers.evaluation.retrieval import Pairs, retrieve


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
    users = list(positives)
    found = retrieve(
        np.stack([values[histories[user]].mean(axis=0) for user in users]),
        values[cold],
        Pairs.of([positives[user] for user in users]),
        k=k,
    )
    return ItemColdFigures(
        users=len(users),
        candidates=len(cold),
        recall=float(found.recall.mean()),
        ndcg=float(found.ndcg.mean()),
    )


def _known(items: Sequence[str], row: Mapping[str, int]) -> list[int]:
    return [row[item] for item in dict.fromkeys(items) if item in row]
