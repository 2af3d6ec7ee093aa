"""What REKI's features are worth to a ranker: the same DIN with and without them, seed by seed.

Beside the features themselves there are arms that a gain has to survive: knowledge of other items,
numbers without a meaning, content alone, and a plain network instead of HEIN. All are trained on
the same samples, chosen on the same validation and judged on the same test samples.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from workers.evaluation.bootstrap import Interval
from workers.evaluation.frequency_buckets import Bucket, buckets
from workers.evaluation.ranking import auc
from workers.training.reki_data import RekiData
from workers.training.reki_options import RekiOptions
from workers.training.train_reki import Progress, train_reki

WITHOUT = "without"
"""The arm that the others are compared with: the ranker alone."""

ARMS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        WITHOUT: {"knowledge": "none"},
        "reki": {},
        "shuffled": {"knowledge": "shuffled"},
        "random": {"knowledge": "random"},
        "content": {"knowledge": "content"},
        "mlp": {"adaptor": "mlp"},
    }
)
"""By name, how the options of an arm differ."""

RESAMPLES = 1_000
_LEAST_OF_EACH = 10
"""A bucket with fewer likes, or fewer others, says nothing."""


@dataclass(frozen=True, slots=True)
class ArmFigures:
    """An arm over all seeds; `gain` and what follows it are against the ranker alone.

    Attributes:
        aucs: of each seed, on the test samples.
        valid_aucs: on the validation samples.
        gain: the mean difference; `relative` is its share of the ranker's own AUC.
        by_seed: the standard error of `gain` over seeds, None for a single one.
        by_user: where 95 of 100 gains lie when the test's users are drawn anew.
        by_bucket: mean AUC of the test samples of new, tail and head items and users.
    """

    aucs: tuple[float, ...]
    valid_aucs: tuple[float, ...]
    gain: float
    relative: float
    by_seed: float | None
    by_user: Interval
    by_bucket: Mapping[str, float]

    @property
    def auc(self) -> float:
        """The mean over seeds."""
        return float(np.mean(self.aucs))

    def to_json(self) -> dict[str, object]:
        """Return JSON-ready values."""
        return {"auc": self.auc, **asdict(self), "by_user": list(self.by_user)}


def compare(
    data_of: Callable[[RekiOptions], RekiData],
    options: RekiOptions,
    arms: Sequence[str],
    seeds: int,
    device: torch.device,
    *,
    progress: Progress = lambda _what, _done, _total: None,
) -> dict[str, ArmFigures]:
    """Return the figures of the ranker alone and of `arms`, trained with `seeds` seeds each.

    `data_of` makes the data of an arm's options; all must split alike.
    """
    scores: dict[str, list[npt.NDArray[np.float32]]] = {}
    valid: dict[str, list[float]] = {}
    data: RekiData | None = None
    names = list(dict.fromkeys([WITHOUT, *arms]))
    for number in range(seeds):
        for name in names:
            progress(f"{name}, seed {options.seed + number}", number, seeds)
            own = replace(options, seed=options.seed + number, **ARMS[name])
            data = data_of(own)
            made = train_reki(data, own, device)
            scores.setdefault(name, []).append(made.test_scores)
            valid.setdefault(name, []).append(made.valid_auc)
    if data is None:
        raise ValueError("no seeds")
    return {name: _figures(data, scores[WITHOUT], scores[name], valid[name]) for name in names}


def _figures(
    data: RekiData,
    base: Sequence[npt.NDArray[np.float32]],
    own: Sequence[npt.NDArray[np.float32]],
    valid: Sequence[float],
) -> ArmFigures:
    test = data.split.test
    liked = data.labels[test] > 0
    aucs, before = [auc(one, liked) for one in own], [auc(one, liked) for one in base]
    gains = np.subtract(aucs, before)
    gain = float(gains.mean())
    return ArmFigures(
        aucs=tuple(aucs),
        valid_aucs=tuple(valid),
        gain=gain,
        relative=gain / float(np.mean(before)),
        by_seed=float(gains.std(ddof=1) / np.sqrt(len(gains))) if len(gains) > 1 else None,
        by_user=gain_interval(base, own, liked, data.samples.users[test]),
        by_bucket={
            name: float(np.mean([auc(one[rows], liked[rows]) for one in own]))
            for name, rows in _bucketed(data).items()
            if min(liked[rows].sum(), (~liked[rows]).sum()) >= _LEAST_OF_EACH
        },
    )


def gain_interval(
    base: Sequence[npt.NDArray[np.float32]],
    own: Sequence[npt.NDArray[np.float32]],
    liked: npt.NDArray[np.bool_],
    users: npt.NDArray[np.str_],
    *,
    samples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the 95 % interval of the mean gain in AUC when whole users are drawn anew.

    `base` and `own` hold the (n,) scores of each seed, in pairs.
    """
    known, user = np.unique(users, return_inverse=True)
    places = [[np.unique(one, return_inverse=True)[1] for one in seeds] for seeds in (base, own)]
    generator = np.random.default_rng(seed)
    gains = np.empty(samples)
    for draw in range(samples):
        times = np.bincount(generator.integers(0, len(known), len(known)), minlength=len(known))
        weights = times[user].astype(np.float64)
        before, after = (
            np.mean([_weighted_auc(one, liked, weights) for one in seeds]) for seeds in places
        )
        gains[draw] = after - before
    low, high = np.quantile(gains, (0.025, 0.975))
    return Interval(float(low), float(high))


def _weighted_auc(
    place: npt.NDArray[np.int64],
    liked: npt.NDArray[np.bool_],
    weights: npt.NDArray[np.float64],
) -> float:
    """Return the AUC when sample i counts `weights[i]` times; `place` is its score's rank."""
    positives = np.bincount(place, weights * liked)
    negatives = np.bincount(place, weights * ~liked, minlength=len(positives))
    below = np.cumsum(negatives) - negatives / 2
    return float(positives @ below / (positives.sum() * negatives.sum()))


def _bucketed(data: RekiData) -> dict[str, npt.NDArray[np.intp]]:
    """Return the places among the test samples of each bucket of items and of users."""
    samples, split = data.samples, data.split
    items = np.bincount(samples.items[split.train], minlength=data.items)
    _, user = np.unique(samples.users, return_inverse=True)
    users = np.bincount(user[split.train], minlength=int(user.max()) + 1)
    return {
        f"{bucket.name.lower()} {kind}": np.flatnonzero(found[ids[split.test]] == bucket)
        for kind, found, ids in (
            ("items", buckets(items), samples.items),
            ("users", buckets(users), user),
        )
        for bucket in Bucket
    }
