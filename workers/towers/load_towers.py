"""Chooses the user tower of a space by its adaptor."""

from dataclasses import dataclass

from schemas.errors import ConfigurationError
from schemas.spaces import Space
from workers.towers.recency_mean import RecencyMean
from workers.towers.user_tower import UserTower

_MEAN_ADAPTORS = frozenset({"raw", "parts-pca"})


@dataclass(frozen=True, slots=True)
class TowerOptions:
    """What towers without training have to be told."""

    half_life_ms: float
    negative_share: float = 0.25


def tower_of(space: Space, options: TowerOptions) -> UserTower:
    """Return the tower that makes a space's user vectors; raises ConfigurationError."""
    if space.adaptor_id in _MEAN_ADAPTORS:
        return RecencyMean(space, options.half_life_ms, options.negative_share)
    raise ConfigurationError(
        f"space {space.name}", f"no user tower goes with the adaptor {space.adaptor_id}"
    )
