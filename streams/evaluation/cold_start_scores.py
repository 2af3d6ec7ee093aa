"""From vectors to the figures of a cold-start task, with intervals and by frequency. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streams.evaluation.cold_start_task import ColdStartTask
from workers.evaluation.audiences import audience_areas
from workers.evaluation.bootstrap import Interval, mean_interval
from workers.evaluation.frequency_buckets import HEAD_SHARE, Bucket, buckets
from workers.evaluation.retrieval import Metric, Pairs, Retrieval, retrieve

MIN_LIKES = 5
"""Training likes of a user who counts in an audience."""

NEW_USER_EVENTS = 5
"""A user with no more training interactions is new."""

_WITHOUT_K = frozenset({"audience_auc", "percentile"})


@dataclass(frozen=True, slots=True)
class NamedVectors:
    """`values` (n, d), row i of id `ids[i]`; who is not named has none."""

    ids: Sequence[str]
    values: npt.NDArray[np.floating]

    def rows(self) -> dict[str, int]:
        """Return the row of each id."""
        return {id_: row for row, id_ in enumerate(self.ids)}


@dataclass(frozen=True, slots=True)
class ItemBucket:
    """Of `n` positives of a bucket: the share among the first k, and their mean percentile."""

    n: int
    hr: float | None
    percentile: float | None


@dataclass(frozen=True, slots=True)
class UserBucket:
    """Of `n` users of a bucket."""

    n: int
    recall: float | None
    ndcg: float | None


@dataclass(frozen=True, slots=True)
class ColdStartScores:
    """The figures at `k`; None where there was nothing to average.

    `hr` is the share of users with a positive among the first k; `percentile` the mean share of
    other candidates behind a positive; `audience_auc` is over `audiences` items;
    `head_item_share` is the share of all that was shown which went to the head of the candidates
    (None without a head), `top_fifth_share` what went to the most shown fifth of them.
    `without_vector` counts candidates that had none and so could not compete.
    """

    k: int
    n_items: int
    n_users: int
    recall: float
    ndcg: float
    hr: float
    percentile: float
    audience_auc: float | None
    audiences: int
    without_vector: int
    intervals: Mapping[str, Interval | None]
    by_item: Mapping[str, ItemBucket]
    by_user: Mapping[str, UserBucket]
    head_item_share: float | None
    top_fifth_share: float

    def to_json(self) -> dict[str, object]:
        """Return JSON-ready values, keys naming k."""
        at = f"@{self.k}"
        return {
            f"recall{at}": self.recall,
            f"ndcg{at}": self.ndcg,
            "audience_auc": self.audience_auc,
            "n_items": self.n_items,
            "n_users": self.n_users,
            f"hr{at}": self.hr,
            "percentile": self.percentile,
            "n_audiences": self.audiences,
            "items_without_vector": self.without_vector,
            "intervals_95": {
                name if name in _WITHOUT_K else f"{name}{at}": interval and list(interval)
                for name, interval in self.intervals.items()
            },
            "items_by_frequency": {
                name: {"n": one.n, f"hr{at}": one.hr, "percentile": one.percentile}
                for name, one in self.by_item.items()
            },
            "users_by_frequency": {
                name: {"n": one.n, f"recall{at}": one.recall, f"ndcg{at}": one.ndcg}
                for name, one in self.by_user.items()
            },
            "head_item_share": self.head_item_share,
            "top_fifth_share": self.top_fifth_share,
        }


def cold_start_scores(
    task: ColdStartTask, items: NamedVectors, users: NamedVectors, *, k: int, metric: Metric
) -> ColdStartScores:
    """Return the figures; raises ValueError when nobody can be judged (see `retrieve`)."""
    item_row, user_row = items.rows(), users.rows()
    candidates = [item for item in task.candidates if item in item_row]
    column = {item: place for place, item in enumerate(candidates)}
    vectors = items.values[[item_row[item] for item in candidates]]
    judged = {
        user: places
        for user, liked in task.positives.items()
        if user in user_row and (places := [column[item] for item in liked if item in column])
    }
    before = [
        [column[item] for item in task.known_before.get(user, ()) if item in column]
        for user in judged
    ]
    found = retrieve(
        users.values[[user_row[user] for user in judged]],
        vectors,
        Pairs.of(list(judged.values())),
        k=k,
        metric=metric,
        left_out=Pairs.of(before),
    )
    areas = _audiences(task, candidates, vectors, users, metric)
    item_bucket = _item_buckets(task, candidates)
    heads = item_bucket == Bucket.HEAD
    return ColdStartScores(
        k=k,
        n_items=len(candidates),
        n_users=len(judged),
        recall=float(found.recall.mean()),
        ndcg=float(found.ndcg.mean()),
        hr=float(found.hit.mean()),
        percentile=float(found.percentile.mean()),
        audience_auc=float(areas.mean()) if len(areas) else None,
        audiences=len(areas),
        without_vector=len(task.candidates) - len(candidates),
        intervals={
            "recall": mean_interval(found.recall),
            "ndcg": mean_interval(found.ndcg),
            "hr": mean_interval(found.hit),
            "percentile": mean_interval(found.percentile),
            "audience_auc": mean_interval(areas),
        },
        by_item=_by_item(found, item_bucket),
        by_user=_by_user(found, _user_buckets(task, list(judged))),
        head_item_share=float(found.shown[heads].sum() / found.shown.sum())
        if heads.any()
        else None,
        top_fifth_share=_top_share(found.shown),
    )


def _audiences(
    task: ColdStartTask,
    candidates: Sequence[str],
    vectors: npt.NDArray[np.floating],
    users: NamedVectors,
    metric: Metric,
) -> npt.NDArray[np.float64]:
    asked = [user for user in users.ids if task.like_counts.get(user, 0) >= MIN_LIKES]
    if not asked:
        return np.zeros(0)
    row = users.rows()
    column = {item: place for place, item in enumerate(candidates) if item in task.cold}
    fans = [
        [column[item] for item in task.positives.get(user, ()) if item in column] for user in asked
    ]
    values = users.values[[row[user] for user in asked]]
    return audience_areas(values, vectors, Pairs.of(fans), metric=metric).areas


def _item_buckets(task: ColdStartTask, candidates: Sequence[str]) -> npt.NDArray[np.int64]:
    everything = task.items
    counts = np.array([task.item_counts.get(item, 0) for item in everything], np.int64)
    of_item = dict(zip(everything, buckets(counts).tolist(), strict=True))
    return np.array([of_item[item] for item in candidates], np.int64)


def _user_buckets(task: ColdStartTask, judged: Sequence[str]) -> npt.NDArray[np.int64]:
    everybody = list(task.user_counts)
    counts = np.array([task.user_counts[user] for user in everybody], np.int64)
    of_user = dict(zip(everybody, buckets(counts, new_upto=NEW_USER_EVENTS).tolist(), strict=True))
    return np.array([of_user.get(user, Bucket.NEW) for user in judged], np.int64)


def _by_item(found: Retrieval, bucket: npt.NDArray[np.int64]) -> dict[str, ItemBucket]:
    of_pair = bucket[found.pairs.candidates]
    return {
        one.name.lower(): ItemBucket(
            int((of_pair == one).sum()),
            _mean(found.found[of_pair == one]),
            _mean(found.behind[of_pair == one]),
        )
        for one in Bucket
    }


def _by_user(found: Retrieval, bucket: npt.NDArray[np.int64]) -> dict[str, UserBucket]:
    return {
        one.name.lower(): UserBucket(
            int((bucket == one).sum()),
            _mean(found.recall[bucket == one]),
            _mean(found.ndcg[bucket == one]),
        )
        for one in Bucket
    }


def _mean(values: npt.NDArray[np.generic]) -> float | None:
    return float(values.astype(np.float64).mean()) if len(values) else None


def _top_share(shown: npt.NDArray[np.int64]) -> float:
    most = np.sort(shown)[::-1][: max(1, round(len(shown) * HEAD_SHARE))]
    return float(most.sum() / shown.sum())
