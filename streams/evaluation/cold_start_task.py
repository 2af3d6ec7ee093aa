"""Who is asked about which items: decided by the files alone, whatever made the vectors. Pure.

Only items that are `known` have a part: those with knowledge where there is any. Cold items are the
ones of which no training interaction tells; with candidates "cold" only they compete, with "all"
everything does that the user had nothing to do with before.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from workers.evaluation.interaction_files import Interactions, histories_of
from workers.evaluation.retrieval import Bools
from workers.evaluation.splits import Split

Candidates: TypeAlias = Literal["cold", "all"]

LIKED_FROM = 7.0
"""Of 10: a lower rating is an interaction, but nothing to be found again."""


@dataclass(frozen=True, slots=True)
class ColdStartTask:
    """What is known and what is asked.

    `train` holds the interactions with known items; `candidates` are sorted; `positives` maps a
    user to the distinct candidates they come to like, `known_before` to the ones they had already.
    `item_counts` and `user_counts` count training interactions.
    """

    train: Interactions
    candidates: tuple[str, ...]
    cold: frozenset[str]
    positives: Mapping[str, tuple[str, ...]]
    known_before: Mapping[str, tuple[str, ...]]
    item_counts: Mapping[str, int]
    user_counts: Mapping[str, int]
    like_counts: Mapping[str, int]

    @property
    def items(self) -> tuple[str, ...]:
        """All items that take part, sorted."""
        return tuple(sorted({*self.item_counts, *self.candidates}))


def cold_start_task(
    split: Split,
    known: Collection[str],
    *,
    candidates: Candidates = "cold",
    liked_from: float = LIKED_FROM,
) -> ColdStartTask:
    """Return the task; `known` are the ids of the items that may take part."""
    known_ids = np.array(sorted(known), np.str_)
    train = split.train.take(np.isin(split.train.item, known_ids))
    test = split.test.take(np.isin(split.test.item, known_ids))
    warm = frozenset(split.train.item.tolist())
    cold = frozenset(test.item.tolist()) - warm
    competing = cold if candidates == "cold" else cold | warm.intersection(known)
    liked = histories_of(test.take(_is_liked(test, liked_from)))
    before = histories_of(train)
    had = {user: frozenset(items) for user, items in before.items()}
    positives = {
        user: tuple(
            item for item in items if item in competing and item not in had.get(user, frozenset())
        )
        for user, items in liked.items()
    }
    return ColdStartTask(
        train=train,
        candidates=tuple(sorted(competing)),
        cold=cold,
        positives={user: items for user, items in positives.items() if items},
        known_before=before if candidates == "all" else {},
        item_counts=Counter(train.item.tolist()),
        user_counts=Counter(train.user.tolist()),
        like_counts=Counter(train.user[_is_liked(train, liked_from)].tolist()),
    )


def _is_liked(interactions: Interactions, liked_from: float) -> Bools:
    # An interaction without a value is itself the like.
    return np.isnan(interactions.value) | (interactions.value >= liked_from)
