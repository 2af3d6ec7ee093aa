"""Audience AUC: does the vector of a cold item tell those who come to like it? Pure numpy.

For each item with enough fans, the chance that a fan scores above another user; .5 is chance, and
ties count half. The figure is the mean over the items, so a hit counts no more than a rarity.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workers.adaptors.adaptor import unit_rows
from workers.evaluation.ranking import auc
from workers.evaluation.retrieval import Floats, Ints, Metric, Pairs

MIN_FANS = 10


@dataclass(frozen=True, slots=True)
class AudienceAreas:
    """`areas` (a,) of the items with rows `items` (a,): those with enough fans among the users."""

    items: Ints
    areas: Floats

    @property
    def mean(self) -> float | None:
        """The macro average, None when no item has enough fans."""
        return float(self.areas.mean()) if len(self.areas) else None


def audience_areas(
    users: npt.NDArray[np.floating],
    items: npt.NDArray[np.floating],
    fans: Pairs,
    *,
    metric: Metric = "cosine",
    min_fans: int = MIN_FANS,
) -> AudienceAreas:
    """Return the area of each of `items` (m, d) that has `min_fans` fans among `users` (n, d)."""
    directions, vectors = users.astype(np.float32), items.astype(np.float32)
    if metric == "cosine":
        directions, vectors = unit_rows(directions), unit_rows(vectors)
    counts = np.bincount(fans.candidates, minlength=len(items))
    # Without anybody else there is nobody to tell them from.
    asked = np.flatnonzero((counts >= min_fans) & (counts < len(users)))
    areas = np.empty(len(asked))
    for place, item in enumerate(asked.tolist()):
        positive = np.zeros(len(users), np.bool_)
        positive[fans.users[fans.candidates == item]] = True
        areas[place] = auc(directions @ vectors[item], positive)
    return AudienceAreas(asked, areas)
